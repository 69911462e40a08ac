"""A loss that is a weighted sum of others, each with its own regions, output of the network, and share of the run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from scripts.errors import InputError


class LossTerm(nn.Module):
    """One term of `LossTerms`.

    Args:
        loss: maps logits and target [B, K, ...] to a scalar.
        weight: factor of the loss.
        regions: names of the output channels that the loss sees; None: all.
        output: the network's output by name that the loss sees in place of logits (`read_output`); None: the logits.
        start: share of the run, 0 to 1, from which on the term counts.
        ramp: share of the run in which its weight rises from 0 after `start`; 0: at once.
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float = 1.0,
        regions: Sequence[str] | None = None,
        output: str | None = None,
        start: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__()
        if not (0 <= start < 1 and 0 <= ramp <= 1 and weight >= 0):
            raise InputError(
                f"a term of the loss has weight {weight}, start {start} and ramp {ramp}: expected a weight of 0 or"
                " more, and shares of the run between 0 and 1."
            )
        self.loss, self.weight, self.regions, self.output = loss, weight, regions, output
        self.start, self.ramp = start, ramp

    def weight_at(self, progress: float) -> float:
        """The weight when this share of the run is completed."""
        if progress < self.start:
            return 0.0
        return self.weight * (min(1.0, (progress - self.start) / self.ramp) if self.ramp else 1.0)


class LossTerms(nn.Module):
    """A weighted sum of losses; a term of weight 0 is not computed.

    Args:
        terms: by name, as they are logged.
        channels: names of the output channels, in order.
        progress: returns the completed share of the run, 0 to 1.

    Attributes:
        values: the value of each term, detached and without its weight, for the finest head since it was last cleared.

    Shapes: logits and target [B, K, ...]; returns a scalar.

    Raises:
        InputError: there is no term, or one has an unknown region.
    """

    def __init__(
        self, terms: Mapping[str, LossTerm], channels: Sequence[str], progress: Callable[[], float] = lambda: 1.0
    ) -> None:
        super().__init__()
        if not terms:
            raise InputError("the loss has no terms: give at least one under `terms`.")
        self.terms, self.progress = dict(terms), progress
        self.losses = nn.ModuleDict(terms)  # so that they move to a device with this one
        self.places: dict[str, list[int] | None] = {}
        for name, term in terms.items():
            if unknown := [region for region in term.regions or () if region not in channels]:
                raise InputError(
                    f"term {name} of the loss is of the region {unknown[0]}: expected one of {', '.join(channels)}."
                )
            self.places[name] = None if term.regions is None else [[*channels].index(region) for region in term.regions]
        self.values: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The sum over the terms of the logits."""
        return self._sum(logits, target, lambda loss, *pair: loss(*pair))

    @property
    def at_resolution(self) -> Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] | None:
        """The sum for coarse logits (`scripts.training.losses`), if every term can be computed there; else None."""
        if not all(hasattr(term.loss, "at_resolution") for _, term, _ in self._active(of_logits=True)):
            return None
        return lambda logits, shares, voxels: self._sum(
            logits, shares, lambda loss, *pair: loss.at_resolution(*pair, voxels)
        )

    def of_outputs(self, outputs: Mapping[str, Any], target: torch.Tensor) -> torch.Tensor:
        """The sum over the terms of other outputs of the network.

        Raises:
            InputError: the network has no such output.
        """
        total = target.new_zeros(())
        for name, term, weight in self._active(of_logits=False):
            assert term.output is not None
            if term.output not in outputs:
                raise InputError(
                    f"term {name} of the loss is of the output {term.output}, but the network returns"
                    f" {', '.join(['logits', *outputs])}."
                )
            total = total + weight * self._value(name, outputs[term.output], target, lambda loss, *pair: loss(*pair))
        return total

    def _active(self, of_logits: bool) -> Iterator[tuple[str, LossTerm, float]]:
        """The terms of the logits, or those of other outputs, that count now, each with its name and weight."""
        progress = self.progress()
        for name, term in self.terms.items():
            if (term.output is None) == of_logits and (weight := term.weight_at(progress)):
                yield name, term, weight

    def _sum(self, logits: torch.Tensor, target: torch.Tensor, call: Callable[..., torch.Tensor]) -> torch.Tensor:
        total = 0.0 * logits.sum()  # so that there is a gradient before any term starts
        for name, _, weight in self._active(of_logits=True):
            total = total + weight * self._value(name, logits, target, call)
        return total

    def _value(
        self, name: str, predicted: torch.Tensor, target: torch.Tensor, call: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        places = self.places[name]
        pair = (predicted, target) if places is None else (_channels(predicted, places), _channels(target, places))
        value = call(self.terms[name].loss, *pair)
        self.values.setdefault(name, value.detach())  # the finest head comes first
        return value


def _channels(image: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Some channels of [B, K, ...]; by slices, since a list of numbers would be copied to a GPU, which waits."""
    return torch.stack([image[:, place] for place in places], 1)
