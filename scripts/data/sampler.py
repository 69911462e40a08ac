"""The case and the random seed of each patch of an epoch."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """Pairs (case number, seed) for one epoch: every case equally often, in a new order each round.

    Each of several processes takes its own part of the same sequence, whatever their number.

    Args:
        cases: how many cases there are.
        samples: patches per epoch, over all processes.
        seed: the run's seed.
        rank: this process.
        world_size: all processes.
        labelled_share: share of the patches from cases with any label, where many have none (slices of a volume);
            None: all cases equally often.
        labelled: returns the numbers of the cases with a label; called when the first epoch starts.
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
    ) -> None:
        self.cases, self.samples, self.seed = cases, samples, seed
        self.rank, self.world_size = rank, world_size
        self.labelled_share, self.labelled = labelled_share, labelled
        self.epoch = self.drawn = 0

    def set_epoch(self, epoch: int, drawn: int = 0) -> None:
        """Set the epoch, counted from 0, that the next pass draws, without its first `drawn` patches."""
        self.epoch, self.drawn = epoch, drawn

    def __len__(self) -> int:
        return len(range(self.rank, self.samples, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        pools, share = self._pools
        for position in range(self.rank, self.samples, self.world_size)[self.drawn :]:
            count = self.epoch * self.samples + position  # counted over the whole run
            before, after = int(count * share), int((count + 1) * share)
            pool, drawn = (1, before) if after > before else (0, count - before)
            round_, place = divmod(drawn, len(pools[pool]))
            order = np.random.default_rng([self.seed, pool, round_]).permutation(pools[pool])
            seed = np.random.SeedSequence([self.seed, count]).generate_state(1)[0]
            yield int(order[place]), int(seed)

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
