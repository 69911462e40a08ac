"""Checks of the rows of an evaluation: names, ranges, units, and one number per case, region and metric."""

from pathlib import Path

import numpy as np
import pandas as pd

from scripts.errors import InputError
from scripts.scoring.case import WHOLE_CASE
from scripts.scoring.metrics import BOUNDARY_METRICS, METRICS

SHARES = {*BOUNDARY_METRICS, *(name for name, metric in METRICS.items() if metric.one_empty == 0)}
SIGNED = ("volume_error", "volume_error_relative")
ENDLESS = {"volume_error_relative", *(name for name, metric in METRICS.items() if metric.one_empty == np.inf)}
ROUNDING = 1e-9  # by which numbers of other programs may exceed their range


def check_rows(rows: pd.DataFrame, path: Path) -> None:
    """Refuse invalid rows of cases.csv or patients.csv (`scripts.scoring.cohort.read_cases`).

    Raises:
        InputError: there is no Dice, a name is empty, a number is duplicated, missing or out of range, a case belongs
            to two patients, or a metric has two units.
    """
    if not (rows["metric"] == "dice").any():
        raise InputError(f"{path} has no Dice: there is nothing to report; score the predictions first.")
    for column in ("case", "patient", "region", "metric"):
        if (rows[column] == "").any():
            raise InputError(f"{path} has a row without a {column}: score again, or fill it in.")
    _check_values(rows, path)
    twice = rows[rows.duplicated(["case", "region", "metric"])]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"{path} lists {row['metric']} of {row['region']} of case {row['case']} twice: give two cases two"
            " names, and each evaluation its own file."
        )
    scored, dice = (rows[own][["case", "region"]] for own in (rows["region"] != WHOLE_CASE, rows["metric"] == "dice"))
    if len(lost := pd.MultiIndex.from_frame(scored).unique().difference(pd.MultiIndex.from_frame(dice))):
        raise InputError(f"{path} has other metrics but no Dice of {lost[0][1]} for case {lost[0][0]}: score again.")
    several = rows.groupby("case")["patient"].nunique()
    if (several > 1).any():
        raise InputError(f"{path} assigns case {several.idxmax()} to more than one patient: expected one.")
    units = rows.groupby("metric")["unit"].nunique()
    if (units > 1).any():
        raise InputError(f"{path} gives {units.idxmax()} in more than one unit: report cases of one kind at a time.")


def _check_values(rows: pd.DataFrame, path: Path) -> None:
    """Shares must be 0 to 1, distances, volumes and counts 0 or more; only some metrics may be infinite, none NaN."""
    known = rows["metric"].isin([*METRICS, *BOUNDARY_METRICS])
    top = np.where(rows["metric"].isin(SHARES), 1, np.inf)
    outside = known & ~rows["metric"].isin(SIGNED) & ~rows["value"].between(-ROUNDING, top + ROUNDING)
    off = rows[rows["value"].isna() | outside | (known & ~rows["metric"].isin(ENDLESS) & np.isinf(rows["value"]))]
    if len(off):
        row = off.iloc[0]
        lowest = "" if row["metric"] in SIGNED else ", 0 or more"
        expected = "0 to 1; write shares, not percent" if row["metric"] in SHARES else f"a number{lowest}; score again"
        raise InputError(
            f"{path} gives case {row['case']} a {row['metric']} of {row['value']:g} in {row['region']}: expected"
            f" {expected}."
        )
