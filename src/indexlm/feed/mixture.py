"""Which source, and which row of it, is sample i: a pure function of (seed, phases, i).

Samples are dealt in blocks. In each block the number of rows per source is fixed, only the order
is permuted, so achieved shares equal the asked ones over every block and not only in expectation.
A phase starts at a sample index with shares of its own; a source goes on in it where the phase
before stopped, so a decay branch does not read again what its trunk has read.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BLOCK = 256
"""Rows per block: a share is met to 1 / 256."""


@dataclass(frozen=True)
class Phase:
    first_sample: int
    shares: dict[str, float]


class Mixture:
    def __init__(self, phases: list[Phase], seed: int) -> None:
        assert phases and phases[0].first_sample == 0
        self.seed = seed
        self.phases = phases
        self.names = sorted({name for phase in phases for name in phase.shares})
        # Of the blocks that a step begins and ends in.
        self._order = lru_cache(maxsize=2)(self._shuffled)
        self._counts = [_rows_per_block(self.names, phase.shares) for phase in phases]
        self._used = [np.zeros(len(self.names), np.int64)]
        for index in range(1, len(phases)):
            self._used.append(self._rows_before(index - 1, phases[index].first_sample))

    def locate(self, sample: int) -> tuple[str, int]:
        """(source name, row number in that source) of one sample."""
        index = max(i for i, phase in enumerate(self.phases) if phase.first_sample <= sample)
        block, place = divmod(sample - self.phases[index].first_sample, BLOCK)
        order = self._order(index, block)
        source = order[place]
        rank = int((order[:place] == source).sum())
        row = self._used[index][source] + block * self._counts[index][source] + rank
        return self.names[source], int(row)

    def rows_used(self, samples: int) -> dict[str, int]:
        """Rows per source in the first `samples` samples."""
        index = max(
            i for i, phase in enumerate(self.phases) if phase.first_sample < max(samples, 1)
        )
        return dict(zip(self.names, self._rows_before(index, samples).tolist()))

    def _rows_before(self, index: int, sample: int) -> np.ndarray:
        blocks, rest = divmod(sample - self.phases[index].first_sample, BLOCK)
        partial = np.bincount(self._order(index, blocks)[:rest], minlength=len(self.names))
        return self._used[index] + blocks * self._counts[index] + partial

    def _shuffled(self, index: int, block: int) -> np.ndarray:
        sources = np.repeat(np.arange(len(self.names)), self._counts[index])
        return np.random.default_rng((self.seed, index, block)).permutation(sources)


def _rows_per_block(names: list[str], shares: dict[str, float]) -> np.ndarray:
    """Whole rows that sum to BLOCK, by largest remainder."""
    wanted = np.array([shares.get(name, 0.0) for name in names])
    assert (wanted >= 0).all() and wanted.sum() > 0, shares
    exact = wanted / wanted.sum() * BLOCK
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: BLOCK - int(counts.sum())]
    counts[largest] += 1
    return counts
