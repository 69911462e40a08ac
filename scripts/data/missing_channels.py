"""Channels that a scan may lack: left out at random in training, filled with 0 in a scan that does not have them.

A network can only do without a channel if it was trained to, as Havaei et al. (HeMIS, MICCAI 2016) and the missing
modality literature since have found; a value of 0 everywhere, as in the background, is how it knows.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform

from scripts.data.batch_transform import BatchTransform
from scripts.errors import InputError


def list_given(channels: Sequence[str], optional: Sequence[str], without: Sequence[str]) -> list[str]:
    """The channels that a scan must have: all but those that it is segmented without.

    Args:
        channels: of the network.
        optional: those that were left out at random in training.
        without: those that are left out now.

    Raises:
        InputError: the network was not trained without one of them, or none is left.
    """
    without = [without] if isinstance(without, str) else list(without)
    for name in without:
        if name not in channels:
            raise InputError(f"channel {name} cannot be left out: the network has {', '.join(channels)}.")
        if name not in optional:
            known = f"it may lack {', '.join(optional)}" if optional else "train one with the recipe channel_dropout"
            raise InputError(f"this network was not trained without {name}: give that channel; {known}.")
    given = [name for name in channels if name not in without]
    if not given:
        raise InputError(f"all channels are left out ({', '.join(without)}): give one of them.")
    return given


def refuse_dependent_channels(
    channels: Sequence[str], optional: Sequence[str], derived: Mapping[str, Mapping[str, Any]], context: int
) -> None:
    """Refuse optional channels that do not exist, or whose content another channel of the network would show.

    Raises:
        InputError: names the channel and the setting.
    """
    for name in optional:
        if name not in channels:
            raise InputError(f"optional_channels has {name}: expected names among {', '.join(channels)}.")
        if shown := next((own for own, entry in derived.items() if entry["of"] == name), None):
            raise InputError(
                f"optional_channels has {name}, which derived channel {shown} is computed from: take one of them out."
            )
    if optional and context:
        raise InputError(
            f"optional_channels is {', '.join(optional)}, and context {context} would show the network what was left"
            " out: set one of them only."
        )


class RandDropChannelsd(BatchTransform):
    """Set whole channels of a patch [C, ...] to 0 at random, each with the same probability, but never all.

    Args:
        keys: of images; further channels after those of the files stay.
        channels: names of the channels of the files, in order.
        optional: those that may be left out.
        prob: of leaving out each of them.

    Raises:
        InputError: the probability is not from 0 to below 1.
    """

    def __init__(self, keys: KeysCollection, channels: Sequence[str], optional: Sequence[str], prob: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        if not 0 <= prob < 1:
            raise InputError(f"channel_dropout is {prob}: expected a probability from 0 to below 1.")
        self.channels, self.prob = list(channels), prob
        self.places = [self.channels.index(name) for name in optional]

    def draw(self, image: torch.Tensor) -> Sequence[float] | None:
        """1 for each channel that is left out, else 0; None if none is."""
        dropped = [place for place in self.places if self.R.random() < self.prob]
        if len(dropped) == len(self.channels):
            dropped.pop(self.R.randint(len(dropped)))
        return [float(place in dropped) for place in range(len(image))] if dropped else None

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, drawn: Sequence[Sequence[float]]) -> torch.Tensor:
        return images.masked_fill(numbers.reshape(*numbers.shape, *[1] * (images.dim() - 2)) > 0, 0)


class ZeroChannelsd(MapTransform):
    """Set the channels that a scan lacks to 0 after normalisation, which may have given them another value.

    Args:
        keys: of images [C, ...].
        channels: names of the channels of the files, in order.
        without: those that the scan lacks.
    """

    def __init__(self, keys: KeysCollection, channels: Sequence[str], without: Sequence[str]) -> None:
        super().__init__(keys)
        self.places = [list(channels).index(name) for name in without]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change each key."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            changed[key][self.places] = 0
        return changed


def fill_channels(given: MetaTensor, channels: Sequence[str], without: Sequence[str]) -> MetaTensor:
    """The scan [C, ...] with 0 in the channels that it lacks, from those that it has, in order."""
    if not without:
        return given
    whole = torch.zeros((len(channels), *given.shape[1:]), dtype=given.dtype, device=given.device)
    whole[[place for place, name in enumerate(channels) if name not in without]] = given.as_tensor()
    return MetaTensor(whole, meta=given.meta)


def describe_costs(without: Sequence[str], costs: Mapping[str, Mapping[str, Any]]) -> str:
    """What a scan without these channels means for its mask, in a sentence.

    Args:
        without: names of channels.
        costs: by names, joined by ", ": `patients`, and `dice`: region to its mean fall (`evaluate --without`).
    """
    named = ", ".join(without)
    start = f"{named} {'was' if len(without) == 1 else 'were'} not given, which the network was trained for"
    if (measured := costs.get(named)) is None:
        return f"{start}; what that costs was not measured."
    regions = ", ".join(f"{region} by {fall:.2f}" for region, fall in measured["dice"].items())
    return f"{start}: the mean Dice of {measured['patients']} patients falls without, {regions}."
