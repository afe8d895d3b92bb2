"""Is every item answered as lm-eval answers it? One results file for each point."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evals import controls, models, official, ours
from benchmarks.evals.compare import TOLERANCE, agrees, apart, compare
from benchmarks.evals.points import POINTS, Point

from indexlm.evals.task import read_task

BATCH_SIZE = 8
"""Of lm-eval."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Asked:
    data: Path
    peers: Path
    """Interpreter of an environment with lm-eval."""
    limit: int | None
    threads: int
    out: Path
    setting: Mapping[str, Any]


def run(asked: Asked, names: Sequence[str], work: Path) -> bool:
    """Write OUT/<point>.json for each point. False where one differs or misses a fault."""
    text = models.benchmark_text(asked.data, official.SOURCES)
    made = models.make(work / "model", models.PARITY, text)
    asked.out.mkdir(parents=True, exist_ok=True)
    good = True
    for name in names:
        found = _compare(asked, POINTS[name], made, work / name)
        if found is None:
            print(f"{name}: the file has both halves, which `hellaswag` compares", flush=True)
            continue
        found = {"point": name, "setting": dict(asked.setting), **found}
        (asked.out / f"{name}.json").write_text(
            json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        good = good and found["agrees"] and all(found["caught"].values())
        print(summary(found), flush=True)
    return good


def summary(found: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{kind} {count}" for kind, count in found["mismatches"].items() if count)
    missed = [name for name, caught in found["caught"].items() if not caught]
    return (
        f"{found['point']}: {found['items']:,} items, {counts or 'nothing differs'}, largest "
        f"difference {found['largest_difference']:.1e}; "
        + (
            f"NOT CAUGHT: {', '.join(missed)}"
            if missed
            else f"{len(found['caught'])} faults caught"
        )
        + f"; {found['seconds']['ours']:.0f} s beside {found['seconds']['lm_eval']:.0f} s"
    )


def _compare(asked: Asked, point: Point, made: models.Made, work: Path) -> dict[str, Any] | None:
    work.mkdir()
    data = asked.data
    if point.halves:
        if not official.write_halves(data, work / "halves"):
            return None
        data = work / "halves"
    limits = [limit for limit in (asked.limit, point.limit) if limit is not None]
    limit = min(limits, default=None)
    began = time.monotonic()
    ours.run_command(point, made.published, data, work / "ours", limit, asked.threads)
    own_seconds = time.monotonic() - began
    own = ours.items(point, data, work / "ours", limit)
    subjects = list(dict.fromkeys(item["subject"] for item in own))
    splits = official.convert(point.benchmark, data, work / "data", subjects)
    run = {point.benchmark: tasks(point, splits, limit)}
    harness = Harness(asked.peers, made.llama, asked.threads)
    said = harness.run(run, work / "lm_eval", BATCH_SIZE)
    theirs = read_items(work / "lm_eval" / f"{point.benchmark}.jsonl")
    told = controls.run(point, made.published, data, theirs)
    unchanged, rounded = told.pop("none"), told.pop(controls.FLOAT32_ANGLES)
    comparison = compare(own, theirs)
    comparison["as_lm_eval_sums"] = comparison["mismatches"]["logprobs"]
    if rounded_sums := apart(own, theirs):
        run[point.benchmark] |= {"limit": None, "samples": rounded_sums}
        harness.run(run, work / "exact", BATCH_SIZE, "float64")
        exact = read_items(work / "exact" / f"{point.benchmark}.jsonl")
        comparison |= _with_exact_sums(comparison, own, exact)
    mine, its = ours.results(point, work / "ours"), said["benchmarks"][point.benchmark]
    return {
        "benchmark": point.benchmark,
        "prompt": point.prompt,
        "harness": read_task(point.benchmark).prompts[point.prompt].harness,
        "agrees": agrees(comparison),
        "limit": limit,
        "subjects": len(subjects),
        "shots": point.shots,
        "tolerance": TOLERANCE,
        **comparison,
        "controls": told,
        "largest_difference_of_control_items": {
            "unchanged": unchanged["largest_difference"],
            controls.FLOAT32_ANGLES: rounded["largest_difference"],
        },
        "caught": {name: _is_caught(one) for name, one in told.items()},
        "model": models.PARITY.model_dump() | {"seed": models.SEED, "pieces": made.learned},
        "versions": said["versions"],
        "task_versions": its["task_versions"],
        "positions": {"ours": mine["computed"], "lm_eval": its["positions"]},
        "seconds": {"ours": own_seconds, "lm_eval": said["process_seconds"]},
    }


def _with_exact_sums(
    comparison: Mapping[str, Any], own: Sequence[ours.Item], exact: Sequence[ours.Item]
) -> dict[str, Any]:
    """What changes where the items that were apart are asked again from lm-eval with its softmax,
    and so its sums, in float64. The network stays float32."""
    asked = {(item["subject"], item["number"]) for item in exact}
    again = compare([item for item in own if (item["subject"], item["number"]) in asked], exact)
    still = again["mismatches"]["logprobs"]
    cases = {name: found for name, found in comparison["cases"].items() if name != "logprobs"}
    return {
        "mismatches": comparison["mismatches"] | {"logprobs": still},
        "largest_difference_with_exact_sums": again["largest_difference"],
        "cases": cases | ({"logprobs": again["cases"]["logprobs"]} if still else {}),
    }


def _is_caught(told: Mapping[str, Any]) -> bool:
    return bool(told["contexts"] or told["continuations"] or told["logprobs"] or told["choices"])


def tasks(point: Point, splits: official.Splits, limit: int | None) -> dict[str, Any]:
    """What `harness` is asked of one benchmark."""
    return {
        "shots": point.shots,
        "limit": limit,
        "samples": None,
        "subjects": {
            subject: {
                "task": point.task.format(subject=subject),
                "yaml": point.yaml.format(subject=subject),
                "splits": files,
            }
            for subject, files in splits.items()
        },
    }


@dataclass(frozen=True)
class Harness:
    """lm-eval, a process for each run."""

    python: Path
    model: Path
    threads: int

    def run(
        self,
        asked: Mapping[str, Any],
        out: Path,
        batch_size: int | str,
        softmax_dtype: str | None = None,
    ) -> dict[str, Any]:
        """Its summary; the items lie in `out`."""
        out.mkdir()
        asked_file = out / "asked.json"
        asked_file.write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
        command = [str(self.python), "-m", "benchmarks.evals.harness", "--out", str(out)]
        command += ["--model", str(self.model), "--asked", str(asked_file)]
        command += ["--batch-size", str(batch_size), "--threads", str(self.threads)]
        command += ["--softmax-dtype", softmax_dtype] if softmax_dtype is not None else []
        begin = time.monotonic()
        with (out / "log.txt").open("w", encoding="utf-8") as log:
            done = subprocess.run(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False
            )
        seconds = time.monotonic() - begin
        if done.returncode:
            tail = (out / "log.txt").read_text(encoding="utf-8")[-3000:]
            raise SystemExit(f"{tail}\nlm-eval failed (status {done.returncode})")
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return summary | {"process_seconds": seconds}


def read_items(path: Path) -> list[ours.Item]:
    # Not splitlines: U+2028 stands in some of the questions.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
