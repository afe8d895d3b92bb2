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
    files = (tmp_path / "again").glob("*/*_*.jsonl.zst")
    assert [document.text for path in files for document in read_documents(path)] == [
        long["text"].strip()
    ]
