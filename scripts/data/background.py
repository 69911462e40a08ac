"""Background of scans: set to 0 where it is another constant, and the mask of the rest, the foreground."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

ROUNDING = 1e-5  # of an image's range: values that differ by less are one value


def foreground(image: torch.Tensor, above: float | None = None) -> torch.Tensor:
    """Where an image [C, ...] is not 0, or, in CT, above a value; everywhere if nowhere, so that no slice is lost."""
    voxels = convert_to_tensor(image, track_meta=False)
    mask = voxels != 0 if above is None else voxels > above
    return mask if bool(mask.any()) else torch.ones_like(mask)


class ZeroBackgroundd(MapTransform):
    """Subtract the background value from each channel of an image [C, ...], where it is constant and not 0.

    Scans that were normalised before publication have a negative constant around the brain; cropping to the brain and
    normalising by it expect 0. The background value is the one that all corners of the image share; where corners
    differ by more than rounding (heads in noisy air, pictures without a border) nothing is changed.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by a float32 one whose background is 0."""
        shifted = dict(data)
        for key in self.key_iterator(shifted):
            image = convert_to_tensor(shifted[key], dtype=torch.float32, track_meta=False)
            ends = (slice(None), *(slice(None, None, max(1, size - 1)) for size in image.shape[1:]))
            corners = image[ends].flatten(1)
            if bool(corners.any()):
                rounding = ROUNDING * (image.flatten(1).amax(1) - image.flatten(1).amin(1))
                background = torch.where(corners.amax(1) - corners.amin(1) <= rounding, corners[:, 0], 0)
                image = image.clone()
                for channel in background.nonzero().flatten():
                    moved = image[channel] - background[channel]
                    image[channel] = torch.where(moved.abs() <= rounding[channel], 0, moved)
                shifted[key] = convert_to_dst_type(image, shifted[key], dtype=torch.float32)[0]
        return shifted
