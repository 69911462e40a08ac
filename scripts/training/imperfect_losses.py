"""Losses of imperfect labels: voxels that do not count, and targets that are shares of raters.

What a loss can do is measured on random numbers, so that any loss of MONAI, torch or the user's own is used correctly
or refused.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from scripts.data.decision import background_logits
from scripts.data.imperfect_labels import IGNORED
from scripts.errors import InputError

TOLERANCE = 1e-4  # relative difference of two values of a loss that are the same but for rounding


class LossOfCounted(nn.Module):
    """A loss of the voxels that are not ignored: exactly its value for a batch of these voxels alone.

    Ignored voxels have no gradient. A loss over the whole batch sees the counted voxels of all patches as one patch;
    one of each patch by itself is averaged over the patches that have any. A batch without any costs 0. Heads coarser
    than the label are repeated to its size first (`DeepSupervisionLoss`).

    Args:
        loss: of logits and target [B, K, ...], which does not depend on where a voxel lies.
        outputs: of the network, name to label values, K of them.
        by_patch: whether the loss is of each patch by itself.

    Shapes: logits and target [B, K, ...]; the target of an ignored voxel is `IGNORED` in every channel; returns a
    scalar. On a GPU each call waits for the number of counted voxels.
    """

    nothing: torch.Tensor

    def __init__(self, loss: nn.Module, outputs: Mapping[str, Sequence[int]], by_patch: bool = False) -> None:
        super().__init__()
        self.loss, self.by_patch = loss, by_patch
        nothing = torch.tensor(background_logits(outputs)).reshape(1, -1, 1)  # a voxel of background, surely predicted
        self.register_buffer("nothing", nothing, persistent=False)

    @property
    def values(self) -> dict[str, torch.Tensor]:
        """The value of each term (`scripts.training.loss_terms.LossTerms`)."""
        return getattr(self.loss, "values", {})

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of the counted voxels."""
        counted = target[:, 0] != IGNORED
        batches = zip(logits.split(1), target.split(1), counted.split(1), strict=True)
        parts = [
            [_select(channels, here) for channels in (values, labels)]
            for values, labels, here in (batches if self.by_patch else [(logits, target, counted)])
        ]
        if found := [self.loss(*pair) for pair in parts if pair[0].shape[2]]:
            return torch.stack(found).mean()
        nothing = self.nothing.to(logits)  # all processes of a loss over all of them have to call it
        return self.loss(nothing, (nothing > 0).to(target)) + 0 * logits.sum()


def _select(channels: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The counted voxels of [B, K, ...] as [1, K, N]; a fifth of the time of an index by a mask."""
    places = counted.flatten().nonzero()[:, 0]
    return channels.movedim(1, 0).flatten(1).index_select(1, places)[None]


def adapt_loss(
    loss: nn.Module, outputs: Mapping[str, Sequence[int]], axes: int, ignore: int | None = None, soft: bool = False
) -> nn.Module:
    """The loss itself, or one that leaves out the voxels to ignore.

    Args:
        loss: of one head.
        outputs: of the network, name to label values.
        axes: of a patch.
        ignore: the label value of voxels to ignore; None: there are none.
        soft: whether the target is a share of raters.

    Raises:
        InputError: the loss cannot take such a target.
    """
    if soft:
        for part, channels in _parts(loss, len(outputs)):
            _require_soft(part, channels, axes)
    if ignore is None:
        return loss
    whole = all(_same_for_pooled_voxels(part, channels, axes) for part, channels in _parts(loss, len(outputs)))
    each = all(_same_for_each_patch(part, channels, axes) for part, channels in _parts(loss, len(outputs)))
    if not (whole or each):
        raise InputError(
            "the loss depends on where voxels lie, so that it cannot leave out those to ignore: expected one of"
            " voxels, such as Dice, cross-entropy, Tversky or focal; take another recipe than boundary or cldice, or"
            " data without `ignore`."
        )
    return LossOfCounted(loss, outputs, by_patch=not whole)


def _parts(loss: nn.Module, channels: int) -> list[tuple[nn.Module, int]]:
    """The losses that are summed, each with its number of channels: a term may count only later in the run."""
    terms = getattr(loss, "terms", None)
    if not isinstance(terms, Mapping):
        return [(loss, channels)]
    if of_output := [name for name, term in terms.items() if term.output is not None]:
        raise InputError(
            f"term {of_output[0]} of the loss is of another output of the network than logits, which cannot be used"
            " with voxels to ignore or shares of raters: remove the term, or take another recipe."
        )
    return [(term.loss, len(term.regions or range(channels))) for term in terms.values()]


def _require_soft(loss: nn.Module, channels: int, axes: int) -> None:
    logits, target = _example(channels, axes)
    shares = 0.5 * target + 0.2
    of_shares, of_masks = _value(loss, logits, shares), _value(loss, logits, shares.round())
    binary = any(getattr(part, "binary_target", False) for part in loss.modules())
    if binary or of_shares is None or (of_masks is not None and _is_close(of_shares, of_masks)):
        raise InputError(
            f"raters is majority, which makes the target a share of the raters, but {type(loss).__name__} takes masks"
            " of 0 and 1: give raters draw or staple, or another loss, such as the default."
        )


def _same_for_pooled_voxels(loss: nn.Module, channels: int, axes: int) -> bool:
    """Whether voxels may be taken out of their patches, in any order."""
    pair = _example(channels, axes)
    order = torch.randperm(pair[0][:, 0].numel(), generator=torch.Generator().manual_seed(1))
    return _agree(_value(loss, *pair), _value(loss, *(x.movedim(1, 0).flatten(1)[:, order][None] for x in pair)))


def _same_for_each_patch(loss: nn.Module, channels: int, axes: int) -> bool:
    """The same, but within their patches."""
    pair = _example(channels, axes)
    order = torch.randperm(pair[0][0, 0].numel(), generator=torch.Generator().manual_seed(1))
    each = [_value(loss, *(x[row : row + 1].flatten(2)[:, :, order] for x in pair)) for row in range(len(pair[0]))]
    known = [value for value in each if value is not None]
    return len(known) == len(each) and _agree(_value(loss, *pair), sum(known) / len(known))


def _example(channels: int, axes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and masks of one channel per voxel, [2, K, 8, ...]; the second patch has less of each."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, channels, *[8] * axes, generator=generator)
    drawn = torch.rand(2, *[8] * axes, generator=generator)
    drawn[1] **= 3
    target = torch.stack([(drawn * (channels + 1)).floor().clamp_max(channels) == k for k in range(channels)], 1)
    if channels > 1:
        target[:, 0] |= ~target.any(1)  # of exclusive classes one is true
    return logits, target.float()


def _value(loss: nn.Module, logits: torch.Tensor, target: torch.Tensor) -> float | None:
    """The loss, in evaluation mode, in which it does not wait for other processes; None if it fails."""
    device = next((tensor.device for tensor in loss.buffers()), torch.device("cpu"))
    mode = loss.training
    loss.eval()
    try:
        with torch.no_grad():
            return float(loss(logits.to(device), target.to(device)))
    except Exception:  # of any kind: MONAI's clDice raises an AttributeError for flat voxels; the loss is then refused
        return None
    finally:
        loss.train(mode)


def _agree(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and _is_close(one, other)


def _is_close(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other))
