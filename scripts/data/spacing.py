"""Resampling that works with the extra entries of MONAI Label."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Spacingd


class MonaiLabelSpacingd(Spacingd):
    """MONAI's `Spacingd`, which does not see entries that are neither images nor metadata.

    `Spacingd` of MONAI 1.6.1 calls `update` on every entry whose name starts with `image_`, as if it held metadata;
    MONAI Label adds the file's name as `image_path`.

    Args:
        others: arguments of `Spacingd`.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample each key; entries without `update` are passed on unchanged."""
        seen = {name: value for name, value in data.items() if name in self.keys or hasattr(value, "update")}
        return {**data, **super().__call__(seen, lazy)}
