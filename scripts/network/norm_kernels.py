"""Triton kernels of an instance norm and a leaky ReLU over channels-last features, forward and backward.

Each sample's voxels are split into chunks, so that the few channels of a large volume keep the whole card busy. One
kernel reduces each chunk, a second one the chunks of a sample, in an order that never changes: two runs agree bit for
bit. A third goes over the voxels again, from the last chunk to the first, whose values the cache has not lost yet.
Where voxels are few, one kernel does it all: to start three would take longer than what they compute.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl

TILE = 4096  # values that a program holds at once: 16 for each of its threads
WARPS = 8  # of 32 threads
PROGRAMS = 1024  # wanted: two rounds for a card of 132 multiprocessors with four programs each
WIDTH = 64  # channels side by side in a tile: 128 bytes of half precision, a line of the cache
WHOLE = 2 * 16**3  # voxels of all samples up to which one kernel does it all
NARROW = 16  # channels side by side in there: 32 bytes of half precision, the least that memory hands out


class Tiling(NamedTuple):
    """How the voxels and channels of a batch are shared out among programs."""

    rows: int  # voxels of a chunk
    chunks: int  # of a sample; 0: one kernel does it all
    high: int  # voxels of a tile
    wide: int  # channels of a tile
    blocks: int  # of channels
    warps: int


@lru_cache(maxsize=256)
def tiling(
    samples: int,
    voxels: int,
    channels: int,
    tile: int = TILE,
    programs: int = PROGRAMS,
    warps: int = WARPS,
    whole: int = WHOLE,
) -> Tiling:
    """Chunks of whole tiles, as many as give the wanted number of programs, as far as there are tiles."""
    few = samples * voxels <= whole
    wide = min(NARROW if few else WIDTH, triton.next_power_of_2(channels))
    high, blocks = tile // wide, triton.cdiv(channels, wide)
    if few:
        return Tiling(voxels, 0, min(high, triton.next_power_of_2(voxels)), wide, blocks, warps)
    chunks = max(1, programs // (samples * blocks))
    rows = triton.cdiv(triton.cdiv(voxels, chunks), high) * high
    return Tiling(rows, triton.cdiv(voxels, rows), high, wide, blocks, warps)


def forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, slope: float, shared: Tiling | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised and rectified features, like x, and their float32 means and inverse deviations, [2, N, C].

    Args:
        x: [N, C, D, H, W], dense in channels_last_3d.
        weight: [C], as bias.
        bias: added after the weight has multiplied.
        eps: added to the variance.
        slope: factor on what is below zero.
        shared: by default what `tiling` gives.
    """
    samples, channels, *size = x.shape
    voxels = size[0] * size[1] * size[2]
    shared = shared or tiling(samples, voxels, channels)
    y, stats = torch.empty_like(x), x.new_empty((2, samples, channels), dtype=torch.float32)
    sizes = {"HIGH": shared.high, "WIDE": shared.wide, "num_warps": shared.warps}
    with _on(x):
        if not shared.chunks:
            grid = (shared.blocks, samples)
            _normalise_whole[grid](x, y, stats, weight, bias, voxels, channels, eps, slope, **sizes)
            return y, stats
        partial = x.new_empty((2, samples, shared.chunks, channels), dtype=torch.float32)
        grid = (shared.chunks, shared.blocks, samples)
        few = _few(channels)
        _chunk_moments[grid](x, partial, voxels, channels, shared.rows, **sizes)
        _moments[(triton.cdiv(channels, few["WIDE"]), samples)](
            partial, stats, voxels, channels, shared.rows, shared.chunks, eps, **few
        )
        _normalise[grid](x, y, stats, weight, bias, voxels, channels, shared.rows, slope, **sizes)
    return y, stats


def backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    stats: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    slope: float,
    shared: Tiling | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x, like x, and of weight and bias, [2, C] in float32; dy is dense in channels_last_3d, as x."""
    samples, channels, *size = x.shape
    voxels = size[0] * size[1] * size[2]
    shared = shared or tiling(samples, voxels, channels)
    dx, both = torch.empty_like(x), x.new_empty((2, channels), dtype=torch.float32)
    sizes = {"HIGH": shared.high, "WIDE": shared.wide, "num_warps": shared.warps}
    with _on(x):
        if not shared.chunks:
            _gradient_whole[(shared.blocks,)](
                dy, x, dx, stats, weight, bias, both, samples, voxels, channels, slope, **sizes
            )
            return dx, both
        partial = x.new_empty((2, samples, shared.chunks, channels), dtype=torch.float32)
        sums = x.new_empty((2, samples, channels), dtype=torch.float32)
        grid = (shared.chunks, shared.blocks, samples)
        few = _few(channels)
        _chunk_sums[grid](dy, x, stats, weight, bias, partial, voxels, channels, shared.rows, slope, **sizes)
        _sums[(triton.cdiv(channels, few["WIDE"]),)](partial, sums, both, samples, channels, shared.chunks, **few)
        _gradient[grid](dy, x, dx, stats, weight, bias, sums, voxels, channels, shared.rows, slope, **sizes)
    return dx, both


@lru_cache(maxsize=256)
def _few(channels: int) -> dict[str, int]:
    """Tiles for what is left of the chunks: 32 KiB or so by program."""
    wide = min(16, triton.next_power_of_2(channels))
    return {"HIGH": 1024 // wide, "WIDE": wide, "num_warps": 4}


def _on(x: torch.Tensor) -> AbstractContextManager:
    """Triton starts kernels on the current device, whatever its arguments are on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


# Below, a tile is HIGH voxels by WIDE channels. Offsets within a chunk fit 32 bits, that of a chunk may not. Where a
# tensor has two halves, [2, ...], the second one starts after as many values as the first one has.


