"""Sampling of the places where the network was wrong or uncertain in the last epochs."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from scripts.data.imperfect_labels import IGNORED
from scripts.data.patch_dataset import PatchDataset
from scripts.distributed import gather_items
from scripts.errors import InputError
from scripts.training.rare_first import RareFirst

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def count_false_positives(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Share of a patch's voxels in each channel that are predicted (above 0.5) and not in the target, [K].

    Voxels to ignore, which are 2 in the target, are none of them.
    """
    return ((probabilities > 0.5) & (target < 0.5)).flatten(1).float().mean(1)


def mean_entropy(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean entropy in nats of each channel against its complement, [K]; 0 at voxels to ignore."""
    certain = torch.finfo(torch.float32).eps
    inside = probabilities.clamp(certain, 1 - certain)
    entropy = -(inside * inside.log() + (1 - inside) * (1 - inside).log())
    return entropy.masked_fill(target == IGNORED, 0).flatten(1).mean(1)


class HardPlaces:
    """Weights and centres for `EpochSampler` from the scores of the patches of the last epochs.

    The patches with the highest scores of each channel are remembered by case and centre. A `share` of the patches of
    the next epoch is cut there again: each channel equally often, its places in proportion to their scores. A place
    that is drawn again gets its new score; one that is not is forgotten after `max_age` epochs.

    Args:
        dataset: of training patches.
        score: of one patch, [K], from probabilities and target [K, ...].
        softmax: whether the channels exclude each other; else they are sigmoids.
        share: of the patches, once places are known.
        keep: places per channel.
        max_age: epochs.
        base: chooses the other patches, by its own `weights` and `centre`, such as another `HardPlaces`; None: all
            cases equally often, and the crop chooses the place.

    Raises:
        InputError: the share is not between 0 and 1.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        score: Score,
        softmax: bool = False,
        share: float = 0.25,
        keep: int = 100,
        max_age: int = 5,
        base: "HardPlaces | RareFirst | None" = None,
    ) -> None:
        if not 0 <= share < 1:
            raise InputError(f"hard_share is {share}: expected a number from 0 to less than 1.")
        self.numbers = {entry["case"]: number for number, entry in enumerate(dataset.data)}
        self.score, self.softmax, self.share, self.keep, self.max_age = score, softmax, share, keep, max_age
        self.base, self.base_weights = base, [1.0] * len(self.numbers)  # of cases, for the other patches; the mean is 1
        self.seen: list[tuple[int, int, list[int], list[int], torch.Tensor]] = []  # since places were updated
        self.places: dict[tuple[int, int, int], tuple[int, float]] = {}  # channel, case, centre: epoch, score

    def attach(self, engine: Engine) -> None:
        """Score the patches of each step; attach it after `PatchOutputs`."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._score)

    @torch.no_grad()
    def _score(self, engine: Engine) -> None:
        scores = []
        for patch in engine.state.output:
            logits = torch.as_tensor(patch["pred"]).float()
            scores.append(self.score(logits.softmax(0) if self.softmax else logits.sigmoid(), patch["label"]))
        batch = engine.state.batch
        cases = [self.numbers[case] for case in batch["case"]]
        centres = batch["centre"].tolist()
        self.seen.append((engine.state.iteration, engine.state.epoch, cases, centres, torch.stack(scores)))

    def weights(self) -> np.ndarray:
        """The weight of each case in the next epoch, from the patches of all processes so far; the mean is 1."""
        for _, epoch, case, centre, scores in self._gather():
            for channel, score in enumerate(scores):
                self.places[channel, case, centre] = epoch, score
        self.seen.clear()
        self._forget()
        if self.base:
            others = np.asarray(self.base.weights())
            self.base_weights = (others / others.mean()).tolist()
        return (1 - self.share_now) * np.array(self.base_weights) + self.share_now * len(self.numbers) * self._mass()

    def centre(self, case: int, random: np.random.Generator) -> int | None:
        """A remembered place of the case, so often that these are `share` of all patches; else what `base` chooses."""
        places = [(centre, mass) for (_, number, centre), mass in self._masses().items() if number == case]
        hard = self.share_now * sum(mass for _, mass in places)
        other = (1 - self.share_now) * self.base_weights[case] / len(self.numbers)
        if random.random() * (hard + other) >= hard:
            return self.base.centre(case, random) if self.base else None
        centres, masses = zip(*places, strict=True)
        return int(random.choice(centres, p=np.array(masses) / sum(masses)))

    @property
    def share_now(self) -> float:
        """The share of patches at remembered places: 0 before there are any."""
        return self.share if self.places else 0.0

    def _gather(self) -> list[tuple[int, int, int, int, tuple[float, ...]]]:
        """Step, epoch, case, centre and scores of the patches of all processes, in order, each once."""
        own = [
            (step, epoch, case, centre, tuple(row))
            for step, epoch, cases, centres, scores in self.seen
            for case, centre, row in zip(cases, centres, scores.tolist(), strict=True)
        ]
        return sorted({*gather_items(own)})

    def _forget(self) -> None:
        """Keep the highest scores of each channel that are not too old."""
        newest = max((epoch for epoch, _ in self.places.values()), default=0)
        kept: dict[tuple[int, int, int], tuple[int, float]] = {}
        for channel in sorted({place[0] for place in self.places}):
            own = [
                (score, place, epoch)
                for place, (epoch, score) in self.places.items()
                if place[0] == channel and place[2] >= 0 and 0 < score < np.inf and epoch > newest - self.max_age
            ]
            kept |= {place: (epoch, score) for score, place, epoch in sorted(own, reverse=True)[: self.keep]}
        self.places = kept

    def _masses(self) -> dict[tuple[int, int, int], float]:
        """The share of each place among the patches at remembered places."""
        totals: dict[int, float] = {}
        for (channel, _, _), (_, score) in self.places.items():
            totals[channel] = totals.get(channel, 0.0) + score
        return {place: score / totals[place[0]] / len(totals) for place, (_, score) in self.places.items()}

    def _mass(self) -> np.ndarray:
        mass = np.zeros(len(self.numbers))
        for (_, case, _), part in self._masses().items():
            mass[case] += part
        return mass

    def state_dict(self) -> dict[str, Any]:
        """The remembered places, and the scores since they were updated; all processes call it together."""
        return {
            "places": [[*place, *found] for place, found in self.places.items()],
            "seen": [[*where, list(scores)] for *where, scores in self._gather()],
            "base_weights": self.base_weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore places and scores."""
        self.places = {(k, case, centre): (epoch, score) for k, case, centre, epoch, score in state["places"]}
        self.seen = [
            (step, epoch, [case], [c], torch.tensor([scores])) for step, epoch, case, c, scores in state["seen"]
        ]
        self.base_weights = state.get("base_weights", self.base_weights)  # which a run of an earlier version lacks
