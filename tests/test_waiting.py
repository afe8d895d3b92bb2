"""Processes that wait for each other, in real ones."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import time
from pathlib import Path
from indexlm.runtime import from_first, processes, rank, wait_for_all
with processes():
    if rank() == 7:
        time.sleep(2)
        Path("last").touch()
    wait_for_all()
    # A file each: lines of eight processes on one pipe may run into each other.
    Path(f"seen{rank()}").write_text(str(Path("last").exists()))
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
    seen = [(tmp_path / f"seen{number}").read_text() for number in range(8)]
    assert seen == ["True"] * 8
