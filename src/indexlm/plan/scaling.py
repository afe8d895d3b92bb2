"""Step time and memory of a shape on 1 to 1,024 GPUs, from one GPU's speed and the links' speeds.

Collectives run in rings. In a node they use its links; across nodes every GPU's network card
carries its part of the ring, so that a ring through `local` GPUs of each node sends at most
min(local x card, link x local / (local - 1)) round. Latencies are those of NCCL's tuning model for
rings (Simple protocol): 8.4 us to start, 3.4 us a hop in a node, 14 us a hop between nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from indexlm.errors import UserError
from indexlm.model import communication, costs
from indexlm.model.communication import Collective, Layout
from indexlm.model.config import ModelConfig
from indexlm.plan.layout import table
from indexlm.plan.memory import GIB, gpu_memory
from indexlm.records import clock

START, HOP, NETWORK_HOP = 8.4e-6, 3.4e-6, 14e-6
FILLED = 0.9
"""Of a GPU's memory: the rest is left to CUDA, NCCL's buffers and gaps between blocks."""
RUN_TOKENS = 2.8e12
"""Of Index-1.9B's pre-training (report, section 2)."""
DAY = 24 * 60 * 60
GPUS = (1, 8, 64, 512, 1024)


@dataclass(frozen=True)
class Cluster:
    """The GPU and what joins it to others; the defaults are data sheets of the H100 SXM and, for
    `mfu`, an assumption."""

    tflops: float = 989.0
    """Peak of dense bfloat16 products, 1e12 FLOPs a second."""
    mfu: float = 0.4
    """Share of the peak that one GPU reaches alone in arithmetic of the model."""
    link: float = 450.0
    """GB/s in each direction between GPUs of a node (NVLink 4)."""
    internode: float = 50.0
    """GB/s in each direction, of each GPU's network card (400 Gb/s)."""
    memory: float = 80.0
    """GiB of one GPU."""
    node: int = 8
    """GPUs of a node."""

    @property
    def rate(self) -> float:
        """FLOPs a second of one GPU."""
        return self.mfu * self.tflops * 1e12


@dataclass(frozen=True)
class Estimate:
    """One way to run a step."""

    layout: Layout
    rows: int
    """Of a micro-batch of one GPU."""
    recomputed: bool
    memory: int
    """Bytes of one GPU."""
    compute: float
    """Seconds of a step that its arithmetic takes."""
    seconds: float
    """Of a step, with what communication adds."""
    sent: float
    """Bytes that each GPU sends in a step."""

    @property
    def exposed(self) -> float:
        """Share of the step that only waits for communication."""
        return 1 - self.compute / self.seconds


def gpu_counts(text: str) -> tuple[int, ...]:
    """`1,8,64` as numbers. Raises UserError for anything else."""
    counts = text.split(",")
    if not all(count.strip().isdecimal() and int(count) for count in counts):
        raise UserError(f"--gpus {text!r}: give whole numbers above 0 with commas, like 1,8,64")
    return tuple(map(int, counts))


