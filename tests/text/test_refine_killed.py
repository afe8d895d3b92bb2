"""Real processes that are killed, on one machine or on a cluster, end with the same bytes."""

import json
import os
import random
import signal
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from command import read_until, refused, standing_still, start, succeeded
from indexlm.text.reading.files import QUARANTINE
from indexlm.text.refined import read_documents

EN = ["the", "of", "and", "to", "harbour", "morning", "letter", "window", "stone", "quiet"]
KILLS = 6
SMALL = ("--set", "shard_bytes=100000", "--workers", "2")


def page(draw: random.Random, number: int) -> dict[str, Any]:
    if number % 2:
        text = "".join(draw.choices("山川湖海春夏秋冬人们走过桥的看见了灯火", k=150))
    else:
        text = " ".join(draw.choices(EN, k=90))
    return {"id": str(number % 1900), "text": text, "tier": ("curated", "noisy")[number % 3 == 0]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two files of pages, near copies and bad lines among them, and what they give."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "raw").mkdir()
    draw = random.Random(3)
    pages = [page(draw, number) for number in range(2000)]
    for number in range(0, 200, 2):
        pages.append({"text": pages[number]["text"][:-9] + " changed"})
    lines = [json.dumps(one, ensure_ascii=False) for one in pages]
    lines[100:100] = ["{not json", '{"text": 5}']
    for name, part in (("a.jsonl", lines[:1200]), ("b.jsonl", lines[1200:])):
        (folder / "raw" / name).write_text("\n".join(part), encoding="utf-8")
    succeeded(folder, "data", "refine", "raw", "--out", "whole", *SMALL)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def markers(work: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in work.rglob("*.done")}


def outputs(work: Path) -> int:
    """How many are finished, while others come and go."""
    return sum(name.endswith(".done") for _, _, names in os.walk(work) for name in names)


def wait_for_outputs(process: Popen[str], work: Path, more: int) -> None:
    """Until there are `more` than now, or the process has ended."""
    wanted = outputs(work) + more
    while process.poll() is None and outputs(work) < wanted:
        time.sleep(0.005)


def test_a_run_killed_many_times_ends_with_the_same_bytes(place: Path) -> None:
    """And what was finished before a kill is not made again after it."""
    draw, work, kills = random.Random(5), place / "killed.work", 0
    most = 2 * outputs(place / "whole.work") // KILLS
    finished: dict[Path, int] = {}
    while not (place / "killed").exists():
        process = start(place, "data", "refine", "raw", "--out", "killed", *SMALL)
        if kills < KILLS:
            wait_for_outputs(process, work, draw.randint(1, most))
            process.send_signal(signal.SIGKILL)
        _, told = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), told
        kills += process.returncode == -signal.SIGKILL
        now = markers(work)
        assert {path: now.get(path) for path in finished} == finished
        finished = now
    assert kills >= 3
    assert contents(place / "killed") == contents(place / "whole")


def test_ctrl_c_says_that_the_same_command_goes_on(place: Path) -> None:
    """Whatever the engine's threads are at: the exit code is that of a stop, not of a crash."""
    draw, half = random.Random(11), outputs(place / "whole.work") // 2
    for name in ("stopped", "again", "third", "fourth"):
        process = start(place, "data", "refine", "raw", "--out", name, *SMALL)
        read_until(process, "reading raw")
        wait_for_outputs(process, place / f"{name}.work", draw.randint(0, half))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
        assert process.returncode == 130 and "the same command goes on" in told
        assert not (place / name).exists()
    succeeded(place, "data", "refine", "raw", "--out", "stopped", *SMALL)
    assert contents(place / "stopped") == contents(place / "whole")


def test_ray_and_other_widths_give_the_same_bytes(place: Path) -> None:
    for name, options in (("ray", ["--engine", "ray"]), ("one", ["--workers", "1"])):
        succeeded(place, "data", "refine", "raw", "--out", name, *SMALL, *options)
        assert contents(place / name) == contents(place / "whole")


def test_two_at_once_in_one_work_folder_are_refused(place: Path) -> None:
    first = start(place, "data", "refine", "raw", "--out", "twice", *SMALL)
    read_until(first, "reading raw")
    with standing_still(first):
        again = ["data", "refine", "raw", "--out", "twice", *SMALL]
        # What changes below it is the work of the workers, which go on.
        message = refused(place, *again, changes=True)
    assert "in use by another process" in message
    _, told = first.communicate()
    assert first.returncode == 0, told
    assert contents(place / "twice") == contents(place / "whole")


def test_the_quarantine_is_read_again_where_the_cause_is_gone(tmp_path: Path) -> None:
    long = {"text": "the quiet river of stone and morning letters " * 40}
    lines = [json.dumps(page(random.Random(9), number)) for number in range(400)]
    (tmp_path / "raw.jsonl").write_text("\n".join([*lines, json.dumps(long)]), encoding="utf-8")
    options = ("--steps", "rules", "--set", "rules.max_repeated_gram_share=1")
    limit = ("--set", "reading.record_bytes=1500")
    succeeded(tmp_path, "data", "refine", "raw.jsonl", "--out", "first", *options, *limit)
    bad = f"first/all{QUARANTINE}"
    succeeded(tmp_path, "data", "refine", bad, "--out", "again", *options)
    files = list((tmp_path / "again").glob("*/*_*.jsonl.zst"))
    texts = [document.text for path in files for document in read_documents(path)]
    assert texts == [long["text"].strip()]
