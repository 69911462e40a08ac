"""A click reaches its voxel of the prepared image, whatever the grid of the scan; wrong ones get a sentence."""

import numpy as np
import pytest

from scripts.data.clicks import Click, map_voxel, read_clicks
from tests.made import refused
from tests.made.clicks import AFFINES, SHAPE, write_head

SPACINGS = {"own spacing": None, "coarser": [2.0, 2.5, 2.0], "finer": [0.8, 0.7, 1.1]}


def prepare(read_config, folder, affine, spacing, marked=None):
    config = read_config(
        "configs/inference.yaml", "configs/tasks/phantom.yaml", device="cpu", profile="$None", spacing=spacing
    )
    return config.get_parsed_content("preprocessing")({"image": write_head(folder, affine, marked)})["image"]


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
def test_click_is_at_the_nearest_voxel_in_mm(read_config, tmp_path, affine, spacing):
    image = prepare(read_config, tmp_path, affine, spacing)
    own, size = np.asarray(image.affine), image.shape[1:]
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    prepared_mm = grid @ own[:3, :3].T + own[:3, 3]
    for voxel in np.random.default_rng(1).integers([4, 3, 3], [17, 14, 12], (12, 3)):  # of the head, not of its rim
        away = np.linalg.norm(prepared_mm - (affine[:3, :3] @ voxel + affine[:3, 3]), axis=-1)
        assert away[map_voxel(voxel, affine, own, size)] == pytest.approx(away.min(), abs=1e-3)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
def test_click_on_a_bright_voxel_is_at_the_brightest(read_config, tmp_path, affine, spacing):
    marked = (12, 6, 9)
    image = prepare(read_config, tmp_path, affine, spacing, marked)
    place = map_voxel(marked, affine, np.asarray(image.affine), image.shape[1:])
    brightest = np.unravel_index(int(image[0].argmax()), image.shape[1:])
    assert np.abs(np.subtract(place, brightest)).max() <= (0 if spacing is None else 1)


def test_click_in_the_removed_background_has_no_place(read_config, tmp_path):
    image = prepare(read_config, tmp_path, AFFINES["LPS"], None)
    where = AFFINES["LPS"], np.asarray(image.affine), image.shape[1:]
    assert map_voxel((0, 0, 0), *where) is None
    assert map_voxel((2, 1, 1), *where) == map_voxel((3, 2, 2), *where)  # next to the rim


def test_clicks_are_read_once_in_their_order():
    found = read_clicks("WT", [[1, 2, 3], [4, 5, 6], [1, 2, 3]], [[7.0, 8.0, 9.0]], SHAPE)
    assert found == [Click((1, 2, 3), True), Click((4, 5, 6), True), Click((7, 8, 9), False)]


@pytest.mark.parametrize(
    ("foreground", "background", "said"),
    [
        ([], None, "no click on WT is given"),
        ([[1, 2, 3]], [[1, 2, 3]], r"voxel [1, 2, 3] is clicked as foreground and as background of WT"),
        ([[20, 2, 3]], [], "the foreground click on WT at [20, 2, 3] lies outside the scan, which has 20 x 18 x 14"),
        ([], [[1, -1, 3]], "the background click on WT at [1, -1, 3] lies outside the scan"),
        ([[1, 2]], [], "foreground clicks on WT are [[1, 2]]: expected a list of voxels of 3 indices"),
        ([1, 2, 3], [], "foreground clicks on WT are [1, 2, 3]"),
        ("1,2,3", [], "foreground clicks on WT are '1,2,3'"),
        ([[1, 2, None]], [], "expected a list of voxels"),
        (7, [], "foreground clicks on WT are 7"),
        ([[1, 2, float("nan")]], [], "expected a list of voxels"),
    ],
)
def test_wrong_clicks_get_one_sentence(foreground, background, said):
    assert said in refused(read_clicks, "WT", foreground, background, SHAPE)
