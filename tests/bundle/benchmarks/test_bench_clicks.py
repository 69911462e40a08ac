"""`bench clicks` clicks the largest errors of each region of each case, and keeps the cases that are finished."""

import numpy as np
import pytest

from bundle.benchmarks.clicks import ClickModel, measure_clicks
from bundle.drawing.click_curves import draw_click_curves
from scripts.inference.click_session import Correction
from tests.made import save_nifti

LABEL = np.zeros((12, 10, 8), np.uint8)
LABEL[2:6, 2:6, 2:6], LABEL[8:11, 6:9, 4:7] = 1, 2
REGIONS = {"WT": [1, 2], "ET": [2]}


class BoxSession:
    """Has found nothing; a foreground click adds the box of its label, a background click is not followed."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def mask(self, region: str, annotator: str = "") -> np.ndarray:
        return np.zeros(LABEL.shape, bool)

    def click(self, region, foreground=(), background=(), annotator: str = "") -> Correction:
        self.asked.append((region, [*foreground], [*background]))
        return Correction(np.isin(LABEL, [LABEL[place] for place in foreground]), [], 1)


@pytest.fixture
def measured(tmp_path):
    label = str(save_nifti(tmp_path / "A.nii.gz", LABEL, np.eye(4)))
    entry = {"case": "A_1", "patient": "A", "image": label, "label": label}
    opened: list[BoxSession] = []

    def measure(identity: str = "one", regions: dict = REGIONS, **settings):
        model = ClickModel(lambda _: opened.append(BoxSession()) or opened[-1], identity, "cpu")
        return measure_clicks(model, [entry], regions, tmp_path / "cases", clicks=2, **settings)

    return measure, opened


def test_each_region_is_clicked_on_its_largest_error(measured):
    measure, opened = measured
    rows = measure()
    first, second = (3, 3, 3), (9, 7, 5)
    assert opened[0].asked == [("WT", [first], []), ("WT", [first, second], []), ("ET", [second], [])]
    whole = rows[rows["region"] == "WT"]
    assert whole["dice"].tolist() == pytest.approx([0, 2 * 64 / (64 + 91), 1])
    assert rows["clicks"].tolist() == [0, 1, 2] * 2
    assert rows[rows["region"] == "ET"]["seconds"].isna().tolist() == [False, False, True]  # no error is left


def test_finished_cases_are_not_clicked_again(measured):
    measure, opened = measured
    first = measure()
    assert measure().equals(first)
    assert len(opened) == 1
    measure(identity="other weights")
    assert len(opened) == 2


def test_other_labels_are_clicked_again(measured, tmp_path):
    measure, opened = measured
    measure()
    measure(ignore=3)
    measure(regions={"WT": [1, 2], "ET": [1]})
    save_nifti(tmp_path / "A.nii.gz", LABEL[::-1], np.eye(4))
    measure()
    assert len(opened) == 4


def test_voxels_to_ignore_are_neither_clicked_nor_scored(measured):
    measure, opened = measured
    rows = measure(ignore=1)
    assert [asked for asked in opened[0].asked if asked[0] == "WT"] == [("WT", [(9, 7, 5)], [])]
    assert rows["dice"].tolist() == [0, 1, 1] * 2


def test_figure_is_written(measured, tmp_path):
    draw_click_curves(measured[0](), {"dice": "Dice", "nsd_2mm": "NSD"}, tmp_path / "clicks.png")
    assert (tmp_path / "clicks.png").stat().st_size > 5000
