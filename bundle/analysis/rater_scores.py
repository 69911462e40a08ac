"""A system's scores against several raters, next to the raters' scores against each other."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.analysis.agreement_summary import VERDICTS, compare_model_with_raters
from bundle.analysis.evaluation import FAILED_VALUES
from scripts.scoring.raters import MODEL, RATER_COLUMNS
from scripts.scoring.tables import read_table


def compare_with_raters(folder: str | os.PathLike) -> dict[str, dict[str, Any]] | None:
    """The comparison of `compare_model_with_raters` by region and metric, over patients.

    Args:
        folder: of an evaluation, with raters.csv; without this file the result is None.
    """
    file = Path(folder) / "raters.csv"
    if not file.is_file():
        return None
    table = read_table(file, dtype={name: str for name in RATER_COLUMNS if name != "value"})
    raters = sorted({*table["rater"]})
    scored = table[table["metric"].isin(VERDICTS)]
    failed = table[(table["metric"] == "failed") & (table["compared"] == MODEL)]  # they count as an empty mask
    columns = {"patient": "image", "compared": "first", "rater": "second"}
    found: dict[str, dict[str, Any]] = {}
    for (region, metric), rows in scored.groupby(["region", "metric"], sort=False):
        lost = failed.assign(region=region, metric=metric, value=FAILED_VALUES[str(metric)])
        pairs = pd.concat([rows, lost]).rename(columns={**columns, "value": metric}).astype({metric: float})
        found.setdefault(str(region), {})[str(metric)] = compare_model_with_raters(_by_patient(pairs), raters, metric)
    return found


def _by_patient(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per patient and pair: the mean over the patient's cases."""
    metric = pairs["metric"].iloc[0]
    return pairs.groupby(["image", "first", "second"], as_index=False, sort=False)[metric].mean()
