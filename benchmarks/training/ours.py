"""indexlm as a run of it trains: the loop, its feed and its logging; documents see only
themselves."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.training.meter import Meter
from benchmarks.training.points import Point
from benchmarks.training.stream import documents

from indexlm.config import HardwareConfig, OptimiserConfig, TrainConfig
from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.feed.packing import Batch, TextSource
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import read_metrics
from indexlm.tokens.shards import Shard
from indexlm.train import loop
from indexlm.train.loop import Stage, train
from indexlm.train.objectives.language import language_loss

LOADER_STEPS = 100


def indexlm(
    point: Point,
    steps: int,
    meter: Meter,
    *,
    compiled: bool,
    norm_head: bool = True,
    lanes: bool = True,
    whole_rows: bool = False,
) -> dict[str, Any]:
    """Times and losses are those of the run's own log."""
    if not lanes:
        loop.fitting_lanes = lambda *_: 1
    model = Transformer(
        ModelConfig(
            vocab_size=point.vocab_size,
            hidden=point.hidden,
            layers=point.layers,
            heads=point.heads,
            kv_heads=point.heads,
            ffn=point.ffn,
            context=point.length,
            norm_head=norm_head,
            init_std=0.02,
        )
    )
    model.initialise(0)
    feed = _feed(point, meter)
    feed.whole_rows = whole_rows
    meter.ready()
    stage = Stage(
        name="benchmark",
        config=TrainConfig(
            steps=steps + 1,
            batch=point.batch,
            micro_batch=point.batch,
            optimiser=OptimiserConfig(lr=1e-3),
        ),
        objective=language_loss,
        feed=feed,
        lr_share=lambda _: 1.0,
        first_step=0,
        # One more than asked for: the meter sees a step end where the next one begins, and what
        # follows the last step, the checkpoint, is no part of it.
        last_step=steps + 1,
        made_from="benchmark",
        hardware=HardwareConfig(device="cpu", compile=compiled),
    )
    with tempfile.TemporaryDirectory() as folder:
        train(model, stage, Path(folder))
        lines = read_metrics(Path(folder) / "metrics.jsonl")
    assert all(line["tokens"] == point.tokens for line in lines)
    return {
        "step_seconds": [line["seconds"] for line in lines[1:-1]],
        "losses": [line["loss"] for line in lines[:-1]],
    }


def loader(point: Point, meter: Meter) -> dict[str, Any]:
    """The feed alone: batches are made and thrown away."""
    feed = _feed(point, meter)
    meter.ready()
    for step in range(LOADER_STEPS):
        for _ in feed.micro_batches(step):
            pass
    return {}


class _MeteredFeed(Feed):
    """Tells the meter that a step has ended when the next one is asked for."""

    meter: Meter
    whole_rows = False

    def micro_batches(self, step: int, *further: Any, **named: Any) -> Iterator[Batch]:
        if step > 0:
            self.meter.step_ended()
        for batch in super().micro_batches(step, *further, **named):
            if self.whole_rows:
                positions = torch.arange(self.length).expand_as(batch.positions_BT)
                whole = torch.zeros_like(batch.documents_BT)
                batch = replace(batch, positions_BT=positions, documents_BT=whole)
            yield batch


def _feed(point: Point, meter: Meter) -> "_MeteredFeed":
    """Two sources, each with every document: a run mixes several."""
    ids, offsets = documents(point.vocab_size)
    sources = {
        name: TextSource(Shard(name, ids, offsets), point.length, seed)
        for seed, name in enumerate(["en", "zh"])
    }
    mixture = Mixture([Phase(0, {"en": 0.5, "zh": 0.5})], 0)
    feed = _MeteredFeed(
        sources, mixture, batch=point.batch, micro_batch=point.batch, length=point.length
    )
    feed.meter = meter
    return feed