@triton.jit
def _mean_and_squares(x, left, channels, columns, inside, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Mean of some rows, and the sum of squares about it.

    Squares are summed about the mean of the first tile: nothing cancels but what that tile alone differs by.
    """
    down = tl.arange(0, HIGH)
    offsets = down[:, None] * channels + columns[None, :]
    value = tl.load(x + offsets, mask=(down < left)[:, None] & inside[None, :], other=0.0).to(tl.float32)
    centre = tl.sum(value, 0) / tl.minimum(left, HIGH)
    total = tl.zeros([HIGH, WIDE], tl.float32)
    square = tl.zeros([HIGH, WIDE], tl.float32)
    for row in range(0, left, HIGH):
        mask = (row + down < left)[:, None] & inside[None, :]
        value = tl.load(x + row * channels + offsets, mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - centre[None, :], 0.0)
        total += value
        square += value * value
    summed = tl.sum(total, 0)
    away = summed / left
    return centre + away, tl.maximum(tl.sum(square, 0) - summed * away, 0.0)


@triton.jit
def _write_normalised(
    x, y, left, channels, columns, inside, centre, scale, shift, slope, HIGH: tl.constexpr, WIDE: tl.constexpr
):
    """Rows of the features themselves."""
    down = tl.arange(0, HIGH)
    offsets = down[:, None] * channels + columns[None, :]
    for row in range(0, left, HIGH):
        mask = (row + down < left)[:, None] & inside[None, :]
        value = tl.load(x + row * channels + offsets, mask=mask, other=0.0).to(tl.float32)
        value = (value - centre[None, :]) * scale[None, :] + shift[None, :]
        value = tl.where(value > 0, value, value * slope)
        tl.store(y + row * channels + offsets, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _two_sums(
    dy, x, left, channels, columns, inside, centre, scale, gain, shift, slope, HIGH: tl.constexpr, WIDE: tl.constexpr
):
    """The sum over rows of the gradient before the leaky ReLU, and of its product with the normalised features."""
    down = tl.arange(0, HIGH)
    offsets = down[:, None] * channels + columns[None, :]
    total = tl.zeros([HIGH, WIDE], tl.float32)
    product = tl.zeros([HIGH, WIDE], tl.float32)
    for row in range(0, left, HIGH):
        mask = (row + down < left)[:, None] & inside[None, :]
        value = tl.load(x + row * channels + offsets, mask=mask, other=0.0).to(tl.float32)
        slant = tl.load(dy + row * channels + offsets, mask=mask, other=0.0).to(tl.float32)
        value = (value - centre[None, :]) * scale[None, :]
        slant = tl.where(value * gain[None, :] + shift[None, :] > 0, slant, slant * slope)
        total += slant  # what is outside is 0
        product += slant * value
    return tl.sum(total, 0), tl.sum(product, 0)


@triton.jit
def _write_gradient(
    dy,
    x,
    dx,
    left,
    channels,
    columns,
    inside,
    centre,
    scale,
    gain,
    shift,
    average,
    along,
    slope,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Rows of the features' gradient: what is left of the output's after its mean and its part along the features."""
    down = tl.arange(0, HIGH)
    offsets = down[:, None] * channels + columns[None, :]
    for row in range(0, left, HIGH):
        mask = (row + down < left)[:, None] & inside[None, :]
        value = tl.load(x + row * channels + offsets, mask=mask, other=0.0).to(tl.float32)
        slant = tl.load(dy + row * channels + offsets, mask=mask, other=0.0).to(tl.float32)
        value = (value - centre[None, :]) * scale[None, :]
        slant = tl.where(value * gain[None, :] + shift[None, :] > 0, slant, slant * slope)
        slant = (slant - average[None, :] - value * along[None, :]) * (scale * gain)[None, :]
        tl.store(dx + row * channels + offsets, slant.to(dx.dtype.element_ty), mask=mask)


@triton.jit
def _chunk_moments(x, partial, voxels, channels, rows, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Mean of each chunk, and the sum of squares about it."""
    chunk, block, sample = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = chunk * rows
    columns = block * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    x += (sample.to(tl.int64) * voxels + first) * channels
    mean, squares = _mean_and_squares(x, tl.minimum(rows, voxels - first), channels, columns, inside, HIGH, WIDE)
    partial += (sample * tl.num_programs(0) + chunk) * channels + columns
    tl.store(partial, mean, mask=inside)
    tl.store(partial + tl.num_programs(2) * tl.num_programs(0) * channels, squares, mask=inside)


@triton.jit
def _moments(partial, stats, voxels, channels, rows, chunks, eps, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Mean and inverse deviation of each sample, from those of its chunks (Chan et al. 1979)."""
    block, sample, samples = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    columns = block * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    means = partial + sample * chunks * channels
    squares = means + samples * chunks * channels
    down = tl.arange(0, HIGH)
    about = tl.load(means + columns, mask=inside, other=0.0)  # the first chunk's, from which others differ little
    total = tl.zeros([HIGH, WIDE], tl.float32)
    for row in range(0, chunks, HIGH):
        mask = (row + down < chunks)[:, None] & inside[None, :]
        count = tl.minimum(rows, voxels - (row + down) * rows).to(tl.float32)
        part = tl.load(means + (row + down)[:, None] * channels + columns[None, :], mask=mask, other=0.0)
        total += tl.where(mask, count[:, None] * (part - about[None, :]), 0.0)
    centre = about + tl.sum(total, 0) / voxels
    spread = tl.zeros([HIGH, WIDE], tl.float32)
    for row in range(0, chunks, HIGH):
        mask = (row + down < chunks)[:, None] & inside[None, :]
        count = tl.minimum(rows, voxels - (row + down) * rows).to(tl.float32)
        offsets = (row + down)[:, None] * channels + columns[None, :]
        away = tl.load(means + offsets, mask=mask, other=0.0) - centre[None, :]
        within = tl.load(squares + offsets, mask=mask, other=0.0)
        spread += tl.where(mask, within + count[:, None] * away * away, 0.0)
    stats += sample * channels + columns
    tl.store(stats, centre, mask=inside)
    tl.store(stats + samples * channels, 1.0 / tl.sqrt(tl.sum(spread, 0) / voxels + eps), mask=inside)


@triton.jit
def _normalise(x, y, stats, weight, bias, voxels, channels, rows, slope, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """The features themselves."""
    chunk, block, sample = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = chunk * rows
    columns = block * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    stats += sample * channels + columns
    centre = tl.load(stats, mask=inside, other=0.0)
    scale = tl.load(stats + tl.num_programs(2) * channels, mask=inside, other=0.0)
    scale *= tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    start = (sample.to(tl.int64) * voxels + first) * channels
    left = tl.minimum(rows, voxels - first)
    _write_normalised(x + start, y + start, left, channels, columns, inside, centre, scale, shift, slope, HIGH, WIDE)


@triton.jit
def _normalise_whole(x, y, stats, weight, bias, voxels, channels, eps, slope, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """All of the forward pass, by sample and block of channels."""
    block, sample = tl.program_id(0), tl.program_id(1)
    columns = block * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    x += sample * voxels * channels
    y += sample * voxels * channels
    centre, squares = _mean_and_squares(x, voxels, channels, columns, inside, HIGH, WIDE)
    rstd = 1.0 / tl.sqrt(squares / voxels + eps)
    stats += sample * channels + columns
    tl.store(stats, centre, mask=inside)
    tl.store(stats + tl.num_programs(1) * channels, rstd, mask=inside)
    scale = rstd * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    _write_normalised(x, y, voxels, channels, columns, inside, centre, scale, shift, slope, HIGH, WIDE)


@triton.jit
def _chunk_sums(
    dy, x, stats, weight, bias, partial, voxels, channels, rows, slope, HIGH: tl.constexpr, WIDE: tl.constexpr
):
    """The two sums of each chunk."""
    chunk, block, sample, samples = tl.program_id(0), tl.program_id(1), tl.program_id(2), tl.num_programs(2)
    first = chunk * rows
    columns = block * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    stats += sample * channels + columns
    centre = tl.load(stats, mask=inside, other=0.0)
    scale = tl.load(stats + samples * channels, mask=inside, other=0.0)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    start = (sample.to(tl.int64) * voxels + first) * channels
    left = tl.minimum(rows, voxels - first)
    total, product = _two_sums(
        dy + start, x + start, left, channels, columns, inside, centre, scale, gain, shift, slope, HIGH, WIDE
    )
    partial += (sample * tl.num_programs(0) + chunk) * channels + columns
    tl.store(partial, total, mask=inside)
    tl.store(partial + samples * tl.num_programs(0) * channels, product, mask=inside)


@triton.jit
def _sums(partial, sums, both, samples, channels, chunks, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """The two sums of each sample, and the gradients of weight and bias, which all samples share."""
    columns = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    down = tl.arange(0, HIGH)
    of_weight = tl.zeros([WIDE], tl.float32)
    of_bias = tl.zeros([WIDE], tl.float32)
    for sample in range(0, samples):
        total = tl.zeros([HIGH, WIDE], tl.float32)
        product = tl.zeros([HIGH, WIDE], tl.float32)
        for row in range(0, chunks, HIGH):
            mask = (row + down < chunks)[:, None] & inside[None, :]
            offsets = (sample * chunks + row + down)[:, None] * channels + columns[None, :]
            total += tl.load(partial + offsets, mask=mask, other=0.0)
            product += tl.load(partial + samples * chunks * channels + offsets, mask=mask, other=0.0)
        one, other = tl.sum(total, 0), tl.sum(product, 0)
        tl.store(sums + sample * channels + columns, one, mask=inside)
        tl.store(sums + (samples + sample) * channels + columns, other, mask=inside)
        of_bias += one
        of_weight += other
    tl.store(both + columns, of_weight, mask=inside)
    tl.store(both + channels + columns, of_bias, mask=inside)


@triton.jit
def _gradient(
    dy, x, dx, stats, weight, bias, sums, voxels, channels, rows, slope, HIGH: tl.constexpr, WIDE: tl.constexpr
):
    """The gradient of the features."""
    chunk, block, sample = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = chunk * rows
    columns = block * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    at = sample * channels + columns
    second = tl.num_programs(2) * channels
    centre = tl.load(stats + at, mask=inside, other=0.0)
    scale = tl.load(stats + second + at, mask=inside, other=0.0)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    average = tl.load(sums + at, mask=inside, other=0.0) / voxels
    along = tl.load(sums + second + at, mask=inside, other=0.0) / voxels
    start = (sample.to(tl.int64) * voxels + first) * channels
    left = tl.minimum(rows, voxels - first)
    dy += start
    x += start
    dx += start
    _write_gradient(
        dy, x, dx, left, channels, columns, inside, centre, scale, gain, shift, average, along, slope, HIGH, WIDE
    )


@triton.jit
def _gradient_whole(
    dy, x, dx, stats, weight, bias, both, samples, voxels, channels, slope, HIGH: tl.constexpr, WIDE: tl.constexpr
):
    """All of the backward pass, by block of channels."""
    columns = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    of_weight = tl.zeros([WIDE], tl.float32)
    of_bias = tl.zeros([WIDE], tl.float32)
    for sample in range(0, samples):
        at = sample * channels + columns
        centre = tl.load(stats + at, mask=inside, other=0.0)
        scale = tl.load(stats + samples * channels + at, mask=inside, other=0.0)
        total, product = _two_sums(
            dy, x, voxels, channels, columns, inside, centre, scale, gain, shift, slope, HIGH, WIDE
        )
        of_bias += total
        of_weight += product
        average, along = total / voxels, product / voxels
        _write_gradient(
            dy, x, dx, voxels, channels, columns, inside, centre, scale, gain, shift, average, along, slope, HIGH, WIDE
        )
        dy += voxels * channels
        x += voxels * channels
        dx += voxels * channels
    tl.store(both + columns, of_weight, mask=inside)
    tl.store(both + channels + columns, of_bias, mask=inside)
