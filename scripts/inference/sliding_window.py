"""Sliding-window inference that skips background."""

import itertools
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, Protocol

import torch
from monai.data import MetaTensor
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInfererAdapt
from monai.utils import convert_to_tensor, ensure_tuple, ensure_tuple_rep, fall_back_tuple
from torch.nn import functional

from scripts.data.input_channels import WindowChannels
from scripts.errors import InputError
from scripts.inference.view_agreement import ViewAgreement
from scripts.network import precision, shapes
from scripts.network.outputs import read_logits

FLAT_RANGE = 1e-3  # a channel that varies less in a window is constant; brain varies by about 1
MAX_WINDOWS = 4  # at once on a GPU: more gain little, and need more memory
UNKNOWN_BYTES = 1024.0  # per voxel, of a network that cannot be asked: about that of the default one
WORKSPACE = 1.5  # memory of a pass over that of its features: a DynUNet on a CPU took 1.3 to 1.8 times as much


class KeptWindows(Protocol):
    """Remembers the logits of windows, such as those that a click does not change."""

    def find(self, start: Sequence[int], size: Sequence[int]) -> torch.Tensor | None:
        """The logits [K, *size] of the window from this voxel of the scan; None if the network has to run."""

    def keep(self, start: Sequence[int], size: Sequence[int], logits: torch.Tensor) -> None:
        """Remember the logits of a window that was run."""


