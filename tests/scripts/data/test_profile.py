"""The profile of a cohort, its limits, and scans that are compared with it: each fault on a phantom."""

import math
from pathlib import Path

import numpy as np
import pytest

from bundle.benchmarks.scan_faults import FAULTS, ScanVoxels
from bundle.cohort.phantom_anatomy import CHANNELS, KINDS, make_patient
from scripts.data.case_record import CaseRecord
from scripts.data.profile import limit_number, make_profile, profile_content, read_profile
from scripts.data.scan_checks import ScanRefused, check_scan, summarise_channels
from scripts.data.scan_numbers import measure_scan
from scripts.errors import InputError
from scripts.files import write_json

AFFINE = np.diag([-6.0, -6.0, 6.0, 1.0])
FILES = [Path(f"{name}.nii.gz") for name in CHANNELS]


def patient(number: int) -> np.ndarray:
    return make_patient(np.random.default_rng([7, number]), 32, 6.0, 3, KINDS[number % 4])[0]


def numbers_of(images: np.ndarray):
    channels = summarise_channels(images, AFFINE, CHANNELS, FILES, CaseRecord(""))
    return measure_scan(images, channels)


@pytest.fixture(scope="module")
def profile():
    """Of fifty training cases, so that it may refuse."""
    return make_profile(CHANNELS, [numbers_of(patient(number)) for number in range(50)])


@pytest.fixture(scope="module")
def scans() -> list[ScanVoxels]:
    """Two patients that the profile does not know."""
    return [ScanVoxels(dict(zip(CHANNELS, patient(100 + k), strict=True)), AFFINE) for k in range(2)]


def checks_of(scan: ScanVoxels, profile=None) -> dict:
    images = np.stack([*scan.channels.values()]).astype(np.float32)
    try:
        checks = check_scan(images, scan.affine, [*scan.channels], FILES, (), profile)
    except ScanRefused as refused:
        checks = refused.checks
    return {check.name: check for check in checks}


def make_faulty(name: str, scans) -> ScanVoxels:
    return FAULTS[name](scans[0], scans[1], np.random.default_rng(0))


@pytest.mark.parametrize("number", [0, 1])
def test_a_sound_scan_is_not_refused(scans, profile, number):
    assert "refuse" not in {check.status for check in checks_of(scans[number], profile).values()}


@pytest.mark.parametrize(
    ("fault", "check", "status"),
    [
        ("FLAIR displaced by 10 mm sideways", "alignment", "refuse"),
        ("FLAIR displaced by 25 mm upwards", "alignment", "refuse"),
        ("FLAIR displaced by 48 mm forwards", "displacement", "refuse"),
        ("T2 and FLAIR exchanged", "channel order", "note"),
        ("one file as all channels", "copied channels", "refuse"),
        ("FLAIR missing, filled with 0", "content", "refuse"),
        ("T2 of another patient", "similarity", "refuse"),
        ("contrast of all channels inverted in the brain", "contrast", "refuse"),
        ("contrast of FLAIR inverted, background too", "background", "refuse"),
        ("skull and scalp not removed", "skull", "note"),
        ("noise in the background", "skull", "note"),
        ("upper 25% of the brain cut off", "cut-off brain", "note"),
        ("slices of 15 mm", "voxel size", "note"),
        ("header says a third of the voxel size", "brain size", "refuse"),
        ("3 constant slices in T1c", "constant sections", "refuse"),
        ("one voxel of 1e6 in T1c", "extreme voxels", "note"),
        ("label map in place of T2", "values", "refuse"),
        ("CT in all channels", "intensities", "refuse"),
        ("ball of water in all channels", "intensities", "refuse"),
    ],
)
def test_a_fault_is_found(scans, profile, fault, check, status):
    found = checks_of(make_faulty(fault, scans), profile)[check]
    assert found.status in (status, "refuse")
    assert found.sentence.endswith(".")
    assert found.status == "note" or found.number is None or found.limit is not None


def test_a_mirrored_channel_is_found_on_a_finer_grid():
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    images = make_patient(np.random.default_rng(3), 64, 3.0, 3, "typical")[0]
    scan = ScanVoxels(dict(zip(CHANNELS, images, strict=True)), affine)
    check = checks_of(FAULTS["FLAIR mirrored left to right"](scan, None, np.random.default_rng(0)))["mirrored channel"]
    assert (check.status, check.place.channel) == ("refuse", "FLAIR")


def test_the_place_of_a_constant_slice_is_known(scans):
    check = checks_of(make_faulty("1 constant slices in T1c", scans))["constant sections"]
    assert (check.place.channel, check.place.axis) == ("T1c", 2)
    faulty = make_faulty("1 constant slices in T1c", scans).channels["T1c"]
    assert np.ptp(faulty[..., check.place.slice]) == 0


def test_few_training_cases_refuse_and_note_nothing(scans):
    few = make_profile(CHANNELS, [numbers_of(patient(number)) for number in range(5)])
    found = checks_of(make_faulty("T2 and FLAIR exchanged", scans), few)
    assert "the profile is of 5 training cases, 8 at least are needed" in found["training cases"].sentence
    assert {check.status for check in found.values()} == {"ok", "not checked"}


def test_a_profile_of_other_channels_is_not_used(scans, profile):
    other = profile._replace(channels=["A", "B", "C", "D"])
    assert "these have A, B, C, D" in checks_of(scans[0], other)["training cases"].sentence


def test_a_profile_is_read_as_it_was_written(profile, tmp_path):
    write_json(tmp_path / "profile.json", profile_content(profile))
    assert read_profile(tmp_path / "profile.json") == profile


def test_a_profile_of_another_version_is_refused(profile, tmp_path):
    write_json(tmp_path / "profile.json", {**profile_content(profile), "profile_version": 0})
    with pytest.raises(InputError, match="is not a profile of version 1"):
        read_profile(tmp_path / "profile.json")


def test_a_profile_is_small_and_names_no_case(profile, tmp_path):
    write_json(tmp_path / "profile.json", profile_content(profile))
    assert (tmp_path / "profile.json").stat().st_size < 200_000
    assert all(values == sorted(values) for values in profile.numbers.values())


def test_limits_need_enough_training_cases():
    values = np.random.default_rng(0).normal(size=120).tolist()
    assert limit_number(values[:7], 1, 0.0) == (math.inf, math.inf)
    assert limit_number(values[:20], 1, 0.0).refused == math.inf
    noted, refused = limit_number(values, 20, 0.0)
    assert sum(value > noted for value in values) == 0 or noted == sorted(values)[119]
    assert refused > 2 * max(values) - np.median(values) - 1e-9


def test_one_of_a_hundred_new_scans_is_noted():
    rng = np.random.default_rng(1)
    shares = [
        np.mean(rng.normal(size=200) > limit_number(rng.normal(size=30).tolist(), 1, 0.0).noted) for _ in range(200)
    ]
    assert 0.003 < np.mean(shares) < 0.02
