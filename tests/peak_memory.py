"""Trains two steps in a process of its own and prints what it held before, and its peak, in bytes.

python peak_memory.py '{"model": {...}, "rows": 8, "lora": null}'
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from indexlm.config import TrainConfig
from indexlm.feed.packing import Batch
from indexlm.model import lora
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.train.loop import Stage, train
from indexlm.train.objectives.language import language_loss

SMALLEST = ModelConfig(vocab_size=64, hidden=16, layers=1, heads=2, kv_heads=2, ffn=32, context=16)


class Noise:
    """Random ids in whole rows, two micro-batches a step: the second finds the gradients there."""

    def __init__(self, shape: ModelConfig, rows: int) -> None:
        self.shape, self.rows = shape, rows
        self.names: list[str] = []

    def documents(self, step: int) -> list[str]:
        return []

    def micro_batches(self, step: int, rank: int, ranks: int) -> Iterator[Batch]:
        for _ in range(2):
            ids = torch.randint(0, self.shape.vocab_size, (self.rows, self.shape.context + 1))
            positions = torch.arange(self.shape.context).repeat(self.rows, 1)
            yield Batch(ids[:, :-1], ids[:, 1:], positions, torch.zeros_like(positions))


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most. What getrusage says begins with what the
    process had that started this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None, status
    return int(found[1]) * 1024


def train_two_steps(shape: ModelConfig, rows: int, adapter: LoraConfig | None) -> None:
    model = Transformer(shape)
    model.initialise(1)
    if adapter is not None:
        lora.wrap(model, adapter, 1)
    stage = Stage(
        "noise",
        TrainConfig(steps=2, batch=2 * rows, micro_batch=rows),
        language_loss,
        Noise(shape, rows),
        lambda step: 1.0,
        0,
        2,
        "noise",
    )
    with tempfile.TemporaryDirectory() as folder:
        train(model, stage, Path(folder) / "run")


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    adapter = None if asked["lora"] is None else LoraConfig(**asked["lora"])
    # Until something is trained, a part of torch is not loaded yet.
    train_two_steps(SMALLEST, 1, None)
    imports = resident("VmRSS")
    train_two_steps(ModelConfig(**asked["model"]), asked["rows"], adapter)
    print(json.dumps({"imports": imports, "peak": resident("VmHWM")}))


main()
