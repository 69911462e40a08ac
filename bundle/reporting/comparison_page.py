"""The page of a comparison, `compare.html`, with `compare.json` and `compare.png`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.analysis.comparison import compare_systems, score_quartiles
from bundle.analysis.costs import Prices, Weights
from bundle.analysis.pairing import Matched
from bundle.analysis.statistics import describe_intervals
from bundle.analysis.strict_json import to_strict_json
from bundle.reporting import verdicts
from bundle.reporting.comparison_figures import draw_dice_pairs, draw_differences, draw_overview, group_by_metric
from bundle.reporting.page import load_template
from bundle.reporting.sentences import role_warnings
from scripts.files import atomic_write, write_json, write_text

SCHEMA = 1
DPI = 150  # of the plot


def write_comparison(
    matched: Matched, folder: Path, title: str | None = None, weights: Weights = None, prices: Prices = None
) -> dict[str, Any]:
    """Write compare.html, compare.json, whose content is returned, and compare.png.

    Weights and prices are those that the systems were matched with. Raises InputError where a file cannot
    be written.
    """
    comparison = _describe(matched, title, weights, prices)
    write_text(folder / "compare.html", _render(comparison, matched))
    with atomic_write(folder / "compare.png") as temporary:
        draw_overview(matched, comparison["pairs"]).savefig(temporary, dpi=DPI)
    write_json(folder / "compare.json", comparison)
    return comparison


def _describe(matched: Matched, title: str | None, weights: Weights, prices: Prices) -> dict[str, Any]:
    found = compare_systems(matched)
    systems = [
        {
            "name": system,
            "folder": str(own.folder),
            "cases": int(own.scores["case"].nunique()),
            "patients": int(own.scores["patient"].nunique()),
            "failed": dict(own.failed),
            "datalist": own.record.get("datalist"),
            "roles": own.roles,
        }
        for system, own in zip(matched.names, matched.evaluations, strict=True)
    ]
    for pair in found["pairs"]:
        tested = [*pair["differences"], *pair["tail"]]
        pair["verdict"] = verdicts.comparison_verdict(pair["first"], pair["second"], tested)
        pair["power"] = verdicts.describe_power(pair["differences"], found["tests"])
    if found["ranking"]:
        found["ranking"]["verdict"] = verdicts.describe_ranking(found["ranking"])
    warnings = [f"{own['name']}: {text}" for own in systems for text in role_warnings(own["roles"], own["patients"])]
    rows = [row for pair in found["pairs"] for row in pair["differences"]]
    names = matched.names
    default = f"{names[1]} against {names[0]}" if len(names) == 2 else f"Compared: {', '.join(names)}"
    return to_strict_json(
        {
            "schema": SCHEMA,
            "title": str(title or default),
            "systems": systems,
            **found,
            "scores": score_quartiles(matched),
            "units": {"length": matched.length_unit, "volume": matched.evaluations[0].volume_unit},
            "intervals": describe_intervals("patient"),
            "warnings": warnings,
            "remarks": list(verdicts.comparison_remarks(systems, rows, found["patients"])),
            "weights": weights,
            "prices": prices and {region: price._asdict() for region, price in prices.items()},
        }
    )


def _render(comparison: Mapping[str, Any], matched: Matched) -> str:
    pairs = []
    for pair in comparison["pairs"]:
        first, second = pair["first"], pair["second"]
        drawn = [draw_differences(matched, first, second, rows) for rows in group_by_metric(pair).values()]
        pairs.append({**pair, "figures": drawn, "against": draw_dice_pairs(matched, first, second)})
    return load_template("compare.html").render(c=comparison, pairs=pairs, together=matched.slices_together)
