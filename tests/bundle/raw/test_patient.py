"""Preparation of one patient: grids, state, files, pictures."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bundle.raw.options import RawOptions
from bundle.raw.patient import prepare_patient
from bundle.raw.pictures import draw_steps
from bundle.raw.state import measure_state
from bundle.raw.steps import PreparedChannels, choose_reference
from scripts.data.images import GridImage
from scripts.data.scan_checks import ScanRefused
from tests.made import refused, save_nifti
from tests.made.head import AFFINE, GRIDS, MOVES, make_head, rigid_matrix, scan_again

ORIENTATIONS = {
    "LPS": GRIDS["T1"],
    "RAS": GRIDS["T1c"],
    "permuted": GRIDS["T2"],
    "oblique and anisotropic": GRIDS["FLAIR"],
}


def prepare(folder, images, mask="mask", shown=None, **options):
    """`prepare_patient` for files T1c and FLAIR in a folder, whose brain mask is that of T1c."""
    for name, image in images.items():
        save_nifti(folder / f"{name}.nii.gz", image.voxels, image.affine)
    files = [str(folder / f"{name}.nii.gz") for name in images if name != "mask"]
    names = [name for name in images if name != "mask"]
    given = RawOptions(mask=str(folder / f"{mask}.nii.gz"), **options)
    shown = [] if shown is None else shown
    return prepare_patient("case", files, names, folder / "out", given, shown.append)


def two_channels(grid) -> dict[str, GridImage]:
    """T1c on a grid, FLAIR displaced and on a coarser one, and the mask of the brain on the first."""
    channels, brain = make_head()
    coarse = ((44, 44, 44), AFFINE @ np.diag([1.2, 1.2, 1.2, 1.0]))
    return {
        "FLAIR": scan_again(channels["FLAIR"], MOVES["T1"], *coarse),
        "T1c": scan_again(channels["T1c"], np.eye(4), *grid),
        "mask": scan_again(brain.astype(np.uint8), np.eye(4), *grid),
    }


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_prepared_channels_have_exactly_the_grid_of_the_reference(tmp_path, orientation):
    images = two_channels(ORIENTATIONS[orientation])
    made = prepare(tmp_path, images)
    assert made.record["reference"] == "T1c"
    brain = images["mask"].voxels > 0
    for file in made.image:
        written = nib.load(file)
        assert np.array_equal(written.affine, nib.load(tmp_path / "T1c.nii.gz").affine)
        assert np.array_equal(np.asarray(written.dataobj) != 0, brain)
    flair, there = np.asarray(nib.load(made.image[0]).dataobj), images["T1c"]
    channels, _ = make_head()
    true = scan_again(channels["FLAIR"], np.eye(4), there.voxels.shape, there.affine).voxels
    inner = ndimage.binary_erosion(brain, iterations=2)
    assert np.corrcoef(flair[inner], true[inner])[0, 1] > 0.85


def test_what_is_prepared_is_not_prepared_again(tmp_path):
    images, first, second, third = two_channels(GRIDS["T1"]), [], [], []
    made = prepare(tmp_path, images, shown=first)
    assert prepare(tmp_path, images, shown=second) == made
    assert first == ["bias field", "co-registration", "brain mask", "writing"]
    assert second == []
    (tmp_path / "out" / "prepared" / "channel-1.nii.gz").write_bytes(b"cut short")
    prepare(tmp_path, images, shown=third)
    assert third == first


def test_a_refused_step_leaves_no_file(tmp_path):
    images = two_channels(GRIDS["T1"])
    images["mask"] = images["mask"]._replace(voxels=images["mask"].voxels * 0)
    with pytest.raises(ScanRefused, match="is empty") as caught:
        prepare(tmp_path, images)
    assert [(check.name, check.status) for check in caught.value.checks] == [
        ("bias field", "ok"),
        ("co-registration", "ok"),
        ("brain mask", "refuse"),
    ]
    assert not (tmp_path / "out").exists()


def test_a_missing_mask_names_the_case(tmp_path):
    options = RawOptions(mask=str(tmp_path / "{case}.nii.gz"))
    assert "of case patient-7 does not exist" in refused(options.mask_of, "patient-7")


@pytest.fixture(scope="module")
def brains() -> dict[str, GridImage]:
    channels, brain = make_head()
    return {name: GridImage(channels[name] * brain, AFFINE) for name in ("T1", "T1c")}


def test_three_states_are_told_apart(brains):
    channels, _ = make_head()
    moved = scan_again(brains["T1"].voxels, rigid_matrix((0, 0, 0), (25, 0, 0)), (52, 52, 52), AFFINE)
    head = {"T1": GridImage(channels["T1"], AFFINE), "T1c": brains["T1c"]}
    states = [measure_state(scans, [Path("T1"), Path("T1c")]) for scans in (brains, {**brains, "T1": moved}, head)]
    assert states == ["prepared", "stripped", "head"]


def test_a_head_without_noise_in_its_air_is_a_head(brains):
    channels, _ = make_head()
    head = np.where(channels["T1"] > 100, channels["T1"], 0)
    assert measure_state({**brains, "T1": GridImage(head, AFFINE)}, [Path("T1"), Path("T1c")]) == "head"


def test_the_finest_channel_is_the_reference():
    fine, coarse = (GridImage(np.zeros((4, 4, 4)), np.diag([size] * 3 + [1.0])) for size in (1.0, 3.0))
    assert choose_reference({"T1": fine, "T1c": fine, "FLAIR": fine})[0] == "T1c"
    assert choose_reference({"T1": coarse, "T1c": coarse, "FLAIR": fine})[0] == "FLAIR"


def draw(head: np.ndarray, brain: np.ndarray, identify: bool) -> dict:
    channels = {"T1": head, "T2": head + 1}
    pairs = {name: (voxels, voxels) for name, voxels in channels.items()}
    return draw_steps(PreparedChannels(channels, "T1", brain, pairs, channels, [], {}), AFFINE, identify)


def test_pictures_show_nothing_far_from_the_brain():
    channels, brain = make_head()
    far = ndimage.distance_transform_edt(~brain, [5.0] * 3) > 12
    plain, other = (np.where(far, value, channels["T1"]).astype(np.float32) for value in (100, 900))
    assert draw(plain, brain, identify=False) == draw(other, brain, identify=False)
    assert draw(plain, brain, identify=True) != draw(other, brain, identify=True)
