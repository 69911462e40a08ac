"""Weights of foreign encoders, trained on photographs or other scans, for a part of a network."""

import itertools
import os
from collections.abc import Iterator, Mapping
from urllib.error import URLError

import torch
from monai.networks.nets import FlexibleUNet
from torch import nn

from scripts.errors import InputError
from scripts.network.weights import read_weights

SMALLEST_SHARE = 0.5  # of the tensors of a file that must fit: fewer are another encoder
OTHER_NAMES = (("", ""), (".fc1.", ".linear1."), (".fc2.", ".linear2."))  # of layers, in files and in MONAI
PRETRAINED_CHANNELS = {2: 3, 3: 1}  # by axes: photographs, and scans of MedicalNet


def load_encoder(network: nn.Module, source: str | os.PathLike | Mapping[str, torch.Tensor] | None) -> nn.Module:
    """Copy the weights of a foreign encoder into a network, in place; returns the network.

    The encoder is that part of the network into which most tensors fit by name and shape, whatever its prefix is there
    and in the file. The first convolution is adapted to the network's channels: its mean over input channels, scaled so
    that equal channels give the same sum.

    Args:
        network: any.
        source: a file with a state dictionary (torchvision, timm's ResNet, MedicalNet, the self-supervised encoder of
            Swin UNETR), the dictionary itself, or None.

    Raises:
        InputError: fewer than half of the file's tensors fit.
    """
    if source is None:
        return network
    given = source if isinstance(source, Mapping) else read_weights(source)
    own = network.state_dict()
    taken = max((_fitting(given, own, *prefixes) for prefixes in _prefixes(given, own)), key=len)
    where = "the downloaded encoder" if isinstance(source, Mapping) else str(source)
    if len(taken) < SMALLEST_SHARE * len(given):
        raise InputError(
            f"{where} fits only {len(taken)} of its {len(given)} tensors into {type(network).__name__}: expected the"
            " weights of its encoder, with the names of torchvision or MONAI; give the file of the same architecture."
        )
    network.load_state_dict({**own, **taken})
    rest = len(own) - len(taken)
    print(
        f"encoder_weights {where}: {len(taken)} of its {len(given)} tensors fit, {rest} of the network start at random"
    )
    return network


def _prefixes(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs of what all names in the file begin with, and what names of a part of the network begin with."""
    shared = [""]
    while len({first := name[len(shared[-1]) :].partition(".")[0] for name in given}) == 1 and first:
        shared.append(f"{shared[-1]}{first}.")
    parts = {"", *(".".join(key.split(".")[:end]) + "." for key in own for end in range(1, key.count(".") + 1))}
    yield from itertools.product(shared, sorted(parts))


def _fitting(
    given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], shared: str, part: str
) -> dict[str, torch.Tensor]:
    """The tensors that fit if `part` takes the place of `shared` in their names."""
    found = {}
    for name, tensor in given.items():
        for old, new in OTHER_NAMES:
            place = part + name.removeprefix(shared).replace(old, new)
            if place in own and _fits(tensor, own[place]):
                same = tensor.shape == own[place].shape
                found[place] = tensor if same else _adapt_channels(tensor, own[place].shape[1])
    return found


def _fits(tensor: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether shapes are equal, or differ in the input channels of a convolution of an image alone."""
    if tensor.shape == own.shape:
        return True
    of_image = tensor.dim() == own.dim() > 3 and tensor.shape[1] in PRETRAINED_CHANNELS.values()
    return of_image and tensor.shape[0] == own.shape[0] and tensor.shape[2:] == own.shape[2:]


def _adapt_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    mean = weight.mean(1, keepdim=True) * weight.shape[1] / channels
    return mean.repeat(1, channels, *[1] * (weight.dim() - 2))


def download_encoder(backbone: str, axes: int) -> dict[str, torch.Tensor]:
    """The weights of an encoder of MONAI's FlexibleUNet, from the library's own source.

    Args:
        backbone: `efficientnet-b0` to `b8` (ImageNet, 2 axes), or `resnet10` to `resnet200` (MedicalNet, 3 axes).
        axes: 2 or 3.

    Raises:
        InputError: it cannot be downloaded.
    """
    try:
        network = FlexibleUNet(PRETRAINED_CHANNELS[axes], 1, backbone, pretrained=True, spatial_dims=axes)
    except (OSError, URLError, ImportError, NotImplementedError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"the weights of {backbone} cannot be downloaded ({reason}): give a file, --encoder_weights FILE, or start"
            " at random, --encoder_weights None."
        ) from error
    return network.encoder.state_dict()
