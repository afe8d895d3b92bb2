"""Processes that wait for each other, in real ones."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, time
from indexlm.runtime import from_first, processes, rank, wait_for_all
with processes():
    wait_for_all()
    begun = time.monotonic()
    if rank() == 7:
        time.sleep(2)
    wait_for_all()
    print("waited", time.monotonic() - begun > 1.9)
    from_first(wait_for_all)
wait_for_all()
"""


def test_no_process_goes_on_before_the_last_one_has_come(tmp_path: Path) -> None:
    (tmp_path / "wait.py").write_text(SCRIPT, encoding="utf-8")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "8",
    ]
    done = subprocess.run(
        [*launch, "wait.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("waited True") == 8, done.stdout
