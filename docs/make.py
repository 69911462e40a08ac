"""The generated parts of the documentation: tables of settings, tasks, recipes and commands, and a drawing.

    python -m docs.make

rewrites what lies between the markers `<!-- NAME: made by docs/make.py -->` and `<!-- end -->` of the pages, from the
comments of configs/ and from the commands; and docs/images/architecture.svg, from the folders of the code,
and docs/images/network.svg, from the default network.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from monai.bundle import ConfigParser
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase, CommentedMap
from ruamel.yaml.tokens import CommentToken

from bundle.__main__ import COMMANDS
from bundle.drawing.network_graph import read_graph
from bundle.drawing.network_picture import draw_network
from docs.evidence import fault_rows, recipe_costs, study_rows
from docs.house import draw_house
from scripts.network.precision import prepare_network

ROOT = Path(__file__).resolve().parent.parent
DRAWING = ROOT / "docs" / "images" / "architecture.svg"
NETWORK = ROOT / "docs" / "images" / "network.svg"
LONGEST_EXPRESSION = 42  # characters
WORKFLOWS = {"T": "train", "E": "evaluate", "I": "inference"}
SECTIONS = "sections"  # the heading in the configs below which keys are sections, not settings
NOT_EXPLAINED = {"imports", "initialize", "training", "evaluating", "inferring", "run", "check"}
HEADING = re.compile(r"^# -{4} (.+?) -+$")
MACRO = re.compile(r"%configs/inference\.yaml::(\w+)")
BLOCK = re.compile(r"(<!-- (\w+): made by docs/make\.py -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass
class Key:
    """A top-level key of a config: the heading that it is listed under, its value as text, and its comment."""

    heading: str
    value: str
    comment: str


def read_keys(path: Path) -> dict[str, Key]:
    """The top-level keys of a config in their order."""
    text = path.read_text(encoding="utf-8")
    document = YAML().load(text)
    lines = text.splitlines()
    headings = {number: match[1] for number, line in enumerate(lines) if (match := HEADING.match(line))}
    keys = {}
    for name in document:
        number = document.lc.key(name)[0]
        comment = end_of_line_comment(document, name)
        value = lines[number].removeprefix(f"{name}:").removesuffix(comment).strip()
        above = [heading for line, heading in headings.items() if line < number]
        keys[name] = Key(above[-1] if above else "", value, comment.removeprefix("# "))
    return keys


def end_of_line_comment(document: CommentedMap, name: str) -> str:
    """The comment behind a key or its value, `# ` included; empty if there is none."""
    line = document.lc.key(name)[0]
    before_nested = document[name].ca.comment if isinstance(document[name], CommentedBase) else None
    for token in (*document.ca.items.get(name, ()), *(before_nested or ())):
        if isinstance(token, CommentToken) and token.start_mark.line == line:
            return token.value.splitlines()[0].strip()
    return ""


def setting_tables() -> Iterator[str]:
    """One table per heading of the configs, each setting once."""
    for heading, names in grouped_keys().items():
        if not heading.startswith(SECTIONS):
            rows = [[f"`{name}`", "".join(keys), defaults(keys), comments(keys)] for name, keys in names.items()]
            yield f"### {heading[0].upper()}{heading[1:]}\n"
            yield table("Setting", "In", "Default", "What it does", rows=rows)


def section_table() -> Iterator[str]:
    """The sections, which are more than one value."""
    groups = grouped_keys()
    sections = [group for heading, group in groups.items() if heading.startswith(SECTIONS)]
    rows = [[f"`{name}`", "".join(keys), comments(keys)] for group in sections for name, keys in group.items()]
    yield table("Section", "In", "What it is", rows=rows)


def grouped_keys() -> dict[str, dict[str, dict[str, Key]]]:
    """Each heading's names, and for each name its key in every workflow that has it, as `{"T": ..., "I": ...}`."""
    workflows = {letter: read_keys(ROOT / "configs" / f"{name}.yaml") for letter, name in WORKFLOWS.items()}
    for keys in workflows.values():
        keys |= {name: workflows["I"][copied[1]] for name, key in keys.items() if (copied := MACRO.search(key.value))}
    groups: dict[str, dict[str, dict[str, Key]]] = {}
    seen = set(NOT_EXPLAINED)
    for letter in "ITE":
        for name, key in workflows[letter].items():
            if name not in seen:
                found = {other: keys[name] for other, keys in workflows.items() if name in keys}
                groups.setdefault(key.heading, {})[name] = found
                seen.add(name)
    return groups


def defaults(keys: dict[str, Key]) -> str:
    """The default of a setting, in each workflow where they differ."""
    return in_cell(by_workflow({letter: shown_default(key.value) for letter, key in keys.items()}))


