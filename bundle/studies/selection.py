"""Selection of a configuration or a pair: the simplest one, unless another is better by a difference that is real."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bundle.analysis.significance import (
    PairedTest,
    can_reach_significance,
    correct_by_holm,
    paired_test,
    subtract_scores,
)
from bundle.analysis.statistics import LEVEL, Interval, mean_interval
from bundle.studies.candidates import Candidate


class Choice(NamedTuple):
    """What was selected on some patients.

    `behind` has, for each candidate that is simpler than the one of highest mean, the test of the highest minus it and
    its p value after Holm's correction.
    """

    selected: str
    highest: str
    behind: dict[str, tuple[PairedTest, float]]


class Selection(NamedTuple):
    """A choice on all patients, and the score of the same rule on patients that it did not see.

    `nested` is the mean Dice of the candidates that were selected on all folds but one, each on the patients of that
    fold; `by_fold` is what was selected then.
    """

    choice: Choice
    means: dict[str, tuple[float, Interval]]
    nested: float
    nested_interval: Interval
    by_fold: dict[int, str]


def choose(scores: pd.DataFrame) -> Choice:
    """The simplest candidate to which that of highest mean is not really better.

    The difference is real if the 95 % interval of its mean, by patient, is above 0, and Wilcoxon's test is significant
    at 5 % after Holm's correction for the number of simpler candidates.

    Args:
        scores: [patients, candidates], the columns from the simplest candidate on.
    """
    means = scores.mean().round(12)
    highest = str(means.idxmax())  # the simplest of equal ones
    simpler = [str(name) for name in scores.columns[: list(scores.columns).index(highest)]]
    tests = [paired_test(subtract_scores(scores[highest], scores[name])) for name in simpler]
    behind = dict(zip(simpler, zip(tests, correct_by_holm([test.p for test in tests]), strict=True), strict=True))
    even = (name for name, (test, p) in behind.items() if not is_real(test, p))
    return Choice(next(even, highest), highest, behind)


def is_real(test: PairedTest, p: float) -> bool:
    """Whether a candidate of a higher mean is better: see `choose`."""
    return p < 1 - LEVEL and test.mean_interval is not None and test.mean_interval[0] > 0


def select_candidate(candidates: Sequence[Candidate], folds: Mapping[str, int]) -> Selection:
    """Choose among candidates, from the simplest on, and score the choice on patients that it did not see.

    Args:
        candidates: with the scores of the same patients.
        folds: the fold of each patient.
    """
    scores = pd.DataFrame({candidate.name: candidate.dice for candidate in candidates})
    of_patient = pd.Series(folds)[scores.index]
    by_fold, parts = {}, []
    for fold in sorted({*folds.values()}):
        by_fold[fold] = choose(scores[of_patient != fold]).selected
        parts.append(scores.loc[of_patient == fold, by_fold[fold]])
    unseen = pd.concat(parts)
    return Selection(
        choose(scores),
        {str(name): (float(own.mean()), mean_interval(own, own.index)) for name, own in scores.items()},
        float(unseen.mean()),
        mean_interval(unseen, unseen.index),
        by_fold,
    )


def describe_selection(found: Selection, candidates: Sequence[Candidate], patients: int) -> dict[str, Any]:
    """The content of selected.yaml: the runs as `ensemble`, how they were selected, and every candidate."""
    chosen = next(candidate for candidate in candidates if candidate.name == found.choice.selected)
    rows = []
    for candidate in candidates:
        mean, interval = found.means[candidate.name]
        row = {
            "name": candidate.name,
            "folders": [folder.as_posix() for folder in candidate.folders],
            "networks": candidate.networks,
            "mean_dice": round(mean, 4),
            "interval": interval and [round(end, 4) for end in interval],
        }
        if candidate.name in found.choice.behind:
            test, p = found.choice.behind[candidate.name]
            row["highest_minus_this"] = {
                "mean": test.mean and round(test.mean, 4),
                "interval": test.mean_interval and [round(end, 4) for end in test.mean_interval],
                "p_holm": round(p, 4),
                "real": is_real(test, p),
            }
        rows.append(row)
    return {
        "ensemble": [folder.as_posix() for folder in chosen.folders],
        "selection": {
            "selected": found.choice.selected,
            "highest": found.choice.highest,
            "patients": patients,
            "score": "mean Dice over regions, by patient, by networks that never saw the patient",
            "selected_mean_dice": round(found.means[found.choice.selected][0], 4),
            "nested_mean_dice": round(found.nested, 4),
            "nested_interval": found.nested_interval and [round(end, 4) for end in found.nested_interval],
            "selected_without_fold": found.by_fold,
        },
        "candidates": rows,
    }


def explain(found: Selection, patients: int) -> list[str]:
    """What was selected and why, and how far its score can be believed, in sentences."""
    chosen, highest = found.choice.selected, found.choice.highest
    if chosen != highest:
        why = f"{highest} has a higher mean, by a difference that is not shown to be real, and is less simple"
    elif found.choice.behind:
        why = "its mean is higher than that of every simpler candidate, by a difference that is real"
    else:
        why = "it has the highest mean, and none is simpler"
    lines = [f"* selected: {chosen}; {why}."]
    if not can_reach_significance(patients, max(1, len(found.means) - 1)):
        lines.append(f"With {patients} patients no difference can be shown: the simplest candidate is selected.")
    interval = found.nested_interval
    ends = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    names = list(dict.fromkeys(found.by_fold.values()))
    counts = ", ".join(f"{name} in {[*found.by_fold.values()].count(name)}" for name in names)
    lines.append(
        f"Its score of {found.means[chosen][0]:.3f} is optimistic, since it was selected on these patients. Selected on"
        f" all folds but one and scored on that one: {found.nested:.3f}{ends}; of {len(found.by_fold)} times: {counts}."
    )
    return lines
