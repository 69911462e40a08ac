"""Triton kernels of an instance norm and a leaky ReLU over channels-last features, forward and backward.

Each sample's voxels are split into chunks, so that the few channels of a large volume keep the whole GPU busy. One
kernel reduces each chunk, a second one the chunks of a sample, in a fixed order: two runs agree bit for bit. A third
goes over the voxels again, from the last chunk to the first, since the last ones are still in the cache.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import triton
import triton.language as tl

TILE = 4096  # values that a program holds at once: 16 for each of its threads
WARPS = 8  # of 32 threads
PROGRAMS = 1024  # target: two rounds for a GPU of 132 multiprocessors with four programs each
WIDTH = 64  # channels in a tile: 128 bytes of half precision, one cache line


class Tiling(NamedTuple):
    """How the voxels and channels of a batch are divided among programs."""

    rows: int  # voxels of a chunk
    chunks: int  # of a sample
    high: int  # voxels of a tile
    wide: int  # channels of a tile
    blocks: int  # of channels


def tiling(samples: int, voxels: int, channels: int) -> Tiling:
    """Chunks of whole tiles that give the target number of programs, as far as there are tiles."""
    wide = min(WIDTH, triton.next_power_of_2(channels))
    high, blocks = TILE // wide, triton.cdiv(channels, wide)
    chunks = max(1, PROGRAMS // (samples * blocks))
    rows = triton.cdiv(triton.cdiv(voxels, chunks), high) * high
    return Tiling(rows, triton.cdiv(voxels, rows), high, wide, blocks)


def forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, slope: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised and rectified features, of the shape of x, and float32 means and inverse deviations, [N, C].

    Args:
        x: [N, C, D, H, W], dense in channels_last_3d.
        weight: [C], as bias.
        bias: added after multiplication with the weight.
        eps: added to the variance.
        slope: factor on negative values.
    """
    samples, channels, voxels = len(x), x.shape[1], x[0, 0].numel()
    shared = tiling(samples, voxels, channels)
    partial = x.new_empty((2, samples, shared.chunks, channels), dtype=torch.float32)
    mean, rstd = x.new_empty((2, samples, channels), dtype=torch.float32)
    y = torch.empty_like(x)
    grid = (shared.chunks, shared.blocks, samples)
    sizes = {"HIGH": shared.high, "WIDE": shared.wide, "num_warps": WARPS}
    few = _few(channels)
    with _on(x):
        _chunk_moments[grid](x, partial[0], partial[1], voxels, channels, shared.rows, **sizes)
        _moments[(triton.cdiv(channels, few["WIDE"]), samples)](
            partial[0], partial[1], mean, rstd, voxels, channels, shared.rows, shared.chunks, eps, **few
        )
        _normalise[grid](x, y, mean, rstd, weight, bias, voxels, channels, shared.rows, slope, **sizes)
    return y, mean, rstd


def backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    slope: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, and of weight and bias, [C] in float32; dy is the output's, dense in channels_last_3d."""
    samples, channels, voxels = len(x), x.shape[1], x[0, 0].numel()
    shared = tiling(samples, voxels, channels)
    partial = x.new_empty((2, samples, shared.chunks, channels), dtype=torch.float32)
    sums = x.new_empty((2, samples, channels), dtype=torch.float32)
    dweight, dbias = x.new_empty((2, channels), dtype=torch.float32)
    dx = torch.empty_like(x)
    grid = (shared.chunks, shared.blocks, samples)
    sizes = {"HIGH": shared.high, "WIDE": shared.wide, "num_warps": WARPS}
    few = _few(channels)
    with _on(x):
        _chunk_sums[grid](
            dy, x, mean, rstd, weight, bias, partial[0], partial[1], voxels, channels, shared.rows, slope, **sizes
        )
        _sums[(triton.cdiv(channels, few["WIDE"]),)](
            partial[0], partial[1], sums[0], sums[1], dweight, dbias, samples, channels, shared.chunks, **few
        )
        _gradient[grid](
            dy, x, dx, mean, rstd, weight, bias, sums[0], sums[1], voxels, channels, shared.rows, slope, **sizes
        )
    return dx, dweight, dbias


