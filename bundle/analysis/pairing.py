"""Evaluations of several systems, checked to be comparable and paired by patient.

The patient is the unit: the cases of a patient are averaged first. Where the cases are slices and every system also has
volumes, the volumes are compared. A failed case counts as an empty prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from bundle.analysis.costs import POINTS, Prices, Weights, add_user_scores
from bundle.analysis.evaluation import FAILED_VALUES, Evaluation, average_by_patient
from bundle.analysis.tail import TAIL, TailCounts, count_tail
from scripts.errors import InputError
from scripts.scoring.case import WHOLE_CASE

COMPARED = ("dice", "hd95", "nsd_2mm")
OWN = {"weighted_dice": 1, "cost": -1}  # user-defined scores; 1 where higher is better
# The score of a failed case shows which direction is worse; volumes have none, so they cannot be compared.
DIRECTIONS = {name: -1 if value > 0 else 1 for name, value in FAILED_VALUES.items()} | OWN | dict.fromkeys(TAIL, -1)
AGREE = 1e-6  # relative difference up to which two true volumes are equal


@dataclass(frozen=True)
class Matched:
    """Systems matched on the same patients.

    Attributes:
        values: for each metric and region, a table [patient, system] of the patients that have a value in every system.
            Region `all` holds user-defined scores.
        tail: for each count of the worst cases (`bundle.analysis.tail`) and region, the counts of every system.
        cases: number of cases that all systems have; `patients` are the patients that all have.
        unpaired: for each system, its `cases` that another system lacks, and its `patients` without any common case.
        slices_together: whether volumes were compared, each made of a patient's slices.
    """

    names: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    values: Mapping[tuple[str, str], pd.DataFrame]
    tail: Mapping[tuple[str, str], TailCounts]
    units: Mapping[str, str]
    cases: int
    patients: tuple[str, ...]
    unpaired: Mapping[str, Mapping[str, list[str]]]
    slices_together: bool

    @property
    def length_unit(self) -> str:
        """The unit of distances."""
        return self.evaluations[0].length_unit

    @property
    def tested(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The values to test: of costs only the sum, not each region."""
        return {key: own for key, own in self.values.items() if key[0] != "cost" or key[1] == WHOLE_CASE}


def match_systems(
    evaluations: Sequence[Evaluation],
    names: Sequence[str],
    regions: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    weights: Weights = None,
    prices: Prices = None,
) -> Matched:
    """Pair two or more systems by patient.

    Compares by default the regions of the systems, which must be the same, the metrics of `COMPARED` that every system
    has, and the counts of `TAIL`. Region weights add the weighted Dice, prices per ml add the cost.

    Raises:
        InputError: one failed in most cases; they were not scored with the same data list, definitions, regions and
            units; they share fewer than two patients; or a table lacks rows.
    """
    _require_different_folders(evaluations)
    _require_mostly_scored(evaluations)
    for first, second in combinations(evaluations, 2):
        _require_same_definitions(first, second)
    regions = _choose_regions(evaluations, regions)
    together = all(evaluation.volumes is not None for evaluation in evaluations)
    levels = [evaluation.volumes if together else evaluation for evaluation in evaluations]
    metrics, tail = _choose_metrics(levels, metrics)
    for first, second in combinations(levels, 2):
        _require_same_truth(first, second)
    common = set.intersection(*({*level.scores["case"]} for level in levels))
    chosen = [level.scores[level.scores["case"].isin(common)] for level in levels]
    patients = {*chosen[0]["patient"]}
    _require_two_patients(evaluations, patients)
    own = [name for name, given in (("weighted_dice", weights), ("cost", prices)) if given]
    keys = [(metric, region) for metric in metrics for region in regions] + [(name, WHOLE_CASE) for name in own]
    keys += [("cost", region) for region in prices or ()]
    averages = {}
    for name, scores, level in zip(names, chosen, levels, strict=True):
        _require_no_gaps(scores, regions, level)
        averages[name] = average_by_patient(add_user_scores(scores, weights, prices))
    values = {
        (metric, region): pd.DataFrame({name: own.loc[region, metric] for name, own in averages.items()}).dropna()
        for metric, region in keys
    }
    unpaired = {
        name: {
            "cases": sorted({*level.scores["case"]} - common),
            "patients": sorted({*level.scores["patient"]} - patients),
        }
        for name, level in zip(names, levels, strict=True)
    }
    return Matched(
        names=tuple(names),
        evaluations=tuple(evaluations),
        values={key: own for key, own in values.items() if len(own)},
        tail=count_tail(dict(zip(names, chosen, strict=True)), regions, tail),
        units={**levels[0].units, "weighted_dice": "", "cost": POINTS, **dict.fromkeys(TAIL, "")},
        cases=len(common),
        patients=tuple(sorted(patients)),
        unpaired=unpaired,
        slices_together=together,
    )


def _require_different_folders(evaluations: Sequence[Evaluation]) -> None:
    folders = [evaluation.folder.resolve() for evaluation in evaluations]
    for k, folder in enumerate(folders):
        if folder in folders[:k]:
            raise InputError(f"{evaluations[k].folder} is given twice: compare different evaluations.")


