"""Real processes that are killed, on one machine or on a cluster, end with the same bytes."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from command import refused, start, succeeded
from indexlm.text.reading.files import QUARANTINE
from indexlm.text.refined import read_documents

EN = ["the", "of", "and", "to", "harbour", "morning", "letter", "window", "stone", "quiet"]
KILLS = 12
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


def test_a_run_killed_many_times_ends_with_the_same_bytes(place: Path) -> None:
    """And what was finished before a kill is not made again after it."""
    draw, work, kills = random.Random(5), place / "killed.work", 0
    finished: dict[Path, int] = {}
    while not (place / "killed").exists():
        process = start(place, "data", "refine", "raw", "--out", "killed", *SMALL)
        until = time.monotonic() + draw.uniform(0.4, 1.8)
        while process.poll() is None and (time.monotonic() < until or kills >= KILLS):
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        now = markers(work)
        assert {path: now.get(path) for path in finished} == finished
        finished = now
    assert kills >= 3
    assert contents(place / "killed") == contents(place / "whole")


def test_ctrl_c_says_that_the_same_command_goes_on(place: Path) -> None:
    """Whatever the engine's threads are at: the exit code is that of a stop, not of a crash."""
    draw = random.Random(11)
    for name in ("stopped", "again", "third", "fourth"):
        process = start(place, "data", "refine", "raw", "--out", name, *SMALL)
        while not (place / f"{name}.work" / "shards").exists():
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.4))
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
    while not (place / "twice.work" / ".lock").exists():
        time.sleep(0.01)
    message = refused(place, "data", "refine", "raw", "--out", "twice", *SMALL)
    assert "in use by another process" in message
    first.communicate()
    assert first.returncode == 0


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
