"""NRRD and MetaImage files are read as the same volumes in NIfTI."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from scripts.data.case_files import find_cases
from scripts.data.images import read_image, read_stored, write_like
from scripts.data.loading import LoadImageChannelsd
from scripts.errors import InputError
from tests.made.patient import IMAGES, save

ANGLE = np.radians(20)
OBLIQUE = nib.affines.from_matvec(
    np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]])
    @ np.diag([-1.0, 2.0, 3.0]),
    [10, -20, 30],
)
AFFINES = {"LPS": np.diag([-3.0, -3.0, 3.0, 1.0]), "oblique": OBLIQUE, "sagittal": OBLIQUE[:, [1, 2, 0, 3]]}


@pytest.fixture(params=[".nrrd", ".mha"])
def ending(request) -> str:
    return request.param


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_voxels_and_affine_are_those_of_nifti(tmp_path, ending, affine):
    path = save(tmp_path / "a.nii.gz", IMAGES[0][:, :40, :30].astype(np.float32), affine)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / f"a{ending}"), useCompression=True)
    one, other = read_image(path), read_image(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(other.voxels, one.voxels)
    np.testing.assert_allclose(other.affine, one.affine, atol=1e-4)
    assert read_stored(tmp_path / f"a{ending}")[0].notes == ()


def test_channels_of_one_file_are_its_last_axis(tmp_path, ending):
    channels = [SimpleITK.GetImageFromArray(image.T.astype(np.float32)) for image in IMAGES]
    SimpleITK.WriteImage(SimpleITK.Compose(channels), str(tmp_path / f"a{ending}"))
    loaded = LoadImageChannelsd("image", ["T1", "T1c", "T2", "FLAIR"])({"image": str(tmp_path / f"a{ending}")})
    np.testing.assert_array_equal(loaded["image"].numpy(), np.stack(IMAGES).astype(np.float32))


def test_a_truncated_file_is_refused(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(IMAGES[0].T), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=f"a{ending} cannot be read as an image"):
        read_image(path)


def test_a_header_without_space_is_noted(tmp_path):
    voxels = np.arange(24, dtype="<i2").reshape(2, 3, 4)
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nspacings: 1 1 1\nendian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + voxels.tobytes())
    image = read_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(image.voxels, voxels.T)
    assert "left and right are unknown" in image.notes[0]


def test_patterns_for_any_nifti_match_them_too(tmp_path, ending):
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / f"P1_t1{ending}").touch()
    (case,) = find_cases(tmp_path, {"T1": ["{case}/{case}_t1.nii*"]})
    assert (case.case, case.images["T1"].name) == ("P1", f"P1_t1{ending}")


def test_a_mask_is_written_as_nifti_on_their_grid(tmp_path, ending):
    image = SimpleITK.GetImageFromArray(IMAGES[0].T)
    image.SetSpacing((1, 2, 3))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{ending}"))
    write_like(tmp_path / "mask.nii.gz", (IMAGES[0] > 0).astype(np.uint8), tmp_path / f"a{ending}")
    np.testing.assert_allclose(read_image(tmp_path / "mask.nii.gz").affine, read_image(tmp_path / f"a{ending}").affine)


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\n{}endian: little\nencoding: raw\n\n"
MHA = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\n{}ElementType = MET_SHORT\nElementDataFile = LOCAL\n"


@pytest.mark.parametrize(
    ("name", "head", "sentence"),
    [
        ("a.nrrd", NRRD.format(""), "has no size of a voxel in its header"),
        ("a.mha", MHA.format(""), "has no size of a voxel in its header"),
        (
            "a.nrrd",
            NRRD.format(
                'space dimension: 3\nspace directions: (0.1,0,0) (0,0.1,0) (0,0,0.1)\nspace units: "cm" "cm" "cm"\n'
            ),
            "has the unit cm in its header",
        ),
    ],
    ids=["nrrd", "mha", "cm"],
)
def test_a_voxel_size_that_is_unknown_is_refused(tmp_path, name, head, sentence):
    (tmp_path / name).write_bytes(head.encode() + np.arange(24, dtype="<i2").tobytes())
    with pytest.raises(InputError, match=sentence):
        read_image(tmp_path / name)


def test_a_voxel_size_in_mm_is_read(tmp_path):
    (tmp_path / "a.mha").write_bytes(
        MHA.format("ElementSpacing = 2 3 4\n").encode() + np.arange(24, dtype="<i2").tobytes()
    )
    np.testing.assert_allclose(nib.affines.voxel_sizes(read_image(tmp_path / "a.mha").affine), [2, 3, 4])
