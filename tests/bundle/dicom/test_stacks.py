"""Series of DICOM files become the volumes that they were made of, or are refused with positions."""

import shutil

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest

from bundle.dicom.stacks import holds_dicom, read_studies, require_even_slices
from bundle.dicom.volumes import read_stack, write_stack
from scripts.data.images import read_image
from tests.made import refused
from tests.made.dicom import write_series

VOXELS = np.random.default_rng(0).integers(0, 900, (20, 24, 12)).astype(float)
ANGLE = np.radians(20)
TURN = np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]])
AXIAL = nib.affines.from_matvec(np.diag([-1.5, -1.25, 3.0]), [40, 50, -30])
AFFINES = {
    "axial": AXIAL,
    "sagittal": nib.affines.from_matvec(np.array([[0, 0, 2.0], [-1.0, 0, 0], [0, -1.5, 0]]), [-20, 30, 40]),
    "oblique": nib.affines.from_matvec(TURN @ np.diag([-1.5, -1.25, 3.0]), [12, -7, 3]),
}


def only_stack(folder):
    (study,) = read_studies(folder)
    (stack,) = study.stacks
    return stack


def require_same(stack, voxels, affine):
    """The same value at each place in space, whatever the order of the axes."""
    found, of_found = read_stack(stack)
    turn = nib.orientations.ornt_transform(nib.io_orientation(of_found), nib.io_orientation(affine))
    np.testing.assert_allclose(nib.apply_orientation(found, turn), voxels, atol=1e-3)
    np.testing.assert_allclose(of_found @ nib.orientations.inv_ornt_aff(turn, found.shape), affine, atol=1e-4)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("order", ["as stored", "reversed", "shuffled"])
def test_a_series_becomes_the_volume_that_it_was(tmp_path, affine, order):
    numbers = {
        "as stored": np.arange(12),
        "reversed": np.arange(12)[::-1],
        "shuffled": np.random.default_rng(1).permutation(12),
    }
    write_series(tmp_path, VOXELS, affine, order=numbers[order].tolist())
    require_same(only_stack(tmp_path), VOXELS, affine)


def test_slope_of_the_header_is_applied(tmp_path):
    write_series(tmp_path, VOXELS * 0.5, AXIAL, slope=0.5)
    require_same(only_stack(tmp_path), VOXELS * 0.5, AXIAL)


def test_a_multi_frame_file_becomes_the_same_volume(tmp_path):
    paths = write_series(tmp_path / "single", VOXELS, AFFINES["oblique"])
    datasets = [pydicom.dcmread(path) for path in paths]
    enhanced = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        datasets, pydicom.uid.generate_uid(), 2, pydicom.uid.generate_uid(), 1
    )
    (tmp_path / "many").mkdir()
    enhanced.save_as(tmp_path / "many" / "frames.dcm")
    stack = only_stack(tmp_path / "many")
    assert stack.slices == 12
    require_same(stack, VOXELS, AFFINES["oblique"])


def test_a_written_volume_is_whole_numbers_on_the_same_grid(tmp_path):
    write_series(tmp_path / "in", VOXELS, AXIAL)
    write_stack(only_stack(tmp_path / "in"), tmp_path / "out.nii")
    image = read_image(tmp_path / "out.nii")
    assert image.voxels.dtype == np.int16
    assert image.voxels.shape == VOXELS.shape


def test_a_copied_file_counts_once(tmp_path):
    path = write_series(tmp_path, VOXELS, AXIAL)[3]
    shutil.copyfile(path, tmp_path / "again.dcm")
    assert only_stack(tmp_path).slices == 12


def test_a_missing_slice_is_refused_with_its_place(tmp_path):
    write_series(tmp_path, VOXELS, AXIAL)[5].unlink()
    sentence = refused(require_even_slices, only_stack(tmp_path))
    assert "series 1 has slices every 3.00 mm, but not from -18.0 to -12.0 mm along its normal" in sentence


def test_a_doubled_slice_is_refused_with_its_place(tmp_path):
    path = write_series(tmp_path, VOXELS, AXIAL)[5]
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.save_as(tmp_path / "double.dcm")
    assert "has two slices at -15.0 mm" in refused(require_even_slices, only_stack(tmp_path))


def test_two_echoes_of_a_series_are_two_stacks(tmp_path):
    uid = pydicom.uid.generate_uid()
    for echo in (20, 90):
        write_series(tmp_path, VOXELS, AXIAL, SeriesInstanceUID=uid, EchoTime=echo)
        for path in list(tmp_path.glob("s1-*")):
            path.rename(tmp_path / f"e{echo}{path.name}")
    (study,) = read_studies(tmp_path)
    assert [(stack.name, stack.slices) for stack in study.stacks] == [("1a", 12), ("1b", 12)]


def test_patients_in_one_folder_are_kept_apart(tmp_path):
    write_series(tmp_path, VOXELS, AXIAL, 1, PatientID="a")
    write_series(tmp_path, VOXELS, AXIAL, 2, PatientID="b")
    assert [len(study.stacks) for study in read_studies(tmp_path)] == [1, 1]


def test_other_files_are_passed_over(tmp_path):
    write_series(tmp_path, VOXELS, AXIAL)
    (tmp_path / "readme.txt").write_text("x")
    assert holds_dicom(tmp_path)
    assert only_stack(tmp_path).slices == 12
    (tmp_path / "empty").mkdir()
    assert not holds_dicom(tmp_path / "empty")
    assert "holds no MR image in DICOM" in refused(read_studies, tmp_path / "empty")


def test_a_file_cut_short_is_refused(tmp_path):
    path = write_series(tmp_path, VOXELS, AXIAL)[2]
    path.write_bytes(path.read_bytes()[:-300])
    assert "series 1 cannot be read as a volume" in refused(read_stack, only_stack(tmp_path))


def test_a_ct_is_not_taken(tmp_path):
    write_series(tmp_path, VOXELS, AXIAL, Modality="CT")
    assert "holds no MR image in DICOM" in refused(read_studies, tmp_path)
