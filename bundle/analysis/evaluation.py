"""Evaluations in folders: `cases.csv`, `evaluation.json` and the other tables that `score` writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bundle.analysis.evaluation_checks import check_rows
from scripts.errors import InputError
from scripts.scoring.case import WHOLE_CASE
from scripts.scoring.cohort import LESION_COLUMNS, RELIABILITY_COLUMNS, read_cases
from scripts.scoring.lesions import BRATS_2023
from scripts.scoring.metrics import BINS, BOUNDARY_METRICS, CASE_METRICS, METRICS
from scripts.scoring.run import ROLES, rename_former_roles
from scripts.scoring.tables import read_table

MISSING = "no prediction"  # how the reason of a failed case without a prediction file begins
# Scores of a case without a usable prediction: those of an empty mask. Its volumes and lesions are unknown.
FAILED_VALUES = {
    **{name: metric.one_empty for name, metric in METRICS.items() if metric.one_empty is not None},
    **dict.fromkeys(BOUNDARY_METRICS, 0.0),
    "lesionwise_dice_brats2023": 0.0,
    "lesionwise_hd95_brats2023": BRATS_2023.penalty,
}
KEYS = ("case", "patient", "region", "note")  # the columns of `Evaluation.scores` that are not metrics
REPAIR = "score again, or delete it to report without it."


@dataclass(frozen=True)
class Evaluation:
    """One scored set of predictions.

    Attributes:
        scores: one row per case and region: case, patient, region, note (`absent`, `missed`, `hallucinated`, `failed`
            or "") and one column per metric, NaN where not measured. A failed case has a row in every region, with the
            scores of an empty prediction.
        calibration: one row per case with probabilities: case, patient and one column per metric of the whole case.
        failed: why each failed case could not be scored, by case.
        units: metric to unit, for those that are in the table; "" for a share or a count.
        record: the content of evaluation.json; empty where there is none.
        lesions, reliability: the tables of these names, one row per true lesion, or per case, region and tenth of
            probability (`LESION_COLUMNS`, `RELIABILITY_COLUMNS`); None without such a file.
        volumes: where the cases are slices, the scores of each patient's slices as one volume, with the patient as
            case.
    """

    folder: Path
    scores: pd.DataFrame
    calibration: pd.DataFrame
    failed: Mapping[str, str]
    regions: tuple[str, ...]
    units: Mapping[str, str]
    record: Mapping[str, Any] = field(default_factory=dict)
    lesions: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    volumes: Evaluation | None = None

    @property
    def missing(self) -> list[str]:
        """The failed cases that had no prediction at all."""
        return [case for case, reason in self.failed.items() if reason.startswith(MISSING)]

    @property
    def roles(self) -> dict[str, list[str]] | None:
        """Which evaluated patients were test, validation or training patients; None if not recorded."""
        written = self.record.get("about", {}).get("patients")
        if not written or not isinstance(written, Mapping):
            return None
        written = rename_former_roles(written)
        return {role: list(written.get(role, [])) for role in ROLES}

    def rows_of(self, region: str) -> pd.DataFrame:
        """The rows of one region, by case."""
        return self.scores[self.scores["region"] == region]

    @property
    def length_unit(self) -> str:
        """The unit of distances: mm or pixel."""
        return self.units.get("hd95", "mm")

    @property
    def volume_unit(self) -> str:
        """The unit of volumes: ml, cm2 or pixel."""
        return self.units.get("volume_truth", "ml")

    @property
    def scored_cases(self) -> list[str]:
        """The cases that did not fail."""
        return list(self.scores.loc[self.scores["note"] != "failed", "case"].unique())

    def has(self, metric: str) -> bool:
        """Whether this metric was measured in any case."""
        return metric in self.units


def read_evaluation(folder: str | os.PathLike) -> Evaluation:
    """Read an evaluation.

    Raises:
        InputError: there is no cases.csv, its rows are invalid (`check_rows`), or another file of the evaluation is
            damaged.
    """
    folder = Path(folder)
    if not (folder / "cases.csv").is_file():
        raise InputError(
            f"{folder} has no cases.csv: give the folder that `python -m bundle score` or an evaluation wrote."
        )
    rows = read_cases(folder / "cases.csv")
    check_rows(rows, folder / "cases.csv")
    record = _read_record(folder)
    found, recorded = rows["case"].nunique(), record.get("cases")
    if isinstance(recorded, int) and recorded != found:
        raise InputError(
            f"{folder / 'cases.csv'} has {found} cases, but evaluation.json records {recorded}: one of the files was"
            " truncated or edited; score again."
        )
    return replace(
        _evaluation(folder, rows),
        record=record,
        lesions=_read_table(folder / "lesions.csv", LESION_COLUMNS, {"volume": float, "detected": int, "dice": float}),
        reliability=_read_reliability(folder / "reliability.csv"),
        volumes=_read_volumes(folder),
    )


def average_by_patient(scores: pd.DataFrame) -> pd.DataFrame:
    """The mean over the cases of each patient: indexed by region and patient, one column per metric.

    One infinite distance makes the mean of its patient infinite.
    """
    metrics = [name for name in scores if name not in KEYS]
    return scores.sort_values("case").groupby(["region", "patient"])[metrics].mean()


def _read_volumes(folder: Path) -> Evaluation | None:
    path = folder / "patients.csv"
    if not path.is_file():
        return None
    rows = read_cases(path)
    if not (rows["metric"] == "dice").any():  # no patient's slices could be combined
        return None
    check_rows(rows, path)
    return _evaluation(folder, rows)


def _evaluation(folder: Path, rows: pd.DataFrame) -> Evaluation:
    failed = rows[rows["metric"] == "failed"]
    scored = rows[rows["region"] != WHOLE_CASE]
    regions = tuple(scored["region"].unique())
    return Evaluation(
        folder=folder,
        scores=_scores(scored, failed, regions),
        calibration=_wide(rows[rows["metric"].isin(CASE_METRICS)], ["case", "patient"], list(CASE_METRICS)),
        failed=dict(zip(failed["case"], failed["note"], strict=True)),
        regions=regions,
        units=dict(scored.drop_duplicates("metric")[["metric", "unit"]].itertuples(index=False)),
    )


def _scores(scored: pd.DataFrame, failed: pd.DataFrame, regions: tuple[str, ...]) -> pd.DataFrame:
    notes = scored[scored["metric"] == "dice"].set_index(["case", "region"])["note"]
    metrics = [*METRICS, *(name for name in scored["metric"].unique() if name not in METRICS)]
    wide = _wide(scored, ["case", "patient", "region"], metrics)
    wide["note"] = notes.reindex(pd.MultiIndex.from_frame(wide[["case", "region"]])).fillna("").to_numpy()
    empty = {name: value for name, value in FAILED_VALUES.items() if name in wide and wide[name].notna().any()}
    lost = pd.DataFrame(
        [
            {"case": case, "patient": patient, "region": region, "note": "failed", **empty}
            for case, patient in zip(failed["case"], failed["patient"], strict=True)
            for region in regions
        ],
        columns=wide.columns,
    )
    both = pd.concat([wide, lost], ignore_index=True) if len(lost) else wide
    return both.sort_values(
        ["case", "region"], key=lambda c: c.map(regions.index) if c.name == "region" else c, ignore_index=True
    )


def _wide(rows: pd.DataFrame, keys: list[str], metrics: list[str]) -> pd.DataFrame:
    """One row for each combination of keys, one column per metric (NaN where there is none)."""
    wide = rows.pivot(index=keys, columns="metric", values="value").reindex(columns=metrics)
    return wide.astype(float).rename_axis(columns=None).reset_index()


def _read_record(folder: Path) -> dict[str, Any]:
    names = ("evaluation.json", "judged.json")  # the latter is its former name
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not JSON ({error}): {REPAIR}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object: {REPAIR}")
    parts = ("about", "versions", "definitions", "label_map", "groups")  # another program may have written other types
    return {key: value for key, value in content.items() if key not in parts or isinstance(value, dict)}


def _read_reliability(path: Path) -> pd.DataFrame | None:
    kinds = {"bin": float, "voxels": int, "confidence": float, "frequency": float}
    frame = _read_table(path, RELIABILITY_COLUMNS, kinds)
    if frame is None:
        return None
    filled, tenths = frame[frame["voxels"] != 0], frame["bin"] * BINS
    shares = filled["confidence"].between(0, 1) & filled["frequency"].between(0, 1) & (filled["voxels"] > 0)
    if not (shares.all() and np.isclose(tenths, tenths.round()).all() and tenths.between(-0.5, BINS - 0.5).all()):
        raise InputError(
            f"{path} has a value outside 0 to 1, or a bin other than 0.0, 0.1 ... 0.9: score again, or delete it."
        )
    if frame.duplicated(["case", "region", "bin"]).any():
        raise InputError(f"{path} lists one bin of a case and region twice: score again, or delete it.")
    return frame


def _read_table(path: Path, columns: list[str], kinds: dict[str, type]) -> pd.DataFrame | None:
    """A table with these columns; `kinds` gives the types of the numeric ones. None if the file does not exist."""
    if not path.is_file():
        return None
    try:
        text = dict.fromkeys(("case", "patient", "region"), str)
        frame = read_table(path, dtype=text, na_values={name: [""] for name in kinds})
        frame = frame.astype(kinds)
    except (OSError, ValueError, KeyError) as error:
        expected = f"expected the columns {', '.join(columns)}"
        raise InputError(f"{path} cannot be read as a table ({error}): {expected}; {REPAIR}") from error
    if missing := [name for name in columns if name not in frame]:
        raise InputError(f"{path} has no column {', '.join(missing)}: {REPAIR}")
    return frame
