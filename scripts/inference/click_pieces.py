"""What a click moves into a region, or out of it, where the network does not follow."""

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from scripts.data.click_channels import Prompt
from scripts.data.clicks import Click
from scripts.data.similar_voxels import find_similar_voxels

TOLERANCE = 1.0  # of intensities; see `find_similar_voxels`
NEAR = 1.0  # by which a logit may be further from what was asked for than that of the voxel clicked
REACH = 10.0  # mm from a click, at most
SURE = 20.0  # the logit of voxels that a click has set


def set_similar_voxels(image: MetaTensor, prompt: Prompt, logits: torch.Tensor, radius: float) -> dict[Click, int]:
    """Set the logits of the voxels around each click that the network did not follow, in place.

    Those that are connected with it, of similar intensity, and that the network takes for the region as the one
    clicked, or rather. How this was chosen, and what it is worth: docs/record/clicks.md.

    Args:
        image: the prepared scan [C, ...].
        prompt: the clicks.
        logits: of its region [...].
        radius: of the ball around a click, in voxels; at most `REACH`.

    Returns:
        The number of voxels of each of these clicks.
    """
    voxels, values = convert_to_tensor(image, track_meta=False).numpy(force=True), logits.numpy(force=True).copy()
    radius = min(radius, REACH / float(image.pixdim[: logits.dim()].max()))
    mask, clicked, grown = values > 0, np.zeros(values.shape, bool), dict[Click, int]()
    for click in prompt.clicks:
        clicked[click.voxel] = True
    for click in prompt.clicks:
        if mask[click.voxel] != click.positive:
            sign = 1 if click.positive else -1
            free = (mask != click.positive) & ~clicked & (sign * values >= sign * values[click.voxel] - NEAR)
            free[click.voxel] = True
            box, piece = find_similar_voxels(voxels, click.voxel, radius, free, TOLERANCE)
            mask[box][piece] = click.positive
            logits[box][torch.from_numpy(piece)] = sign * SURE
            grown |= {click: int(piece.sum())} if piece.any() else {}
    return grown
