"""The engine: every job is answered in its place, whoever does it, and errors come through."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from indexlm.errors import UserError
from indexlm.text.engine import Engine


def square(job: Mapping[str, Any]) -> dict[str, Any]:
    return {"square": job["number"] ** 2, "process": os.getpid()}


def stumbles(job: Mapping[str, Any]) -> dict[str, Any]:
    if job["number"] == 2:
        raise UserError("text.inputs: 'x' is no file")
    return square(job)


def disk_full(job: Mapping[str, Any]) -> dict[str, Any]:
    raise OSError(28, "No space left on device", "shards/00000")


def killed(job: Mapping[str, Any]) -> dict[str, Any]:
    if job["number"] == 2:
        os.kill(os.getpid(), 9)
    return square(job)


def lingers(job: Mapping[str, Any]) -> dict[str, Any]:
    (Path(job["folder"]) / str(os.getpid())).touch()
    time.sleep(60)
    return {}


LEADER = """
import sys
import test_engine
from indexlm.text.engine import Engine
jobs = [{"size": 1, "folder": sys.argv[1]} for _ in range(2)]
Engine("native", 2).map("lingers", test_engine.lingers, jobs)
"""


def alive(process: int) -> bool:
    """Whether it runs: one that has ended may wait for somebody to ask how."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_workers_end_with_the_leader_that_is_killed(tmp_path: Path) -> None:
    """They would write into the work folder beside those of the next start."""
    leader = subprocess.Popen([sys.executable, "-c", LEADER, str(tmp_path)])
    while len(list(tmp_path.iterdir())) < 2:
        assert leader.poll() is None
        time.sleep(0.05)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert all(map(alive, workers))
    leader.kill()
    leader.wait()
    until = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def jobs(count: int) -> list[dict[str, Any]]:
    return [{"number": number, "size": 1} for number in range(count)]


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker imports the task by the name of its module."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_come_in_the_order_of_the_jobs(workers: int) -> None:
    answers = Engine("native", workers).map("squares", square, jobs(5))
    assert [answer["square"] for answer in answers] == [0, 1, 4, 9, 16]
    processes = {answer["process"] for answer in answers}
    assert len(processes) <= workers


def test_no_jobs_have_no_answers() -> None:
    assert Engine().map("nothing", square, []) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_of_the_user_stays_one(workers: int) -> None:
    with pytest.raises(UserError, match="'x' is no file"):
        Engine("native", workers).map("stumbles", stumbles, jobs(4))


def test_a_full_disk_keeps_its_message() -> None:
    with pytest.raises(OSError, match=r"No space left on device.*shards/00000"):
        Engine("native", 2).map("full", disk_full, jobs(3))


def test_a_killed_worker_is_named_with_the_remedy() -> None:
    with pytest.raises(ChildProcessError, match=r"killed from outside.*--workers than 2"):
        Engine("native", 2).map("killed", killed, jobs(4))
