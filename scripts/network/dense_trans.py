"""A U-Net++ of depthwise-separable blocks for slices, with attention in windows and gates on its skip connections."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import nn
from torch.nn import functional

from scripts.errors import InputError
from scripts.network.window_attention import WindowBlock

GATES = {"none": (), "single": (3,), "multi": (3, 5)}  # sizes of the convolutions of an attention gate
MOST_HEADS = 4


class SeparableConvolution(nn.Sequential):
    """A convolution of each channel, one of each pixel, norm, activation and dropout: [B, C, H, W] to [B, F, H, W].

    A ninth of the weights of a full convolution (Chollet 2017, https://arxiv.org/abs/1610.02357).
    """

    def __init__(self, in_channels: int, features: int, norm: Any, act: Any, dropout: float | None) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, features, 1, bias=False),
            get_norm_layer(norm, spatial_dims=2, channels=features),
            get_act_layer(act),
            nn.Dropout2d(dropout or 0.0),
        )


class DenseNode(nn.Module):
    """A node of the network: two separable convolutions, then attention blocks, if it has any.

    Args:
        in_channels: C.
        features: F.
        norm: of MONAI's names.
        act: of MONAI's names.
        dropout: share of the features; None: none.
        residual: add the input, projected to F channels.
        blocks: of attention, every second one shifted.
        window: side of the windows, in pixels.

    Shapes: [B, C, H, W] to [B, F, H, W].
    """

    def __init__(
        self,
        in_channels: int,
        features: int,
        norm: Any,
        act: Any,
        dropout: float | None,
        residual: bool = False,
        blocks: int = 0,
        window: int = 8,
    ) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            SeparableConvolution(in_channels, features, norm, act, dropout),
            SeparableConvolution(features, features, norm, act, dropout),
        )
        self.projection = nn.Conv2d(in_channels, features, 1, bias=False) if residual else None
        self.attention = nn.Sequential(*(WindowBlock(features, window, bool(k % 2)) for k in range(blocks)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Features [B, F, H, W]."""
        found = self.convolutions(image)
        return self.attention(found if self.projection is None else found + self.projection(image))


class SkipGate(nn.Module):
    """Weighs the pixels of a skip connection by what the deeper level sees there.

    Args:
        skip: channels of the skip connection.
        signal: channels of the deeper level's features.
        features: between.
        kernels: sizes of the convolutions, in parallel.

    Shapes: skip [B, S, H, W], signal [B, D, H, W] on the same grid; returns the skip, weighed 0 to 1.

    Source: Oktay et al. 2018, https://arxiv.org/abs/1804.03999, here with convolutions that see the surroundings.
    """

    def __init__(self, skip: int, signal: int, features: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(skip + signal, features, k, padding=k // 2) for k in kernels)
        self.weight = nn.Conv2d(features, 1, 1)

    def forward(self, skip: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """The weighed skip connection."""
        both = torch.cat([skip, signal], 1)
        found = torch.stack([branch(both) for branch in self.branches]).sum(0)
        return skip * self.weight(found.relu()).sigmoid()


class DenseTrans(nn.Module):
    """U-Net++ in two dimensions: each node sees all earlier nodes of its level, and the deeper one, upsampled.

    Args:
        in_channels: C; of neighbouring slices too, if it is in a `scripts.network.slab.SlabNetwork`.
        out_channels: K.
        filters: features of each level, at least two.
        norm: of MONAI's names; layer norm is [group, {num_groups: 1}].
        act: of MONAI's names.
        dropout: share of the features of each convolution; None: none.
        residual: each node adds its input.
        attention_levels: how many of the deepest levels have attention blocks in their first node.
        attention_blocks: in each of these, every second one with shifted windows.
        window: side of the attention windows, in pixels.
        gates: on the skip connections: none, single (3 x 3) or multi (3 x 3 and 5 x 5).
        heads: in training, up to four: the last nodes of the finest level.

    Shapes: [B, C, H, W] to [B, K, H, W]; in training with several heads a list of them, the most accurate one last.
        H and W may be any number from 2 ** (levels - 1).

    Source: Zhou et al. 2018, https://arxiv.org/abs/1807.10165.

    Raises:
        InputError: a setting is none of the above.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int],
        norm: Any = ("instance", {"affine": True}),
        act: Any = "relu",
        dropout: float | None = None,
        residual: bool = False,
        attention_levels: int = 0,
        attention_blocks: int = 2,
        window: int = 8,
        gates: str = "none",
        heads: int = 1,
    ) -> None:
        super().__init__()
        most = min(MOST_HEADS, len(filters) - 1)
        if len(filters) < 2 or gates not in GATES or not 1 <= heads <= most:
            raise InputError(
                f"DenseTrans has {len(filters)} levels, gates {gates!r} and {heads} heads: expected two levels or more,"
                f" gates of {', '.join(GATES)}, and 1 to {MOST_HEADS} heads, fewer than levels."
            )
        self.levels, self.head_columns = len(filters), range(len(filters) - heads, len(filters))
        self.nodes, self.gates = nn.ModuleDict(), nn.ModuleDict()
        for level, features in enumerate(filters):
            for column in range(self.levels - level):
                before = in_channels if level == 0 else filters[level - 1]
                blocks = attention_blocks if level >= self.levels - attention_levels and column == 0 else 0
                if column:
                    before = column * features + filters[level + 1]
                    if GATES[gates]:
                        gate = SkipGate(column * features, filters[level + 1], max(4, features // 2), GATES[gates])
                        self.gates[f"{level}_{column}"] = gate
                node = DenseNode(before, features, norm, act, dropout, residual, blocks, window)
                self.nodes[f"{level}_{column}"] = node
        self.heads = nn.ModuleDict(
            {str(column): nn.Conv2d(filters[0], out_channels, 1) for column in self.head_columns}
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits [B, K, H, W], in training those of all heads."""
        found: list[list[torch.Tensor]] = []  # by level and column
        for level in range(self.levels):
            finer = functional.max_pool2d(found[level - 1][0], 2) if level else image
            found.append([self.nodes[f"{level}_0"](finer)])
        for column in range(1, self.levels):
            for level in range(self.levels - column):
                skip = torch.cat(found[level], 1)
                deeper = functional.interpolate(found[level + 1][column - 1], skip.shape[2:], mode="bilinear")
                name = f"{level}_{column}"
                skip = self.gates[name](skip, deeper) if name in self.gates else skip
                found[level].append(self.nodes[name](torch.cat([skip, deeper], 1)))
        if not self.training:
            last = self.levels - 1
            return self.heads[str(last)](found[0][last])
        logits = [self.heads[str(column)](found[0][column]) for column in self.head_columns]
        return logits if len(logits) > 1 else logits[0]
