"""SVG figures in a page: its colours and font, and names for screen readers."""

from xml.etree import ElementTree

from matplotlib import rc_context

from bundle.drawing.svg import STYLE, Ink, figure_to_svg, new_figure


@rc_context(STYLE)
def drawing(words="three dots", label="x"):
    figure = new_figure(200, 100)
    axes = figure.subplots()
    axes.scatter([1, 2, 3], [0.123456789, 2, 3], color=Ink.ACCENT, gid="dots")
    axes.set_xlabel(label)
    return figure_to_svg(figure, words, {"dots": ["a: 1", "b: <2>", "c: 3"]})


def test_colours_are_the_pages_variables():
    svg = drawing().svg
    assert "var(--accent)" in svg
    assert "var(--ink)" in svg
    assert not [colour for colour in Ink.NAMES if colour in svg]


def test_figure_has_a_description_for_screen_readers():
    root = ElementTree.fromstring(drawing('5 < 6 & "7"').svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == '5 < 6 & "7"'


def test_every_dot_has_a_name():
    root = ElementTree.fromstring(drawing().svg)
    assert [title.text for title in root.iter("title")] == ["a: 1", "b: <2>", "c: 3"]


def test_text_stays_text_and_is_not_read_as_a_formula():
    svg = drawing(label="$WT$ <x>").svg
    assert "$WT$ &lt;x&gt;" in svg
    assert "DejaVu" not in svg


def test_two_figures_on_a_page_have_compatible_ids():
    first, second = (ElementTree.fromstring(drawing(label=label).svg) for label in "ab")
    ids = [{e.get("id"): ElementTree.tostring(e) for e in root.iter() if e.get("id")} for root in (first, second)]
    assert ids[0]
    assert all(ids[0][name] == ids[1][name] for name in ids[0].keys() & ids[1].keys())
    assert not list(first.iter("style"))


def test_the_same_figure_gives_the_same_bytes():
    assert drawing().svg == drawing().svg


def test_figure_scales_to_a_phone():
    root = ElementTree.fromstring(drawing().svg)
    assert root.get("viewBox") == "0 0 200 100"
    assert root.get("width") is None
