"""Documents that say the same, over any number of files: exact copies and near copies.

Of documents that say the same the first of the corpus stays. A document is dropped only for one
that stays and is itself as similar as asked, by the true Jaccard similarity of both sets of
shingles: there are no chains (of A~B~C with A unlike C, C stays).

`write_signatures` is a task on a shard; `exact_copies` and `find_copies` are tasks on a range of
hash values, which read their slices of all signature files; `resolve` and `settle` put together
what they find. Nothing depends on how the corpus is cut into blocks, shards and ranges, nor on the
order in which tasks end.

Why it takes rounds: in a bucket of ten thousand nearly equal pages all pairs are too many, and the
pairs with its first page are enough, but only if that page stays. So round r compares each document
with the first 8^r of its bucket that are still kept, until all kept documents with a key in common
have been compared. Then the kept documents are what one pass in the order of the corpus over all
pairs would keep, since only one set of documents has no similar pair in it and for each other
document an earlier similar one: the lexicographically first maximal independent set (Blelloch,
Fineman and Shun 2012, arXiv:1202.3205).

Memory of a task on one of P ranges of N documents, measured: 90 N / P bytes, 260 N / P where each
has its key in common with another; 24 bytes for a pair that was found; 50 bytes for each character
that is verified, of a million or of the two largest documents. Masks are read where they stand.

Shapes: M members of buckets, B bands, Q pairs, E edges. A document's number in the corpus is
`shard << 32 | index in the shard`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexlm.text.copies.minhash import (
    BANDS,
    ROW,
    Int64s,
    SignatureFile,
    Uint32s,
    Uint64s,
    most_unequal_bits,
    shingle_sets,
)

WIDENING = 8
"""Each round compares with so many times more documents of a bucket than the round before."""

_PAIRS = 250_000  # compared at one time
_VERIFIED_CHARS = 1_000_000  # of the texts that are verified at one time

Bools = NDArray[np.bool_]
Masks = Sequence[Bools]
"""For each shard, which of its documents are there; memory maps will do."""
Texts = Callable[[int, int], str]
"""The text of a document, by shard and index in it."""


class Edges(NamedTuple):
    """Pairs of documents that say the same, by their numbers in the corpus."""

    earlier_E: Int64s
    later_E: Int64s
    similarity_E: NDArray[np.float64]


class Found(NamedTuple):
    """What one task found; not `complete` where it left pairs to a later round."""

    edges: Edges
    complete: bool


@dataclass(frozen=True)
class Round:
    """One round of comparisons: documents kept before it, and before the round before it."""

    number: int
    kept: Masks
    before: Masks | None = None


def exact_copies(files: Sequence[Path], kept: Masks, part: int, parts: int) -> Edges:
    """For each document that says what an earlier one says, the first one that does.

    Looks at the range `part` of `parts` of the hashes; `files` are the signatures of the shards.
    """
    pieces = []
    for shard, path in enumerate(files):
        index_M, head_M, rest_M = SignatureFile(path).contents(part, parts)
        there_M = kept[shard][index_M]
        numbers_M = _numbers(shard, index_M[there_M])
        pieces.append((numbers_M, head_M[there_M], rest_M[there_M]))
    number_M, head_M, rest_M = (np.concatenate(values) for values in zip(*pieces))
    order_M = np.lexsort((number_M, rest_M, head_M))
    number_M, head_M, rest_M = number_M[order_M], head_M[order_M], rest_M[order_M]
    new_M = np.ones(len(number_M), dtype=bool)
    new_M[1:] = (head_M[1:] != head_M[:-1]) | (rest_M[1:] != rest_M[:-1])
    later_E = number_M[~new_M]
    return Edges(number_M[_firsts(new_M)][~new_M], later_E, np.ones(len(later_E)))


def find_copies(
    files: Sequence[Path], turn: Round, texts: Texts, part: int, parts: int, jaccard: float
) -> Found:
    """Pairs of kept documents with a similarity of at least `jaccard`, of one range of the keys.

    Compared are documents with a key in common, each pair in the first band in which they agree.
    """
    signed = [SignatureFile(path) for path in files]
    width = WIDENING**turn.number
    most_unequal = most_unequal_bits(jaccard)
    edges: list[Edges] = []
    complete = True
    for band in range(BANDS):
        members = _members(signed, turn, band, part, parts)
        complete &= not (members.rank_M > width).any()
        row_M = _rows(signed, members.number_M)
        mark_MB, sketch_MW = row_M["marks"], row_M["sketch"]
        for left_Q, right_Q in _pairs(members, width):
            unequal_Q = np.bitwise_count(sketch_MW[left_Q] ^ sketch_MW[right_Q]).sum(axis=1)
            near_Q = unequal_Q <= most_unequal
            left_Q, right_Q = left_Q[near_Q], right_Q[near_Q]
            first_Q = ~(mark_MB[left_Q, :band] == mark_MB[right_Q, :band]).any(axis=1)
            left_Q, right_Q = members.number_M[left_Q[first_Q]], members.number_M[right_Q[first_Q]]
            edges.extend(_verified(left_Q, right_Q, texts, jaccard))
    return Found(_joined(edges), complete)


def resolve(edges: Iterable[Edges]) -> Edges:
    """One edge for each document that is dropped, from the earliest similar one that stays."""
    earlier_E, later_E, similarity_E = _joined(edges)
    order_E = np.lexsort((earlier_E, later_E))
    number, place_E = np.unique(np.concatenate([earlier_E, later_E]), return_inverse=True)
    earlier, later = (places[order_E].tolist() for places in np.split(place_E, 2))
    gone = bytearray(len(number))
    chosen: list[int] = []
    # In the order of the later document, so that by then it is known what the earlier one became.
    for edge, (first, second) in enumerate(zip(earlier, later)):
        if not gone[first] and not gone[second]:
            gone[second] = True
            chosen.append(edge)
    chosen_E = order_E[np.array(chosen, dtype=np.int64)]
    return Edges(earlier_E[chosen_E], later_E[chosen_E], similarity_E[chosen_E])


def settle(kept: Masks, search: Callable[[Round], Iterable[Found]]) -> Edges:
    """Go through the rounds; resolved edges of all documents that are dropped as near copies.

    `search` does `find_copies` for a round on every part, in any order.
    """
    found: list[Edges] = []
    turn = Round(0, kept)
    while True:
        complete = True
        for answer in search(turn):
            found.append(answer.edges)
            complete &= answer.complete
        resolved = resolve(found)
        left = without(kept, resolved)
        back = any((now & ~then).any() for now, then in zip(left, turn.kept))
        if complete and not back:
            return resolved
        turn = Round(turn.number + 1, left, turn.kept)


def without(kept: Masks, edges: Edges) -> list[Bools]:
    """The masks without the later documents of the edges."""
    left = [np.array(mask) for mask in kept]
    shard_E = edges.later_E >> 32
    for shard in np.unique(shard_E).tolist():
        left[shard][edges.later_E[shard_E == shard] & 0xFFFFFFFF] = False
    return left


class _Members(NamedTuple):
    """Documents with a key that others have too, bucket after bucket, in order.

    `rank` counts the kept documents before in the bucket. Each that `was` kept in the round before
    has then been compared with each earlier `centre`.
    """

    number_M: Int64s
    rank_M: Int64s
    was_M: Bools
    centre_M: Bools


def _members(
    signed: Sequence[SignatureFile], turn: Round, band: int, part: int, parts: int
) -> _Members:
    pieces = []
    for shard, file in enumerate(signed):
        index_M, key_M = file.band(band, part, parts)
        now_M = turn.kept[shard][index_M]
        was_M = np.zeros_like(now_M) if turn.before is None else turn.before[shard][index_M]
        use_M = now_M | was_M
        numbers_M = _numbers(shard, index_M[use_M])
        pieces.append((key_M[use_M], numbers_M, now_M[use_M], was_M[use_M]))
    key_M, number_M, now_M, was_M = (np.concatenate(values) for values in zip(*pieces))
    order_M = np.argsort(key_M, kind="stable")
    key_M, number_M, now_M, was_M = (
        key_M[order_M],
        number_M[order_M],
        now_M[order_M],
        was_M[order_M],
    )
    new_M = np.ones(len(key_M), dtype=bool)
    new_M[1:] = key_M[1:] != key_M[:-1]
    first_M = _firsts(new_M)
    centre_M = was_M & (_ranks(was_M, first_M) < WIDENING**turn.number // WIDENING)
    total_M = np.bincount(first_M[now_M], minlength=len(first_M))[first_M]
    use_M = now_M & (total_M > 1)
    rank_M = _ranks(now_M, first_M)
    return _Members(number_M[use_M], rank_M[use_M], was_M[use_M], centre_M[use_M])


def _pairs(members: _Members, width: int) -> Iterator[tuple[Int64s, Int64s]]:
    """Places of pairs: each member with the first `width` of its bucket, as far as before it."""
    rank_M = members.rank_M
    count_M = np.minimum(rank_M, width)
    end_M = np.cumsum(count_M)
    start = 0
    while start < len(rank_M):
        done = int(end_M[start] - count_M[start])
        stop = max(start + 1, int(np.searchsorted(end_M, done + _PAIRS, side="right")))
        right_Q = np.repeat(np.arange(start, stop), count_M[start:stop])
        nth_Q = np.arange(done, done + len(right_Q)) - (end_M - count_M)[right_Q]
        left_Q = right_Q - rank_M[right_Q] + nth_Q
        fresh_Q = ~(members.centre_M[left_Q] & members.was_M[right_Q])
        yield left_Q[fresh_Q], right_Q[fresh_Q]
        start = stop


def _rows(signed: Sequence[SignatureFile], number_M: Int64s) -> NDArray[np.void]:
    rows_M = np.empty(len(number_M), dtype=ROW)
    shard_M = number_M >> 32
    order_M = np.argsort(shard_M, kind="stable")
    shards, starts = np.unique(shard_M[order_M], return_index=True)
    for shard, of_shard in zip(shards.tolist(), np.split(order_M, starts[1:])):
        rows_M[of_shard] = signed[shard].rows(number_M[of_shard] & 0xFFFFFFFF)
    return rows_M


def _verified(left_Q: Int64s, right_Q: Int64s, texts: Texts, jaccard: float) -> Iterator[Edges]:
    """Those pairs whose sets of shingles are as similar as asked, in batches of bounded text."""
    order_Q = np.lexsort((right_Q, left_Q))
    pairs = list(zip(left_Q[order_Q].tolist(), right_Q[order_Q].tolist()))
    start = 0
    while start < len(pairs):
        needed: dict[int, str] = {}
        chars, stop = 0, start
        while stop < len(pairs) and chars < _VERIFIED_CHARS:
            for number in pairs[stop]:
                if number not in needed:
                    needed[number] = texts(number >> 32, number & 0xFFFFFFFF)
                    chars += len(needed[number])
            stop += 1
        sets = dict(zip(needed, shingle_sets(list(needed.values()))))
        batch = pairs[start:stop]
        similarity_Q = np.array([_similarity(sets[a], sets[b], jaccard) for a, b in batch])
        near_Q = similarity_Q >= jaccard
        near = np.array(batch)[near_Q]
        yield Edges(near[:, 0], near[:, 1], similarity_Q[near_Q])
        start = stop


def _similarity(left: Uint64s, right: Uint64s, bound: float) -> float:
    """Jaccard similarity of two sorted sets; 0 where their sizes alone keep it below the bound."""
    if min(left.size, right.size) / max(left.size, right.size) < bound:
        return 0.0
    both = np.concatenate([left, right])
    both.sort(kind="stable")  # finds the two runs and merges them
    shared = np.count_nonzero(both[1:] == both[:-1])
    return shared / (both.size - shared)


def _numbers(shard: int, index_M: Uint32s) -> Int64s:
    return index_M.astype(np.int64) | (shard << 32)


def _firsts(new_M: Bools) -> Int64s:
    """Where the group of each begins; `new` marks the first of a group."""
    return np.maximum.accumulate(np.where(new_M, np.arange(len(new_M)), 0))


def _ranks(flag_M: Bools, first_M: Int64s) -> Int64s:
    """How many of the same group before each have the flag."""
    before_M: Int64s = np.cumsum(flag_M) - flag_M
    return before_M - before_M[first_M]


def _joined(edges: Iterable[Edges]) -> Edges:
    none = Edges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    return Edges(*(np.concatenate(arrays) for arrays in zip(none, *edges)))
