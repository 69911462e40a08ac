"""Random deformations that MONAI does not compute for a batch: elastic ones, and quarter turns of equal axes."""

import itertools
import math
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import ensure_tuple_rep
from scipy.interpolate import BSpline
from torch.nn import functional

from scripts.data.batch_transform import BatchTransform


class RandElasticd(BatchTransform):
    """Elastic deformation of 2D and 3D patches: control points of a cubic B-spline move at random.

    Follows Ronneberger et al. 2015 and Rueckert et al. 1999.

    Args:
        keys: of the patches, all deformed alike.
        prob: probability per patch.
        spacing: voxels between control points, one number, or one per axis.
        magnitude_range: of the standard deviation of a control point's displacement along each axis, in voxels.
        mode: `bilinear` or `nearest`, one per key or one for all.
        padding_mode: of torch's `grid_sample`: `zeros`, `border` or `reflection`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        spacing: Sequence[float] | float = 32,
        magnitude_range: Sequence[float] = (1.0, 4.0),
        mode: Sequence[str] | str = "bilinear",
        padding_mode: Sequence[str] | str = "zeros",
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.spacing, self.magnitude_range = spacing, magnitude_range
        self.mode, self.padding_mode = (ensure_tuple_rep(one, len(self.keys)) for one in (mode, padding_mode))

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        low, high = self.magnitude_range
        magnitude = self.R.uniform(low, high)
        points = math.prod(_points(*pair) for pair in self._axes(image.shape[1:]))
        return (magnitude * self.R.standard_normal((image.dim() - 1) * points)).tolist()

    def _axes(self, shape: Sequence[int]) -> list[tuple[int, float]]:
        """Length and spacing of control points by axis."""
        return list(zip(shape, ensure_tuple_rep(self.spacing, len(shape)), strict=True))

    def apply(
        self, patches: dict[Hashable, torch.Tensor], numbers: torch.Tensor, drawn: Sequence[Sequence[float]]
    ) -> dict[Hashable, torch.Tensor]:
        """Sample every key at the same places, each in its own mode."""
        first = patches[self.first_key(patches)]
        axes = self._axes(first.shape[2:])
        moved = numbers.view(-1, len(axes), *(_points(*pair) for pair in axes))
        for length, spacing in axes:  # each step turns the first axis of points into a last axis of voxels
            moved = torch.tensordot(moved, _spline(length, spacing, first.device), ([2], [1]))
        whole = torch.eye(len(axes), len(axes) + 1, device=first.device).expand(len(first), -1, -1)
        grid = functional.affine_grid(whole, list(first.shape), align_corners=False)
        shifts = [moved[:, axis] * (2 / length) for axis, (length, _) in enumerate(axes)]  # torch: from -1 to 1,
        grid = grid + torch.stack(shifts[::-1], -1)  # the last axis first
        return {
            key: functional.grid_sample(patches[key], grid, mode, padding, align_corners=False)
            for key, mode, padding in self.key_iterator(patches, self.mode, self.padding_mode)
        }


def _points(length: int, spacing: float) -> int:
    """The control points that a cubic spline along an axis needs."""
    return math.ceil((length - 1) / spacing) + 3


@lru_cache(maxsize=16)
def _spline(length: int, spacing: float, device: torch.device) -> torch.Tensor:
    """The weight of each control point at each voxel of an axis, [length, points]."""
    knots = spacing * (np.arange(_points(length, spacing) + 4) - 3.0)
    weights = BSpline.design_matrix(np.arange(length, dtype=float), knots, 3).toarray()
    return torch.from_numpy(weights).to(device, torch.float32)


class RandRotate90EqualAxesd(BatchTransform):
    """Turn by 90, 180 or 270 degrees in a random plane of two axes of equal patch size and equal spacing.

    Args:
        keys: of the patches, all turned alike.
        prob: probability per patch.
        spacing: mm per axis; None: taken as equal.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.1, spacing: Sequence[float] | None = None) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.spacing = spacing

    def draw(self, image: torch.Tensor) -> Sequence[float] | None:
        """The two axes and the number of quarter turns; None without equal axes."""
        size = list(zip(image.shape[1:], self.spacing or [0.0] * (image.dim() - 1), strict=True))
        planes = [(a, b) for a, b in itertools.combinations(range(len(size)), 2) if size[a] == size[b]]
        self.randomize(None)
        if not planes or not self._do_transform:
            return None
        return *planes[self.R.randint(len(planes))], int(self.R.randint(1, 4))

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, drawn: Sequence[Sequence[float]]) -> torch.Tensor:
        turns = zip(images, drawn, strict=True)
        return torch.stack([torch.rot90(image, int(k), (int(a) + 1, int(b) + 1)) for image, (a, b, k) in turns])
