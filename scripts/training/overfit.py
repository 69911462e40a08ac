"""Repeats one batch, which any network that can learn fits closely: a check before a training of hours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch.utils.data import DataLoader

from scripts.data.intensity_statistics import measure_statistics
from scripts.data.sampler import EpochSampler
from scripts.errors import InputError
from scripts.files import atomic_write
from scripts.network.outputs import read_logits
from scripts.progress import progress_bar

CASES = 8  # prepared for the batch, at most
LOW = 0.5  # of the first loss, at which a batch counts as learned; regions that a patch lacks keep their loss
HIGH = 0.95  # of the first loss, above which the network learned nothing in all steps
STEPS = 200  # at most
MOST_CHANNELS = 4  # of the input, in the picture


def cut_batch(loader: DataLoader, preprocessing: Compose, seed: int, cases: int = CASES) -> dict[str, Any]:
    """A batch of patches of a few cases, those with a label if there are any; no other case is prepared.

    Leaves the loader's data set with these cases, and starts no loader process: for a check alone.

    Args:
        loader: of training patches.
        preprocessing: of the cases; for `normalize_scope: dataset` the statistics are those of the few.
        seed: of the patches.
        cases: at most, taken evenly from the list, where neighbours may be slices of one patient.
    """
    dataset: Any = loader.dataset
    chosen = np.linspace(0, len(dataset) - 1, min(cases, len(dataset))).astype(int)
    few = [dataset.data[number] for number in chosen]
    for part in (dataset, dataset.cases):
        part.data = few
    measure_statistics(preprocessing, few, lambda _, measure: measure())
    numbers = dataset.labelled() or range(len(few))
    drawn = EpochSampler(len(numbers), loader.batch_size or 1, seed)
    return loader.collate_fn([dataset[numbers[number], own] for number, own in drawn])


def overfit_batch(
    network: torch.nn.Module,
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    inferer: Callable[[torch.Tensor, torch.nn.Module], Any],
    prepare_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    batch: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    picture: str,
    softmax: bool = False,
    steps: int = STEPS,
) -> list[float]:
    """Train on one batch until its loss has halved, or for some steps; draw the losses and what it predicts.

    Changes the network and the optimiser: for a check alone.

    Args:
        network: to train.
        loss: of the network's output and labels.
        inferer: applies the network to a batch, as in training.
        prepare_batch: copies and augments a batch; called once.
        batch: of patches.
        optimizer: of the network.
        device: to train on.
        picture: the PNG to write: the loss of each step, and input, label and prediction of a patch.
        softmax: whether the network's channels exclude each other; else they are sigmoids.
        steps: at most.

    Returns:
        the loss of each step.

    Raises:
        InputError: the loss has hardly fallen, or is not a number.
    """
    image, label = prepare_batch(batch, device)
    values: list[float] = []
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])  # the peak rate: a schedule begins far below it
    network.train()
    bar = progress_bar(range(steps), desc="one batch", unit="step")
    for _ in bar:
        value = loss(inferer(image, network), label)
        values.append(float(value.detach()))
        bar.set_postfix_str(f"loss {values[-1]:.3f}")
        if not value.isfinite() or values[-1] <= LOW * values[0]:
            break
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        logits = read_logits(inferer(image, network), image.dim() - 2)
    predicted = logits.softmax(1) if softmax else logits.sigmoid()
    shown, truth, masks = (part.float().numpy(force=True) for part in (image, label, predicted > 0.5))
    draw_batch(values, shown, truth, masks, Path(picture))
    if not values[-1] <= HIGH * values[0]:
        raise InputError(
            f"one batch repeated {len(values)} times has a loss of {values[-1]:.3f}, from {values[0]:.3f}"
            f" ({picture}): the network does not learn; check the loss, learning_rate, labels and normalisation."
        )
    steps_taken = f"{len(values)} steps, half of the first"
    if values[-1] > LOW * values[0]:
        steps_taken = f"all {len(values)} steps, more than half of the first: see what it predicts"
    print(f"one batch: loss {values[0]:.3f} to {values[-1]:.3f} in {steps_taken} ({picture})")
    return values


def draw_batch(values: list[float], image: np.ndarray, label: np.ndarray, predicted: np.ndarray, path: Path) -> None:
    """Draw the loss of each step, and a slice of the patch with most label: input, label and prediction.

    Args:
        values: the losses.
        image: [B, C, ...].
        label: [B, K, ...], 0 or 1.
        predicted: as the label.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure  # takes a third of a second

    patch = label.reshape(len(label), -1).sum(1).argmax()
    place: tuple[int | slice, ...] = (slice(None),) * 3  # of the last axis in 3D: the slice with most label
    if image.ndim == 5:
        place = (*place, int(label[patch].sum((0, 1, 2)).argmax()))
    channels = image[patch][place][:MOST_CHANNELS]
    order = np.arange(1, label.shape[1] + 1)[:, None, None]
    masks = [(part[patch][place] * order).max(0) for part in (label, predicted)]  # later channels on top
    figure = Figure(figsize=(2.2 * max(3, len(channels) + 2), 5.6), layout="constrained")
    grid = figure.add_gridspec(2, len(channels) + 2, height_ratios=[3, 2.2])
    axes = figure.add_subplot(grid[0, :])
    names = [f"input channel {k + 1}" for k in range(len(channels))] + ["label", "prediction"]
    for column, (name, shown) in enumerate(zip(names, [*channels, *masks], strict=True)):
        cell = figure.add_subplot(grid[1, column])
        kind = {"cmap": "viridis", "vmin": 0, "vmax": len(order)} if column >= len(channels) else {"cmap": "gray"}
        cell.imshow(shown.T[::-1], interpolation="nearest", **kind)
        cell.set(xticks=[], yticks=[])
        cell.set_title(name, fontsize=9)
    axes.plot(range(1, len(values) + 1), values, marker="." if len(values) < 40 else "")
    axes.axhline(LOW * values[0], color="grey", linestyle=":", label="half of the first")
    axes.set(xlabel="step", ylabel="loss", title="One batch, repeated")
    axes.set_ylim(bottom=min(0, *values))
    axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)
