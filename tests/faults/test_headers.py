"""Headers that contradict themselves are read by one rule, the same in every reader."""

import nibabel as nib
import numpy as np
import pytest

from scripts.data.images import write_like
from scripts.data.nifti import read_nifti
from tests.made.readers import read_by_all, refusal_of_all

CUBE = np.zeros((10, 12, 8), np.uint8)
CUBE[2:8, 3:9, 2:6] = 1
FORM = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
KEPT = (*FORM, "srow_x", "srow_y", "srow_z", "xyzt_units")


def turned(degrees: float, sizes=(1.0, 1.0, 1.0), origin=(9.0, -4.0, 2.0)) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return nib.affines.from_matvec(turn * sizes, origin)


def write(path, qform=None, sform=None, pixdim=None, voxels=CUBE, **fields):
    """A file whose header says exactly this."""
    image = nib.Nifti1Image(voxels, None)
    if qform is not None:
        image.set_qform(qform, 1)
    if sform is not None:
        image.set_sform(sform, 1)
    raw = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(raw)
    return path


def affine_of_all(path) -> np.ndarray:
    """The affine in which all readers agree."""
    answers = read_by_all(path)
    assert not [answer for answer in answers.values() if isinstance(answer, str)], answers
    for _, affine in answers.values():
        np.testing.assert_allclose(affine, answers["score"][1], atol=1e-6)
    return answers["score"][1]


def test_contradicting_voxel_sizes_are_refused_with_both(tmp_path):
    path = write(tmp_path / "a.nii", qform=np.diag([6.0, 6, 6, 1]), sform=np.eye(4))
    said = refusal_of_all(path)
    assert "pixdim gives voxels of 6 x 6 x 6 mm, the sform 1 x 1 x 1 mm" in said


@pytest.mark.parametrize("pixdim", [0.0, 1.0])
def test_pixdim_that_is_not_set_is_a_note(tmp_path, pixdim):
    sform = turned(20, (0.5, 0.5, 3.0))
    path = write(tmp_path / "a.nii", sform=sform, pixdim=pixdim)
    np.testing.assert_allclose(affine_of_all(path), sform, atol=1e-6)
    assert "pixdim is not set" in read_nifti(path).notes[0]


def test_a_sound_header_has_no_note(tmp_path):
    form = turned(20, (0.5, 0.5, 3.0))
    path = write(tmp_path / "a.nii", qform=form, sform=form)
    np.testing.assert_allclose(affine_of_all(path), form, atol=1e-6)
    assert read_nifti(path).notes == ()


def test_the_sform_counts_where_qform_lies_elsewhere(tmp_path):
    path = write(tmp_path / "a.nii", qform=turned(0), sform=turned(5))
    np.testing.assert_allclose(affine_of_all(path), turned(5), atol=1e-6)
    assert "qform lies up to" in read_nifti(path).notes[0]


def test_the_qform_counts_where_the_sform_has_no_code(tmp_path):
    path = write(tmp_path / "a.nii", qform=turned(30, (1, 2, 3)), srow_x=[9, 9, 9, 9])
    np.testing.assert_allclose(affine_of_all(path), turned(30, (1, 2, 3)), atol=1e-6)


def test_forms_that_mirror_each_other_are_refused(tmp_path):
    path = write(tmp_path / "a.nii", qform=np.diag([-1.0, 1, 1, 1]), sform=np.eye(4))
    assert "mirror each other, so that left and right are unknown" in refusal_of_all(path)


def test_without_any_form_left_and_right_are_unknown(tmp_path):
    path = write(tmp_path / "a.nii", pixdim=[1, 2, 3])
    np.testing.assert_allclose(affine_of_all(path), nib.load(path).affine)
    assert "neither sform nor qform" in read_nifti(path).notes[0]


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"sform": np.diag([1.0, 1, 0, 1])}, "its sform gives voxels of 1 x 1 x 0 mm"),
        ({"pixdim": [1, 0, 1]}, "its pixdim gives voxels of 1 x 0 x 1 mm"),
        ({"sform": np.eye(4), "srow_y": [0, np.nan, 0, 0]}, "whose sform gives no finite affine"),
        ({"sform": np.diag([1.0, 1, 2000, 1])}, "its sform gives voxels of 1 x 1 x 2000 mm"),
    ],
)
def test_voxels_of_no_size_are_refused(tmp_path, header, sentence):
    assert sentence in refusal_of_all(write(tmp_path / "a.nii", **header))


def test_sheared_axes_are_refused_with_their_angle(tmp_path):
    sheared = np.eye(4)
    sheared[0, 2] = np.tan(np.deg2rad(28))
    assert "meet at 62.0 degrees instead of 90" in refusal_of_all(write(tmp_path / "a.nii", sform=sheared))


@pytest.mark.parametrize(("code", "size"), [(1, 0.002), (3, 2000.0)])
def test_headers_in_other_units_are_read_in_mm(tmp_path, code, size):
    path = write(tmp_path / "a.nii", sform=np.diag([size, size, size, 1]), pixdim=size, xyzt_units=code)
    np.testing.assert_allclose(affine_of_all(path), np.diag([2.0, 2, 2, 1]), rtol=1e-6)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_mask_has_the_header_of_its_scan(tmp_path, name, kind):
    scan = kind(CUBE.astype(np.int16), None)
    scan.set_sform(turned(7, (1, 1.5, 3)), 4)
    scan.set_qform(turned(3, (1, 1.5, 3)), 1)
    scan.header.set_xyzt_units("mm", "sec")
    scan.header["pixdim"][4:] = 2.5
    nib.save(scan, tmp_path / name)
    write_like(tmp_path / "mask.nii.gz", CUBE, tmp_path / name)
    mask, source = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / name)
    assert {field: mask.header[field].tobytes() for field in KEPT} == {f: source.header[f].tobytes() for f in KEPT}
    assert mask.header["pixdim"].tobytes() == source.header["pixdim"].tobytes()
    np.testing.assert_array_equal(np.asarray(mask.dataobj), CUBE)


def test_a_mask_keeps_an_odd_header_to_the_bit(tmp_path):
    path = write(tmp_path / "scan.nii", sform=turned(9, (0.5, 0.5, 2)), pixdim=0, quatern_b=0.25)
    write_like(tmp_path / "mask.nii", CUBE, path)
    heads = [nib.Nifti1Header(p.read_bytes()[:348], check=False) for p in (path, tmp_path / "mask.nii")]
    assert {field: heads[1][field].tobytes() for field in KEPT} == {f: heads[0][f].tobytes() for f in KEPT}
    assert heads[1]["pixdim"].tobytes() == heads[0]["pixdim"].tobytes()
