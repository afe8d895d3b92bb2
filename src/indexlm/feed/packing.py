"""Rows: documents or conversations packed to one length, each seeing only itself.

Positions and attention restart at document borders. A text document is read as
`[</s>] + tokens -> tokens + [</s>]`: its first token is predicted from the end of the document
before, so no byte of a corpus goes unscored and no beginning-of-sequence id is needed.

Shape suffixes: B rows, T positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from indexlm.errors import UserError
from indexlm.tokens.chat_format import IGNORED
from indexlm.tokens.shards import Shard
from indexlm.tokens.tokenizer import EOS, PAD


@dataclass(frozen=True)
class Segment:
    """A stretch of one document inside a row: inputs and the label of each."""

    ids: np.ndarray
    labels: np.ndarray


Row = list[Segment]


class Source(Protocol):
    """Endless rows; row n is the same in every process and every run."""

    def row(self, number: int) -> Row: ...

    def documents(self, number: int) -> list[int]:
        """Numbers, in the source, of the documents that row `number` is made of."""
        ...


@dataclass(frozen=True)
class Batch:
    """Rows that pass through the model together; label IGNORED is not trained."""

    ids_BT: Tensor
    labels_BT: Tensor
    positions_BT: Tensor
    documents_BT: Tensor
    tokens: Mapping[str, int] = field(default_factory=dict)
    """Tokens by source, without padding."""
    label_bytes: int = 0
    """UTF-8 bytes of the text that is predicted; 0 where it is not known."""

    def split(self, parts: int) -> "list[Batch]":
        """Its rows in as many parts as there are rows for, without what is counted of it."""
        rows = [
            tensor.chunk(parts)
            for tensor in (self.ids_BT, self.labels_BT, self.positions_BT, self.documents_BT)
        ]
        return [Batch(*part) for part in zip(*rows)]

    def to(self, device: str) -> "Batch":
        """The same on a device."""
        return replace(
            self,
            ids_BT=_moved(self.ids_BT, device),
            labels_BT=_moved(self.labels_BT, device),
            positions_BT=_moved(self.positions_BT, device),
            documents_BT=_moved(self.documents_BT, device),
        )


def _moved(tensor: Tensor, device: str) -> Tensor:
    # A copy from memory that can be swapped out waits for all that the GPU still has to do.
    held = tensor.pin_memory() if device == "cuda" else tensor
    return held.to(device, non_blocking=True)


class TextSource:
    """A shard cut into rows, its documents in a new order every epoch."""

    def __init__(self, shard: Shard, length: int, seed: int) -> None:
        self.shard, self.length, self.seed = shard, length, seed
        self.rows_per_epoch = max(int(shard.offsets[-1]) // length, 1)
        self._epoch = lru_cache(maxsize=2)(self._order)

    def documents(self, number: int) -> list[int]:
        epoch, index = divmod(number, self.rows_per_epoch)
        order, ends = self._epoch(epoch)
        first = int(np.searchsorted(ends, index * self.length, side="right"))
        last = int(np.searchsorted(ends, (index + 1) * self.length, side="left"))
        return order[first : last + 1].tolist()

    def row(self, number: int) -> Row:
        epoch, index = divmod(number, self.rows_per_epoch)
        order, ends = self._epoch(epoch)
        place, stop = index * self.length, (index + 1) * self.length
        row: Row = []
        at = int(np.searchsorted(ends, place, side="right"))
        while place < stop and at < len(order):
            document = order[at]
            begin = int(self.shard.offsets[document])
            inside = place - (int(ends[at - 1]) if at else 0)
            take = min(int(ends[at]), stop) - place
            labels = self.shard.ids[begin + inside : begin + inside + take].astype(np.int64)
            before = int(self.shard.ids[begin + inside - 1]) if inside else EOS
            row.append(Segment(np.concatenate(([before], labels[:-1])), labels))
            place += take
            at += 1
        return row

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.shard.offsets) - 1
        order = np.random.default_rng((self.seed, epoch)).permutation(count)
        return order, np.cumsum(self.shard.lengths[order])


class ConversationSource:
    """Conversations packed whole, next-fit in a shuffled order; row order is new every epoch."""

    def __init__(
        self, conversations: Sequence[tuple[list[int], list[int]]], length: int, seed: int
    ) -> None:
        """Each conversation is (ids, labels); those longer than `length` are left out, counted
        in `too_long`. Raises UserError where that leaves none."""
        self.seed = seed
        self.rows: list[Row] = []
        self._documents: list[list[int]] = []
        self.too_long = sum(len(ids) > length for ids, _ in conversations)
        fill = length
        for index in np.random.default_rng((seed, 0)).permutation(len(conversations)):
            ids, labels = conversations[index]
            if len(ids) > length:
                continue
            if fill + len(ids) > length:
                self.rows.append([])
                self._documents.append([])
                fill = 0
            self._documents[-1].append(int(index))
            self.rows[-1].append(Segment(np.asarray(ids), np.asarray(labels)))
            fill += len(ids)
        if not self.rows:
            raise UserError(
                f"none of {len(conversations)} conversations fits a row of {length} tokens; "
                "make the rows longer"
            )
        self._epoch = lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng((seed, 1, epoch)).permutation(len(self.rows))
        )

    def row(self, number: int) -> Row:
        epoch, index = divmod(number, len(self.rows))
        return self.rows[self._epoch(epoch)[index]]

    def documents(self, number: int) -> list[int]:
        epoch, index = divmod(number, len(self.rows))
        return self._documents[self._epoch(epoch)[index]]

    @property
    def labels_per_row(self) -> float:
        """Supervised tokens in a row, on average."""
        total = sum(int((s.labels != IGNORED).sum()) for row in self.rows for s in row)
        return total / len(self.rows)


def collate(rows: Sequence[Row], length: int) -> Batch:
    """Rows as tensors [B, length]; padding is document -1 with ignored labels."""
    shape = (len(rows), length)
    ids, labels = np.full(shape, PAD), np.full(shape, IGNORED)
    positions, documents = np.zeros(shape, np.int64), np.full(shape, -1)
    for at, row in enumerate(rows):
        start = 0
        for number, segment in enumerate(row):
            stop = start + len(segment.ids)
            assert stop <= length
            ids[at, start:stop], labels[at, start:stop] = segment.ids, segment.labels
            positions[at, start:stop] = np.arange(stop - start)
            documents[at, start:stop] = number
            start = stop
    ids_BT, labels_BT, positions_BT, documents_BT = map(
        torch.from_numpy, (ids, labels, positions, documents)
    )
    return Batch(ids_BT, labels_BT, positions_BT, documents_BT)
