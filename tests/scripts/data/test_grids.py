"""Reading and comparing grids of NIfTI files and pictures."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scripts.data.images import grid_difference, read_image, read_labels, resample_labels
from scripts.errors import InputError


def nifti(path, voxels, affine=None) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(voxels), np.eye(4) if affine is None else affine), path)
    return path


def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
    path = nifti(tmp_path / "X.nii.gz", np.ones((30, 30, 30), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"X\.nii\.gz cannot be read as an image .*copy it again"):
        read_image(path)


def test_labels_from_a_float_file_are_whole_numbers_again(tmp_path):
    path = nifti(tmp_path / "X.nii", np.array([[[0, 0.99999994, 4.0000001]]], np.float32))
    assert read_labels(path, [1, 4]).voxels.ravel().tolist() == [0, 1, 4]


@pytest.mark.parametrize("value", [0.37, np.nan])
def test_probabilities_in_place_of_labels_are_refused(tmp_path, value):
    path = nifti(tmp_path / "X.nii", np.array([[[0, 1, value]]], np.float32))
    with pytest.raises(InputError, match=r"holds the label (0\.37|nan): labels must be whole numbers"):
        read_labels(path, [1])


def test_values_outside_the_scheme_are_named_with_the_helpful_option(tmp_path):
    path = nifti(tmp_path / "X.nii", np.array([[[0, 1, 3, -2]]], np.int16))
    with pytest.raises(InputError, match=r'holds the labels -2, 3: the scheme has 0, 1, 2, 4; .* --labels "-2=4"'):
        read_labels(path, [1, 2, 4])


def test_renamed_labels_may_change_places_and_lie_beyond_the_scheme(tmp_path):
    path = nifti(tmp_path / "X.nii", np.array([[[0, 1, 2, 300, -2]]], np.int16))
    renamed = read_labels(path, [1, 2, 4], {1: 2, 2: 1, 300: 4, -2: 0})
    assert renamed.voxels.ravel().tolist() == [0, 2, 1, 4, 0]


def test_picture_is_read_as_column_and_row_in_every_format(tmp_path):
    labels = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)  # two rows of three
    kinds = {
        "L": Image.fromarray(labels),
        "1": Image.fromarray(labels * 255).convert("1"),
        "LA": Image.fromarray(labels).convert("LA"),
        "RGB": Image.fromarray(labels).convert("RGB"),
        "RGBA": Image.fromarray(labels).convert("RGBA"),
        "I;16": Image.fromarray(labels.astype(np.uint16)),
    }
    for kind, picture in kinds.items():
        path = tmp_path / f"{kind[0]}{len(kind)}.png"
        picture.save(path)
        image = read_labels(path, [1])
        assert image.voxels.tolist() == labels.T.tolist(), kind
        assert image.affine is None
        assert image.spacing(2) == (1, 1)


def test_colour_picture_is_not_a_label_map(tmp_path):
    Image.fromarray(np.array([[[255, 0, 0]]], np.uint8)).save(tmp_path / "X.png")
    with pytest.raises(InputError, match="colour picture"):
        read_image(tmp_path / "X.png")


def test_single_slice_nifti_is_a_picture_with_spacing(tmp_path):
    path = nifti(tmp_path / "X.nii", np.ones((4, 3, 1), np.uint8), np.diag([0.5, 2, 7, 1]))
    image = read_labels(path, [1])
    assert image.voxels.shape == (4, 3)
    assert image.spacing(2) == (0.5, 2)


def test_spacing_follows_the_array_axes_in_a_rotated_scan(tmp_path):
    turned = np.array([[0, 0, 3, 5], [0.7, 0, 0, 5], [0, -1.2, 0, 5], [0, 0, 0, 1]])
    image = read_image(nifti(tmp_path / "X.nii", np.ones((4, 3, 2), np.uint8), turned))
    assert image.spacing(3) == (0.7, 1.2, 3)


def test_grids_are_the_same_within_a_small_tolerance(tmp_path):
    truth = read_image(nifti(tmp_path / "a.nii", np.ones((4, 4, 4), np.uint8)))
    for shift, said in ((5e-4, ""), (0.5, "an affine that differs from the label's by up to 0.5")):
        moved = np.eye(4)
        moved[0, 3] = shift
        found = grid_difference(truth, read_image(nifti(tmp_path / "b.nii", np.ones((4, 4, 4), np.uint8), moved)))
        assert found.startswith(said)
        assert bool(found) == bool(said)
    other = read_image(nifti(tmp_path / "c.nii", np.ones((4, 5, 4), np.uint8)))
    assert grid_difference(truth, other) == "shape 4 x 5 x 4 where the label has 4 x 4 x 4"


def test_other_orientation_and_spacing_are_described_in_words(tmp_path):
    voxels = np.ones((4, 4, 4), np.uint8)
    truth = read_image(nifti(tmp_path / "a.nii", voxels, np.diag([-1, -1, 2, 1])))
    turned = read_image(nifti(tmp_path / "b.nii", voxels, np.diag([1, -1, 2, 1])))
    assert grid_difference(truth, turned) == "axes that run to RPS where the label has LPS"
    thick = read_image(nifti(tmp_path / "c.nii", voxels, np.diag([-1, -1, 2.5, 1])))
    assert grid_difference(truth, thick) == "voxels of 1 x 1 x 2.5 mm where the label has 1 x 1 x 2 mm"


def test_nearest_neighbour_puts_a_coarse_prediction_on_the_label_grid(tmp_path):
    truth = read_image(nifti(tmp_path / "a.nii", np.zeros((8, 8, 8), np.uint8)))
    coarse = np.zeros((4, 4, 4), np.uint8)
    coarse[1, 1, 1] = 4
    centres = np.diag([2.0, 2, 2, 1])
    centres[:3, 3] = 0.5  # the centre of the first coarse voxel lies between the first two fine ones
    moved = resample_labels(read_image(nifti(tmp_path / "b.nii", coarse, centres)), truth)
    assert moved.voxels.shape == (8, 8, 8)
    assert moved.voxels[2:4, 2:4, 2:4].tolist() == np.full((2, 2, 2), 4).tolist()
    assert np.count_nonzero(moved.voxels) == 8


def test_a_picture_cannot_be_resampled(tmp_path):
    Image.fromarray(np.ones((2, 3), np.uint8)).save(tmp_path / "X.png")
    Image.fromarray(np.ones((5, 5), np.uint8)).save(tmp_path / "Y.png")
    with pytest.raises(InputError, match="no position in space"):
        resample_labels(read_image(tmp_path / "X.png"), read_image(tmp_path / "Y.png"))


def stack(path, pages) -> Path:
    first, *rest = (Image.fromarray(np.asarray(page, np.uint8)) for page in pages)
    first.save(path, save_all=True, append_images=rest)
    return path


def test_page_of_a_stack_is_one_slice(tmp_path):
    path = stack(tmp_path / "X.tif", [np.full((2, 3), value) for value in (0, 1, 2)])
    assert read_labels(f"{path}#2", [1, 2]).voxels.tolist() == np.full((3, 2), 2).tolist()
    with pytest.raises(InputError, match=r"holds 3 pages.*X\.tif#0"):
        read_image(path)
    with pytest.raises(InputError, match="so there is no page 3"):
        read_image(f"{path}#3")
