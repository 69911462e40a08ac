"""Settings, defaults, files, flags and examples in the guides match the code."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import monai.bundle
import pytest
import yaml

from bundle.__main__ import COMMANDS
from docs import make
from scripts.config_settings import MONAI_KEYS
from tests.made import ROOT

GUIDES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TRAININGS = ("crossval", "train", "check", "network")
WORKFLOWS = {
    **dict.fromkeys(TRAININGS, "training"),
    "evaluate": "evaluating",
    "segment": "inferring",
    "follow": "inferring",
    "select": "inferring",
}
RUNS = {"training": "train", "evaluating": "evaluate", "inferring": "inference"}
OVERLAYS = sorted([*(ROOT / "configs" / "tasks").glob("*.yaml"), *(ROOT / "configs" / "recipes").glob("*.yaml")])
OURS = r"(?:configs|scripts|bundle|docs|tests|\.ci)/[\w./-]*\w"
TEXT = "\n".join(guide.read_text(encoding="utf-8") for guide in GUIDES)
EXAMPLES = dict(re.findall(r"```yaml\n# (my_\w+\.yaml)\n(.+?)```", TEXT, re.DOTALL))
OTHER_PROGRAMS = {"standalone", "nproc_per_node"}  # torchrun's


def keys_of(*paths: Path | str) -> set[str]:
    """The top-level keys of config files, `+` and what follows `::` left out."""
    keys = (key for path in paths for key in yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    return {str(key).removeprefix("+").split("::")[0] for key in keys}


def workflow(name: str) -> str:
    return f"configs/{name}.yaml"


def commands(guide: Path) -> Iterator[tuple[str, str]]:
    """The program and the rest of each of our commands in a guide, unless it is shown for being refused."""
    joined = re.sub(r"\\\n\s+|^```.*?^```", "", guide.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line, after in re.findall(r"^    (.*-m (?:bundle|monai\.bundle)\b.*)\n(?=(.*))", joined, flags=re.MULTILINE):
        if "error: there is no" not in after:
            program, _, rest = line.partition("-m ")[2].partition(" ")
            yield program, rest


@cache  # reading all configs takes a second
def flags_of(program: str, name: str) -> set[str]:
    """The flags that a command of ours takes: `name` is the command of `bundle`, or the run id of MONAI's `run`."""
    if program == "bundle":
        parameters = inspect.signature(getattr(importlib.import_module(f"bundle.commands.{name}"), name)).parameters
        settings = flags_of("monai.bundle", WORKFLOWS[name]) if "settings" in parameters else ()
        return {*(parameter.rstrip("_") for parameter in parameters), *settings, "help", "json"}
    files = [workflow(RUNS[name])] if name in RUNS else [workflow(name) for name in make.WORKFLOWS.values()]
    return {*inspect.signature(monai.bundle.run).parameters, *MONAI_KEYS, *keys_of(*files, *OVERLAYS)}


def test_the_generated_parts_of_the_documentation_are_up_to_date():
    assert make.outdated_files() == [], "run python -m docs.make"


def test_each_page_of_the_guide_fits_on_150_lines():
    guide = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").partition("## Reference")[0]
    pages = [ROOT / "docs" / link for link in re.findall(r"\]\((.+?\.md)\)", guide)]
    assert len(pages) == 5
    assert not [page for page in pages if len(page.read_text(encoding="utf-8").splitlines()) > 150]


def test_every_setting_and_section_has_a_comment():
    bare = [name for keys in make.grouped_keys().values() for name, key in keys.items() if not make.comments(key)]
    assert not bare, f"configs/*.yaml say nothing about {bare}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_a_guide_names_is_there(guide):
    text = guide.read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w./*-]){OURS}", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    for link in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = link.partition("#")
        if not link.startswith("http"):
            target = guide.parent / file if file else guide
            if not target.exists() or (anchor and anchor not in anchors(target)):
                missing.append(link)
    assert not missing, f"{guide.name} names what is not there: {missing}"


def anchors(guide: Path) -> set[str]:
    """The headings of a guide as GitHub's anchors."""
    headings = re.findall(r"^#+ (.+)$", guide.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_and_flag_that_a_guide_names_exists(guide):
    names = {path.stem for path in OVERLAYS}
    for program, rest in commands(guide):
        if program == "bundle":
            name = rest.split()[0]
            if name in ("COMMAND", "--help"):
                continue
            assert name in COMMANDS, f"{guide.name}: there is no command {name}"
            known = flags_of(program, name)
            configs = rest.partition(" --")[0].split()[1:] if name in ("train", "check") else []
            written = {*EXAMPLES, "fast.yaml", "plan.yaml", "cells.yaml"}
            assert not {word for word in configs if word.islower()} - {*names, *written}, rest
        else:
            known = flags_of(program, re.match(r"run (\w+)", rest)[1])
        unknown = {flag.replace("-", "_") for flag in re.findall(r" --([\w-]+)", re.sub(r'"[^"]*"', "", rest))} - known
        assert not unknown, f"{guide.name}: {rest} has no {unknown}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_flag_in_a_guides_sentences_exists(guide):
    known = OTHER_PROGRAMS | flags_of("monai.bundle", "check")
    known = known.union(*(flags_of("bundle", name) for name in COMMANDS))
    sentences = re.sub(r"^    .*$|^```.*?^```", "", guide.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = {flag.replace("-", "_") for flag in re.findall(r"`--([A-Za-z][\w-]*)", sentences)}
    assert not named - known, f"{guide.name} names {named - known}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_guide_build_a_trainer(name, small_train, tmp_path):
    (tmp_path / name).write_text(EXAMPLES[name], encoding="utf-8")
    parser = small_train(str(tmp_path / name), centre_regions=None)  # of the synthetic task
    assert parser.get_parsed_content("train::trainer") is not None
    assert len(EXAMPLES[name].splitlines()) <= 15


def test_docs_have_examples_of_task_loss_and_network():
    assert {"my_task.yaml", "my_loss.yaml", "my_network.yaml"} <= set(EXAMPLES)