def _require_mostly_scored(evaluations: Sequence[Evaluation]) -> None:
    """Most cases of each evaluation were scored: else a difference would be one between scores and failures."""
    for evaluation in evaluations:
        failed, cases = evaluation.failed, evaluation.scores["case"].nunique()
        if len(failed) > cases / 2:
            case, reason = next(iter(failed.items()))
            raise InputError(
                f"{evaluation.folder} failed in {len(failed)} of {cases} cases, so there is nothing to compare ({case}:"
                f" {reason.rstrip('.')}); score it again."
            )


def _require_same_definitions(first: Evaluation, second: Evaluation) -> None:
    """The same data list, definitions and units; anything that an evaluation.json does not record passes."""
    folders = f"{first.folder} and {second.folder}"
    one, two = (str(evaluation.record.get("datalist") or "") for evaluation in (first, second))
    if one and two and one != two:
        raise InputError(
            f"{folders} were scored with different data lists ({one[:8]} and {two[:8]} in evaluation.json): score both"
            " with one list (`python -m bundle score`)."
        )
    mine, others = (_rules(evaluation.record.get("definitions", {})) for evaluation in (first, second))
    if differing := [key for key in mine if key in others and mine[key] != others[key]]:
        raise InputError(
            f"{folders} were scored by different definitions of {', '.join(differing)} (see evaluation.json): score"
            " both with one version and the same options."
        )
    if (first.length_unit, first.volume_unit) != (second.length_unit, second.volume_unit):
        raise InputError(
            f"{first.folder} is measured in {first.length_unit} and {first.volume_unit}, {second.folder} in"
            f" {second.length_unit} and {second.volume_unit}: score both with the same data list."
        )


def _rules(definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The definition of each metric, and the rules that metrics share."""
    metrics = definitions.get("metrics")
    shared = {key: rule for key, rule in definitions.items() if key != "metrics"}
    return {**shared, **metrics} if isinstance(metrics, Mapping) else shared


def _choose_regions(evaluations: Sequence[Evaluation], wanted: Sequence[str] | None) -> list[str]:
    first = evaluations[0]
    for other in evaluations:
        if wanted is None and {*other.regions} != {*first.regions}:
            shared = ",".join(region for region in first.regions if region in other.regions)
            advice = (
                f"--regions {shared} compares the regions that both have" if shared else "score both with one data list"
            )
            raise InputError(
                f"{first.folder} has regions {', '.join(first.regions)} and {other.folder} has"
                f" {', '.join(other.regions)}: {advice}."
            )
        for region in wanted or ():
            if region not in other.regions:
                raise InputError(
                    f"{other.folder} has no region '{region}': expected one of {', '.join(other.regions)}."
                )
    return [region for region in first.regions if wanted is None or region in wanted]


def _choose_metrics(levels: Sequence[Evaluation], wanted: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The metrics to compare, and the counts of the worst cases."""
    known = [name for name in DIRECTIONS if name not in OWN and all(level.has(name) for level in levels)]
    for metric in wanted or ():
        if metric not in (*known, *TAIL):
            raise InputError(f"there is no metric '{metric}' to compare: expected one of {', '.join((*known, *TAIL))}.")
    if wanted and {*wanted} <= {*TAIL}:
        raise InputError(f"the metrics {', '.join(wanted)} are counts: name a score as well, such as dice.")
    chosen = list(dict.fromkeys(wanted)) if wanted else [*(metric for metric in COMPARED if metric in known), *TAIL]
    return [name for name in chosen if name not in TAIL], [name for name in chosen if name in TAIL]


def _require_same_truth(first: Evaluation, second: Evaluation) -> None:
    keys = ["case", "region"]
    both = first.scores.merge(second.scores, on=keys, suffixes=("", "_other"))
    moved = both[both["patient"] != both["patient_other"]]
    if len(moved):
        row = moved.iloc[0]
        raise InputError(
            f"case {row['case']} belongs to patient {row['patient']} in {first.folder} and to {row['patient_other']} in"
            f" {second.folder}: score both with the same data list."
        )
    truth, other = both["volume_truth"], both["volume_truth_other"]
    off = both[(truth - other).abs() > AGREE * truth.abs().clip(lower=1)]
    if len(off):
        row = off.iloc[0]
        raise InputError(
            f"case {row['case']} has {row['volume_truth']:g} {first.volume_unit} of {row['region']} in {first.folder}"
            f" and {row['volume_truth_other']:g} in {second.folder}: they were scored against different labels; score"
            " both with the same data list."
        )


def _require_two_patients(evaluations: Sequence[Evaluation], patients: set[str]) -> None:
    folders = " and ".join(str(evaluation.folder) for evaluation in evaluations)
    if not patients:
        raise InputError(f"{folders} have no case in common: give evaluations of the same patients.")
    if len(patients) == 1:
        raise InputError(
            f"{folders} have one patient in common, {min(patients)}, which is too few to compare: score both on more"
            " patients."
        )


def _require_no_gaps(scores: pd.DataFrame, regions: Sequence[str], level: Evaluation) -> None:
    table = scores.pivot(index="case", columns="region", values="dice")[list(regions)].stack(future_stack=True)
    if table.isna().any():
        case, region = table.index[table.isna()][0]
        raise InputError(f"{level.folder} has no Dice of {region} of case {case}: rows are missing; score again.")
