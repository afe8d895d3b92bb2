"""One row, alone in its process: started by the benchmark, under the interpreter of its peer."""

import argparse
import json
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from benchmarks.training.meter import Meter
from benchmarks.training.points import Point

NAMED = ("torch", "transformers", "accelerate", "litgpt", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", required=True)
    parser.add_argument("--point", required=True, help="its fields, as JSON")
    parser.add_argument("--steps", type=int, required=True, help="timed ones; one more warms up")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    meter = Meter()
    own = run(asked.row, Point(**json.loads(asked.point)), asked.steps + 1, meter)
    versions = {d.name: d.version for d in distributions() if d.name in NAMED}
    results = meter.results() | own | {"versions": versions}
    asked.out.write_text(json.dumps(results), encoding="utf-8")


def run(row: str, point: Point, steps: int, meter: Meter) -> dict[str, Any]:
    # Each peer lives in an environment that may lack the others.
    name = row.removesuffix("_compiled")
    compiled = name != row
    match name:
        case "hf_bare":
            from benchmarks.training.peers import hf_bare

            return hf_bare(point, steps, meter, compiled=compiled)
        case "hf_trainer":
            from benchmarks.training.peers import hf_trainer

            return hf_trainer(point, steps, meter, compiled=compiled)
        case "litgpt" | "litgpt_chunked_head":
            from benchmarks.training.peers import litgpt

            chunk = 128 if name == "litgpt_chunked_head" else 0
            return litgpt(point, steps, meter, compiled=compiled, head_chunk=chunk)
        case "indexlm" | "indexlm_plain_head" | "indexlm_one_lane" | "indexlm_whole_rows":
            from benchmarks.training.ours import indexlm

            return indexlm(
                point,
                steps,
                meter,
                compiled=compiled,
                norm_head=name != "indexlm_plain_head",
                lanes=name != "indexlm_one_lane",
                whole_rows=name == "indexlm_whole_rows",
            )
        case "loader":
            from benchmarks.training.ours import loader

            return loader(point, meter)
    raise SystemExit(f"no row is named {row!r}")


if __name__ == "__main__":
    main()
