"""Sliding-window inference that skips background."""

import itertools
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInfererAdapt
from monai.utils import convert_to_tensor, ensure_tuple, ensure_tuple_rep, fall_back_tuple
from torch.nn import functional

from scripts.errors import InputError
from scripts.network import precision

BACKGROUND = -20.0  # logit of every region in a skipped window: a probability of 2e-9
FLAT_RANGE = 1e-3  # a channel that varies less in a window is constant; brain varies by about 1
MAX_WINDOWS = 4  # at once on a GPU: more gain little, and need more memory
LIVE_FEATURE_MAPS = 8  # of the first level, in memory at once: a DynUNet on a CPU peaked at 6.9 to 9.5


class MirroringSlidingWindowInferer(SlidingWindowInfererAdapt):
    """Sliding-window inference that skips background, with optional averaging over mirror images.

    A window in which every channel is constant is background: all its logits are `BACKGROUND`. If a
    GPU cannot hold the result, it is assembled in host memory (MONAI's `SlidingWindowInfererAdapt`).

    Args:
        roi_size: of a window in voxels; -1: the whole axis; `auto`: the fewest and largest windows that fit in memory.
        sw_batch_size: windows per pass of the network, mirrored ones included; `auto`: 1 on a CPU, up to `MAX_WINDOWS`
            on a GPU, as its memory allows.
        divisor: per axis, what the size of an `auto` window must be a multiple of, for the network to halve it.
        regions: logits per voxel; None: background is not skipped.
        tta: average the logits over all combinations of mirrored axes: 8 in three dimensions, 4 in two.
        half: `bfloat16` or `float16`; None: single precision. Logits are assembled in the scan's type.
        others: arguments of MONAI's `SlidingWindowInferer`.
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int | Literal["auto"],
        sw_batch_size: int | Literal["auto"] = 1,
        *,
        divisor: Sequence[int] | int = 1,
        regions: int | None = None,
        tta: bool = False,
        half: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.auto, self.auto_batch, self.divisor = roi_size == "auto", sw_batch_size == "auto", divisor
        super().__init__(
            1 if roi_size == "auto" else roi_size,
            1 if sw_batch_size == "auto" else sw_batch_size,
            with_coord=True,
            **kwargs,
        )
        self.regions, self.tta, self.half = regions, tta, half

    def __call__(self, inputs: torch.Tensor, network: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Logits [B, R, ...] of inputs [B, C, ...].

        Raises:
            InputError: a logit is NaN or infinite.
        """
        if self.auto:
            self.roi_size = largest_window(inputs.shape[2:], self.divisor, max_window_voxels(network, inputs.device))
        if self.auto_batch and inputs.is_cuda:
            window = math.prod(fall_back_tuple(self.roi_size, inputs.shape[2:]))
            self.sw_batch_size = min(MAX_WINDOWS, max(1, int(max_window_voxels(network, inputs.device) / window)))
        empty = set() if self.regions is None else self._find_empty_windows(inputs)
        logits = super().__call__(inputs, partial(self._skip_empty, network, empty), *args, **kwargs)
        assert torch.is_tensor(logits)
        _require_finite_logits(logits, inputs)
        return logits

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
        windows: torch.Tensor,
        places: Sequence[Sequence[slice]],
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        starts = [(place[0].start, *(axis.start for axis in place[2:])) for place in places]
        brain = [number for number, start in enumerate(starts) if start not in empty]
        if len(brain) == len(windows):
            return self._mirrored(network, windows, *args, **kwargs)
        assert self.regions is not None  # or no window would be skipped
        logits = windows.new_full((len(windows), self.regions, *windows.shape[2:]), BACKGROUND)
        if brain:
            found = self._mirrored(network, torch.stack([windows[number] for number in brain]), *args, **kwargs)
            for number, window in zip(brain, found, strict=True):
                logits[number] = window
        return logits

    def _mirrored(self, network: Callable, windows: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        axes = _spatial(windows) if self.tta else ()
        mirrors = [m for count in range(len(axes) + 1) for m in itertools.combinations(axes, count)]
        images = torch.cat([windows.flip(mirror) for mirror in mirrors]) if self.tta else windows
        images = precision.match_memory_format(images, network)
        with precision.autocast(windows.device, self.half):
            parts = [network(part, *args, **kwargs).to(windows.dtype) for part in images.split(self.sw_batch_size)]
        if len(mirrors) == 1:
            return torch.cat(parts) if len(parts) > 1 else parts[0]
        mirrored = torch.cat(parts).split(len(windows))
        return sum(logits.flip(mirror) for logits, mirror in zip(mirrored, mirrors, strict=True)) / len(mirrors)


def _require_finite_logits(logits: torch.Tensor, inputs: torch.Tensor) -> None:
    if not bool(convert_to_tensor(logits, track_meta=False).isfinite().all()):
        names = ensure_tuple(getattr(inputs, "meta", {}).get("filename_or_obj", "a scan"))
        raise InputError(
            f"the network's output for {', '.join(map(str, names))} is NaN or infinite, so its mask would be empty:"
            " the weights have diverged, or half precision overflows; give another checkpoint, or --amp False."
        )


def _spatial(windows: torch.Tensor) -> tuple[int, ...]:
    return tuple(range(2, windows.dim()))


def window_divisor(strides: Sequence[int | Sequence[int]], axes: int) -> list[int]:
    """Per axis, what the size of an image must be a multiple of, for the network to halve it on every level."""
    return [math.prod(s if isinstance(s, int) else s[axis] for s in strides) for axis in range(axes)]


def largest_window(size: Sequence[int], divisor: Sequence[int] | int, voxels: float) -> list[int]:
    """The largest window of at most `voxels` voxels for a scan; the longest axis is shortened first.

    Args:
        size: of the scan, in voxels.
        divisor: each axis of the window is a multiple of it, and may be longer than the scan's.
        voxels: the most in a window; each axis has at least `divisor`.
    """
    steps = [divisor] * len(size) if isinstance(divisor, int) else list(divisor)
    window = [-(-n // step) * step for n, step in zip(size, steps, strict=True)]
    while math.prod(window) > voxels and window != steps:
        axis = max((a for a in range(len(window)) if window[a] > steps[a]), key=lambda a: window[a])
        window[axis] -= steps[axis]
    return window


def max_window_voxels(network: Callable, device: torch.device) -> float:
    """Estimate of the voxels in the largest window that a network can process with half of the free memory.

    A U-Net is widest on its first level, where about `LIVE_FEATURE_MAPS` feature maps of float32 exist at once.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # cached by torch
        free = torch.cuda.mem_get_info(device)[0] + unused
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    parameters = network.parameters() if isinstance(network, torch.nn.Module) else ()
    features = next((p.shape[0] for p in parameters if p.dim() > 2), 1)
    return free / 2 / (LIVE_FEATURE_MAPS * features * 4)