def ring_seconds(collective: Collective, cluster: Cluster) -> float:
    """One exchange when nothing else uses the links."""
    local = min(collective.ranks, max(cluster.node // collective.stride, 1))
    nodes = -(-collective.ranks // local)
    if nodes == 1:
        speed = cluster.link
    elif local == 1:
        speed = cluster.internode
    else:
        speed = min(local * cluster.internode, cluster.link * local / (local - 1))
    hops = (nodes - 1) * NETWORK_HOP + (collective.ranks - nodes) * HOP
    return START + collective.passes * hops + collective.sent / (speed * 1e9)


def step_seconds(
    model: ModelConfig, layout: Layout, length: int, cluster: Cluster, *, recomputed: bool
) -> tuple[float, float]:
    """(arithmetic alone, with communication) of one step.

    A block's weights are gathered while the block before it is computed, its gradients scattered
    while the next one is: each such pair takes the longer of the two. Nothing hides the first
    gathering of the forward and of the backward pass, the last scattering, and what is not of a
    block.
    """
    matrices = costs.trunk_weights(model) / model.layers
    attention = costs.attention_flops(model, (length + 1) / 2) / model.layers
    forward = layout.tokens * (2 * matrices + attention) / cluster.rate
    backward = (3 if recomputed else 2) * forward
    # A shared head makes its logits a second time in the backward pass.
    products = 3 if layout.head_ranks == 1 else 4
    head = layout.tokens * products * 2 * model.vocab_size * model.hidden / cluster.rate
    gather = scatter = waiting = 0.0
    for each in communication.step_collectives(model, layout):
        alone = ring_seconds(each, cluster)
        if each.what != "blocks":
            waiting += each.times * alone
        elif each.kind == "all-gather":
            gather = alone
        else:
            scatter = alone
    between = model.layers - 1
    # The last block to go back has nothing more to fetch, the first nothing yet to scatter.
    hidden = between * max(forward, gather) + forward
    if between:
        hidden += max(backward, gather) + max(backward, scatter)
        hidden += (between - 1) * max(backward, gather + scatter)
    else:
        hidden += backward
    compute = layout.micro_batches * (model.layers * (forward + backward) + head)
    seconds = layout.micro_batches * (hidden + head + 2 * gather + scatter) + waiting
    return compute, max(seconds, compute)


def estimate(
    model: ModelConfig,
    gpus: int,
    length: int,
    global_batch: int,
    cluster: Cluster,
    head_ranks: int = 1,
) -> Estimate | None:
    """The fastest micro-batch that fits, activations kept or recomputed; None where none does.

    `global_batch` is in tokens. Raises UserError where it is not whole rows for each GPU, or the
    GPUs are not whole groups of `head_ranks`.
    """
    group = min(head_ranks, gpus)
    if gpus % group:
        raise UserError(
            f"--head-parallel {head_ranks}: {gpus} GPUs are not whole groups of {group}"
        )
    rows, rest = divmod(global_batch, gpus * length)
    if rest or not rows:
        raise UserError(
            f"--global-batch {global_batch}: {gpus} GPUs with rows of {length:,} tokens take a "
            f"multiple of {gpus * length}"
        )
    fitting = []
    for micro in (each for each in range(1, rows + 1) if rows % each == 0):
        layout = Layout(gpus, micro * length, rows // micro, group)
        for recomputed in (False, True):
            need = sum(gpu_memory(model, layout, micro, length, recomputed=recomputed).values())
            if need > FILLED * cluster.memory * GIB:
                continue
            times = step_seconds(model, layout, length, cluster, recomputed=recomputed)
            sent = communication.sent_in_step(communication.step_collectives(model, layout))
            fitting.append(Estimate(layout, micro, recomputed, need, *times, sent))
    return min(fitting, key=lambda each: (each.seconds, each.recomputed, each.memory), default=None)


def scaling_table(
    model: ModelConfig,
    gpus: Sequence[int] = GPUS,
    *,
    cluster: Cluster | None = None,
    global_batch: int | None = None,
    length: int | None = None,
    head_ranks: int = 1,
    measured: bool = False,
) -> str:
    """The plan for each number of GPUs as aligned text, its assumptions below it.

    `global_batch` is in tokens (default: one row for each of 1,024 GPUs); `measured` says that
    `cluster.mfu` was. Raises UserError as `estimate` does.
    """
    cluster = cluster or Cluster()
    length = length or model.context
    global_batch = global_batch or 1024 * length
    flops = costs.training_flops_per_token(model, length)
    head = ("GPUs", "micro-batch", "GiB", "step", "GB sent", "exposed", "tokens/s", "MFU", "days")
    rows: list[tuple[str, ...]] = [head]
    for count in gpus:
        found = estimate(model, count, length, global_batch, cluster, head_ranks)
        if found is None:
            rows.append((f"{count:,}", "none fits"))
            continue
        pace = global_batch / found.seconds
        rows.append(
            (
                f"{count:,}",
                f"{found.layout.micro_batches} x {found.rows}{' again' * found.recomputed}",
                f"{found.memory / GIB:.1f}",
                _duration(found.seconds),
                f"{found.sent / 1e9:.1f}",
                f"{found.exposed:.1%}",
                f"{pace:,.0f}",
                f"{pace * flops / (count * cluster.tflops * 1e12):.1%}",
                f"{RUN_TOKENS / pace / DAY:,.1f}",
            )
        )
    title = f"{global_batch:,} tokens a step in rows of {length:,}, by number of GPUs"
    return table(title, rows) + "\n" + _assumptions(cluster, head_ranks, measured)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 60 else clock(seconds)


def _assumptions(cluster: Cluster, head_ranks: int, measured: bool) -> str:
    speed = "measured on one GPU" if measured else "an ASSUMPTION until it is measured (--gpu-mfu)"
    split = (
        f"the head is split over min({head_ranks}, GPUs) GPUs"
        if head_ranks > 1
        else "the head is gathered in float32"
    )
    return "\n".join(
        [
            "  micro-batch: number in a step x rows; `again` computes each block a second time in",
            "  the backward pass. GiB and GB sent are of one GPU, sent = received. exposed: share",
            f"  of the step that only waits. days: {RUN_TOKENS / 1e12:g}T tokens.",
            "  predicted, not measured:",
            f"  - one GPU reaches {cluster.mfu:.0%} of {cluster.tflops:g} TFLOP/s, {speed}",
            f"  - links of {cluster.link:g} GB/s in nodes of {cluster.node}, {cluster.internode:g} "
            "GB/s a GPU between them, both at full speed, in rings;",
            f"    {START * 1e6:g} us to start one, {HOP * 1e6:g} us a hop, "
            f"{NETWORK_HOP * 1e6:g} us between nodes (NCCL's tuning model)",
            "  - FSDP2 over all GPUs: blocks gathered twice in bfloat16, gradients scattered in",
            f"    float32 after each micro-batch; {split}",
            "  - a block's exchanges hide behind the arithmetic of one block, the first and last",
            f"    do not; at most {FILLED:.0%} of {cluster.memory:g} GiB is filled",
        ]
    )
