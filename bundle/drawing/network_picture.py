"""The drawing of a network as SVG: one box per stage, a row per grid, arrows and skip connections."""

from xml.sax.saxutils import escape

from bundle.drawing.network_graph import INPUT, NetworkGraph, Stage

COLUMN, ROW, WIDE, HIGH, LEFT, TOP = 118, 104, 96, 62, 148, 84  # pixels
INK, SOFT, FLOW, SKIP, BOX = "#1f2933", "#6b7680", "#1f2933", "#0171b1", "#dcebf8"


def draw_network(graph: NetworkGraph) -> str:
    """The drawing as SVG text, readable in light and dark surroundings."""
    levels = 1 + max(graph.level(stage) for stage in graph.stages)
    width, height = LEFT + COLUMN * len(graph.stages), TOP + ROW * levels + 24
    image = f"{graph.channels} channels of {name_size(graph.size)}"
    title = f"{graph.name}: {image}, {graph.parameters / 1e6:.2f} million weights"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="12" fill="{INK}"'
        ' font-family="Helvetica, Arial, sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<text x="12" y="42" fill="{SOFT}">Boxes: channels, grid and weights of a stage. Blue: skip connections.'
        " A dot is an output.</text>",
    ]
    for size, weights in graph.parameters_by_level().items():
        y = TOP + ROW * next(graph.level(stage) for stage in graph.stages if stage.size == size) + 26
        parts += [
            f'<text x="12" y="{y}" font-weight="bold">{name_size(size)}</text>',
            f'<text x="12" y="{y + 16}" fill="{SOFT}">{weights / 1e6:.3f} M weights</text>',
        ]
    parts += [_arrow(graph, *edge) for edge in sorted(graph.edges)]
    parts += [_box(graph, number, stage) for number, stage in enumerate(graph.stages)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(graph: NetworkGraph, number: int) -> tuple[int, int]:
    """The upper left corner of a stage."""
    return LEFT + COLUMN * number, TOP + ROW * graph.level(graph.stages[number])


def _box(graph: NetworkGraph, number: int, stage: Stage) -> str:
    x, y = _place(graph, number)
    middle = x + WIDE / 2
    lines = [f"{stage.channels} channels", name_size(stage.size), f"{stage.parameters / 1e6:.3f} M"]
    text = "".join(
        f'<text x="{middle}" y="{y + 18 + 17 * k}" text-anchor="middle">{line}</text>' for k, line in enumerate(lines)
    )
    dots = "".join(f'<circle cx="{x + WIDE - 8 - 12 * k}" cy="{y}" r="5" fill="{SKIP}"/>' for k in range(stage.heads))
    return f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="4" fill="{BOX}" stroke="{SOFT}"/>{text}{dots}'


def _arrow(graph: NetworkGraph, start: int, end: int) -> str:
    x, y = _place(graph, end)
    if start == INPUT:
        return f'<path d="M{x - 18} {y + HIGH / 2}H{x}" stroke="{FLOW}" fill="none" marker-end="url(#tip)"/>'
    from_x, from_y = _place(graph, start)
    between = range(start + 1, end)
    blocked = from_y == y and any(_place(graph, number)[1] == y for number in between)
    if blocked:  # around the boxes of the same row
        path = f"M{from_x + WIDE - 12} {from_y}C{from_x + WIDE} {y - 34} {x} {y - 34} {x + 12} {y}"
    else:
        path = f"M{from_x + WIDE} {from_y + HIGH / 2}L{x} {y + HIGH / 2}"
    colour = SKIP if (start, end) in graph.skips() else FLOW
    return f'<path d="{path}" stroke="{colour}" fill="none" marker-end="url(#tip)"/>'


def name_size(size: tuple[int, ...]) -> str:
    """As "64 x 64 x 8", and a cube as "64³"."""
    power = {2: "²", 3: "³"}.get(len(size), "")
    return f"{size[0]}{power}" if power and len({*size}) == 1 else " x ".join(map(str, size))
