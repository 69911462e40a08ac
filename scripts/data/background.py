"""Background set to 0, where a scan has another constant around the head."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

ROUNDING = 1e-5  # of an image's range: values that differ by less are one value


class ZeroBackgroundd(MapTransform):
    """Subtract from each channel of an image [C, ...] the value of its air, where that is one value and not 0.

    Scans that were normalised before they were published hold a negative constant around the brain; what crops to the
    brain, and what normalises by it, looks for 0. Air is the value that all corners of the image have; where they
    differ by more than rounding (heads whose air is noise, pictures without a border) nothing is changed.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by the one, in float32, whose air is 0."""
        shifted = dict(data)
        for key in self.key_iterator(shifted):
            image = convert_to_tensor(shifted[key], dtype=torch.float32, track_meta=False)
            ends = (slice(None), *(slice(None, None, max(1, size - 1)) for size in image.shape[1:]))
            corners = image[ends].flatten(1)
            if bool(corners.any()):
                rounding = ROUNDING * (image.flatten(1).amax(1) - image.flatten(1).amin(1))
                air = torch.where(corners.amax(1) - corners.amin(1) <= rounding, corners[:, 0], 0)
                image = image.clone()
                for channel in air.nonzero().flatten():
                    moved = image[channel] - air[channel]
                    image[channel] = torch.where(moved.abs() <= rounding[channel], 0, moved)
                shifted[key] = convert_to_dst_type(image, shifted[key], dtype=torch.float32)[0]
        return shifted
