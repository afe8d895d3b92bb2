"""One point, alone in its process: started by `benchmarks.gpu`, writes what it found as JSON."""

import argparse
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.points import Point
from torch._dynamo.utils import counters

from indexlm.model.config import ModelConfig
from indexlm.model.costs import training_flops_per_token

WARM_UP = 2
TOY = ModelConfig(
    vocab_size=512, hidden=64, layers=2, heads=2, kv_heads=2, ffn=96, context=64, init_std=0.05
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--point", required=True, help="its fields, as JSON; or `machine`")
    parser.add_argument("--device", required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if asked.point == "machine":
        found = machine(asked.device)
    else:
        found = measured(Point(**json.loads(asked.point)), asked.device)
    asked.out.write_text(json.dumps(found), encoding="utf-8")


def machine(device: str) -> dict[str, Any]:
    """What it is, and the rate of its matrix products, which is the ceiling of every row."""
    import sys

    from indexlm.runtime import device_of, matrix_rate

    cuda = device_of(device) == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "matrix_tflops": {
            dtype: matrix_rate(device, dtype) / 1e12 for dtype in ("bfloat16", "float32")
        },
    }


def shape_of(name: str) -> ModelConfig:
    from indexlm.model.sizes import SIZES

    return TOY if name == "toy" else SIZES[name]


def measured(point: Point, device: str) -> dict[str, Any]:
    config = shape_of(point.shape)
    if point.row == "attention":
        from benchmarks.gpu.attention import kernels

        return kernels(config, point, device)
    if point.row.startswith("hf"):
        from benchmarks.gpu.peer import hf as run
    else:
        from benchmarks.gpu.ours import indexlm as run
    begin = time.perf_counter()
    marks, losses = run(point, config, device, WARM_UP + point.steps)
    seconds = [after - before for before, after in pairwise(marks)]
    step = statistics.median(seconds[WARM_UP:])
    tokens = point.batch * config.context
    return {
        "tokens_per_second": tokens / step,
        "flops_per_second": tokens / step * training_flops_per_token(config, config.context),
        "step_seconds": seconds[WARM_UP:],
        "to_end_of_first_step_seconds": marks[1] - begin,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30 if device == "cuda" else None,
        # One for all blocks; more say that something was compiled again.
        "compiled_graphs": counters["stats"].get("unique_graphs", 0),
        "losses": [round(loss, 4) for loss in losses],
    }


if __name__ == "__main__":
    main()
