"""What it costs to look at every step: norms by layer, activations, rows of the head.

    OMP_NUM_THREADS=1 python -m benchmarks.watching

The real loop, one thread, processor time. Every second step is watched, so that steps with and
without it meet the same machine; their medians differ by what a watched step costs more, and the
loop watches one in WATCH_EVERY. The norms by parameter of every step are timed where the loop takes
them, beside PyTorch's one norm of all gradients, which clipping needs without any watching.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from benchmarks.training.points import Point, points
from benchmarks.training.stream import documents
from torch.nn.utils import get_total_norm

from indexlm.config import HardwareConfig, OptimiserConfig, TrainConfig
from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.feed.packing import Batch, TextSource
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.tokens.shards import Shard
from indexlm.train import loop, watch
from indexlm.train.objectives.language import language_loss

WARM_UP = 4


class TimedFeed(Feed):
    """Notes the processor time at which each step begins."""

    marks: list[float]

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        self.marks.append(time.process_time())
        return super().micro_batches(step, rank, ranks)


class TimedNorms:
    """In place of the loop's `gradient_squares`: the same, timed, and then PyTorch's norm."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.torch: list[float] = []

    def __call__(self, model: Transformer) -> dict[str, float]:
        begin = time.process_time()
        squares = watch.gradient_squares(model)
        middle = time.process_time()
        float(get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
        self.ours.append(middle - begin)
        self.torch.append(time.process_time() - middle)
        return squares


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.watching", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--points", default="tiny,recipe", help=f"some of {','.join(points())}")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/watching.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "setting": {"torch": torch.__version__, "threads": 1, "steps": asked.steps},
        "watch_every": watch.WATCH_EVERY,
    }
    for name in asked.points.split(","):
        point = points()[name]
        found = measured(point, asked.steps)
        shape = {key: value for key, value in asdict(point).items() if key != "rows"}
        results[name] = {"shape": shape} | found
        print(f"{name}: {found['share']:.2%} of a step")
        for key, value in found.items():
            print(f"  {key}: {value:.4g}")
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


def measured(point: Point, steps: int) -> dict[str, float]:
    """Seconds of processor time, and their share of a step that is not watched."""
    config = ModelConfig(
        vocab_size=point.vocab_size,
        hidden=point.hidden,
        layers=point.layers,
        heads=point.heads,
        kv_heads=point.heads,
        ffn=point.ffn,
        context=point.length,
        init_std=0.02,
    )
    model = Transformer(config)
    model.initialise(0)
    ids, offsets = documents(point.vocab_size)
    source = TextSource(Shard("en", ids, offsets), point.length, 0)
    feed = TimedFeed(
        {"en": source},
        Mixture([Phase(0, {"en": 1.0})], 0),
        batch=point.batch,
        micro_batch=point.batch,
        length=point.length,
    )
    feed.marks = []
    norms = TimedNorms()
    loop.gradient_squares, loop.WATCH_EVERY = norms, 2  # type: ignore[attr-defined]
    last = WARM_UP + steps
    stage = loop.Stage(
        name="benchmark",
        # One step more: a step ends where the next one begins.
        config=TrainConfig(
            steps=last + 1,
            batch=point.batch,
            micro_batch=point.batch,
            optimiser=OptimiserConfig(lr=1e-3),
            save_every=last + 1,
        ),
        objective=language_loss,
        feed=feed,
        lr_share=lambda _: 1.0,
        first_step=0,
        last_step=last + 1,
        made_from="benchmark",
        hardware=HardwareConfig(device="cpu"),
    )
    with tempfile.TemporaryDirectory() as folder:
        loop.train(model, stage, Path(folder))
    seconds = [after - before for before, after in pairwise(feed.marks)]
    # PyTorch's norm is no part of a step.
    seconds = [step - extra for step, extra in zip(seconds, norms.torch)][WARM_UP:]
    watched, others = statistics.median(seconds[::2]), statistics.median(seconds[1::2])
    own = statistics.median(norms.ours[WARM_UP:])
    clip = statistics.median(norms.torch[WARM_UP:])
    without = others - own + clip
    return {
        "step_seconds": without,
        "watched_step_seconds": watched,
        "norms_seconds": own,
        "torch_norm_seconds": clip,
        "share_of_norms": (own - clip) / without,
        "share_of_watched_steps": (watched - others) / watch.WATCH_EVERY / without,
        "share": (own - clip + (watched - others) / watch.WATCH_EVERY) / without,
    }


if __name__ == "__main__":
    main()
