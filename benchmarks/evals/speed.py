"""Items per second beside lm-eval, on the same items, in turns."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evals import models, official
from benchmarks.evals.parity import ROOT, Harness, tasks
from benchmarks.evals.points import POINTS
from benchmarks.evals.summary import ratio, row_summary
from benchmarks.text.corpus import Pool

BATCH_SIZES = (1, 2, 4, 8, 16, "auto")
"""Of lm-eval: each is tried on a part, the fastest is taken."""
AUTO_BEGINS_AT = 64
"""Prompts that lm-eval's `auto` tries at first; it halves on an error, which a processor's memory
does not give: the system ends the process."""
TRIED = {"mmlu": 4, "hellaswag": 24}
"""Items of each subject on which batch sizes are tried."""
LM_EVAL = "lm_eval"
ROWS: Mapping[str, tuple[str, ...]] = {
    "mmlu": ("indexlm", LM_EVAL),
    "hellaswag": ("indexlm", "indexlm_unconditional", LM_EVAL),
}
"""Rows of every round."""
ONCE = ("indexlm_unshared",)


@dataclass(frozen=True)
class Asked:
    data: Path
    peers: Path
    pools: Sequence[Pool]
    """Text that the tokenizer is learned on; without any it is the benchmarks'."""
    subjects: int
    """Of MMLU, from all over its list."""
    limits: Mapping[str, int]
    """Items of each subject."""
    rounds: int
    threads: int
    out: Path
    setting: Mapping[str, Any]


def run(asked: Asked, work: Path) -> dict[str, Any]:
    """Measure and write OUT/evals.json after every process."""
    return Run(asked, work).measure()


class Run:
    def __init__(self, asked: Asked, work: Path) -> None:
        self._asked = asked
        self._work = work
        self._made = models.make(work / "model", models.SPEED, self._text())
        self._harness = Harness(asked.peers, self._made.llama, asked.threads)
        self._number = 0
        self._results: dict[str, Any] = {
            "setting": dict(asked.setting),
            "model": models.SPEED.model_dump()
            | {"seed": models.SEED, "pieces": self._made.learned},
            "versions": {},
            "batch_sizes": {},
            "points": {},
        }

    def measure(self) -> dict[str, Any]:
        subjects = {point: self._subjects(point) for point in ROWS}
        splits = {
            point: official.convert(point, self._asked.data, self._work / point, subjects[point])
            for point in ROWS
        }
        best = {point: self._best_batch_size(point, splits[point]) for point in ROWS}
        runs: dict[str, dict[str, list[dict[str, Any]]]] = {point: {} for point in ROWS}
        for number in range(self._asked.rounds):
            for point, rows in ROWS.items():
                for row in (*rows, *(ONCE if number == 0 else ())):
                    limit = self._asked.limits[point]
                    if row == LM_EVAL:
                        found = self._lm_eval(point, splits[point], limit, best[point])
                    else:
                        found = self._ours(row, point, subjects[point], limit)
                    runs[point].setdefault(row, []).append(found)
                    self._results["points"][point] = self._summary(point, subjects, runs[point])
                    self._write()
                    print(f"{point}, {row}: {_told(found)}", flush=True)
        return self._results

    def _summary(
        self,
        point: str,
        subjects: Mapping[str, Sequence[str]],
        runs: Mapping[str, Sequence[dict[str, Any]]],
    ) -> dict[str, Any]:
        rows = {row: row_summary(found) for row, found in runs.items()}
        return {
            "subjects": list(subjects[point]),
            "items": next(iter(rows.values()))["items"],
            "batch_size": self._results["batch_sizes"][point]["best"],
            "rows": rows,
            "ratios": {
                row: ratio(rows[row], rows[LM_EVAL])
                for row in rows
                if LM_EVAL in rows and row != LM_EVAL
            },
        }

    def _best_batch_size(self, point: str, splits: official.Splits) -> int | str:
        """The fastest on a part, of those whose logits fit in half of the memory."""
        tried: dict[str, float | None] = {}
        self._results["batch_sizes"][point] = {"tried": tried}
        longest = 0
        for size in BATCH_SIZES:
            prompts = AUTO_BEGINS_AT if size == "auto" else int(size)
            # The logits of all positions, and their logarithms of probabilities.
            needed = prompts * longest * models.SPEED.vocab_size * 4 * 2
            if needed > _available_memory() / 2:
                tried[str(size)] = None
                print(f"{point}, batch size {size}: {needed / 1e9:.0f} GB of logits", flush=True)
                continue
            found = self._lm_eval(point, splits, TRIED[point], size)
            longest = max(longest, found["longest"])
            tried[str(size)] = found["items"] / found["scoring_seconds"]
            print(f"{point}, batch size {size}: {_told(found)}", flush=True)
        speeds = {size: speed for size, speed in tried.items() if speed is not None}
        best = max(speeds, key=lambda size: speeds[size])
        self._results["batch_sizes"][point]["best"] = best
        return best

    def _lm_eval(
        self, point: str, splits: official.Splits, limit: int, batch_size: int | str
    ) -> dict[str, Any]:
        self._number += 1
        run = {point: tasks(POINTS[point], splits, limit)}
        said = self._harness.run(run, self._work / f"lm_eval-{self._number}", batch_size)
        self._results["versions"] = said["versions"]
        one = said["benchmarks"][point]
        names = ("items", "scoring_seconds", "positions", "longest")
        return {name: one[name] for name in names} | {"process_seconds": said["process_seconds"]}

    def _ours(self, row: str, point: str, subjects: Sequence[str], limit: int) -> dict[str, Any]:
        out = self._work / "row.json"
        command = [sys.executable, "-m", "benchmarks.evals.timed", "--row", row, "--point", point]
        command += ["--model", str(self._made.published), "--data", str(self._asked.data)]
        # A benchmark without subjects is asked whole.
        command += ["--subjects", ",".join(name for name in subjects if name != point)]
        command += ["--limit", str(limit), "--threads", str(self._asked.threads)]
        begin = time.monotonic()
        done = subprocess.run(
            [*command, "--out", str(out)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(self._asked.threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - begin
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n{row} of {point} failed (status {done.returncode})")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found | {"process_seconds": seconds}

    def _subjects(self, point: str) -> list[str]:
        known = official.subjects_of(point, self._asked.data)
        step = max(1, len(known) // self._asked.subjects)
        return known[step // 2 :: step][: self._asked.subjects]

    def _text(self) -> dict[str, list[str]]:
        if not self._asked.pools:
            return models.benchmark_text(self._asked.data, official.SOURCES)
        texts: dict[str, list[str]] = {"zh": [], "en": []}
        for pool in self._asked.pools:
            texts[pool.language] += pool.texts
        return texts

    def _write(self) -> None:
        self._asked.out.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(self._results, indent=1, ensure_ascii=False) + "\n"
        self._asked.out.write_text(content, encoding="utf-8")


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/meminfo has no MemAvailable")


def _told(found: Mapping[str, Any]) -> str:
    rate = found["items"] / found["scoring_seconds"]
    return (
        f"{rate:.2f} items/s, {found['positions'] / found['items']:,.0f} positions an item, "
        f"{found['scoring_seconds']:.0f} s of {found['process_seconds']:.0f} s"
    )
