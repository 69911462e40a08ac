"""Drawing of the folders as rooms of a house, and of the way of a scan from file to page, as SVG."""

import ast
import textwrap
from pathlib import Path
from typing import NamedTuple

WIDTH, MARGIN, GAP = 1000, 20, 8  # pixels
FONT, LINE, CHARACTER = 14, 18, 7.2  # pixels: size of the text, height of a line, mean width of a character
ORANGE, BLUE, GREY, INK, FAINT = "#fdebd3", "#dcebf8", "#f1f1ef", "#1f2933", "#8a949e"
# what a scan becomes on its way; between two of them the room that does it, and the command
WAY = ("scans", "data list", "tensors", "run", "masks", "cases.csv", "findings", "report.html")
STEPS = {
    "bundle/cohort": "prepare",
    "scripts/data": "look",
    "scripts/training": "train",
    "scripts/inference": "segment",
    "scripts/scoring": "evaluate, score",
    "bundle/analysis": "compare, raters",
    "bundle/reporting": "report",
}


class Room(NamedTuple):
    """A folder with its place: the first column, the number of columns (of 12), the first floor and their number."""

    folder: str
    left: int
    columns: int
    floor: int
    floors: int = 1


ROOMS = (
    Room("bundle/commands", 0, 12, 0),
    Room("bundle/studies", 0, 7, 1),
    Room("bundle/followup", 7, 5, 1),
    Room("bundle/reporting", 0, 3, 2),
    Room("bundle/packaging", 3, 3, 2),
    Room("bundle/benchmarks", 6, 3, 2),
    Room("bundle/raw", 9, 3, 2),
    Room("bundle/cohort", 0, 4, 3),
    Room("bundle/dicom", 4, 3, 3),
    Room("bundle/analysis", 7, 3, 3),
    Room("bundle/drawing", 10, 2, 3),
    Room("scripts/training", 3, 9, 4),
    Room("scripts/inference", 3, 5, 5),
    Room("scripts/network", 3, 5, 6),
    Room("scripts/scoring", 8, 4, 5, 2),
    Room("scripts/data", 3, 9, 7),
    Room("scripts", 3, 9, 8),
    Room("configs", 0, 3, 4, 5),
)
TEXTS = {  # of what has no docstring of its own
    "scripts": "The ground: errors, files, parallel, distributed, workflow.",
    "configs": "YAML that names parts of scripts/ and of MONAI.",
}
WORKFLOWS = {
    "inference.yaml": "the shared settings",
    "train.yaml": "imports them, adds training",
    "evaluate.yaml": "imports them, adds scoring",
    "tasks/": "what is segmented",
    "recipes/": "how it is trained",
}
HOUSE_TOP = 156  # pixels
FLOORS = (60, 78, 96, 96, 60, 60, 78, 60, 60)  # pixels, the height of each floor from above, gap included


def draw_house(root: Path) -> str:
    """The drawing as SVG text; `root` is the repository, whose folders say in their first lines what they hold."""
    height = HOUSE_TOP + sum(FLOORS) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-size="{FONT}"'
        f' font-family="Helvetica, Arial, sans-serif" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        *draw_way(),
        *(part for room in ROOMS for part in draw_room(room, root)),
        *draw_legend(height - 30),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def draw_way() -> list[str]:
    """The way of a scan in one line: what it is, and between two states the number of the room and the command."""
    parts = [text(MARGIN, 34, "The way of a scan, with the room (number) and the command of each step", weight="bold")]
    step = (WIDTH - 2 * MARGIN + 36) / len(WAY)
    for number, name in enumerate(WAY):
        x = MARGIN + number * step
        parts += [box(x, 72, step - 36, 30, GREY, radius=15), text(x + (step - 36) / 2, 92, name, anchor="middle")]
        if number < len(STEPS):
            middle = x + step - 18
            parts.append(f'<path d="M{middle - 13:.0f} 87h25l-5 -4m5 4l-5 4" fill="none" stroke="{INK}"/>')
            parts += [*circle(middle - 1, 66, number + 1)]
            command = list(STEPS.values())[number]
            for line, word in enumerate(command.split(", ")):
                parts.append(text(middle - 1, 122 + 15 * line, word, anchor="middle", family="monospace", size=12))
    return parts


def draw_room(room: Room, root: Path) -> list[str]:
    """A room: its name, its number on the way of a scan, and what it holds."""
    column = (WIDTH - 2 * MARGIN + GAP) / 12
    x, y = MARGIN + room.left * column, HOUSE_TOP + sum(FLOORS[: room.floor])
    width, height = room.columns * column - GAP, sum(FLOORS[room.floor : room.floor + room.floors]) - GAP
    colour = {"bundle": ORANGE, "scripts": BLUE, "configs": GREY}[room.folder.split("/")[0]]
    name = text(x + 12, y + 22, f"{room.folder}/", weight="bold", family="monospace")
    parts = [box(x, y, width, height, colour), name]
    if room.folder in STEPS:
        parts += circle(x + width - 18, y + 18, list(STEPS).index(room.folder) + 1)
    for line, words in enumerate(textwrap.wrap(purpose(room.folder, root), int((width - 24) / CHARACTER))):
        parts.append(text(x + 12, y + 22 + LINE * (line + 1), words, size=FONT - 1))
    if room.folder == "configs":
        for line, (name, words) in enumerate(WORKFLOWS.items()):
            parts.append(text(x + 12, y + 86 + 46 * line, name, family="monospace", weight="bold"))
            parts.append(text(x + 12, y + 104 + 46 * line, words, size=FONT - 1))
    return parts


def purpose(folder: str, root: Path) -> str:
    """What a folder holds: the first line of its `__init__.py`."""
    if folder in TEXTS:
        return TEXTS[folder]
    return ast.get_docstring(ast.parse((root / folder / "__init__.py").read_text(encoding="utf-8"))).splitlines()[0]


def draw_legend(y: float) -> list[str]:
    """What the colours mean, and the direction of imports."""
    parts, x = [], MARGIN
    for colour, words in ((ORANGE, "bundle/: command-line tools"), (BLUE, "scripts/: travels in an exported package")):
        parts += [box(x, y, 22, 16, colour), text(x + 30, y + 13, words)]
        x += 60 + CHARACTER * len(words)
    parts.append(text(WIDTH - MARGIN, y + 13, "A floor imports from the floors below it.", anchor="end"))
    return parts


def box(x: float, y: float, width: float, height: float, colour: str, radius: int = 4) -> str:
    """A filled box with rounded corners."""
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}"'
    return f'<rect {shape} fill="{colour}" stroke="{FAINT}" stroke-width="0.8"/>'


def circle(x: float, y: float, number: int) -> list[str]:
    """A number in a dark circle."""
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" fill="{INK}"/>',
        text(x, y + 4.5, str(number), anchor="middle", fill="#ffffff", weight="bold", size=12),
    ]


def text(x: float, y: float, words: str, anchor: str = "start", size: int = FONT, **style: str) -> str:
    """A line of text; `style` are attributes such as weight and family of the font."""
    names = {"weight": "font-weight", "family": "font-family", "fill": "fill"}
    styled = "".join(f' {names[name]}="{value}"' for name, value in style.items())
    escaped = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{styled}>{escaped}</text>'
