"""Of what code, when and on what machine something was measured."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def setting(**options: Any) -> dict[str, Any]:
    """What stands beside the figures of a results file, `options` of the command among it."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed_since": bool(_git("status", "--porcelain", "--", "src", "benchmarks")),
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        **options,
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
