"""Repeats one batch, which any network that can learn fits closely: a check before a training of hours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scripts.errors import InputError
from scripts.files import atomic_write
from scripts.progress import progress_bar

LOW = 0.8  # of the first loss, at which a batch counts as learned; regions that a patch lacks keep their loss
HIGH = 0.95  # of the first loss, above which the network learned nothing in all steps
STEPS = 200  # at most


def overfit_batch(
    network: torch.nn.Module,
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    inferer: Callable[[torch.Tensor, torch.nn.Module], Any],
    prepare_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    batch: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    picture: str,
    steps: int = STEPS,
) -> list[float]:
    """Train on one batch until its loss has fallen by a fifth, or for some steps, and draw the loss of each.

    Changes the network and the optimiser: for a check alone.

    Args:
        network: to train.
        loss: of the network's output and labels.
        inferer: applies the network to a batch, as in training.
        prepare_batch: copies and augments a batch; called once.
        batch: of the training loader.
        optimizer: of the network.
        device: to train on.
        picture: the PNG to write.
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
    draw_losses(values, Path(picture))
    if not values[-1] <= HIGH * values[0]:
        raise InputError(
            f"one batch repeated {len(values)} times has a loss of {values[-1]:.3f}, from {values[0]:.3f}"
            f" ({picture}): the network does not learn; check the loss, learning_rate, labels and normalisation."
        )
    print(f"one batch: loss {values[0]:.3f} to {values[-1]:.3f} in {len(values)} steps ({picture})")
    return values


def draw_losses(values: list[float], path: Path) -> None:
    """Draw the loss of each step."""
    from matplotlib.figure import Figure  # takes a third of a second

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(values) + 1), values, marker="." if len(values) < 40 else "")
    axes.axhline(LOW * values[0], color="grey", linestyle=":", label="four fifths of the first")
    axes.set(xlabel="step", ylabel="loss", title="One batch, repeated")
    axes.set_ylim(bottom=min(0, *values))
    axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)
