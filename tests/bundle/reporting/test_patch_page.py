"""The page of patches keeps to its columns."""

import numpy as np
from PIL import Image

from bundle.reporting.patch_page import write_patch_page

RNG = np.random.default_rng(0)
IMAGE = RNG.random((1, 16, 16, 16))
LABEL = IMAGE > 0.99


def width(folder, case):
    path = folder / f"{len(case)}.png"
    write_patch_page(path, [{"case": case, "image": IMAGE, "label": LABEL}], ["T1"], ["WT"], ("zscore", "volume"))
    with Image.open(path) as picture:
        return picture.width


def test_long_names_of_cases_stay_in_their_column(tmp_path):
    assert width(tmp_path, "M" * 70) == width(tmp_path, "case")
