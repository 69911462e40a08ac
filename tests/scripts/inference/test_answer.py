"""What is said of one scan: sides where they are known alone."""

import numpy as np
import pytest

from scripts.data.images import GridImage
from scripts.data.nifti import SIDES_UNKNOWN
from scripts.inference.answer import measure_answer

SETTINGS = {"regions": {"WT": [1]}, "labels": {"WT": 1}, "labels_out": {"WT": 1}, "decision": "regions"}
UNKNOWN = [{"name": "header", "status": "note", "sentence": f"The header of a file is doubtful: {SIDES_UNKNOWN}."}]


@pytest.mark.parametrize(
    ("affine", "checks", "side"),
    [(np.diag([2.0, 2.0, 2.0, 1.0]), [], "left"), (np.diag([2.0, 2.0, 2.0, 1.0]), UNKNOWN, None), (None, [], None)],
)
def test_a_side_is_given_where_the_header_knows_it(affine, checks, side):
    grid = np.indices((40, 40, 40))
    scan = np.where(np.linalg.norm(grid - 19.5, axis=0) < 15, 100.0 + grid[1], 0.0).astype(np.float32)
    mask = (np.linalg.norm(grid - np.array([10, 20, 20])[:, None, None, None], axis=0) < 4).astype(np.uint8)
    answer = measure_answer("a", GridImage(mask, affine), scan, checks, SETTINGS)
    assert [lesion["side"] for lesion in answer["lesions"]] == [side]
