"""Resampling where other software has put its own entries next to the image."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Spacingd


class MonaiLabelSpacingd(Spacingd):
    """MONAI's `Spacingd`, blind to entries that are no images and no metadata.

    `Spacingd` of MONAI 1.6.1 calls `update` on every entry whose name starts with `image_`, as if it held metadata;
    MONAI Label puts the file's name there, as `image_path`.

    Args:
        others: arguments of `Spacingd`.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample each key; what has no `update` is handed on untouched."""
        seen = {name: value for name, value in data.items() if name in self.keys or hasattr(value, "update")}
        return {**data, **super().__call__(seen, lazy)}
