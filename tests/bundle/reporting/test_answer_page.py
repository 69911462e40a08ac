"""The page of an answer: its verdict, what it shows, and that it needs nothing else."""

import base64
import gzip
import re

import numpy as np
import pytest

from bundle.reporting.answer_page import write_answer_page
from scripts.data.images import GridImage
from scripts.data.scan_checks import ScanCheck
from scripts.inference.answer import measure_answer, refuse_answer
from tests.made import Page

NETWORK = {
    "name": "<b>made</b>",
    "version": "0.1.0",
    "weights_sha256": None,
    "intended_use": "Research.",
    "licences": {},
    "rows": {"Trained on": "nobody"},
}
SETTINGS = {"regions": {"WT": [1, 2], "ET": [2]}, "labels_out": {"WT": 1, "ET": 2}, "decision": "regions"}
GRID = np.indices((40, 44, 36))
SCAN = (np.hypot(GRID[0] - 20, GRID[1] - 22) < 15) * (100.0 + GRID[0])
MASK = ((np.abs(GRID - np.array([12, 20, 18])[:, None, None, None]) < 4).all(0) * 1).astype(np.uint8)
MASK[11:13, 19:21, 17:19] = 2
NOTE = ScanCheck("skull", "note", "FLAIR shows more than the brain.")._asdict()


@pytest.fixture
def write(tmp_path):
    def write(mask=MASK, checks=(), drawn=True, predicted=None) -> Page:
        answer = measure_answer("P1", GridImage(mask, np.diag([-1.0, -1, 2, 1])), SCAN, checks, SETTINGS)
        channels = {"T1": SCAN, "FLAIR": SCAN**2}
        answer |= {"network": NETWORK, "predicted_dice": predicted or {}}
        write_answer_page(tmp_path / "a.html", answer, channels, mask, drawn)
        return Page(tmp_path / "a.html")

    return write


def test_page_shows_verdict_volumes_and_pictures(write):
    page = write()
    assert page.text.startswith("P1: answered")
    assert "Answered: no check objected." in page.text
    assert f"{np.count_nonzero(MASK) * 2 / 1000:.2f} ml" in page.text
    assert len(page.all("img")) == 5  # three planes, and the diameters of two regions
    assert all(picture["src"].startswith("data:image/png;base64,") and picture["alt"] for picture in page.all("img"))


def test_text_from_outside_is_escaped(write):
    assert "<b>made</b>" in write().text


def test_warnings_come_before_everything_else(write):
    text = write(checks=[NOTE]).text
    assert text.index("Answered, with 1 warning.") < text.index(NOTE["sentence"]) < text.index("Result")


UNKNOWN = {"value": None, "lower": None, "patients": 5, "sentence": "Not calibrated: 5 patients."}
KNOWN = {"value": 0.86, "lower": 0.71, "patients": 48, "sentence": "Predicted Dice 0.86, at least 0.71."}


def test_predicted_dice_has_a_row_per_region(write):
    text = write(predicted={"WT": KNOWN, "ET": UNKNOWN}).text
    assert "How good is this mask likely to be?" in text
    assert f"WT 0.86 0.71 {KNOWN['sentence']} ET {UNKNOWN['sentence']}" in text


def test_one_reason_against_all_predictions_is_said_once(write):
    text = write(predicted={"WT": UNKNOWN, "ET": UNKNOWN}).text
    assert text.count(UNKNOWN["sentence"]) == 1
    assert "Predicted Dice" not in text


def test_an_empty_mask_is_said_to_be_empty(write):
    page = write(MASK * 0)
    assert "Nothing was segmented: no region has a voxel." in page.text
    assert len(page.all("img")) == 3


def test_a_scan_that_may_show_a_face_is_left_out(write):
    page = write(drawn=False)
    assert page.all("img") == page.all("canvas") == []
    assert "volume-mask" not in page.source


def test_the_viewer_gets_the_mask_and_the_channels(write):
    source = write().source
    packed = dict(re.findall(r'id="volume-([\w-]+)">([^<]+)<', source))
    assert {*packed} == {"mask", "channel-0", "channel-1"}
    shape = [int(size) for size in re.search(r'"shape": \[(\d+), (\d+), (\d+)\]', source).groups()]
    volume = np.frombuffer(gzip.decompress(base64.b64decode(packed["mask"])), np.uint8).reshape(shape, order="F")
    assert [np.count_nonzero(volume == value) for value in (1, 2)] == [np.count_nonzero(v == MASK) for v in (1, 2)]


def test_a_refused_scan_has_one_sentence_and_no_picture(tmp_path):
    check = ScanCheck("alignment", "refuse", "T2 does not lie on FLAIR.", 0.4, 0.85)._asdict()
    answer = refuse_answer("P1", check["sentence"], [check]) | {"network": NETWORK}
    write_answer_page(tmp_path / "a.html", answer, {}, None)
    page = Page(tmp_path / "a.html")
    assert "Refused: there is no mask. T2 does not lie on FLAIR." in page.text
    assert page.all("img") == page.all("script") == []
    assert [attributes["role"] for attributes in page.all("header")] == ["alert"]
