"""Random artefacts of MRI that MONAI does not have, computed in k-space: ghosts and motion, in one channel of a patch.

k-space is the Fourier transform of the image, which a scanner measures line by line along one axis, the phase encoding.
The channels are scans of their own, so an artefact is in one of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.transforms.utils import create_rotate, create_translate
from torch.nn import functional

from scripts.data.batch_transform import BatchTransform, matrix_for_torch

CENTRE = 0.02  # share of the lines on each side of the middle of k-space that ghosting spares: they hold the contrast
FIRST_MOVE, LAST_MOVE = (
    0.55,
    0.95,
)  # share of the lines measured before a movement: after the middle, so that the label fits


class RandGhostingd(BatchTransform):
    """Ghosts: shifted copies of the head, since every n-th line of k-space is weaker (breathing, pulsation).

    Args:
        keys: of images.
        prob: probability per patch.
        ghosts: least and largest number of copies, 2 or more.
        intensity: range of the share by which these lines are weaker, which all copies have together.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        ghosts: Sequence[int] = (2, 5),
        intensity: Sequence[float] = (0.2, 0.6),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.ghosts, self.intensity = ghosts, intensity

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        channel, axis = self.R.randint(len(image)), self.R.randint(image.dim() - 1)
        count = self.R.randint(self.ghosts[0], self.ghosts[1] + 1)
        low, high = self.intensity
        return float(channel), float(axis), float(count), self.R.uniform(low, high)

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, drawn: Sequence[Sequence[float]]) -> torch.Tensor:
        images = images.clone()
        for image, row in zip(images, drawn, strict=True):
            channel, axis, count = map(int, row[:3])
            share = torch.fft.fftfreq(image.shape[axis + 1], device=image.device)
            line = (share * len(share)).round().long()
            weaker = (line % count == 0) & (share.abs() > CENTRE)
            lines = torch.fft.fft(image[channel], dim=axis).movedim(axis, -1) * (1 - row[3] * weaker)
            image[channel] = torch.fft.ifft(lines, dim=-1).real.movedim(-1, axis)
        return images


class RandMotiond(BatchTransform):
    """Motion: the head moves during the scan, so the later lines of k-space are of another position.

    Args:
        keys: of images.
        prob: probability per patch.
        moves: number of movements.
        degrees: largest rotation of a movement about each axis.
        voxels: largest translation of a movement along each axis.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.1, moves: int = 2, degrees: float = 5.0, voxels: float = 3.0
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.moves, self.degrees, self.voxels = moves, degrees, voxels

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        axes, limit = image.dim() - 1, np.radians(self.degrees)
        numbers = [float(self.R.randint(len(image))), float(self.R.randint(axes))]
        numbers += sorted(self.R.uniform(FIRST_MOVE, LAST_MOVE, self.moves))
        for _ in range(self.moves):
            angles = self.R.uniform(-limit, limit, 3 if axes == 3 else 1).tolist()
            shift = self.R.uniform(-self.voxels, self.voxels, axes).tolist()
            matrix = np.asarray(create_rotate(axes, angles) @ create_translate(axes, shift))
            numbers += matrix_for_torch(matrix, image.shape[1:])
        return numbers

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, drawn: Sequence[Sequence[float]]) -> torch.Tensor:
        images, axes = images.clone(), images.dim() - 2
        for image, row, on_device in zip(images, drawn, numbers, strict=True):
            channel, axis = int(row[0]), int(row[1])
            still = image[channel]
            lines = torch.fft.fft(still, dim=axis).movedim(axis, -1)
            measured = torch.fft.fftfreq(lines.shape[-1], device=image.device) + 0.5  # share of the lines before
            matrices = on_device[2 + self.moves :].view(self.moves, 1, axes, axes + 1)
            for time, matrix in zip(row[2 : 2 + self.moves], matrices, strict=True):
                grid = functional.affine_grid(matrix, [1, 1, *still.shape], align_corners=False)
                moved = functional.grid_sample(still[None, None], grid, padding_mode="border", align_corners=False)[
                    0, 0
                ]
                lines = torch.where(measured < time, lines, torch.fft.fft(moved, dim=axis).movedim(axis, -1))
            image[channel] = torch.fft.ifft(lines, dim=-1).real.movedim(-1, axis)
        return images
