"""The channels that a network gets: those of the files, channels derived from them, and those of a patch's place."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch.nn import functional

from scripts.errors import InputError


def name_channels(
    channels: Sequence[str],
    derived: Mapping[str, Mapping[str, Any]] | None = None,
    coordinates: bool = False,
    context: int = 0,
    axes: int = 3,
    masks: Mapping[str, int] | None = None,
    prompts: Iterable[str] = (),
) -> list[str]:
    """The name of each channel that a network gets, in order.

    Args:
        channels: of the files.
        derived: name to `of`, the channel that it is computed from, and `transform`.
        coordinates: whether there is one channel per axis with the position in the scan.
        context: factor of the coarse view of the surroundings, which has as many channels as the scan; 0: none.
        axes: of the image.
        masks: the labels of a first stage, one channel each (`scripts.data.first_stage`); name to value.
        prompts: the regions that clicks correct (`scripts.data.click_channels`).

    Raises:
        InputError: a setting is wrong.
    """
    names = list(channels)
    if not isinstance(derived or {}, Mapping):
        raise InputError(f"derived_channels is {derived!r}: expected {{NAME: {{of: CHANNEL, transform: ...}}}}.")
    for name, entry in (derived or {}).items():
        if not isinstance(entry, Mapping) or {*entry} != {"of", "transform"}:
            raise InputError(f"derived channel {name} is {entry!r}: expected `of`, a channel, and `transform`.")
        if entry["of"] not in channels:
            raise InputError(f"derived channel {name} is of {entry['of']}: expected one of {', '.join(channels)}.")
        if name in channels:
            raise InputError(f"derived channel {name} has the name of a channel of the files: give it another.")
        names.append(f"{name} (derived from {entry['of']})")
    if not isinstance(context, int) or context == 1 or context < 0:
        raise InputError(f"context is {context!r}: expected 2 or more, the factor of the field of view, or 0 for none.")
    names += [f"first stage: {name}" for name, value in (masks or {}).items() if value]
    surroundings = [f"surroundings of {name}" for name in names] if context else []
    guidance = [f"{kind} clicks on {name}" for name in prompts for kind in ("foreground", "background")]
    return [
        *names,
        *([f"position on axis {axis + 1}" for axis in range(axes)] if coordinates else []),
        *surroundings,
        *(["previous mask of the clicked region", *guidance] if guidance else []),
    ]


class DeriveChannelsd(MapTransform):
    """Append channels computed from others to images [C, ...]; background, 0 in all channels, stays 0.

    Args:
        keys: of images.
        channels: their names.
        derived: name to `of`, the name of a channel, and `transform`: a MONAI transform, which gets that channel as
            [1, ...], or another function, such as one of scikit-image, which gets it as an array [...]. Either
            returns one channel on the same grid.

    Raises:
        InputError: a setting is wrong, or a transform returns another shape, NaN or infinite voxels.
    """

    def __init__(self, keys: KeysCollection, channels: Sequence[str], derived: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(keys)
        name_channels(channels, derived)
        self.channels, self.derived = list(channels), {name: dict(entry) for name, entry in derived.items()}
        for name, entry in self.derived.items():
            if not callable(entry["transform"]):
                raise InputError(
                    f"derived channel {name} has the transform {entry['transform']!r}: expected a MONAI transform, or a"
                    " function with `_mode_: callable`."
                )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append the channels to each image."""
        appended = dict(data)
        for key in self.key_iterator(appended):
            image = convert_to_tensor(appended[key], dtype=torch.float32, track_meta=False)
            file = getattr(appended[key], "meta", {}).get("filename_or_obj", key)
            seen = (image != 0).any(0, keepdim=True)
            made = [self._derive(name, image, file) * seen for name in self.derived]
            appended[key] = convert_to_dst_type(torch.cat([image, *made]), appended[key], dtype=torch.float32)[0]
        return appended

    def _derive(self, name: str, image: torch.Tensor, file: object) -> torch.Tensor:
        transform: Callable = self.derived[name]["transform"]
        place = self.channels.index(self.derived[name]["of"])
        source = image[place : place + 1]
        if isinstance(transform, Transform):
            made = convert_to_tensor(transform(source.clone()), dtype=torch.float32, track_meta=False)
        else:
            made = torch.from_numpy(np.array(transform(source[0].numpy(force=True)), np.float32))[None].to(image.device)
        if made.shape != source.shape:
            raise InputError(
                f"derived channel {name} of {file} has shape {tuple(made.shape)}: expected {tuple(source.shape)}, one"
                " channel on the grid of the scan."
            )
        if not bool(made.isfinite().all()):
            raise InputError(f"derived channel {name} of {file} has NaN or infinite voxels: use another transform.")
        return made


class WindowChannels:
    """Channels of a patch or sliding window that depend on its place in the scan.

    Args:
        patch_size: of training in voxels; a smaller scan counts as padded to it on both sides, as training does.
        coordinates: the position of each voxel in the scan, from -1 to 1, one channel per axis.
        context: the surroundings: the field of view of the window times this factor, about the same centre, averaged
            to the window's size, one channel per channel of the image; 0 outside the scan. 0: none.
    """

    def __init__(self, patch_size: Sequence[int], coordinates: bool = False, context: int = 0) -> None:
        self.patch_size, self.coordinates, self.context = list(patch_size), coordinates, context

    def __bool__(self) -> bool:
        return bool(self.coordinates or self.context)

    def count(self, channels: int) -> int:
        """How many channels a window of an image with this many gets."""
        return channels * bool(self.context) + len(self.patch_size) * self.coordinates

    def __call__(self, image: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        """The channels [K, *size] of one window, float32.

        Args:
            image: the whole scan [C, ...] as prepared.
            start: the window's first voxel, which may lie outside the scan.
            size: of the window in voxels.
        """
        parts = [self._positions(image, start, size)] if self.coordinates else []
        parts += [self._surroundings(image, start, size)] if self.context else []
        return torch.cat(parts)

    def _positions(self, image: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        positions = []
        for axis, (first, length, voxels) in enumerate(zip(start, size, image.shape[1:], strict=True)):
            whole = max(voxels, self.patch_size[axis])
            places = torch.arange(length, device=image.device) + first + (whole - voxels) // 2 + 0.5
            shape = [-1 if other == axis else 1 for other in range(len(size))]
            positions.append((2 * places / whole - 1).clamp(-1, 1).view(shape).expand(*size))
        return torch.stack(positions)

    def _surroundings(self, image: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        factor, sums, blocks = self.context, image, [slice(None)]
        for axis, (begin, length, voxels) in enumerate(zip(start, size, image.shape[1:], strict=True), 1):
            first = begin - (factor - 1) * length // 2  # of the larger field of view
            low, high = max(0, -first // factor), min(length, -((first - voxels) // factor))  # blocks with any voxel
            left, right = first + low * factor, first + high * factor
            inside = sums.narrow(axis, max(0, left), min(voxels, right) - max(0, left))
            sides = [0, 0] * (len(size) - axis) + [max(0, -left), max(0, right - voxels)]
            padded = functional.pad(inside, sides) if any(sides) else inside
            sums = padded.unflatten(axis, (-1, factor)).sum(axis + 1, dtype=torch.float32)  # faster than pooling
            blocks.append(slice(low, high))
        coarse = image.new_zeros((len(image), *size), dtype=torch.float32)
        coarse[tuple(blocks)] = sums / factor ** len(size)
        return coarse
