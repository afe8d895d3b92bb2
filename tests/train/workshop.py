"""A network of 50,000 weights, made-up text for it, and stages of a few steps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from indexlm.config import OptimiserConfig, ScheduleConfig, TrainConfig
from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.feed.packing import TextSource
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.lora import wrap
from indexlm.model.transformer import Transformer
from indexlm.records import read_metrics
from indexlm.tokens.shards import Shard
from indexlm.tokens.tokenizer import EOS
from indexlm.train.loop import Stage, train
from indexlm.train.objectives.language import language_loss
from indexlm.train.schedules import lr_share

# One thread, so that sums come in one order.
torch.set_num_threads(1)

SHAPE = ModelConfig(
    vocab_size=160,
    hidden=32,
    layers=2,
    heads=4,
    kv_heads=2,
    ffn=96,
    context=24,
    head_scale=4.0,
    init_std=0.1,
)
SCHEDULE = ScheduleConfig(warmup=3, final=0.1)
LORA = LoraConfig(rank=4, alpha=8, dropout=0.1)


def shard_of(name: str, seed: int) -> Shard:
    """Documents of a walk through the vocabulary: a token is likely 1 to 3 after the one before."""
    generator = np.random.default_rng(seed)
    documents = []
    for size in generator.integers(5, 60, size=60):
        steps = generator.integers(1, 4, size=size)
        documents.append([*(5 + (seed * 37 + np.cumsum(steps)) % 155).tolist(), EOS])
    offsets = np.cumsum([0, *map(len, documents)])
    return Shard(name, np.concatenate(documents).astype(np.uint16), offsets)


@dataclass(frozen=True)
class Workshop:
    """Makes models, feeds and stages, and runs them in folders below `folder`."""

    folder: Path
    lora: LoraConfig | None = None
    """Its models are wrapped: always the same base, another adapter by the seed."""

    def model(self, seed: int = 1) -> Transformer:
        model = Transformer(SHAPE)
        model.initialise(seed if self.lora is None else 1)
        if self.lora is not None:
            wrap(model, self.lora, seed)
        return model

    def feed(self, batch: int = 8, micro_batch: int = 4) -> Feed:
        sources = {
            name: TextSource(shard_of(name, seed), SHAPE.context, seed)
            for seed, name in enumerate(["en", "zh"])
        }
        mixture = Mixture([Phase(0, {"en": 0.5, "zh": 0.5})], 3)
        length = SHAPE.context
        return Feed(sources, mixture, batch=batch, micro_batch=micro_batch, length=length)

    def stage(self, steps: int, *, batch: int = 8, micro_batch: int = 4, **changed: Any) -> Stage:
        """A language stage of `steps` steps; `changed` are other fields of it."""
        config = TrainConfig(
            steps=steps,
            batch=batch,
            micro_batch=micro_batch,
            optimiser=OptimiserConfig(lr=5e-3),
            schedule=SCHEDULE,
            save_every=4,
        )
        fields: dict[str, Any] = {
            "name": "test",
            "config": config,
            "objective": language_loss,
            "feed": self.feed(batch, micro_batch),
            "lr_share": lambda step: lr_share(SCHEDULE, step, steps, steps // 4),
            "first_step": 0,
            "last_step": steps,
            "made_from": "test inputs",
            "tokens_per_step": batch * SHAPE.context,
        }
        return Stage(**(fields | changed))

    def run(self, name: str, stage: Stage, seed: int = 1) -> Transformer:
        """The model after `stage`, run in the folder `name`."""
        model = self.model(seed)
        train(model, stage, self.folder / name)
        return model

    def entries(self, name: str) -> list[dict[str, Any]]:
        """What a run has logged, without the times, which no two runs share."""
        lines = read_metrics(self.folder / name / "metrics.jsonl")
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    def losses(self, name: str) -> list[float]:
        return [entry["loss"] for entry in self.entries(name)]


def same_weights(one: Transformer, other: Transformer) -> bool:
    """Bit for bit."""
    return all(map(torch.equal, one.parameters(), other.parameters()))