def shown_default(value: str) -> str:
    """A value as code, an expression without its quotes."""
    if "$" in value and len(value) > LONGEST_EXPRESSION:
        return "computed"
    bare = value.strip('"') if "$" in value else value
    return f"`{bare}`" if value else "in the file"


def comments(keys: dict[str, Key]) -> str:
    """What the workflows say of a setting; where one says nothing, what the others say holds for it."""
    return in_cell(by_workflow({letter: key.comment for letter, key in keys.items() if key.comment}))


def by_workflow(texts: dict[str, str]) -> str:
    """One text if all are the same, else `T: this; EI: that`."""
    letters: dict[str, str] = {}
    for letter, text in texts.items():
        letters[text] = letters.get(text, "") + letter
    return "; ".join(text if len(letters) == 1 else f"{which}: {text}" for text, which in letters.items())


def in_cell(text: str) -> str:
    """Text as it has to be written in a cell of a table."""
    return text.replace("<", "&lt;").replace("|", "\\|")


def task_table() -> Iterator[str]:
    """Each task with the first comment line of its file."""
    yield table("Task", "What is segmented", rows=[[name, purpose] for name, purpose, _ in overlays("tasks")])


def recipe_table() -> Iterator[str]:
    """Each recipe with the first comment line of its file, and the settings and sections that it sets."""
    yield table("Recipe", "What it changes", "Sets", rows=list(overlays("recipes")))


def recipe_cost_table() -> Iterator[str]:
    """Each recipe with its first comment line, and what it costs where that was measured."""
    costs = recipe_costs()
    rows = [[name, purpose] for name, purpose, _ in overlays("recipes")]
    rows = [[*row, *costs.get(row[0].split("`")[1], ("", "", ""))] for row in rows]
    yield table("Recipe", "What it changes", "Weights, M", "Step", "Memory, GiB", rows=rows)


def study_table(name: str) -> Iterator[str]:
    """What the variants of a recorded study bring, next to its baseline and to each other."""
    rows = [*study_rows(name)]
    headings = ("Variant", "Runs", "Steps", "Mean Dice", "By region", "Difference to the baseline", "To another one")
    shown = len(headings) if any(row[-1] for row in rows) else len(headings) - 1
    yield table(*headings[:shown], rows=[row[:shown] for row in rows])


def overlays(folder: str) -> Iterator[list[str]]:
    """Name, first comment line and keys of each file of a folder of configs/."""
    for path in sorted((ROOT / "configs" / folder).glob("*.yaml")):
        purpose = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        keys = [f"`{key.removeprefix('+')}`" for key in YAML().load(path)]
        yield [f"[`{path.stem}`](../configs/{folder}/{path.name})", in_cell(purpose), ", ".join(keys)]


def check_table() -> Iterator[str]:
    """What the checks of a scan find of each fault."""
    real = ("Gliomas: refused / noted / missed", "MS: refused / noted / missed")
    yield table("Fault", "Refused", "Noted", "Missed", *real, rows=[*fault_rows()])


def command_table() -> Iterator[str]:
    """Each command of `python -m bundle` with its purpose."""
    yield table("Command", "What it does", rows=[[f"`{name}`", purpose] for name, purpose in COMMANDS.items()])


def table(*head: str, rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


BLOCKS = {
    "settings": setting_tables,
    "sections": section_table,
    "tasks": task_table,
    "recipes": recipe_table,
    "recipe_costs": recipe_cost_table,
    "recipe_dice": partial(study_table, "gliomas"),
    "claim_dice": partial(study_table, "claims"),
    "cell_dice": partial(study_table, "ten_cells"),
    "commands": command_table,
    "checks": check_table,
}


def draw_default_network() -> str:
    """The drawing of train.yaml's network."""
    config = ConfigParser()
    config.read_config(str(ROOT / "configs" / "train.yaml"))
    config.parse()
    network, channels = prepare_network(config.get_parsed_content("network_def")), len(config["channels"])
    return draw_network(read_graph(network, channels, config["patch_size"]))


def made_files() -> dict[Path, str]:
    """The text that the drawing, and every page with a generated part, should have."""
    pages = {page: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))}
    made = {page: BLOCK.sub(made_block, text) for page, text in pages.items() if BLOCK.search(text)}
    return {DRAWING: draw_house(ROOT), NETWORK: draw_default_network(), **made}


def made_block(match: re.Match[str]) -> str:
    """A generated part with its markers."""
    return f"{match[1]}\n{chr(10).join(BLOCKS[match[2]]())}\n{match[3]}"


def outdated_files() -> list[Path]:
    """The files that differ from what they should be."""
    return [
        path for path, text in made_files().items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def main() -> None:
    """Write every file whose generated part has changed."""
    for path in outdated_files():
        path.write_text(made_files()[path], encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
