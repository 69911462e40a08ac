"""The case, the random seed and, if a component chooses it, the centre of each patch of an epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from scripts.distributed import gather_items
from scripts.errors import InputError


class EpochSampler(Sampler[tuple[int, ...]]):
    """Pairs (case number, seed) for one epoch: every case equally often, in a new order each round.

    Each of several processes takes its own part of the same sequence, whatever their number. With `weights`, each case
    is drawn in proportion to its own, by systematic resampling: as often per epoch as expected, rounded down or up.
    With `centres`, the index is (case number, seed, centre) where a centre is chosen.

    Args:
        cases: how many cases there are.
        samples: patches per epoch, over all processes.
        seed: the run's seed.
        rank: this process.
        world_size: all processes.
        labelled_share: share of the patches from cases with any label, where many have none (slices of a volume);
            None: all cases equally often.
        labelled: returns the numbers of the cases with a label; called when the first epoch starts.
        weights: returns one weight per case, 0 or more, of any sum; called when an epoch starts. Several processes
            use the mean of theirs. The weights of the current epoch are part of `state_dict`.
        centres: returns the voxel at the centre of a patch, from a case number and a random generator: its flat index
            in the prepared case; None: the crop chooses it.

    Raises:
        InputError: both `weights` and `labelled_share` are given, or a weight is missing, negative or not finite.
    """

    def __init__(
        self,
        cases: int,
        samples: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        labelled_share: float | None = None,
        labelled: Callable[[], Sequence[int]] = tuple,
        weights: Callable[[], Sequence[float]] | None = None,
        centres: Callable[[int, np.random.Generator], int | None] | None = None,
    ) -> None:
        if weights and labelled_share is not None:
            raise InputError("labelled_case_share and weights of cases both decide how often a case is drawn: use one.")
        self.cases, self.samples, self.seed = cases, samples, seed
        self.rank, self.world_size = rank, world_size
        self.labelled_share, self.labelled = labelled_share, labelled
        self.weights, self.centres = weights, centres
        self.in_force: dict[str, Any] = {"epoch": None, "weights": None}
        self.epoch = self.drawn = 0

    def set_epoch(self, epoch: int, drawn: int = 0) -> None:
        """Set the epoch, counted from 0, that the next pass draws, without its first `drawn` patches."""
        self.epoch, self.drawn = epoch, drawn

    def state_dict(self) -> dict[str, Any]:
        """The weights of the current epoch, so that a run that was stopped within it draws the rest of it."""
        return dict(self.in_force)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the weights."""
        self.in_force = dict(state)

    def __len__(self) -> int:
        return len(range(self.rank, self.samples, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        case_of = self._draw_by_weights(self.weights) if self.weights else self._draw_in_rounds
        for position in range(self.rank, self.samples, self.world_size)[self.drawn :]:
            count = self.epoch * self.samples + position  # counted over the whole run
            case, seed = int(case_of(position)), int(np.random.SeedSequence([self.seed, count]).generate_state(1)[0])
            centre = self.centres(case, np.random.default_rng([self.seed, count, 1])) if self.centres else None
            yield (case, seed) if centre is None else (case, seed, centre)

    def _draw_in_rounds(self, position: int) -> int:
        pools, share = self._pools
        count = self.epoch * self.samples + position
        before, after = int(count * share), int((count + 1) * share)
        pool, drawn = (1, before) if after > before else (0, count - before)
        round_, place = divmod(drawn, len(pools[pool]))
        return np.random.default_rng([self.seed, pool, round_]).permutation(pools[pool])[place]

    def _draw_by_weights(self, ask: Callable[[], Sequence[float]]) -> Callable[[int], int]:
        """Systematic resampling (Kitagawa 1996): equal steps through the summed weights, in random order."""
        if self.in_force["epoch"] != self.epoch:
            weights = np.mean(gather_items([np.asarray(ask(), dtype=float)]), axis=0)
            if weights.shape != (self.cases,) or not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
                raise InputError(
                    f"the sampler got the weights {weights.tolist()}: expected one per case ({self.cases}), 0 or more."
                )
            self.in_force = {"epoch": self.epoch, "weights": weights.tolist()}
        random = np.random.default_rng([self.seed, self.epoch, 0, 1])
        ends = np.cumsum(self.in_force["weights"])
        steps = (np.arange(self.samples) + random.random()) / self.samples
        return random.permutation(np.searchsorted(ends / ends[-1], steps, side="right")).__getitem__

    @cached_property
    def _pools(self) -> tuple[list[np.ndarray], float]:
        """The case numbers to draw from, and the share of the second of them."""
        every = np.arange(self.cases)
        if self.labelled_share is not None:
            labelled = np.asarray(self.labelled(), dtype=int)
            empty = np.setdiff1d(every, labelled)
            if labelled.size and empty.size:
                return [empty, labelled], self.labelled_share
        return [every], 0.0
