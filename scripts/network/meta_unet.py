"""A 3D U-Net that also says which regions a patch holds, and compares voxels with prototypes of the regions."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from scripts.network.prototypes import PrototypeHead

GROUPS = 8
OPEN = 2.0  # added to the logit of the gate, which lets most of the features pass before training


class DilatedBlock(nn.Module):
    """A convolution and a dilated one, with group norm, added to the input: [B, C, ...] to [B, F, ...], three axes.

    Args:
        in_channels: C.
        features: F.
        dilation: of the second convolution, in voxels.
        stride: of the first one.
        dropout: share of the features; None: none.
    """

    def __init__(
        self, in_channels: int, features: int, dilation: int = 2, stride: int = 1, dropout: float | None = None
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(in_channels, features, 3, stride, padding=1, bias=False),
            _group_norm(features),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Dropout3d(dropout or 0.0),
            nn.Conv3d(features, features, 3, padding=dilation, dilation=dilation, bias=False),
            _group_norm(features),
        )
        same = in_channels == features and stride == 1
        self.skip = nn.Identity() if same else nn.Conv3d(in_channels, features, 1, stride, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Features [B, F, ...]."""
        return functional.leaky_relu(self.body(image) + self.skip(image), 0.01)


class MetaUNet3D(nn.Module):
    """Residual dilated U-Net with a presence gate and head, coarse heads, and a prototype head.

    - Gate: from the deepest level, how likely tumour is there (0 to 1), upsampled and multiplied with the features of
      each level of the decoder.
    - Presence: logits of whether a patch holds each region, from mean and maximum of the deepest level.
    - Prototypes (`scripts.network.prototypes.PrototypeHead`): similarities at the second finest level, upsampled and
      added to the logits with a learned factor per region that starts at 0.

    Args:
        in_channels: C.
        out_channels: R.
        filters: features of each level, at least three.
        dropout: share of the features in each block; None: none.
        presence_gate: with the gate.
        prototypes: with the prototype head.
        prototype_features: of a voxel.
        shots: see `PrototypeHead`.
        heads: coarse ones, in training.

    Shapes: [B, C, ...] to [B, R, ...], three axes that are multiples of 2 ** (levels - 1). In training a dictionary:
        `logits`, `heads` (coarser logits, finest first), `presence` [B, R], and with prototypes `features` [B, F, ...]
        at half the resolution and `prototypes`, these features and the head, for its loss.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int],
        dropout: float | None = None,
        presence_gate: bool = True,
        prototypes: bool = True,
        prototype_features: int = 16,
        shots: int = 2,
        heads: int = 2,
    ) -> None:
        super().__init__()
        pairs = list(pairwise(filters))
        self.first = DilatedBlock(in_channels, filters[0], 1, dropout=dropout)
        self.encoder = nn.ModuleList(DilatedBlock(fine, deep, stride=2, dropout=dropout) for fine, deep in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose3d(deep, fine, 2, 2) for fine, deep in reversed(pairs))
        self.decoder = nn.ModuleList(DilatedBlock(2 * fine, fine, 1, dropout=dropout) for fine, _ in reversed(pairs))
        self.gate = nn.Conv3d(filters[-1], 1, 1) if presence_gate else None
        self.presence = nn.Linear(2 * filters[-1], out_channels)
        self.logits = nn.Conv3d(filters[0], out_channels, 1)
        self.coarse = nn.ModuleList(nn.Conv3d(fine, out_channels, 1) for fine in filters[1:-1][:heads])  # finest first
        self.prototypes = PrototypeHead(filters[1], out_channels, prototype_features, shots) if prototypes else None
        if prototypes:
            self.fusion = nn.Parameter(torch.zeros(out_channels, 1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor | dict[str, Any]:
        """Logits, in training with all other outputs."""
        skips = [self.first(image)]
        for block in self.encoder:
            skips.append(block(skips[-1]))
        features = deepest = skips.pop()
        levels: list[torch.Tensor] = []  # of the decoder, finest first
        for up, block in zip(self.ups, self.decoder, strict=True):
            features = block(torch.cat([up(features), skips.pop()], 1))
            if self.gate is not None:
                gate = functional.interpolate(self.gate(deepest), features.shape[2:], mode="trilinear")
                features = features * (gate + OPEN).sigmoid()
            levels.insert(0, features)
        logits, vectors = self.logits(levels[0]), None
        if self.prototypes is not None:
            vectors = self.prototypes(levels[1])
            similar = functional.interpolate(self.prototypes.compare(vectors), logits.shape[2:], mode="trilinear")
            logits = logits + self.fusion * similar
        if not self.training:
            return logits
        pooled = deepest.flatten(2)
        output = {
            "logits": logits,
            "heads": [head(level) for head, level in zip(self.coarse, levels[1:], strict=False)],
            "presence": self.presence(torch.cat([pooled.mean(-1), pooled.amax(-1)], 1)),
        }
        return output if vectors is None else {**output, "features": vectors, "prototypes": (vectors, self.prototypes)}


def _group_norm(features: int) -> nn.GroupNorm:
    groups = next(number for number in range(min(GROUPS, features), 0, -1) if features % number == 0)
    return nn.GroupNorm(groups, features)
