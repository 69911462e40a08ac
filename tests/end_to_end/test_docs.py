"""The guides are true: settings, defaults, files, flags and examples are as they say."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import monai.bundle
import pytest
import yaml
from monai.bundle import ConfigParser

from bundle.__main__ import COMMANDS
from scripts.workflow import MONAI_KEYS, RUN_IDS
from tests.made import ROOT

GUIDES = sorted((ROOT / "docs").glob("*.md"))
CONFIGS = ROOT / "docs" / "configs.md"
WORKFLOWS = {"T": "train", "E": "evaluate", "I": "inference"}
RUNS = {"training": "train", "evaluating": "evaluate", "inferring": "inference"}
OVERLAYS = sorted([*(ROOT / "configs" / "tasks").glob("*.yaml"), *(ROOT / "configs" / "recipes").glob("*.yaml")])
OURS = r"(?:configs|scripts|bundle|docs|tests|\.ci)/[\w./-]*\w"
EXAMPLES = dict(re.findall(r"```yaml\n# (my_\w+\.yaml)\n(.+?)```", CONFIGS.read_text(encoding="utf-8"), re.DOTALL))
OTHER_PROGRAMS = {"standalone", "nproc_per_node"}  # torchrun's


def keys_of(*paths: Path | str) -> set[str]:
    """The top-level keys of config files, `+` and what follows `::` left out."""
    keys = (key for path in paths for key in yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    return {str(key).removeprefix("+").split("::")[0] for key in keys}


def workflow(name: str) -> str:
    return f"configs/{name}.yaml"


def setting_rows() -> list[list[str]]:
    """The cells of each row of the tables of settings: setting, workflows, default, unit, effect."""
    tables = CONFIGS.read_text(encoding="utf-8").partition("## Every setting")[2].partition("### Sections")[0]
    rows = [line.strip("|").split(" | ") for line in tables.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def commands(guide: Path) -> Iterator[tuple[str, str]]:
    """The program and the rest of each of our commands in a guide, unless it is shown for being refused."""
    joined = re.sub(r"\\\n\s+", "", guide.read_text(encoding="utf-8"))
    for line, after in re.findall(r"^    (.*-m (?:bundle|monai\.bundle)\b.*)\n(?=(.*))", joined, flags=re.MULTILINE):
        if "error: there is no" not in after:
            program, _, rest = line.partition("-m ")[2].partition(" ")
            yield program, rest


def flags_of(program: str, name: str) -> set[str]:
    """The flags that a command of ours takes: `name` is the command of `bundle`, or the run id of MONAI's `run`."""
    if program == "bundle":
        return {
            *inspect.signature(getattr(importlib.import_module(f"bundle.commands.{name}"), name)).parameters,
            "help",
        }
    files = [workflow(RUNS[name])] if name in RUNS else [workflow(name) for name in WORKFLOWS.values()]
    return {*inspect.signature(monai.bundle.run).parameters, *MONAI_KEYS, *keys_of(*files, *OVERLAYS)}


@pytest.mark.parametrize("name", WORKFLOWS.values())
def test_every_setting_and_section_of_a_workflow_is_explained(name):
    text = CONFIGS.read_text(encoding="utf-8").partition("## Every setting")[2].partition("## Three examples")[0]
    missing = [key for key in sorted(keys_of(workflow(name)) - {*RUN_IDS}) if f"`{key}`" not in text]
    assert not missing, f"docs/configs.md says nothing about {missing}"


def test_no_setting_is_explained_that_is_not_there():
    for names, where, *_ in setting_rows():
        for name in re.findall(r"`(\w+)`", names):
            for letter, file in WORKFLOWS.items():
                there = name in keys_of(workflow(file))
                assert there == (letter in where), f"{name}: the table says {where}; {file}.yaml: {there}"


@pytest.mark.usefixtures("at_root")
def test_the_defaults_in_the_tables_are_those_of_the_files():
    configs = {letter: ConfigParser() for letter in WORKFLOWS}
    for letter, name in WORKFLOWS.items():
        configs[letter].read_config(workflow(name))
        configs[letter].resolve_macro_and_relative_ids()
    compared = 0
    for names, where, default, *_ in setting_rows():
        for letters, cell in (part_of(part, where) for part in default.split("; ")):
            values = re.findall(r"`([^`]+)`", cell)
            if ", ".join(f"`{value}`" for value in values) != cell:
                continue  # in words: it is worked out
            for name, value in zip(re.findall(r"`(\w+)`", names), values, strict=True):
                for letter in letters:
                    there = configs[letter][name]
                    assert there in (yaml.safe_load(value), f"@{value}"), f"{name} is {there}, the table says {value}"
                    compared += 1
    assert compared > 80


def part_of(default: str, where: str) -> tuple[str, str]:
    """For whom a default is, and the default: `T: 1` is for T alone."""
    letters, colon, value = default.partition(": ")
    return (letters, value) if colon and set(letters) <= set(WORKFLOWS) else (where, default)


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_every_task_and_recipe_is_listed_with_its_own_settings(path):
    text = CONFIGS.read_text(encoding="utf-8")
    assert f"| `{path.stem}` |" in text
    workflows = keys_of(*(workflow(name) for name in WORKFLOWS.values()))
    for key in keys_of(path) - workflows:
        assert f"`{key}`" in text, f"docs/configs.md does not explain {key} of {path.name}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
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


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_every_command_and_flag_that_a_guide_names_exists(guide):
    for program, rest in commands(guide):
        if program == "bundle":
            name = rest.split()[0]
            if name in ("COMMAND", "--help"):
                continue
            assert name in COMMANDS, f"{guide.name}: there is no command {name}"
            known = flags_of(program, name)
        else:
            known = flags_of(program, re.match(r"run (\w+)", rest)[1])
        unknown = {flag.replace("-", "_") for flag in re.findall(r" --([\w-]+)", rest)} - known
        assert not unknown, f"{guide.name}: {rest} has no {unknown}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_every_flag_in_a_guides_sentences_exists(guide):
    known = OTHER_PROGRAMS | flags_of("monai.bundle", "check")
    known = known.union(*(flags_of("bundle", name) for name in COMMANDS))
    sentences = re.sub(r"^    .*$|^```.*?^```", "", guide.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = {flag.replace("-", "_") for flag in re.findall(r"`--([A-Za-z][\w-]*)", sentences)}
    assert not named - known, f"{guide.name} names {named - known}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_guide_build_a_trainer(name, small_train, tmp_path):
    (tmp_path / name).write_text(EXAMPLES[name], encoding="utf-8")
    parser = small_train(str(tmp_path / name))
    assert parser.get_parsed_content("train::trainer") is not None
    assert len(EXAMPLES[name].splitlines()) <= 15


def test_docs_have_examples_of_task_loss_and_network():
    assert {"my_task.yaml", "my_loss.yaml", "my_network.yaml"} <= set(EXAMPLES)
