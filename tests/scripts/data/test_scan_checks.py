"""Checks of a scan before it is segmented."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from scripts.data.loading import LoadImageChannelsd
from scripts.data.scan_checks import ScanRefused, check_scan, list_checks
from scripts.errors import InputError
from tests.made.patient import AFFINE, IMAGES, TASK, changed, write_patient

NAMES = list(TASK.channels)
FILES = [Path(f"{name}.nii.gz") for name in NAMES]


def checks_of(images, notes=()) -> dict:
    return {check.name: check for check in check_scan(np.stack(images), AFFINE, NAMES, FILES, notes)}


def refusal_of(images) -> ScanRefused:
    with pytest.raises(ScanRefused) as caught:
        checks_of(images)
    return caught.value


def test_every_check_of_a_sound_scan_is_ok():
    found = checks_of(IMAGES)
    assert found.pop("training cases").status == "not checked"
    assert {check.status for check in found.values()} == {"ok"}
    assert found["alignment"].number > found["alignment"].limit


def test_a_displaced_channel_is_refused_with_its_number():
    error = refusal_of(changed(2, np.roll(IMAGES[2], 8, 0)))
    assert "channel T2 does not lie on the other channels" in str(error)
    check = next(check for check in error.checks if check.status == "refuse")
    assert check.name == "alignment"
    assert check.number < check.limit


def test_a_copied_channel_is_refused():
    assert "channel T1c is a copy of channel T1 (T1.nii.gz)" in str(refusal_of(changed(1, IMAGES[0])))


def test_a_scan_with_its_head_is_noted():
    rng = np.random.default_rng(0)
    noisy = [np.rint(image * 100 + 5 * rng.random(image.shape)) for image in IMAGES]
    check = checks_of(noisy)["skull"]
    assert check.status == "note"
    assert "more than the brain" in check.sentence


def test_a_doubtful_header_is_noted():
    check = checks_of(IMAGES, ["left and right are unknown"])["header"]
    assert (check.status, "left and right are unknown" in check.sentence) == ("note", True)


def test_other_errors_count_as_a_check_of_the_files():
    (check,) = list_checks(InputError("a.nii is damaged"), "a.nii is damaged")
    assert (check.name, check.status, check.sentence) == ("files", "refuse", "a.nii is damaged")


@pytest.fixture
def load():
    return LoadImageChannelsd("image", NAMES, check_scans=True)


def test_loading_keeps_the_checks_as_text(load, tmp_path):
    case = write_patient(tmp_path)
    loaded = load({"image": [str(path) for path in case.images]})
    assert {check["status"] for check in json.loads(loaded["checks"])} == {"ok", "not checked"}
    assert "result" not in loaded


@pytest.fixture
def served(monkeypatch):
    """As in the process of MONAI Label."""

    class HTTPException(Exception):
        def __init__(self, status_code: int, detail: str) -> None:
            super().__init__(detail)
            self.status_code, self.detail = status_code, detail

    monkeypatch.setitem(sys.modules, "monailabel", types.ModuleType("monailabel"))
    module = types.ModuleType("fastapi")
    module.HTTPException = HTTPException
    monkeypatch.setitem(sys.modules, "fastapi", module)
    return HTTPException


def test_a_server_refuses_with_422_and_the_sentence(served, load, tmp_path):
    case = write_patient(tmp_path, changed(1, IMAGES[0]))
    with pytest.raises(served) as caught:
        load({"image": [str(path) for path in case.images]})
    assert caught.value.status_code == 422
    assert "channel T1c is a copy of channel T1" in caught.value.detail


def test_a_server_returns_warnings_next_to_the_mask(served, load, tmp_path):
    rng = np.random.default_rng(0)
    case = write_patient(tmp_path, [np.rint(image * 100 + 5 * rng.random(image.shape)) for image in IMAGES])
    result = load({"image": [str(path) for path in case.images]})["result"]
    assert "more than the brain" in result["warnings"][0]
    assert {"skull", "displacement", "training cases"} <= {check["name"] for check in result["checks"]}
