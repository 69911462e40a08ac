import numpy as np
from PIL import Image

from bundle.cohort.case_views import view_case
from bundle.drawing.slices import to_radiological
from scripts.data.case_files import Case


def test_picture_is_drawn_in_its_own_orientation(tmp_path):
    array = np.zeros((20, 30), np.uint8)
    array[2, 3] = 200  # up and to the left
    Image.fromarray(array).save(tmp_path / "a.png")
    view = view_case(Case("a", [tmp_path / "a.png"]))
    contact = to_radiological(view["image"][0])
    assert np.argwhere(contact > 100).tolist() == [[2, 3]]
    assert view["spacing"] is None


def test_ignored_voxels_are_drawn_as_background(tmp_path):
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[0, 1], [255, 255]], np.uint8)).save(tmp_path / "a_mask.png")
    view = view_case(Case("a", [tmp_path / "a.png"], tmp_path / "a_mask.png"), ignore=255)
    assert sorted(view["label"].ravel().tolist()) == [0, 0, 0, 1]
