"""The benchmark for GPUs, on the processor: the real loop is measured, and what fails is said."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def benchmark(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_peer_is_written_down_and_the_next_point_is_measured(tmp_path: Path) -> None:
    (tmp_path / "transformers.py").write_text("raise ImportError('none is installed')\n")
    out = tmp_path / "gpu.json"
    asked = ("--device", "cpu", "--points", "toy/hf,toy/indexlm", "--out", str(out))
    done = benchmark(*asked, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["left_out"] == []
    assert found["matrix_tflops"]["bfloat16"] > 0
    assert found["points"]["toy/hf"]["error"].endswith("ImportError: none is installed")
    ours = found["points"]["toy/indexlm"]
    assert len(ours["step_seconds"]) == ours["shape"]["steps"] == 2
    assert all(0 < loss < 20 for loss in ours["losses"])
    assert ours["mfu"] > 0


def test_without_the_time_for_a_point_the_results_name_it(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    asked = ("--device", "cpu", "--points", "toy/indexlm", "--out", str(out))
    done = benchmark(*asked, "--seconds", "29")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["left_out"] == ["toy/indexlm"]
    assert found["points"] == {}


def test_what_nobody_knows_and_what_is_not_there_are_errors_that_say_so() -> None:
    unknown = benchmark("--points", "1.9b/nothing")
    assert unknown.returncode == 2
    assert "no point is named '1.9b/nothing'; see --list" in unknown.stderr
    without = benchmark("--points", "toy")
    assert without.returncode == 1
    assert "this PyTorch sees no GPU" in without.stderr
