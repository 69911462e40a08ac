"""Invalid rows of an evaluation are refused."""

import pytest

from bundle.analysis.evaluation import read_evaluation
from scripts.errors import InputError
from tests.made import INF, cohort, failed, rows_of, write


def refusals():
    base = cohort([0.8, 0.9])
    yield "no Dice", [row for row in base if row[3] != "dice"], "has no Dice"
    yield "only failures", failed("a"), "has no Dice"
    yield "percent", cohort([80.0]), "c00 a dice of 80 in WT: expected 0 to 1"
    yield "a share over 1", rows_of("a", "WT", 0.8, nsd_2mm=1.5), "a nsd_2mm of 1.5 in WT: expected 0 to 1"
    yield "a negative distance", rows_of("a", "WT", 0.8, hd95=-3.0), "a hd95 of -3 in WT: expected a number, 0 or more"
    yield "a negative volume", rows_of("a", "WT", 0.8, volume_fn=-3.0), "a volume_fn of -3 in WT: expected a number"
    yield "no number", cohort([float("nan")]), "a value that is not a number"
    nan = [[*row[:4], "nan" if row[3] == "hd95" else row[4], *row[5:]] for row in base]
    yield "nan written out", nan, "a hd95 of nan in WT"
    yield "the same number twice", base + base[:1], "dice of WT of case c00 twice"
    yield "a case of two patients", base + rows_of("c00", "TC", 0.9, patient="other"), "c00 to more than one patient"
    endless = rows_of("a", "WT", 0.9, volume_truth=INF)
    yield "an endless volume", endless, "a volume_truth of inf in WT: expected a number, 0 or more"
    endless = rows_of("a", "WT", 0.9, volume_error=-INF)
    yield "an endless error", endless, "a volume_error of -inf in WT: expected a number; score"
    lost = [row for row in base if (row[0], row[3]) != ("c01", "dice")]
    yield "other numbers without a Dice", lost, "no Dice of WT for case c01"
    for column, name in enumerate(("case", "patient", "region", "metric")):
        blank = [[*row[:column], "", *row[column + 1 :]] for row in rows_of("x", "WT", 0.9)]
        yield f"no {name}", base + blank, f"a row without a {name}"
    pixels = [[*row[:5], "pixel" if row[5] == "mm" else row[5], row[6]] for row in rows_of("x", "WT", 0.9)]
    yield "two units", base + pixels, "in more than one unit"


@pytest.mark.parametrize(("rows", "said"), [pytest.param(rows, said, id=name) for name, rows, said in refusals()])
def test_impossible_table_is_refused(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        read_evaluation(write(tmp_path, rows))
