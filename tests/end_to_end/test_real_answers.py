"""Answers for real scans, where they are present: checks pass, and measures agree with their reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.data.case_files import find_cases
from scripts.data.images import read_image
from scripts.data.loading import LoadImageChannelsd
from scripts.data.scan_checks import ScanRefused, check_scan
from scripts.files import read_mapping
from scripts.inference.answer import measure_answer
from scripts.inference.answer import read_channels_of as read_channels
from tests.made import ROOT

SETTINGS = {"channels": ["FLAIR", "T1c"], "regions": {"WT": [1, 2, 3, 4], "ET": [4]}, "decision": "regions"}
SETTINGS |= {"labels_out": {"WT": 2, "ET": 4}}


@pytest.fixture(params=["test/brats_2013_pat0001_1", "validation/brats_2013_pat0003_1"])
def patient(request, shared_data) -> Path:
    return shared_data("brats2015") / request.param


@pytest.fixture
def files(patient) -> list[str]:
    return [str(patient / f"{name}_subtrMeanDivStd.nii.gz") for name in ("Flair", "T1c")]


def test_real_scans_pass_and_shifted_ones_are_refused(files):
    images = [read_image(file) for file in files]
    flair, t1c = (image.voxels for image in images)
    paths = [Path(file) for file in files]
    checks = check_scan(np.stack([flair, t1c]), images[0].affine, SETTINGS["channels"], paths)
    assert {check.status for check in checks} == {"ok", "not checked"}
    with pytest.raises(ScanRefused, match="does not lie on"):
        check_scan(np.stack([np.roll(flair, 25, 2), t1c]), images[0].affine, SETTINGS["channels"], paths)


@pytest.mark.parametrize("name", ["brats2015", "open_ms"])
def test_sound_real_scans_are_neither_noted_nor_refused(name, shared_data):
    task = read_mapping(ROOT / "configs" / "tasks" / f"{name}.yaml")
    cases = find_cases(shared_data(name.replace("_", "-")), task["channel_files"])
    loader = LoadImageChannelsd("image", task["channels"])
    assert len(cases) >= 2
    for case in cases:
        image, paths = loader.load_image([str(case.images[channel]) for channel in task["channels"]])
        checks = check_scan(image.numpy(), np.asarray(image.affine), task["channels"], paths)
        assert {check.status for check in checks} == {"ok", "not checked"}


def test_lesions_of_a_real_reference_lie_in_the_brain(patient, files):
    reference = read_image(patient / "OTMultiClass.nii.gz")
    mask = reference._replace(voxels=np.rint(reference.voxels).astype(np.uint8))
    answer = measure_answer("real", mask, read_channels(files, SETTINGS)[0], [], SETTINGS)
    assert answer["regions"]["WT"]["volume_ml"] == pytest.approx(np.count_nonzero(mask.voxels) / 1000)
    largest = answer["lesions"][0]
    assert 10 < largest["diameter_mm"] < 150
    assert largest["perpendicular_mm"] <= largest["diameter_mm"]
    assert largest["side"] in ("left", "right", "both")
    assert all(0 <= lesion["brain_surface_mm"] < 60 for lesion in answer["lesions"])
