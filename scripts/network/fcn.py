"""Fully convolutional networks on VGG-16, in two dimensions."""

from collections.abc import Sequence

import torch
from torch import nn

from scripts.errors import InputError

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of the five levels of VGG-16
POOL3, POOL4 = 17, 24  # layers up to the pooling of these levels
STRIDES = (8, 16, 32)


class SkipFCN(nn.Module):
    """FCN-32s, FCN-16s or FCN-8s: coarse scores, upsampled and added to those of finer levels.

    The convolutions of VGG-16 are named as torchvision names them, so that its weights fit. Each image is padded by the
    convolutions, not by 100 pixels; upsampling starts as bilinear interpolation and is learned.

    Args:
        in_channels: C.
        out_channels: K.
        filters: features of the five levels.
        head_features: of the two layers that replace VGG's classifier.
        stride: pixels between the scores that are upsampled at last: 32, 16 (adds those of pool4) or 8 (and of pool3).
        dropout: in the two layers of the head.

    Shapes: [B, C, H, W] to [B, K, H, W]; H and W are multiples of 32.

    Source: Long, Shelhamer and Darrell 2015, https://arxiv.org/abs/1411.4038.

    Raises:
        InputError: the stride is none of the three, or there are not five levels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = (64, 128, 256, 512, 512),
        head_features: int = 4096,
        stride: int = 8,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if stride not in STRIDES or len(filters) != len(CONVOLUTIONS):
            raise InputError(
                f"the FCN has stride {stride} and {len(filters)} levels: expected a stride of 8, 16 or 32 and five."
            )
        layers: list[nn.Module] = []
        before = in_channels
        for features, count in zip(filters, CONVOLUTIONS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(before, features, 3, padding=1), nn.ReLU(inplace=True)]
                before = features
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Conv2d(filters[4], head_features, 7, padding=3), nn.ReLU(inplace=True), nn.Dropout2d(dropout),
            nn.Conv2d(head_features, head_features, 1), nn.ReLU(inplace=True), nn.Dropout2d(dropout),
            nn.Conv2d(head_features, out_channels, 1),
        )  # fmt: skip
        skipped = {32: (), 16: (3,), 8: (3, 2)}[stride]  # levels whose scores are added
        self.skips = nn.ModuleList(nn.Conv2d(filters[level], out_channels, 1) for level in skipped)
        self.doublings = nn.ModuleList(upsampling(out_channels, 2) for _ in self.skips)
        self.last = upsampling(out_channels, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [B, K, H, W]."""
        pool3 = self.features[:POOL3](image)
        pool4 = self.features[POOL3:POOL4](pool3)
        scores = self.head(self.features[POOL4:](pool4))
        for skip, double, level in zip(self.skips, self.doublings, (pool4, pool3), strict=False):
            scores = double(scores) + skip(level)
        return self.last(scores)


def upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution of each channel by itself that starts as bilinear interpolation by an even factor."""
    layer = nn.ConvTranspose2d(
        channels, channels, 2 * factor, stride=factor, padding=factor // 2, groups=channels, bias=False
    )
    places = torch.arange(2 * factor)
    line = 1 - (places - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        layer.weight.copy_(line[:, None] * line[None])
    return layer
