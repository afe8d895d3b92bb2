"""Counts the collectives of a training step, in processes that train a small model.

    python collectives.py '{"ranks": 2, "rank": 0, "store": "FILE", "cases": [{...}]}'

Prints the counts of each case as JSON: [[kind, ranks, bytes, times], ...].
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from command import PATIENCE
from indexlm.config import HardwareConfig, TrainConfig
from indexlm.feed.packing import Batch
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.train.loop import Stage, train
from indexlm.train.objectives.language import language_loss

Counts = Counter[tuple[str, int, int]]
"""(kind, ranks, bytes of the whole tensor) -> times."""

OPERATIONS = {
    "_allgather_base_": ("all-gather", 0, 2),
    "allgather_": ("all-gather", 0, 2),
    "_reduce_scatter_base_": ("reduce-scatter", 1, 2),
    "reduce_scatter_": ("reduce-scatter", 1, 2),
    "allreduce_": ("all-reduce", 0, 1),
}
"""Of the namespace c10d: kind, and which arguments are the whole tensor and the process group."""


class CountedCollectives(TorchDispatchMode):
    """Counts every collective that is called in it, in backward passes too: what an all-gather
    gives, what the others are given. One that it does not know is an error, not left out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counts = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.namespace not in ("_c10d_functional", "c10d_functional"), func
        if func.namespace == "c10d":
            kind, whole, group = OPERATIONS[func.overloadpacket.__name__]
            size = sum(t.numel() * t.element_size() for t in tensors_in(args[whole]))
            self.counts[kind, dist.ProcessGroup.unbox(args[group]).size(), size] += 1
        return func(*args, **(kwargs or {}))


def tensors_in(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    else:
        for each in tree:
            yield from tensors_in(each)


class CountedFeed:
    """Random ids in whole rows. Counts from where it is asked for step 1 to where for step 2: one
    whole step of the loop, and one in which no further norms are looked at."""

    names = ("noise",)

    def __init__(self, shape: ModelConfig, rows: int, micro_batches: int) -> None:
        self.shape, self.rows, self.count = shape, rows, micro_batches
        self.collectives = CountedCollectives()

    def micro_batches(self, step: int, rank: int, ranks: int) -> Iterator[Batch]:
        if step == 1:
            self.collectives.__enter__()
        if step == 2:
            self.collectives.__exit__(None, None, None)
        for _ in range(self.count):
            ids = torch.randint(0, self.shape.vocab_size, (self.rows, self.shape.context + 1))
            positions = torch.arange(self.shape.context).repeat(self.rows, 1)
            yield Batch(ids[:, :-1], ids[:, 1:], positions, torch.zeros_like(positions))

    def documents(self, step: int) -> list[str]:
        return []


def counted(case: dict[str, Any], folder: Path) -> Counts:
    """Of one step of the training loop."""
    shape, rows = ModelConfig(**case["shape"]), case["rows"]
    model = Transformer(shape)
    model.initialise(1)
    feed = CountedFeed(shape, rows, case["micro_batches"])
    batch = rows * case["micro_batches"] * dist.get_world_size()
    stage = Stage(
        "noise",
        TrainConfig(steps=3, batch=batch, micro_batch=rows),
        language_loss,
        feed,
        lambda step: 1.0,
        0,
        3,
        "noise",
        hardware=HardwareConfig(device="cpu", **case["hardware"]),
    )
    train(model, stage, folder)
    return feed.collectives.counts


def counted_by_all(ranks: int, cases: Sequence[dict[str, Any]], store: Path) -> list[list[Counts]]:
    """Counts by rank and case, each rank in a process of its own; `store` is a new file."""
    processes = []
    for rank in range(ranks):
        asked = {"ranks": ranks, "rank": rank, "store": str(store), "cases": cases}
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, json.dumps(asked)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, err
            answer = json.loads(out.splitlines()[-1])
            found.append([Counter({tuple(row[:3]): row[3] for row in case}) for case in answer])
    finally:
        for process in processes:
            process.kill()
    return found


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    store = dist.FileStore(asked["store"], asked["ranks"])
    dist.init_process_group("gloo", store=store, rank=asked["rank"], world_size=asked["ranks"])
    answer = []
    for number, case in enumerate(asked["cases"]):
        counts = counted(case, Path(f"{asked['store']}-{number}"))
        answer.append([[*key, times] for key, times in counts.items()])
    # Gloo aborts one exit in six where a rank leaves while another is still in the last exchange.
    dist.barrier()
    dist.destroy_process_group()
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
