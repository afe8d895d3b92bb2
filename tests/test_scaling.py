"""Training on many GPUs: what moves is counted in real processes, the step time is played out."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives import Counts, counted_by_all
from indexlm.errors import UserError
from indexlm.model import communication, costs
from indexlm.model.communication import Collective, Layout
from indexlm.model.config import ModelConfig
from indexlm.model.sizes import SIZES
from indexlm.plan import Cluster, gpu_counts, memory, scaling, scaling_table
from indexlm.plan.memory import GIB

ODD = {
    "vocab_size": 67,
    "hidden": 24,
    "layers": 3,
    "heads": 4,
    "kv_heads": 2,
    "ffn": 50,
    "context": 8,
}
"""No vocabulary and no feed-forward that 2 and 4 both divide: FSDP2 pads them."""
EVEN = ODD | {"vocab_size": 64, "layers": 1, "ffn": 48}
BFLOAT16 = {"dtype": "bfloat16"}
RELEASED = SIZES["1.9b"]
STATE = ("weights", "gradients", "moments of AdamW")


def cases(ranks: int) -> list[dict[str, Any]]:
    """Of four processes two share the head, of two both."""
    sharded = {"shape": ODD, "rows": 1, "micro_batches": 3, "hardware": BFLOAT16}
    shared = {"shape": ODD, "rows": 2, "micro_batches": 2}
    if ranks == 4:
        return [sharded, shared | {"hardware": BFLOAT16 | {"head_parallel": 2}}]
    recomputed = BFLOAT16 | {"recompute": True}
    return [
        sharded,
        shared | {"hardware": {"head_parallel": 2}},
        {"shape": ODD, "rows": 2, "micro_batches": 1, "hardware": {}},
        {"shape": EVEN, "rows": 2, "micro_batches": 1, "hardware": recomputed},
    ]


def derived(case: dict[str, Any], ranks: int, rank: int) -> Counts:
    """What the formula gives, as the counter would see it on one rank."""
    shape, hardware = ModelConfig(**case["shape"]), case["hardware"]
    group = hardware.get("head_parallel", 1)
    layout = Layout(
        ranks,
        case["rows"] * shape.context,
        case["micro_batches"],
        group,
        costs.BFLOAT16 if "dtype" in hardware else costs.FLOAT32,
        # Loss, units, bytes, whether to stop, and tokens of one source.
        sums=5,
    )
    found: Counts = Counter()
    for each in communication.step_collectives(shape, layout):
        size = each.size
        if each.what == "head" and each.kind == "all-reduce":
            # The last ranks of a group have fewer rows than the formula says of the first.
            rows = communication.head_rows(shape, group)
            left = shape.vocab_size - rank % group * rows
            size = size // rows * min(rows, left)
        found[each.kind, each.ranks, size] += each.times
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_step_of_the_loop_exchanges_the_bytes_that_are_derived(
    ranks: int, tmp_path: Path
) -> None:
    by_rank = counted_by_all(ranks, cases(ranks), tmp_path / "store")
    assert len(by_rank) == ranks
    for rank, counts in enumerate(by_rank):
        for case, seen in zip(cases(ranks), counts, strict=True):
            assert seen == derived(case, ranks, rank), (rank, case)


def test_a_ring_is_as_fast_as_its_slowest_part() -> None:
    """At full size latency is nothing: 8 ranks on links of 450, 64 on 8 cards of 50 a node, a ring
    of one GPU a node on its own card."""
    cluster, size = Cluster(), 10**12
    speeds = {(8, 1): 450, (64, 1): 400, (8, 8): 50, (2, 1): 450, (16, 4): 100}
    for (ranks, stride), speed in speeds.items():
        ring = Collective("x", "all-gather", ranks, size, 1, stride)
        expected = size * (ranks - 1) / ranks / (speed * 1e9)
        assert scaling.ring_seconds(ring, cluster) == pytest.approx(expected, rel=1e-3)
        both = replace(ring, kind="all-reduce")
        assert scaling.ring_seconds(both, cluster) == pytest.approx(2 * expected, rel=1e-3)
    nothing = Collective("x", "all-gather", 64, 0, 1)
    assert scaling.ring_seconds(nothing, cluster) == pytest.approx(8.4e-6 + 7 * 14e-6 + 56 * 3.4e-6)


def played(
    layers: int, forward: float, backward: float, head: float, gather: float, scatter: float
) -> float:
    """A micro-batch step by step: one stream computes, one exchanges, in the order of their calls.

    Fetching block i + 1 is called when block i begins, scattering block i when it has ended.
    """
    computed = exchanged = gather
    ready = [gather] * layers
    for block in range(layers):
        begin = max(computed, ready[block])
        if block + 1 < layers:
            exchanged = ready[block + 1] = max(exchanged, begin) + gather
        computed = begin + forward
    computed += head
    exchanged = max(exchanged, computed) + gather
    ready[-1] = exchanged
    for block in reversed(range(layers)):
        begin = max(computed, ready[block])
        if block + 1 < layers:
            exchanged = max(exchanged, begin) + scatter
        if block:
            exchanged = ready[block - 1] = max(exchanged, begin) + gather
        computed = begin + backward
    return max(computed, exchanged) + scatter


@given(
    layers=st.integers(1, 12),
    tokens=st.sampled_from([256, 4096, 65536]),
    link=st.floats(0.5, 5000),
    recomputed=st.booleans(),
)
@settings(max_examples=200, deadline=None, database=None)
def test_a_step_takes_as_long_as_when_it_is_played_out(
    layers: int, tokens: int, link: float, recomputed: bool
) -> None:
    model = RELEASED.model_copy(update={"layers": layers})
    cluster = Cluster(link=link)
    layout = Layout(8, tokens, micro_batches=3)
    collectives = communication.step_collectives(model, layout)
    times = [(each, scaling.ring_seconds(each, cluster)) for each in collectives]
    blocks = {each.kind: seconds for each, seconds in times if each.what == "blocks"}
    rest = sum(each.times * seconds for each, seconds in times if each.what != "blocks")
    head = tokens * 2 * model.vocab_size * model.hidden / cluster.rate
    forward = tokens * costs.forward_flops_per_token(model, 256) / cluster.rate - head
    one = played(
        layers,
        forward / layers,
        (3 if recomputed else 2) * forward / layers,
        3 * head,
        blocks["all-gather"],
        blocks["reduce-scatter"],
    )
    compute, seconds = scaling.step_seconds(model, layout, 256, cluster, recomputed=recomputed)
    assert seconds == pytest.approx(3 * one + rest)
    all_exchanges = sum(each.times * seconds for each, seconds in times)
    assert compute <= seconds <= (compute + all_exchanges) * (1 + 1e-9)


def test_one_gpu_runs_at_the_speed_that_is_given() -> None:
    found = scaling.estimate(RELEASED, 1, 4096, 2**22, Cluster(mfu=0.37))
    assert found is not None and not found.recomputed
    assert found.sent == 0 and found.exposed == 0
    flops = costs.training_flops_per_token(RELEASED, 4096) * 2**22
    assert flops / found.seconds == pytest.approx(0.37 * 989e12)


@pytest.mark.parametrize("gpus", [1, 8, 64, 512, 1024])
@pytest.mark.parametrize("head_ranks", [1, 8])
def test_an_estimate_fits_its_gpu_and_loses_to_no_other_that_does(
    gpus: int, head_ranks: int
) -> None:
    cluster = Cluster()
    found = scaling.estimate(RELEASED, gpus, 4096, 2**22, cluster, head_ranks)
    assert found is not None
    assert found.memory <= 0.9 * 80 * GIB
    assert found.layout.micro_batches * found.rows * gpus * 4096 == 2**22
    parts = memory.gpu_memory(RELEASED, found.layout, found.rows, 4096, recomputed=found.recomputed)
    assert sum(parts.values()) == found.memory
    for rows in (1, 2, 4):
        if 2**22 % (rows * gpus * 4096) == 0:
            layout = replace(
                found.layout, tokens=rows * 4096, micro_batches=2**22 // (rows * gpus * 4096)
            )
            need = memory.gpu_memory(RELEASED, layout, rows, 4096, recomputed=False)
            _, seconds = scaling.step_seconds(RELEASED, layout, 4096, cluster, recomputed=False)
            assert sum(need.values()) > 0.9 * 80 * GIB or seconds >= found.seconds


def test_sharding_divides_weights_gradients_and_moments() -> None:
    def state(gpus: int) -> int:
        parts = memory.gpu_memory(RELEASED, Layout(gpus, 4096), 1, 4096, recomputed=False)
        return sum(size for name, size in parts.items() if name in STATE)

    assert state(1) == 16 * RELEASED.parameters
    # 8 and 64 divide all but the vocabulary; 1,024 make gate and up of 5,888 rows ones of 6,144.
    for gpus, padding in {
        8: 2 * 3 * 2048,
        64: 2 * 59 * 2048,
        1024: 2 * 507 * 2048 + 36 * 2 * 256 * 2048,
    }.items():
        assert gpus * state(gpus) == 16 * (RELEASED.parameters + padding)


def test_the_table_states_what_it_assumes() -> None:
    told = scaling_table(RELEASED, (1, 1024), global_batch=2**22)
    assert "4,194,304 tokens a step in rows of 4,096" in told
    assert (
        "ASSUMPTION" in told
        and "predicted, not measured" in told
        and "the head is gathered in float32" in told
    )
    measured = scaling_table(RELEASED, (8,), cluster=Cluster(mfu=0.51), head_ranks=8, measured=True)
    assert "51% of 989 TFLOP/s, measured" in measured and "ASSUMPTION" not in measured
    assert "split over min(8, GPUs) GPUs" in measured
    small = scaling_table(RELEASED, (1, 8), cluster=Cluster(memory=16))
    assert "none fits" in small.splitlines()[2] and "none fits" not in small.splitlines()[3]


def test_what_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(UserError, match=r"--global-batch 4194304: 3 GPUs .* multiple of 12288"):
        scaling_table(RELEASED, (3,), global_batch=2**22)
    with pytest.raises(UserError, match="--head-parallel 3: 64 GPUs are not whole groups of 3"):
        scaling_table(RELEASED, (64,), head_ranks=3)
    assert gpu_counts("1, 8,64") == (1, 8, 64)
    for text in ("", "8,", "0", "-1", "2.5", "1;8", "many"):
        with pytest.raises(UserError, match="--gpus"):
            gpu_counts(text)
