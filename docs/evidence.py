"""Tables of what recipes cost and bring, and of what checks of scans find, from raw results in docs/record/."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundle.analysis.ablation import MEAN, compare_variants
from bundle.studies.ablation import BASELINE, read_results, read_study

RECORD = Path(__file__).parent / "record"
STUDIES = Path(__file__).parent.parent / "configs" / "studies"
COSTS = RECORD / "recipe_costs.json"
CHECKED = RECORD / "checks.json"  # of `bench checks`
CHECKED_REAL = (RECORD / "checks_gliomas.json", RECORD / "checks_ms.json")  # with --datalist


def recipe_costs() -> dict[str, tuple[str, str, str]]:
    """Recipe to its weights, the time of its step and the memory of a step, as text; empty cells were not measured."""
    if not COSTS.is_file():
        return {}
    rows = json.loads(COSTS.read_text(encoding="utf-8"))["subjects"][0]["rows"]
    of_unit = {(row["name"].split(":")[0].strip(), row["unit"]): row for row in rows}
    found = {}
    for name in dict.fromkeys(name for name, _ in of_unit):
        weights, step, memory = (of_unit.get((name, unit)) for unit in ("M", "s", "GiB"))
        found[name] = (
            f"{weights['median']:.1f}" if weights else "",
            f"{step['ratio']:.2f}" if step else "",
            f"{memory['median']:.1f}" if memory else "",
        )
    return found


def fault_rows() -> Iterator[list[str]]:
    """One row per fault of scans: how many the checks refuse, note and miss, of phantoms and of real scans."""
    phantoms, *real = (_count_faults(path) for path in (CHECKED, *CHECKED_REAL))
    for fault in phantoms:
        yield [fault, *phantoms[fault], *(" / ".join(counts[fault]) if fault in counts else "" for counts in real)]


def _count_faults(path: Path) -> dict[str, list[str]]:
    """Fault to the numbers refused, noted and missed."""
    rows = json.loads(path.read_text(encoding="utf-8"))["subjects"][0]["settings"]["faults"]
    missed = {row["fault"]: row["n"] - row["refused"] - row["noted"] for row in rows}
    return {row["fault"]: [str(row["refused"]), str(row["noted"]), str(missed[row["fault"]])] for row in rows}


def study_rows(name: str) -> Iterator[list[str]]:
    """One row per variant of a recorded study: its runs and steps, mean Dice, and differences by patient."""
    study = read_study(STUDIES / f"{name}.yaml")
    results, runs = read_results(RECORD / name)
    compared = compare_variants(results, BASELINE, study.difference, study.steps())
    differences = {row["variant"]: _difference(row) for row in compared if row["region"] == MEAN}
    means = results.groupby(["variant", "region"], sort=False)["dice"].mean()
    for variant in study.variants:
        steps = runs.loc[runs["variant"] == variant.name, "steps"]
        if steps.empty:
            continue
        regions = means[variant.name]
        others = [f"{other}: {differences[f'{variant.name} against {other}']}" for other in variant.against]
        yield [
            variant.name,
            str(len(steps)),
            f"{steps.min()} to {steps.max()}" if steps.nunique() > 1 else str(steps.min()),
            f"{regions.mean():.3f}",
            ", ".join(f"{region} {value:.3f}" for region, value in regions.items()),
            differences.get(variant.name, ""),
            "; ".join(others),
        ]


def _difference(row: dict[str, Any]) -> str:
    low_high = " ({:+.3f} to {:+.3f})".format(*row["interval"]) if row["interval"] else ""
    return f"{row['difference']:+.3f}{low_high}, {row['finding']}"
