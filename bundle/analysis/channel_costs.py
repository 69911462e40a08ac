"""What the lack of a channel costs: the Dice of a run's evaluations without channels against that with all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.analysis.statistics import mean_interval
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.inference.mask_quality import NUMBERS
from scripts.scoring.cohort import read_cases

WHOLE = "evaluation"  # folder of a run; those without channels are next to it
WITHOUT = f"{WHOLE}_without_"


def measure_channel_costs(run: Path, sha256: str) -> dict[str, dict[str, Any]]:
    """The mean fall of Dice without channels, paired by case, of all evaluations of a run's weights.

    Args:
        run: its folder, with `evaluation` and folders such as `evaluation_without_T2`.
        sha256: of the weights; evaluations of other weights, or with other settings than the channels, do not count.

    Returns:
        names of the channels, joined by ", ", to `patients`, `dice` (region to mean fall) and `intervals` (region to
        its 95 % interval over patients, None below five patients).
    """
    whole = _read_dice(run / WHOLE, sha256)
    found = {}
    for folder in sorted(run.glob(f"{WITHOUT}*")) if whole else ():
        if (part := _read_dice(folder, sha256)) is None:
            continue
        (_, full, made_whole), (without, less, made) = whole, part
        if made != made_whole:
            continue
        pairs = full.join(less, lsuffix="_all", how="inner").dropna()
        pairs["fall"] = pairs["value_all"] - pairs["value"]
        regions = dict(iter(pairs.groupby("region", sort=False)))
        found[", ".join(without)] = {
            "patients": int(pairs["patient"].nunique()),
            "dice": {name: float(own["fall"].mean()) for name, own in regions.items()},
            "intervals": {name: mean_interval(own["fall"], own["patient"]) for name, own in regions.items()},
        }
    return found


def describe_channel_costs(costs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each set of channels: the mean fall of each region, with its interval and n."""
    lines = []
    for names, measured in costs.items():
        parts = []
        for region, fall in measured["dice"].items():
            interval = measured["intervals"][region]
            shown = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            parts.append(f"{region} {fall:.3f}{shown}")
        lines.append(f"without {names}, mean fall of Dice, n = {measured['patients']} patients: {', '.join(parts)}")
    return lines


def _read_dice(folder: Path, sha256: str) -> Any:
    """The channels that an evaluation left out, its Dice by case and region, and what else its masks were made with.

    None if it is of other weights.
    """
    try:
        about = read_mapping(folder / "evaluation.json")["about"]
        rows = read_cases(folder / "cases.csv")
    except (InputError, KeyError):
        return None
    if about.get("sha256") != sha256:
        return None
    dice = rows[rows["metric"] == "dice"].set_index(["case", "region"])
    numbers = folder / NUMBERS
    made_with = dict(read_mapping(numbers)["made_with"]) if numbers.is_file() else {}
    made_with.pop("without", None)
    return about.get("without", []), dice[["value"] if about.get("without") else ["value", "patient"]], made_with
