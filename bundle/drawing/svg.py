"""Matplotlib figures as inline SVG with the page's colours and font, and a title for each dot.

Figures are drawn in the stand-in colours of `Ink`, which become the page's CSS variables, so that one drawing serves
light, dark and print.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
POINTS = 72  # per inch; one point is one CSS pixel at full size


class Ink:
    """Stand-in colours, and the CSS variables that they become."""

    TEXT = "#101112"
    SOFT = "#717273"
    GRID = "#d1d2d3"
    ACCENT = "#0171b1"
    SECOND = "#d15e01"
    NAMES: ClassVar = {TEXT: "--ink", SOFT: "--soft", GRID: "--line", ACCENT: "--accent", SECOND: "--second"}


STYLE = {
    "svg.fonttype": "none",  # text stays text: it takes the page's font, and can be read aloud and found
    "svg.hashsalt": "report",  # the same figure gives the same bytes
    "text.parse_math": False,  # a region may be called $WT$
    "font.size": 11,
    "text.color": Ink.TEXT,
    "axes.facecolor": "none",
    "axes.edgecolor": Ink.SOFT,
    "axes.labelcolor": Ink.TEXT,
    "xtick.color": Ink.SOFT,
    "ytick.color": Ink.SOFT,
    "xtick.labelcolor": Ink.TEXT,
    "ytick.labelcolor": Ink.TEXT,
    "grid.color": Ink.GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "lines.linewidth": 1.2,
}
COORDINATES = {"d", "x", "y", "width", "height", "transform"}


@dataclass(frozen=True)
class Drawing:
    """A figure for a page: the svg element, and its description in words."""

    svg: str
    words: str


def new_figure(width: float, height: float) -> Figure:
    """A transparent figure, `width` by `height` CSS pixels."""
    figure = Figure(figsize=(width / POINTS, height / POINTS), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def figure_to_svg(figure: Figure, words: str, titles: Mapping[str, Sequence[str]] | None = None) -> Drawing:
    """A figure, drawn under `rc_context(STYLE)` in the colours of `Ink`, as an svg element.

    `words` describe it for screen readers; `titles` hold, for each `gid` of a scatter, one line per dot, shown on
    hover.
    """
    stream = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(stream.getvalue())
    _name_dots(root, titles or {})
    _tidy(root, words)
    ElementTree.register_namespace("", SVG)
    text = ElementTree.tostring(root, encoding="unicode")
    text = text.replace(f' xmlns="{SVG}"', "").replace(f' xmlns:ns1="{XLINK}"', "").replace("ns1:href", "href")
    for colour, name in Ink.NAMES.items():
        text = text.replace(colour, f"var({name})")
    text = re.sub(r" font-family: [^;\"]+;", "", text)
    return Drawing(re.sub(r">\s+<", "><", text), words)


def _name_dots(root: ElementTree.Element, titles: Mapping[str, Sequence[str]]) -> None:
    for group in root.iter(f"{{{SVG}}}g"):
        if lines := titles.get(group.get("id", "")):
            for dot, line in zip(group.iter(f"{{{SVG}}}use"), lines, strict=True):
                ElementTree.SubElement(dot, f"{{{SVG}}}title").text = line


def _tidy(root: ElementTree.Element, words: str) -> None:
    """Remove what a page needs only once or never; ids would clash between the figures of a page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
            elif child.tag == f"{{{SVG}}}use" and (style := child.attrib.pop("style", None)):
                parent.set("style", style)  # once for all dots of a group, which look the same
    for element in root.iter():
        if element.tag == f"{{{SVG}}}g":
            element.attrib.pop("id", None)
        for name in COORDINATES.intersection(element.keys()):
            element.set(name, re.sub(r"(\.\d\d)\d+", r"\1", element.get(name, "")))  # hundredths of a pixel
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", words)
