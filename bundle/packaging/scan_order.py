"""The order of a server's scans by the quality of their masks, and names that keep it.

MONAI Label's strategy `first` takes the scans by name. So the name of a scan gets its place in front, and labels follow
it to its next name.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scripts.errors import InputError
from scripts.files import write_json

VOLUME = re.compile(r"(?P<name>.+?)(?P<ending>(\.seg)?\.(nii\.gz|nii|nrrd))$")
CRITERIA = ("entropy at the border of the masks, highest first", "predicted Dice, lowest first")
NAMES = "names.json"  # in the folder of the studies: every name that a scan has had, to the case


class ScanRanking(NamedTuple):
    """The cases, those first whose masks need a correction most; refused ones last.

    Attributes:
        cases: in their order.
        criterion: in words.
        refused: case to reason.
    """

    cases: list[str]
    criterion: str
    refused: dict[str, str]


def rank_scans(replies: Iterable[Mapping[str, Any]]) -> ScanRanking:
    """Rank segmented scans by their mean over regions: of the predicted Dice if there is one, else of the entropy.

    The entropy is that at the border of a mask (docs/quality.md). A scan for which there is no value, since its masks
    are empty or unlike those of the calibration, comes first.

    Args:
        replies: of `scripts.inference.worker`, one per case.
    """
    answers = {reply["case"]: reply for reply in replies}
    refused = {case: str(reply["refused"]) for case, reply in answers.items() if "refused" in reply}
    dice = {case: _read(reply.get("predicted_dice"), "value") for case, reply in answers.items()}
    certainty = {case: [-x for x in _read(reply.get("numbers"), "border_entropy")] for case, reply in answers.items()}
    calibrated = any(dice.values())
    values = dice if calibrated else certainty

    def place(case: str) -> tuple[bool, bool, float, str]:
        own = values[case]
        return case in refused, bool(own), sum(own) / len(own) if own else 0.0, case

    return ScanRanking(sorted(answers, key=place), CRITERIA[calibrated], refused)


def _read(regions: Mapping[str, Any] | None, number: str) -> list[float]:
    found = [(region or {}).get(number) for region in (regions or {}).values()]
    return [float(value) for value in found if value is not None]


def number_scans(cases: Iterable[str]) -> dict[str, str]:
    """Names of cases that sort in this order: 001_A, 002_B."""
    cases = list(cases)
    width = max(3, len(str(len(cases))))
    return {case: f"{place:0{width}d}_{case}" for place, case in enumerate(cases, start=1)}


def rename_labels(studies: Path, names: Mapping[str, str]) -> None:
    """Give the labels of a server's folder the names that their scans have now.

    Args:
        studies: the folder, with labels/TAG/NAME.nii.gz.
        names: of each case.

    Raises:
        InputError: a name was that of another case.
    """
    record = studies / NAMES
    if not record.is_file() and all(case == name for case, name in names.items()):
        return
    cases: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for case, name in names.items():
        if cases.setdefault(name, case) != case:
            raise InputError(
                f"scan {case} would be called {name}, which was the name of scan {cases[name]} in {studies}: rename the"
                " scan, or give another folder with --out."
            )
        cases.setdefault(case, case)
    write_json(record, cases)  # first, so that a start that was killed in between is completed by the next
    for label in sorted(studies.glob("labels/*/*")):
        parts = VOLUME.match(label.name)
        case = cases.get(parts["name"]) if parts else None
        if parts and case in names and names[case] != parts["name"]:
            target = label.with_name(names[case] + parts["ending"])
            if not target.exists():
                label.rename(target)
