"""The profile that training writes, and that export takes along."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.transforms import Compose

from scripts.data.datalist import read_datalist, select_cases
from scripts.data.decision import RegionDecision
from scripts.data.loading import LoadImageChannelsd
from scripts.data.patch_dataset import PreparedCases
from scripts.data.profile import read_profile
from scripts.data.regions import LabelsToRegionsd
from scripts.training.cohort_profile import write_profile
from tests.made.network import network

CHANNELS = ["T1", "T1c", "T2", "FLAIR"]
REGIONS = {"WT": [1, 2, 4], "ET": [4]}


@pytest.fixture
def write(cohort, tmp_path):
    """Writes the profile of the cohort into a run of a random network; gives its path."""
    net = network(filters=(4, 8, 8)).eval()
    torch.save(net.state_dict(), tmp_path / "model.pt")
    steps = Compose([LoadImageChannelsd(["image", "label"], CHANNELS), LabelsToRegionsd("label", REGIONS)])
    decision = RegionDecision("regions", REGIONS, {"NCR": 1, "ED": 2, "ET": 4})

    def write(entries=None, patch_size=(16, 16, 16)) -> Path:
        chosen = entries or select_cases(read_datalist(cohort.datalist), cohort.dataset_dir, "labelled")
        cases = PreparedCases(chosen, steps, cache="none")
        write_profile(tmp_path, steps, cases, net, patch_size, decision)
        return tmp_path / "profile.json"

    return write


def test_training_writes_a_profile_that_export_takes_along(package):
    run = package.parents[1] / "run"
    profile = read_profile(package / "models" / "profile.json")
    assert profile.cases == 3  # of four folds, one is for validation
    assert profile.features["layer"] == "bottleneck.conv2.conv"
    assert (package / "models" / "profile.json").read_bytes() == (run / "profile.json").read_bytes()


def test_a_resumed_run_keeps_the_profile_of_its_weights(write):
    written = write().stat().st_mtime_ns
    assert write().stat().st_mtime_ns == written


def test_new_weights_get_a_new_profile(write, tmp_path):
    before = write().read_text()
    torch.save(network(filters=(4, 8, 8), seed=1).state_dict(), tmp_path / "model.pt")
    assert write().read_text() != before


def test_large_cohorts_are_sampled(write, monkeypatch):
    monkeypatch.setattr("scripts.training.cohort_profile.MOST_CASES", 2)
    assert read_profile(write()).cases == 2


def test_slices_have_no_profile(write):
    assert not write(patch_size=(16, 16)).exists()


def test_a_case_whose_file_is_gone_is_left_out(write, cohort):
    entries = select_cases(read_datalist(cohort.datalist), cohort.dataset_dir, "labelled")
    gone = {**entries[0], "image": ["gone.nii.gz"] * 4}
    assert read_profile(write([*entries[1:], gone])).cases == len(entries) - 1
