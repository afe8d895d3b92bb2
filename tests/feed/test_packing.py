"""Rows of text and of conversations: nothing lost, nothing twice, nothing across a border."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.feed.packing import ConversationSource, Row, Segment, TextSource, collate
from indexlm.tokens.chat_format import IGNORED
from indexlm.tokens.shards import Shard
from indexlm.tokens.tokenizer import EOS, PAD

document_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def shard_of(lengths: Iterable[int]) -> Shard:
    """Documents in which every token is a number of its own, `</s>` at their ends."""
    offsets = np.cumsum([0, *lengths])
    ids = np.arange(10, 10 + offsets[-1], dtype=np.uint16)
    ids[offsets[1:] - 1] = EOS
    return Shard("text", ids, offsets)


def document_at(shard: Shard, token: int) -> int:
    return int(np.searchsorted(shard.offsets, token - 10, side="right")) - 1


def epoch_rows(source: TextSource, epoch: int = 0) -> list[Row]:
    first = epoch * source.rows_per_epoch
    return [source.row(first + number) for number in range(source.rows_per_epoch)]


@given(document_lengths, st.integers(1, 50), st.integers(0, 3))
@settings(max_examples=80, deadline=None, database=None)
def test_an_epoch_of_text_labels_every_token_once(
    lengths: list[int], length: int, epoch: int
) -> None:
    shard = shard_of(lengths)
    rows = epoch_rows(TextSource(shard, length, seed=5), epoch)
    labels = np.concatenate([s.labels for row in rows for s in row])
    found, held = Counter(labels.tolist()), Counter(shard.ids.tolist())
    assert found <= held
    # Only what does not fill a last row is left out, and a short corpus is not left out at all.
    total = len(shard.ids)
    assert len(labels) == (total - total % length if total >= length else total)


@given(document_lengths, st.integers(1, 50), st.integers(0, 3))
@settings(max_examples=80, deadline=None, database=None)
def test_inputs_are_the_labels_one_place_later(lengths: list[int], length: int, epoch: int) -> None:
    shard = shard_of(lengths)
    for row in epoch_rows(TextSource(shard, length, seed=5), epoch):
        for place, segment in enumerate(row):
            assert segment.ids[1:].tolist() == segment.labels[:-1].tolist()
            own = [token for token in segment.labels.tolist() if token != EOS]
            # One document to a segment, and `</s>` nowhere but at its end.
            assert EOS not in segment.labels[:-1]
            assert len({document_at(shard, token) for token in own}) <= 1
            if place > 0:
                assert segment.ids[0] == EOS
            elif own and segment.ids[0] != EOS:
                assert segment.ids[0] == own[0] - 1


def test_a_document_cut_by_a_row_goes_on_in_the_next() -> None:
    rows = epoch_rows(TextSource(shard_of([25]), 10, seed=0))
    assert [row[0].labels.tolist() for row in rows] == [[*range(10, 20)], [*range(20, 30)]]
    assert [row[0].ids.tolist() for row in rows] == [[EOS, *range(10, 19)], [*range(19, 29)]]


def test_every_epoch_has_an_order_of_its_own_and_the_same_in_each_instance() -> None:
    shard = shard_of([7] * 30)
    one, other = TextSource(shard, 16, seed=1), TextSource(shard, 16, seed=1)
    numbers = np.random.default_rng(0).permutation(60)
    assert all(
        a.labels.tolist() == b.labels.tolist()
        for number in numbers
        for a, b in zip(one.row(int(number)), other.row(int(number)), strict=True)
    )
    first, second = (
        [s.labels.tolist() for r in epoch_rows(one, epoch) for s in r] for epoch in (0, 1)
    )
    assert first != second
    another = TextSource(shard, 16, seed=2)
    assert first != [s.labels.tolist() for r in epoch_rows(another) for s in r]


conversation_lengths = st.lists(st.integers(2, 30), min_size=1, max_size=30)


def conversations_of(lengths: list[int]) -> list[tuple[list[int], list[int]]]:
    """Each is a row of one repeated number; its second half is labelled."""
    return [
        ([10 + index] * size, [IGNORED] * (size // 2) + [10 + index] * (size - size // 2))
        for index, size in enumerate(lengths)
    ]


@given(conversation_lengths, st.integers(8, 40), st.integers(0, 2))
@settings(max_examples=80, deadline=None, database=None)
def test_an_epoch_holds_every_fitting_conversation_once_and_whole(
    lengths: list[int], length: int, epoch: int
) -> None:
    if min(lengths) > length:
        return
    conversations = conversations_of(lengths)
    source = ConversationSource(conversations, length, seed=3)
    count = len(source.rows)
    rows = [source.row(epoch * count + number) for number in range(count)]
    found = [(s.ids.tolist(), s.labels.tolist()) for row in rows for s in row]
    fitting = [(ids, labels) for ids, labels in conversations if len(ids) <= length]
    assert sorted(found) == sorted(fitting)
    assert source.too_long == len(conversations) - len(fitting)
    assert all(sum(len(s.ids) for s in row) <= length for row in rows)


def test_conversations_are_packed_together() -> None:
    source = ConversationSource(conversations_of([10] * 12), 40, seed=0)
    assert [len(row) for row in source.rows] == [4, 4, 4]
    assert source.labels_per_row == 20


def test_conversation_rows_are_shuffled_anew_in_every_epoch() -> None:
    source = ConversationSource(conversations_of([9] * 40), 10, seed=0)
    orders = [[int(source.row(e * 40 + i)[0].ids[0]) for i in range(40)] for e in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10, 50))
    assert orders[0] != orders[1]


def test_no_fitting_conversation_is_refused() -> None:
    with pytest.raises(UserError, match="none of 1 conversations fits a row of 10 tokens"):
        ConversationSource(conversations_of([20]), 10, seed=0)


def test_collated_rows_restart_positions_and_mark_padding() -> None:
    first = [Segment(np.array([7, 8, 9]), np.array([8, 9, EOS]))]
    second = [
        Segment(np.array([5, 6]), np.array([IGNORED, 6])),
        Segment(np.array([11, 12]), np.array([12, EOS])),
    ]
    batch = collate([first, second], 5)
    assert batch.ids_BT.tolist() == [[7, 8, 9, PAD, PAD], [5, 6, 11, 12, PAD]]
    assert batch.labels_BT.tolist() == [
        [8, 9, EOS, IGNORED, IGNORED],
        [IGNORED, 6, 12, EOS, IGNORED],
    ]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 0, 0], [0, 1, 0, 1, 0]]
    assert batch.documents_BT.tolist() == [[0, 0, 0, -1, -1], [0, 0, 1, 1, -1]]
    assert int((batch.labels_BT != IGNORED).sum()) == 6
    assert batch.ids_BT.dtype == batch.labels_BT.dtype == torch.int64


def test_a_row_that_is_too_long_is_refused() -> None:
    with pytest.raises(AssertionError):
        collate([[Segment(np.arange(6), np.arange(6))]], 5)