class MirroringSlidingWindowInferer(SlidingWindowInfererAdapt):
    """Sliding-window inference that skips background, with optional averaging over mirror images.

    A window in which every channel is constant is background: it gets the logits of background. If a
    GPU cannot hold the result, it is assembled in host memory (MONAI's `SlidingWindowInfererAdapt`).

    Args:
        roi_size: of a window in voxels; -1: the whole axis; `auto`: the fewest and largest windows that fit in memory.
        sw_batch_size: windows per pass of the network, mirrored ones included; `auto`: 1 on a CPU, up to `MAX_WINDOWS`
            on a GPU, as its memory allows.
        patch_size: in voxels; a size that the network accepts, needed for `auto` windows and batches.
        background_logits: those of background, by channel of the network's output; None: background is not skipped.
        window_channels: further channels of a window from its place in the scan; None: none.
        tta: average the logits over all combinations of mirrored axes: 8 in three dimensions, 4 in two.
        half: `bfloat16` or `float16`; None: single precision. Logits are assembled in the scan's type.
        observer: is called with the logits, the inputs and the network after each scan, such as
            `scripts.inference.feature_profile.FeatureObserver`.
        agreement: compares mirrored views and members of an ensemble with their mean, of one scan at a time; the
            metadata of the logits get the result.
        others: arguments of MONAI's `SlidingWindowInferer`.
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int | Literal["auto"],
        sw_batch_size: int | Literal["auto"] = 1,
        *,
        patch_size: Sequence[int] | None = None,
        background_logits: Sequence[float] | None = None,
        window_channels: WindowChannels | None = None,
        tta: bool = False,
        half: str | None = None,
        observer: Callable[[torch.Tensor, torch.Tensor, Callable], None] | None = None,
        agreement: ViewAgreement | None = None,
        **kwargs: Any,
    ) -> None:
        self.observer, self.agreement = observer, agreement
        self.kept: KeptWindows | None = None  # set for the scans of one click session
        self.auto, self.auto_batch, self.patch_size = roi_size == "auto", sw_batch_size == "auto", patch_size
        super().__init__(
            1 if roi_size == "auto" else roi_size,
            1 if sw_batch_size == "auto" else sw_batch_size,
            with_coord=True,
            **kwargs,
        )
        self.window_channels = window_channels
        self.background_logits, self.tta, self.half = background_logits, tta, half
        self.known: tuple[Any, list[int] | None, float] = (None, None, 0.0)  # a network, its divisor, bytes per voxel

    def __call__(self, inputs: torch.Tensor, network: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Logits [B, R, ...] of inputs [B, C, ...].

        Raises:
            InputError: a logit is NaN or infinite.
        """
        if self.auto:
            divisor, voxel_bytes = self.ask_network(network, inputs.shape[1])
            most = free_memory(inputs.device) / 2 / voxel_bytes
            fixed = self.patch_size or inputs.shape[2:]
            self.roi_size = fixed if divisor is None else largest_window(inputs.shape[2:], divisor, most)
        if self.auto_batch and inputs.is_cuda:
            most = free_memory(inputs.device) / 2 / self.ask_network(network, inputs.shape[1])[1]
            window = math.prod(fall_back_tuple(self.roi_size, inputs.shape[2:]))
            self.sw_batch_size = min(MAX_WINDOWS, max(1, int(most / window)))
        empty = set() if self.background_logits is None else self._find_empty_windows(inputs)
        with self.agreement.watch_members(network) if self.agreement else nullcontext():
            logits = super().__call__(inputs, partial(self._skip_empty, network, empty, inputs), *args, **kwargs)
        assert torch.is_tensor(logits)
        _require_finite_logits(logits, inputs)
        if self.agreement and len(inputs) == 1 and isinstance(logits, MetaTensor):
            logits.meta.update(self.agreement.as_metadata())
        if self.observer is not None:
            self.observer(logits, inputs, network)
        return logits

    def ask_network(self, network: Callable, channels: int) -> tuple[list[int] | None, float]:
        """What the size of a window must be a multiple of, by axis, and the memory of a pass, in bytes per voxel."""
        if not isinstance(network, torch.nn.Module) or isinstance(network, torch.jit.ScriptModule):
            return None, UNKNOWN_BYTES  # it accepts no shapes without voxels
        channels += self.window_channels.count(channels) if self.window_channels else 0
        if self.known[0] is not network:
            assert self.patch_size is not None  # it is needed for `auto`
            divisor = shapes.size_divisor(network, channels, self.patch_size) if self.auto else None  # takes seconds
            voxel_bytes = shapes.count_voxel_bytes(network, channels, self.patch_size)
            self.known = network, divisor, WORKSPACE * voxel_bytes if voxel_bytes else UNKNOWN_BYTES
        return self.known[1:]

    def _find_empty_windows(self, inputs: torch.Tensor) -> set[tuple[int, ...]]:
        """The image number and first voxel of each background window, with a single copy from the device."""
        image = convert_to_tensor(inputs, track_meta=False)
        window = fall_back_tuple(self.roi_size, image.shape[2:])
        beyond = [max(0, w - size) for w, size in zip(window, image.shape[2:], strict=True)]
        sides = [side for width in reversed(beyond) for side in (width // 2, width - width // 2)]
        image = functional.pad(image, sides, self.padding_mode, self.cval) if any(beyond) else image  # as MONAI does
        places = [(slice(None), slice(None), *place) for place in self._place_windows(image.shape[2:])]
        windows = [image[place] for place in places]
        flat = [(w.amax(_spatial(w)) - w.amin(_spatial(w)) <= FLAT_RANGE).all(1) for w in windows]
        return {
            (number, *(axis.start for axis in place[2:]))
            for place, images in zip(places, torch.stack(flat).tolist(), strict=True)
            for number, is_empty in enumerate(images)
            if is_empty
        }

    def _place_windows(self, size: Sequence[int]) -> list[tuple[slice, ...]]:
        """The places of the windows over an image of this size, which is padded to one window at least."""
        window = fall_back_tuple(self.roi_size, size)
        overlaps = ensure_tuple_rep(self.overlap, len(window))
        padded = [max(w, s) for w, s in zip(window, size, strict=True)]
        steps = [
            w if w == s else max(1, int(w * (1 - overlap)))
            for w, s, overlap in zip(window, padded, overlaps, strict=True)
        ]
        return dense_patch_slices(padded, window, steps)

    def count_window_voxels(self, size: Sequence[int]) -> int:
        """The voxels of all windows over an image of this size in voxels, background included."""
        return len(self._place_windows(size)) * math.prod(fall_back_tuple(self.roi_size, size))

    def _skip_empty(
        self,
        network: Callable,
        empty: set[tuple[int, ...]],
        inputs: torch.Tensor,
        windows: torch.Tensor,
        places: Sequence[Sequence[slice]],
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        starts = [(place[0].start, *(axis.start for axis in place[2:])) for place in places]
        if self.agreement and not any(starts[0]):  # MONAI begins again where memory did not suffice
            self.agreement.counts, self.agreement.seen = {}, []
        corners = self._place_in_scan(windows, starts, inputs)
        known: dict[int, torch.Tensor] = {}  # by the number of the window
        if any(start in empty for start in starts):
            assert self.background_logits is not None  # or no window would be skipped
            one = [1] * len(_spatial(windows))
            background = torch.stack([windows.new_full(one, value) for value in self.background_logits])  # no copy
            known = {n: background.expand(-1, *windows.shape[2:]) for n, start in enumerate(starts) if start in empty}
        if self.kept:
            found = {n: self.kept.find(corner, windows.shape[2:]) for n, corner in enumerate(corners) if n not in known}
            known |= {number: logits for number, logits in found.items() if logits is not None}
        left = [number for number in range(len(windows)) if number not in known]
        if left:
            images = windows if len(left) == len(windows) else torch.stack([windows[number] for number in left])
            if self.window_channels:
                scan = convert_to_tensor(inputs, track_meta=False)
                images = self._add_channels(images, [(starts[n][0], corners[n]) for n in left], scan)
            run = self._mirrored(network, images, *args, **kwargs)
            if self.kept:
                for number, logits in zip(left, run, strict=True):
                    self.kept.keep(corners[number], windows.shape[2:], logits)
            if not known:
                return run
            known |= dict(zip(left, run, strict=True))
        return torch.stack([known[number] for number in range(len(windows))])

    def _place_in_scan(
        self, windows: torch.Tensor, starts: Sequence[tuple[int, ...]], inputs: torch.Tensor
    ) -> list[list[int]]:
        """The first voxel of each window in the scan, negative where the scan was padded to one window."""
        padded = zip(windows.shape[2:], inputs.shape[2:], strict=True)
        before = [max(0, length - voxels) // 2 for length, voxels in padded]
        return [[a - b for a, b in zip(start[1:], before, strict=True)] for start in starts]

    def _add_channels(
        self, windows: torch.Tensor, corners: Sequence[tuple[int, Sequence[int]]], scan: torch.Tensor
    ) -> torch.Tensor:
        """The windows with the channels of their places: the image number and first voxel of each."""
        assert self.window_channels is not None
        further = [self.window_channels(scan[item], corner, windows.shape[2:]) for item, corner in corners]
        return torch.cat([windows, torch.stack(further).to(windows)], 1)

    def _mirrored(self, network: Callable, windows: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        axes = _spatial(windows) if self.tta else ()
        mirrors = [m for count in range(len(axes) + 1) for m in itertools.combinations(axes, count)]
        images = torch.cat([windows.flip(mirror) for mirror in mirrors]) if self.tta else windows
        images = precision.match_memory_format(images, network)
        with precision.autocast(windows.device, self.half):
            parts = [self._run(network, part, *args, **kwargs) for part in images.split(self.sw_batch_size)]
        if len(mirrors) == 1:
            return torch.cat(parts) if len(parts) > 1 else parts[0]
        mirrored = [*zip(torch.cat(parts).split(len(windows)), mirrors, strict=True)]
        mean = sum(logits.flip(mirror) for logits, mirror in mirrored) / len(mirrors)
        assert torch.is_tensor(mean)
        if self.agreement:
            self.agreement.count_mirrors((logits.flip(mirror) for logits, mirror in mirrored), mean)
        return mean

    def _run(self, network: Callable, images: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The logits of one pass, in the type of the images."""
        logits = read_logits(network(images, *args, **kwargs), len(_spatial(images))).to(images.dtype)
        if self.agreement:
            self.agreement.count_members(logits)
        return logits


def _require_finite_logits(logits: torch.Tensor, inputs: torch.Tensor) -> None:
    if not bool(convert_to_tensor(logits, track_meta=False).isfinite().all()):
        names = ensure_tuple(getattr(inputs, "meta", {}).get("filename_or_obj", "a scan"))
        raise InputError(
            f"the network's output for {', '.join(map(str, names))} is NaN or infinite, so its mask would be empty:"
            " the weights have diverged, or half precision overflows; give another checkpoint, or --amp False."
        )


def _spatial(windows: torch.Tensor) -> tuple[int, ...]:
    return tuple(range(2, windows.dim()))


def largest_window(size: Sequence[int], divisor: Sequence[int], voxels: float) -> list[int]:
    """The largest window of at most `voxels` voxels for a scan; the longest axis is shortened first.

    Args:
        size: of the scan, in voxels.
        divisor: each axis of the window is a multiple of it, and may be longer than the scan's.
        voxels: the most in a window; each axis has at least `divisor`.
    """
    steps = list(divisor)
    window = [-(-n // step) * step for n, step in zip(size, steps, strict=True)]
    while math.prod(window) > voxels and window != steps:
        axis = max((a for a in range(len(window)) if window[a] > steps[a]), key=lambda a: window[a])
        window[axis] -= steps[axis]
    return window


def free_memory(device: torch.device) -> float:
    """Bytes of memory that are free on a device; on a GPU with what torch holds for reuse."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
