"""Tables of what recipes cost and bring, and of what checks of scans find, from raw results in docs/record/."""

import json
from collections.abc import Iterator
from pathlib import Path

from bundle.analysis.ablation import MEAN, compare_variants
from bundle.studies.ablation import BASELINE, read_results

RECORD = Path(__file__).parent / "record"
COSTS, STUDY = RECORD / "recipe_costs.json", RECORD / "gliomas"
CHECKED = RECORD / "checks.json"  # of `bench checks`
CHECKED_REAL = (RECORD / "checks_gliomas.json", RECORD / "checks_ms.json")  # with --datalist
DIFFERENCE = 0.01  # in Dice, the smallest that matters


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


def dice_rows() -> Iterator[list[str]]:
    """One row per variant of the study: mean Dice, by region, the difference to the baseline by patient, finding."""
    results, runs = read_results(STUDY)
    rows = compare_variants(results, BASELINE, DIFFERENCE)
    means = results.groupby(["variant", "region"], sort=False)["dice"].mean()
    for variant in runs["variant"].drop_duplicates():
        own = next((row for row in rows if row["variant"] == variant and row["region"] == MEAN), None)
        shown, finding = "", ""
        if own is not None:
            shown = f"{own['difference']:+.3f}"
            shown += f" ({own['interval'][0]:+.3f} to {own['interval'][1]:+.3f})" if own["interval"] else ""
            finding = own["finding"]
        regions = means[variant]
        count = len(runs[runs["variant"] == variant])
        by_region = ", ".join(f"{name} {value:.3f}" for name, value in regions.items())
        yield [variant, str(count), f"{regions.mean():.3f}", by_region, shown, finding]
