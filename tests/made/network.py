"""The network of the configs, small."""

import torch
from monai.networks.nets import DynUNet


def network(heads: bool = False, seed: int = 0, filters=(4, 8, 8, 8), out: int = 3, channels: int = 4) -> DynUNet:
    """The network of inference.yaml, small."""
    torch.manual_seed(seed)
    strides = [1] + [2] * (len(filters) - 1)
    return DynUNet(
        3,
        channels,
        out,
        [3] * len(filters),
        strides,
        strides[1:],
        filters=list(filters),
        deep_supervision=heads,
        deep_supr_num=1,
    )
