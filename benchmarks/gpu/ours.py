"""indexlm's own loop: its feed, its watching, its log. Only checkpoints are left out, 26 GB each at
1.9b: the run ends before it saves one."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.points import Point
from benchmarks.training.stream import documents
from torch import Tensor

from indexlm.config import HardwareConfig, OptimiserConfig, TrainConfig
from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.feed.packing import Batch, TextSource
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import read_metrics
from indexlm.runtime import processes
from indexlm.tokens.shards import Shard
from indexlm.train import checkpoint, loop
from indexlm.train.objectives import chunks
from indexlm.train.objectives.language import language_loss


class EnoughError(Exception):
    """All steps that were asked for are done."""


class TimedFeed(Feed):
    """Marks when each step begins, and ends the run at the one after the last."""

    marks: list[float]
    steps: int

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        # The loop has just read the gradient's norm, so that all but an update is done.
        self.marks.append(time.perf_counter())
        if step == self.steps:
            raise EnoughError
        return super().micro_batches(step, rank, ranks)


def indexlm(
    point: Point, config: ModelConfig, device: str, steps: int
) -> tuple[list[float], list[float]]:
    """(times at which steps began, losses)."""
    if point.head_chunk is not None:
        chunks.CHUNK_ON_GPU = point.head_chunk
    if not point.fused_adamw:
        loop.adamw = _unfused(loop.adamw)  # type: ignore[attr-defined]
    # It asks for room for three checkpoints, and none is written.
    checkpoint.check_space = lambda *_: None
    feed = _feed(point, config, steps)
    stage = loop.Stage(
        name="benchmark",
        config=TrainConfig(
            steps=steps + 1,
            batch=point.batch,
            micro_batch=point.micro_batch,
            optimiser=OptimiserConfig(lr=1e-4),
            save_every=steps + 1,
        ),
        objective=_plain_causal if point.plain_causal else language_loss,
        feed=feed,
        lr_share=lambda _: 1.0,
        first_step=0,
        last_step=steps + 1,
        made_from="benchmark",
        tokens_per_step=point.batch * config.context,
        hardware=HardwareConfig(
            device="cuda" if device == "cuda" else "cpu",
            dtype="bfloat16" if point.dtype == "bfloat16" else "float32",
            compile="compiled" in point.row,
            recompute=point.recompute,
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        group = processes(device, group=point.dtype == "bfloat16")
        with group, suppress(EnoughError):
            loop.train(_model(config, device), stage, Path(folder))
        losses = [line["loss"] for line in read_metrics(Path(folder) / "metrics.jsonl")]
    assert len(losses) == steps, (len(losses), steps)
    return feed.marks, losses


def _model(config: ModelConfig, device: str) -> Transformer:
    """On the processor, as a run has it; numbers made on the device, which takes a second and not
    half a minute at 1.9b."""
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        with torch.no_grad():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, device=device) * config.init_std)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return model


def _feed(point: Point, config: ModelConfig, steps: int) -> TimedFeed:
    ids, offsets = documents(config.vocab_size)
    sources = {
        name: TextSource(Shard(name, ids, offsets), config.context, seed)
        for seed, name in enumerate(("en", "zh"))
    }
    feed = TimedFeed(
        sources,
        Mixture([Phase(0, {"en": 0.5, "zh": 0.5})], 0),
        batch=point.batch,
        micro_batch=point.micro_batch,
        length=config.context,
    )
    feed.marks, feed.steps = [], steps
    return feed


def _plain_causal(model: Transformer, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
    return language_loss(model, replace(batch, documents_BT=None))  # type: ignore[arg-type]


def _unfused(adamw: Any) -> Any:
    """PyTorch's default, which keeps the number of steps on the processor."""

    def make(model: Transformer, config: OptimiserConfig) -> torch.optim.AdamW:
        fused = adamw(model, config)
        groups = [
            {"params": group["params"], "weight_decay": group["weight_decay"]}
            for group in fused.param_groups
        ]
        betas = (config.beta1, config.beta2)
        optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps)
        for group in groups:
            for parameter in group["params"]:
                optimiser.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        return optimiser

    return make
