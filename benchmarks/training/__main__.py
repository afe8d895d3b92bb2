"""How fast and in how much memory indexlm pre-trains beside its peers, all in one run.

    python -m benchmarks.training --litgpt-python ENVIRONMENT/bin/python
    python -m benchmarks.training --points tiny --rows hf_bare,indexlm --steps 3 --rounds 1

Float32 on the processor. Every row is a process of its own; rounds go through all rows in turn, so
that a slow hour of the machine meets all of them. A figure is the median over rounds of the median
over steps. What is compared is in `points`; on a machine that others use, `--threads 1` and the
tokens per CPU-second are the ones to read.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.setting import setting
from benchmarks.training.points import Point, points
from benchmarks.training.summary import ratios, row_summary, table

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.training", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--points", help=f"some of {','.join(points())}")
    parser.add_argument("--rows", help="some of the rows of the points, with commas")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--litgpt-python", type=Path, help="of an environment with litgpt")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.json"))
    asked = parser.parse_args()
    plan = _plan(parser, asked)
    interpreters = _interpreters(parser, asked, {row for _, row in plan})
    results = _measure(plan, interpreters, asked)
    print(table(results))
    print(f"\nwritten to {asked.out}")


def _plan(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> list[tuple[str, str]]:
    """(point, row) of one round."""
    known = points()
    names = asked.points.split(",") if asked.points else list(known)
    for name in names:
        if name not in known:
            parser.error(f"no point is named {name!r}; there are {', '.join(known)}")
    all_rows = dict.fromkeys(row for name in names for row in known[name].rows)
    rows = asked.rows.split(",") if asked.rows else list(all_rows)
    for row in rows:
        if row not in all_rows:
            parser.error(f"no row here is named {row!r}; there are {', '.join(all_rows)}")
    return [(name, row) for name in names for row in known[name].rows if row in rows]


def _interpreters(
    parser: argparse.ArgumentParser, asked: argparse.Namespace, rows: set[str]
) -> dict[str, Path]:
    """The interpreter of each row; a peer that is missing is an error before anything is timed."""
    own = Path(sys.executable)
    needed = [name for name in ("transformers", "accelerate") if any("hf" in row for row in rows)]
    for name in needed:
        if importlib.util.find_spec(name) is None:
            parser.error(
                f"the rows hf_* need {name}: pip install -c constraints.txt transformers "
                "accelerate, or leave them out of --rows"
            )
    litgpt = {row for row in rows if row.startswith("litgpt")}
    torch_version = importlib.metadata.version("torch").split("+")[0]
    if litgpt:
        how = (
            "python3 -m venv ENVIRONMENT && ENVIRONMENT/bin/pip install "
            f"torch=={torch_version} litgpt==0.5.13"
        )
        if asked.litgpt_python is None:
            parser.error(
                "the rows litgpt* need --litgpt-python, the interpreter of an environment of its "
                f"own (its huggingface-hub is older than that of transformers): {how}; or leave "
                "them out of --rows"
            )
        if not asked.litgpt_python.is_file():
            parser.error(f"--litgpt-python: there is no file {asked.litgpt_python}; {how}")
        code = "import importlib.metadata as m, litgpt; print(m.version('torch').split('+')[0])"
        found = subprocess.run(
            [asked.litgpt_python, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if found.returncode:
            parser.error(f"{asked.litgpt_python} cannot import litgpt: {how}")
        if found.stdout.strip() != torch_version:
            parser.error(
                f"{asked.litgpt_python} has torch {found.stdout.strip()}, the other rows "
                f"{torch_version}; only one torch gives a comparison: {how}"
            )
    return {row: asked.litgpt_python if row in litgpt else own for row in rows}


def _measure(
    plan: list[tuple[str, str]], interpreters: Mapping[str, Path], asked: argparse.Namespace
) -> dict[str, Any]:
    """Runs every round and writes what is known after each process."""
    known = points()
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    results: dict[str, Any] = {
        "setting": setting(threads=asked.threads, steps=asked.steps, rounds=asked.rounds),
        "points": {},
    }
    costs = [_cost(known[name], row) for name, row in plan] * asked.rounds
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        for number, (name, row) in enumerate(plan * asked.rounds):
            point = known[name]
            found = _run(row, name, point, interpreters[row], asked, Path(work))
            runs.setdefault(name, {}).setdefault(row, []).append(found)
            rows = {each: row_summary(point, rounds) for each, rounds in runs[name].items()}
            results["points"][name] = {
                "shape": {k: v for k, v in asdict(point).items() if k != "rows"},
                "rows": rows,
                "ratios": ratios(rows),
            }
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
            done = sum(costs[: number + 1])
            left = (time.monotonic() - begin) / done * (sum(costs) - done)
            print(
                f"{number + 1}/{len(costs)}  {name} {row}: "
                f"{rows[row]['rounds'][-1]['tokens_per_second']:,.0f} tokens/s, "
                f"others' share of the machine {found['other_cpu']:.2f}; "
                f"about {left / 60:.0f} min left",
                flush=True,
            )
    return results


def _run(
    row: str, name: str, point: Point, python: Path, asked: argparse.Namespace, work: Path
) -> dict[str, Any]:
    out = work / "row.json"
    command = [str(python), "-m", "benchmarks.training.row", "--row", row, "--out", str(out)]
    command += ["--point", json.dumps(asdict(point))]
    command += ["--steps", str(asked.steps), "--threads", str(asked.threads)]
    # Compiled code is kept from round to round and no longer: the first round compiles it.
    environment = os.environ | {
        "OMP_NUM_THREADS": str(asked.threads),
        "TORCHINDUCTOR_CACHE_DIR": str(work / f"{name}-{row}"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{row} at {name} failed (status {done.returncode})")
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _cost(point: Point, row: str) -> float:
    """Of a process, in arbitrary units: arithmetic of a step, and starting as 2 GFLOPs a step."""
    weights = point.layers * 4 * point.hidden * (point.hidden + point.ffn)
    weights += point.vocab_size * point.hidden
    step = 0 if row == "loader" else point.tokens * weights * 6 / 1e9
    return step + (400 if row.endswith("_compiled") else 100)


if __name__ == "__main__":
    main()
