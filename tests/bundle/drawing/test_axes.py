"""Outlines of masks."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from bundle.drawing.axes import outline_mask


@pytest.mark.parametrize("closed", [True, False])
def test_outline_is_closed_at_the_image_border_only_on_request(closed):
    mask = np.zeros((6, 8), bool)
    mask[:3, 2:5] = True
    cell = Figure().subplots()
    cell.imshow(mask)
    outline_mask(cell, mask, "red", 1.0, closed=closed)
    assert (cell.get_xlim(), cell.get_ylim()) == ((-0.5, 7.5), (5.5, -0.5))
    highest = min(path.vertices[:, 1].min() for path in cell.collections[0].get_paths())
    assert highest == (-0.5 if closed else 0)
