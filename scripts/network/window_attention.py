"""Attention within windows of an image that shift from block to block (Swin)."""

import torch
from monai.networks.nets.swin_unetr import WindowAttention, compute_mask, window_partition, window_reverse
from torch import nn
from torch.nn import functional

FIRST_SCALE = 0.1  # of what a block adds to its input, before training
FEATURES_PER_HEAD = 32
MLP_RATIO = 4


class WindowBlock(nn.Module):
    """Attention among the pixels of a window, then an MLP of each pixel, both added to the input with learned scales.

    Args:
        features: C.
        window: its side in pixels.
        shifted: windows start half a side earlier, across those of the other blocks; pixels of opposite borders that
            meet in a window do not see each other.

    Shapes: [B, C, H, W], unchanged; an image is padded with zeros to a multiple of the window.

    Source: Liu et al. 2021, https://arxiv.org/abs/2103.14030; the scales: Touvron et al. 2021 (LayerScale).
    """

    def __init__(self, features: int, window: int = 8, shifted: bool = False) -> None:
        super().__init__()
        self.window, self.shift = (window, window), window // 2 if shifted else 0
        most = max(1, features // FEATURES_PER_HEAD)
        heads = next(number for number in range(most, 0, -1) if features % number == 0)
        self.norm, self.mlp_norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attention = WindowAttention(features, heads, self.window, qkv_bias=True)
        self.mlp = nn.Sequential(
            nn.Linear(features, MLP_RATIO * features), nn.GELU(), nn.Linear(MLP_RATIO * features, features)
        )
        self.attention_scale = nn.Parameter(torch.full([features], FIRST_SCALE))
        self.mlp_scale = nn.Parameter(torch.full([features], FIRST_SCALE))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The image with what the block adds to it."""
        pixels = image.movedim(1, -1)  # [B, H, W, C]
        pixels = pixels + self.attention_scale * self._attend(self.norm(pixels))
        pixels = pixels + self.mlp_scale * self.mlp(self.mlp_norm(pixels))
        return pixels.movedim(-1, 1).contiguous()

    def _attend(self, pixels: torch.Tensor) -> torch.Tensor:
        batch, high, wide, features = pixels.shape
        down, right = (-size % side for size, side in zip((high, wide), self.window, strict=True))
        pixels = functional.pad(pixels, (0, 0, 0, right, 0, down))
        grid, mask = (batch, high + down, wide + right), None
        if self.shift:
            pixels = pixels.roll((-self.shift, -self.shift), dims=(1, 2))
            mask = compute_mask(grid[1:], self.window, (self.shift, self.shift), pixels.device).to(pixels.dtype)
        windows = self.attention(window_partition(pixels.contiguous(), self.window), mask)
        pixels = window_reverse(windows.reshape(-1, *self.window, features), self.window, grid)
        if self.shift:
            pixels = pixels.roll((self.shift, self.shift), dims=(1, 2))
        return pixels[:, :high, :wide]
