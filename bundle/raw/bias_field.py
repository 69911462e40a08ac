"""Removal of the bias field from one channel of a head, by N4."""

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_erosion

from bundle.raw.volumes import resample, to_itk, to_voxels
from scripts.data.artefact_removal import estimate_gain
from scripts.data.images import GridImage
from scripts.errors import InputError

NEGATIVE_SHARE = 0.05  # of the head; interpolation leaves a few, a normalised scan has half


def remove_bias_field(image: GridImage, head: sitk.Image, name: str) -> tuple[GridImage, float]:
    """A channel without its bias field, float32, and how far the gain varied in the head: 99th by 1st percentile.

    Args:
        image: the channel, [H, W, D].
        head: the mask of the head, on any grid (`bundle.raw.volumes.find_head`).
        name: of the channel, for messages.

    Raises:
        InputError: the channel has negative voxels in the head: it was normalised.
    """
    voxels = image.voxels.astype(np.float32)
    inside = to_voxels(resample(head, to_itk(image._replace(voxels=voxels)))) > 0
    core = binary_erosion(inside, iterations=2)  # voxels at the border are partly air
    inside = core if core.any() else inside
    share = float((voxels[inside] < 0).mean()) if inside.any() else 0.0
    if share > NEGATIVE_SHARE:
        raise InputError(
            f"channel {name} is negative in {share:.0%} of the head: the bias field is removed from the intensities of"
            " the scanner, and these were normalised; give the scans as they were before."
        )
    fitted = inside & (voxels > 0)
    gain = estimate_gain(voxels, fitted)
    low, high = np.percentile(gain[fitted], [1, 99])
    return image._replace(voxels=voxels / gain), float(high / low)
