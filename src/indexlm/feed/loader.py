"""The rows of step s as micro-batches: nothing to save, resume is exact.

Made when they are asked for: measured on two cores, making rows takes under 0.1% of training on
them (`benchmarks/training`), so no thread makes them ahead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from indexlm.feed.mixture import Mixture
from indexlm.feed.packing import Batch, Row, Source, collate
from indexlm.tokens.chat_format import IGNORED


class Feed:
    """Step s takes samples [s x batch, (s + 1) x batch) of the mixture.

    `batch` is a multiple of `micro_batch`; the split changes memory, not the numbers. Of the
    micro-batches of a step, process r of n takes r, r + n, ...: what a step trains on does not
    depend on how many processes there are.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        mixture: Mixture,
        *,
        batch: int,
        micro_batch: int,
        length: int,
        token_bytes: np.ndarray | None = None,
    ) -> None:
        """`token_bytes` is the number of UTF-8 bytes of each token id, for bits per byte."""
        assert batch % micro_batch == 0, (batch, micro_batch)
        self.sources, self.mixture = sources, mixture
        self.batch, self.micro_batch, self.length = batch, micro_batch, length
        self.token_bytes = token_bytes

    @property
    def names(self) -> list[str]:
        return self.mixture.names

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        first = step * self.batch
        for number in range(rank, self.batch // self.micro_batch, ranks):
            start = first + number * self.micro_batch
            places = map(self.mixture.locate, range(start, start + self.micro_batch))
            rows = [(name, self.sources[name].row(row)) for name, row in places]
            batch = collate([row for _, row in rows], self.length)
            yield replace(batch, tokens=_tokens(rows), label_bytes=self._label_bytes(rows))

    def documents(self, step: int) -> list[str]:
        """`<source>#<number>` of every document that a step is made of."""
        first = step * self.batch
        places = map(self.mixture.locate, range(first, first + self.batch))
        return [
            f"{name}#{document}"
            for name, row in places
            for document in self.sources[name].documents(row)
        ]

    def _label_bytes(self, rows: list[tuple[str, Row]]) -> int:
        if self.token_bytes is None:
            return 0
        labels = [segment.labels for _, row in rows for segment in row]
        return sum(int(self.token_bytes[each[each != IGNORED]].sum()) for each in labels)


def _tokens(rows: list[tuple[str, Row]]) -> dict[str, int]:
    tokens: dict[str, int] = {}
    for name, row in rows:
        tokens[name] = tokens.get(name, 0) + sum(len(segment.ids) for segment in row)
    return tokens