def _few(channels: int) -> dict[str, int]:
    """Tiles for reducing the sums of the chunks: about 32 KiB per program."""
    wide = min(16, triton.next_power_of_2(channels))
    return {"HIGH": 1024 // wide, "WIDE": wide, "num_warps": 4}


def _on(x: torch.Tensor) -> AbstractContextManager:
    """A context with the device of x as the current one, on which Triton starts kernels."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


# Below, a tile is HIGH voxels by WIDE channels. Offsets within a chunk fit 32 bits, that of a chunk may not.


@triton.jit
def _place(chunk, voxels, channels, rows, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Of a chunk: its voxels, this program's channels and which exist, its offset, and rows and offsets of a tile."""
    block, sample, first = tl.program_id(1), tl.program_id(2), chunk * rows
    columns = block * WIDE + tl.arange(0, WIDE)
    down = tl.arange(0, HIGH)
    start = (sample.to(tl.int64) * voxels + first) * channels
    offsets = down[:, None] * channels + columns[None, :]
    return tl.minimum(rows, voxels - first), columns, columns < channels, start, down, offsets


@triton.jit
def _factors(mean, rstd, weight, bias, at, columns, inside):
    """Mean, inverse deviation, weight and bias of each channel."""
    centre = tl.load(mean + at, mask=inside, other=0.0)
    scale = tl.load(rstd + at, mask=inside, other=0.0)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    return centre, scale, gain, tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _load(pointer, offsets, mask):
    return tl.load(pointer + offsets, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _undo(dy, x, offsets, mask, centre, scale, gain, shift, slope):
    """The normalised features, and the gradient before the leaky ReLU."""
    value = (_load(x, offsets, mask) - centre[None, :]) * scale[None, :]
    slant = _load(dy, offsets, mask)
    return value, tl.where(value * gain[None, :] + shift[None, :] > 0, slant, slant * slope)


@triton.jit
def _chunk_moments(x, means, squares, voxels, channels, rows, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Mean of each chunk, and the sum of squares about it.

    Squares are summed about the mean of the chunk's first tile: nothing cancels but what that tile alone differs by.
    """
    chunk = tl.program_id(0)
    left, columns, inside, start, down, offsets = _place(chunk, voxels, channels, rows, HIGH, WIDE)
    x += start
    value = _load(x, offsets, (down < left)[:, None] & inside[None, :])
    centre = tl.sum(value, 0) / tl.minimum(left, HIGH)
    total = tl.zeros([HIGH, WIDE], tl.float32)
    square = tl.zeros([HIGH, WIDE], tl.float32)
    for row in range(0, left, HIGH):
        mask = (row + down < left)[:, None] & inside[None, :]
        value = tl.where(mask, _load(x + row * channels, offsets, mask) - centre[None, :], 0.0)
        total += value
        square += value * value
    summed = tl.sum(total, 0)
    away = summed / left
    at = (tl.program_id(2) * tl.num_programs(0) + chunk) * channels + columns
    tl.store(means + at, centre + away, mask=inside)
    tl.store(squares + at, tl.maximum(tl.sum(square, 0) - summed * away, 0.0), mask=inside)


@triton.jit
def _moments(means, squares, mean, rstd, voxels, channels, rows, chunks, eps, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Mean and inverse deviation of each sample, from those of its chunks (Chan et al. 1979)."""
    block, sample = tl.program_id(0), tl.program_id(1)
    columns = block * WIDE + tl.arange(0, WIDE)
    inside = columns < channels
    means += sample * chunks * channels
    squares += sample * chunks * channels
    down = tl.arange(0, HIGH)
    about = tl.load(means + columns, mask=inside, other=0.0)  # the first chunk's; the others differ little
    total = tl.zeros([HIGH, WIDE], tl.float32)
    for row in range(0, chunks, HIGH):
        mask = (row + down < chunks)[:, None] & inside[None, :]
        count = tl.minimum(rows, voxels - (row + down) * rows).to(tl.float32)
        part = _load(means, (row + down)[:, None] * channels + columns[None, :], mask)
        total += tl.where(mask, count[:, None] * (part - about[None, :]), 0.0)
    centre = about + tl.sum(total, 0) / voxels
    spread = tl.zeros([HIGH, WIDE], tl.float32)
    for row in range(0, chunks, HIGH):
        mask = (row + down < chunks)[:, None] & inside[None, :]
        count = tl.minimum(rows, voxels - (row + down) * rows).to(tl.float32)
        offsets = (row + down)[:, None] * channels + columns[None, :]
        away = _load(means, offsets, mask) - centre[None, :]
        spread += tl.where(mask, _load(squares, offsets, mask) + count[:, None] * away * away, 0.0)
    tl.store(mean + sample * channels + columns, centre, mask=inside)
    tl.store(rstd + sample * channels + columns, 1.0 / tl.sqrt(tl.sum(spread, 0) / voxels + eps), mask=inside)


@triton.jit
def _normalise(x, y, mean, rstd, weight, bias, voxels, channels, rows, slope, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Normalised and rectified features."""
    chunk = tl.num_programs(0) - 1 - tl.program_id(0)
    left, columns, inside, start, down, offsets = _place(chunk, voxels, channels, rows, HIGH, WIDE)
    at = tl.program_id(2) * channels + columns
    centre, scale, gain, shift = _factors(mean, rstd, weight, bias, at, columns, inside)
    scale *= gain
    x += start
    y += start
    for row in range(0, left, HIGH):
        mask = (row + down < left)[:, None] & inside[None, :]
        value = (_load(x + row * channels, offsets, mask) - centre[None, :]) * scale[None, :] + shift[None, :]
        value = tl.where(value > 0, value, value * slope)
        tl.store(y + row * channels + offsets, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _chunk_sums(
    dy, x, mean, rstd, weight, bias, sums, dots, voxels, channels, rows, slope, HIGH: tl.constexpr, WIDE: tl.constexpr
):
    """Each chunk's sum of the gradient before the leaky ReLU, and of its product with the normalised features."""
    chunk, sample = tl.program_id(0), tl.program_id(2)
    left, columns, inside, start, down, offsets = _place(chunk, voxels, channels, rows, HIGH, WIDE)
    at = sample * channels + columns
    centre, scale, gain, shift = _factors(mean, rstd, weight, bias, at, columns, inside)
    x += start
    dy += start
    total = tl.zeros([HIGH, WIDE], tl.float32)
    product = tl.zeros([HIGH, WIDE], tl.float32)
    for row in range(0, left, HIGH):
        mask = (row + down < left)[:, None] & inside[None, :]
        value, slant = _undo(dy + row * channels, x + row * channels, offsets, mask, centre, scale, gain, shift, slope)
        total += slant  # 0 outside
        product += slant * value
    at = (sample * tl.num_programs(0) + chunk) * channels + columns
    tl.store(sums + at, tl.sum(total, 0), mask=inside)
    tl.store(dots + at, tl.sum(product, 0), mask=inside)


@triton.jit
def _sums(
    sums, dots, all_sums, all_dots, dweight, dbias, samples, channels, chunks, HIGH: tl.constexpr, WIDE: tl.constexpr
):
    """The sums of each sample, and the gradients of weight and bias, which all samples share."""
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
            total += _load(sums, offsets, mask)
            product += _load(dots, offsets, mask)
        both, one = tl.sum(product, 0), tl.sum(total, 0)
        tl.store(all_sums + sample * channels + columns, one, mask=inside)
        tl.store(all_dots + sample * channels + columns, both, mask=inside)
        of_bias += one
        of_weight += both
    tl.store(dbias + columns, of_bias, mask=inside)
    tl.store(dweight + columns, of_weight, mask=inside)


@triton.jit
def _gradient(
    dy,
    x,
    dx,
    mean,
    rstd,
    weight,
    bias,
    sums,
    dots,
    voxels,
    channels,
    rows,
    slope,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradient of the features: the output's, without its mean and its component along the features."""
    chunk = tl.num_programs(0) - 1 - tl.program_id(0)
    left, columns, inside, start, down, offsets = _place(chunk, voxels, channels, rows, HIGH, WIDE)
    at = tl.program_id(2) * channels + columns
    centre, scale, gain, shift = _factors(mean, rstd, weight, bias, at, columns, inside)
    average = tl.load(sums + at, mask=inside, other=0.0) / voxels
    along = tl.load(dots + at, mask=inside, other=0.0) / voxels
    x += start
    dy += start
    dx += start
    for row in range(0, left, HIGH):
        mask = (row + down < left)[:, None] & inside[None, :]
        value, slant = _undo(dy + row * channels, x + row * channels, offsets, mask, centre, scale, gain, shift, slope)
        slant = (slant - average[None, :] - value * along[None, :]) * (scale * gain)[None, :]
        tl.store(dx + row * channels + offsets, slant.to(dx.dtype.element_ty), mask=mask)
