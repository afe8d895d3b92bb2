"""The formulas by hand; tests/test_scaling.py counts what processes exchange."""

import pytest

from indexlm.model import communication
from indexlm.model.communication import Layout
from indexlm.model.config import ModelConfig

RELEASED = ModelConfig()
ODD = ModelConfig(vocab_size=67, hidden=24, layers=3, heads=4, kv_heads=2, ffn=50, context=8)
"""No vocabulary and no feed-forward that 4 divides."""


def padded(shape: ModelConfig, ranks: int) -> int:
    blocks = shape.layers * communication.block_numbers(shape, ranks)
    ends = communication.embedding_numbers(shape, ranks) + communication.head_numbers(shape, ranks)
    return blocks + ends


def test_padding_is_counted_and_is_less_than_a_row_a_rank() -> None:
    assert padded(ODD, 1) == ODD.parameters
    # Per block gate and up [50, 24] to 52 rows; embedding and head [67, 24] to 68.
    assert padded(ODD, 4) - ODD.parameters == 3 * 2 * 2 * 24 + 2 * 24


def test_one_rank_exchanges_nothing_and_many_send_eight_bytes_a_weight() -> None:
    assert communication.step_collectives(RELEASED, Layout(1, 4096)) == []
    sent = communication.sent_in_step(communication.step_collectives(RELEASED, Layout(8, 4096)))
    # Blocks are gathered twice in bfloat16, the head once in float32, the embedding once in
    # bfloat16; all are scattered in float32. 327 tensors have a norm each.
    blocks = 36 * communication.block_numbers(RELEASED, 8)
    head, embedding = 65_032 * 2048, 65_032 * 2048 + 2048
    small = 2 * 8 * (16 + 327)
    assert sent == pytest.approx(7 / 8 * (8 * blocks + 8 * head + 6 * embedding + small), rel=1e-12)


def test_a_shared_head_moves_hidden_states_instead_of_its_weights() -> None:
    """By hand: 64 ranks in groups of 8, one row of 4,096 tokens each, two micro-batches."""
    found = {
        (each.what, each.kind): each
        for each in communication.step_collectives(RELEASED, Layout(64, 4096, 2, head_ranks=8))
    }
    hidden = found["hidden states", "all-gather"]
    assert (hidden.ranks, hidden.size, hidden.times) == (8, 2 * 8 * 4096 * 2048, 2)
    assert hidden.sent == 2 * 7 * 4096 * 2048
    gradient = found["gradients of hidden states", "reduce-scatter"]
    assert (gradient.size, gradient.sent) == (hidden.size, hidden.sent)
    head = found["head", "all-reduce"]
    # 65,029 rows in eight parts of at most 8,129, float32, over the eight groups, once a step.
    assert (head.ranks, head.size, head.times, head.stride) == (8, 4 * 8129 * 2048, 1, 8)
    assert head.sent == 2 * 7 / 8 * head.size
    assert ("head", "all-gather") not in found
    assert found["embedding", "all-gather"].size == 2 * (65_088 * 2048 + 2048)
