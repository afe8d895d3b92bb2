"""The rows of step s as micro-batches: nothing to save, resume is exact."""

from collections.abc import Iterator, Mapping

from indexlm.feed.mixture import Mixture
from indexlm.feed.packing import Batch, Source, collate


class Feed:
    """Step s takes samples [s x batch, (s + 1) x batch) of the mixture.

    `batch` is a multiple of `micro_batch`; the split changes memory, not the numbers.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        mixture: Mixture,
        *,
        batch: int,
        micro_batch: int,
        length: int,
    ) -> None:
        assert batch % micro_batch == 0, (batch, micro_batch)
        self.sources, self.mixture = sources, mixture
        self.batch, self.micro_batch, self.length = batch, micro_batch, length

    def micro_batches(self, step: int) -> Iterator[Batch]:
        first = step * self.batch
        for start in range(first, first + self.batch, self.micro_batch):
            places = map(self.mixture.locate, range(start, start + self.micro_batch))
            yield collate([self.sources[name].row(row) for name, row in places], self.length)
