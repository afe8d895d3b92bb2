"""Trains two steps in a process of its own and prints its peak resident bytes.

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


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    shape, rows = ModelConfig(**asked["model"]), asked["rows"]
    model = Transformer(shape)
    model.initialise(1)
    if asked["lora"] is not None:
        lora.wrap(model, LoraConfig(**asked["lora"]), 1)
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
    # What getrusage says begins with what the process had that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None, status
    print(int(found[1]) * 1024)


main()
