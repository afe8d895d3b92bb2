"""Bytes that a training step moves between GPUs, as plain formulas of what `shard.py` lays out.

Every block is a unit of FSDP2 (Zhao et al. 2023), so is the head, and the embedding with the final
norm: sharded over all W ranks, gathered before they are used, their gradients reduced and scattered
after every micro-batch. Blocks are let go after the forward pass and gathered again for the
backward pass; the head is gathered in float32, to be normalised in it. FSDP2 splits a tensor by its
first dimension and pads it to a multiple of W, so that a unit moves up to W - 1 rows of each of its
tensors more than it has.

The head may instead be split by vocabulary row over groups of h ranks (Megatron-LM, Shoeybi et al.
2019): hidden states of a group are gathered, every rank makes the logits of its rows for all of
them, log-sums are put together from all, and gradients of hidden states are reduced and scattered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from indexlm.model.config import ModelConfig
from indexlm.model.costs import BFLOAT16, FLOAT32, projection_shapes

NUMBER = 8
"""Bytes of an integer label, of a count, and of a float64 sum."""


@dataclass(frozen=True)
class Layout:
    """How a step is spread over `ranks` GPUs; `tokens` are those of one micro-batch of one GPU."""

    ranks: int
    tokens: int
    micro_batches: int = 1
    """Of one GPU in one step."""
    head_ranks: int = 1
    """GPUs that share the rows of the head; 1 leaves the head in FSDP."""
    compute_bytes: int = BFLOAT16
    """Of a number in the arithmetic of blocks; gradients are reduced in float32."""
    sums: int = 16
    """Numbers that are added up over all ranks once a step: loss, units, tokens by source."""

    def __post_init__(self) -> None:
        assert self.ranks % self.head_ranks == 0, (self.ranks, self.head_ranks)


@dataclass(frozen=True)
class Collective:
    """One kind of exchange, `times` in a step, among `ranks` GPUs of which each has the next
    `stride` numbers away."""

    what: str
    kind: Literal["all-gather", "reduce-scatter", "all-reduce"]
    ranks: int
    size: int
    """Bytes of the whole tensor: what an all-gather gives and the other two are given."""
    times: int
    stride: int = 1

    @property
    def passes(self) -> int:
        """Round the ring: an all-reduce is a reduce-scatter and an all-gather."""
        return 2 if self.kind == "all-reduce" else 1

    @property
    def sent(self) -> float:
        """Bytes that each rank sends, and receives, in one exchange round a ring: (W - 1) / W of
        the tensor in each pass."""
        return self.passes * self.size * (self.ranks - 1) / self.ranks


def padded(rows: int, ranks: int) -> int:
    """The next multiple of `ranks`."""
    return -(-rows // ranks) * ranks


def block_numbers(model: ModelConfig, ranks: int) -> int:
    """Of a block's seven matrices and two gains, padded for `ranks`."""
    matrices = sum(padded(o, ranks) * i for o, i in projection_shapes(model).values())
    return matrices + 2 * padded(model.hidden, ranks)


def embedding_numbers(model: ModelConfig, ranks: int) -> int:
    """Of the embedding and the final gain, padded for `ranks`."""
    return head_numbers(model, ranks) + padded(model.hidden, ranks)


def head_numbers(model: ModelConfig, ranks: int) -> int:
    """Padded for `ranks`."""
    return padded(model.vocab_size, ranks) * model.hidden


def head_rows(model: ModelConfig, head_ranks: int) -> int:
    """Rows of the head on a rank of its group; the last ones may have fewer."""
    return -(-model.vocab_size // head_ranks)


def step_collectives(model: ModelConfig, layout: Layout) -> list[Collective]:
    """All that the ranks exchange in one step, except every tenth, whose further norms are as
    small as these; nothing for one rank."""
    ranks, times, size = layout.ranks, layout.micro_batches, layout.compute_bytes
    block = block_numbers(model, ranks)
    embedding = embedding_numbers(model, ranks)
    # In the forward pass, and in the backward pass again.
    twice = 2 * times * model.layers
    tensors = model.layers * (len(projection_shapes(model)) + 2) + 3
    found = [
        Collective("blocks", "all-gather", ranks, size * block, twice),
        Collective("blocks", "reduce-scatter", ranks, FLOAT32 * block, times * model.layers),
        Collective("embedding", "all-gather", ranks, size * embedding, times),
        Collective("embedding", "reduce-scatter", ranks, FLOAT32 * embedding, times),
        Collective("sums", "all-reduce", ranks, NUMBER * layout.sums, 1),
        Collective("gradient norms", "all-reduce", ranks, NUMBER * tensors, 1),
    ]
    if layout.head_ranks == 1:
        whole = FLOAT32 * head_numbers(model, ranks)
        found.append(Collective("head", "all-gather", ranks, whole, times))
        found.append(Collective("head", "reduce-scatter", ranks, whole, times))
    else:
        found += _of_a_shared_head(model, layout)
    return [each for each in found if each.ranks > 1]


def _of_a_shared_head(model: ModelConfig, layout: Layout) -> list[Collective]:
    group, times = layout.head_ranks, layout.micro_batches
    tokens = group * layout.tokens
    hidden = layout.compute_bytes * tokens * model.hidden
    rows = FLOAT32 * head_rows(model, group) * model.hidden
    return [
        # The longest of the group.
        Collective("lengths", "all-reduce", group, NUMBER, times),
        Collective("hidden states", "all-gather", group, hidden, times),
        Collective("labels", "all-gather", group, NUMBER * tokens, times),
        Collective("log-sums", "all-gather", group, FLOAT32 * tokens * group, times),
        Collective("logits of labels", "all-reduce", group, FLOAT32 * tokens, times),
        Collective("weights of losses", "all-gather", group, FLOAT32 * tokens, times),
        Collective("gradients of hidden states", "reduce-scatter", group, hidden, times),
        Collective("head", "all-reduce", layout.ranks // group, rows, 1, stride=group),
    ]


def sent_in_step(collectives: Sequence[Collective]) -> float:
    """Bytes that each rank sends in a step."""
    return sum(each.times * each.sent for each in collectives)
