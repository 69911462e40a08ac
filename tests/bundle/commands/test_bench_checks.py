"""`bench checks`: its table for phantoms and for the scans of a data list, and the faults that it makes."""

import json

import numpy as np
import pytest

from bundle.__main__ import main
from bundle.benchmarks.checks import CheckedFault, count_found
from bundle.benchmarks.scan_faults import FAULTS, ScanVoxels
from bundle.cohort.phantom_anatomy import CHANNELS, make_patient

IMAGES = make_patient(np.random.default_rng(0), 32, 6.0, 3, "typical")[0]
SCAN = ScanVoxels(dict(zip(CHANNELS, IMAGES, strict=True)), np.diag([-6.0, -6.0, 6.0, 1.0]))


def test_the_scans_of_a_list_are_checked_with_faults(cohort, tmp_path, capsys, monkeypatch):
    few = {name: FAULTS[name] for name in ("one file as all channels", "T1 and T1c exchanged")}
    monkeypatch.setattr("bundle.benchmarks.checks.FAULTS", few)
    given = ["--datalist", str(cohort.datalist), "--dataset_dir", str(cohort.dataset_dir)]
    main(["bench", "checks", *given, "--out", str(tmp_path / "checks.json")])
    assert "one file as all channels: refused 4, noted 0 of 4 (copied channels 4" in capsys.readouterr().out
    (subject,) = json.loads((tmp_path / "checks.json").read_text())["subjects"]
    sound, *faults = subject["settings"]["faults"]
    assert (sound["fault"], sound["n"], sound["refused"]) == ("sound", 4, 0)
    assert [row["fault"] for row in faults] == [*few]


def test_counts_are_by_fault_and_check():
    found = [CheckedFault("a", "note", ["x", "y"]), CheckedFault("a", "ok", []), CheckedFault("b", "refuse", ["x"])]
    assert count_found(found) == [
        {"fault": "a", "n": 2, "refused": 0, "noted": 1, "checks": {"x": 1, "y": 1}},
        {"fault": "b", "n": 1, "refused": 1, "noted": 0, "checks": {"x": 1}},
    ]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_changes_the_scan_and_not_its_source(name):
    before = {channel: voxels.copy() for channel, voxels in SCAN.channels.items()}
    faulty = FAULTS[name](SCAN, SCAN._replace(channels={c: v + 1 for c, v in before.items()}), np.random.default_rng(0))
    same = all(np.array_equal(faulty.channels[channel], voxels) for channel, voxels in before.items())
    assert not (same and np.array_equal(faulty.affine, SCAN.affine))
    assert all(np.array_equal(voxels, before[channel]) for channel, voxels in SCAN.channels.items())
    assert all(np.isfinite(voxels).all() for voxels in faulty.channels.values())


def test_a_scan_of_two_channels_cannot_show_some_faults():
    two = SCAN._replace(channels={name: SCAN.channels[name] for name in ("FLAIR", "T1c")})
    made = {name: make(two, None, np.random.default_rng(0)) for name, make in FAULTS.items()}
    assert made["T2 and FLAIR exchanged"] is made["T2 of another patient"] is made["label map in place of T2"] is None
    assert {*made["T1c and FLAIR exchanged"].channels} == {"FLAIR", "T1c"}
