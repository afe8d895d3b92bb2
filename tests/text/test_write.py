"""What leaves a shard: parts masked like their text, ratings as they were given, copies by name."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from indexlm.config import TextConfig
from indexlm.text.copies.corpus import EDGES, Corpus, write_edges
from indexlm.text.copies.near_dups import Edges
from indexlm.text.document import Document
from indexlm.text.shards import write_columns, write_shard
from indexlm.text.work import output
from indexlm.text.writing.write import write

CHAT = (
    "Where can I write to you, my friend?",
    "Write to jane.doe@mail-server.com any day you like.",
)


def files(tmp_path: Path, config: TextConfig) -> dict[str, list[dict[str, Any]]]:
    """The rows that a shard of four documents gives to each file of the output."""
    shard, work = tmp_path / "0.arrow", tmp_path / "work"
    chat = json.dumps({"kind": "chat", "turns": CHAT})
    told = ["A: " + CHAT[0] + "\nB: " + CHAT[1], *["one quiet river", "two stones", "two stones"]]
    names = ["s/chat", "s/x", "s/x", "s/y"]
    documents = [Document(name, text, "s", "en", "ordinary") for name, text in zip(names, told)]
    write_shard(shard, documents, [chat, "", "", ""])
    work.mkdir()
    Corpus(work, [shard], [4], 100, [{}]).save()
    for step, columns in {
        "privacy": {"suspect": [True, False, False, False]},
        "quality": {"tier": ["curated"] * 4},
    }.items():
        path = output(work, step, shard)
        path.parent.mkdir()
        write_columns(path, {"reason": [""] * 4, **columns})
    # The last says what the third says, which is not the first of its name.
    edges = Edges(np.array([2]), np.array([3]), np.array([1.0]))
    write_edges(work / EDGES / "exact.npy", edges)
    (work / "renamed.json").write_text(json.dumps({"2": "s/x#2"}), encoding="utf-8")
    job = {
        "config": config.model_dump(mode="json"),
        "work": str(work),
        "shard": 0,
        "columns": ["quality", "privacy"],
        "copies": ["exact"],
        "cuts": False,
        "names": {"2": "s/x#2"},
        "renamed": str(work / "renamed.json"),
        "forced": [],
        "path": str(tmp_path / "written"),
        "made_from": "this",
    }
    content, rows = (tmp_path / "written"), {}
    for name, (start, size) in write(job)["parts"].items():
        packed = content.read_bytes()[start : start + size]
        text = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read().decode()
        rows[name] = [json.loads(line) for line in text.splitlines()]
    return rows


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    quality = {"model": "quality.safetensors", "tiers": "classifier"}
    return files(tmp_path, TextConfig.model_validate({"quality": quality}))


def test_a_copy_is_told_by_the_name_that_its_first_leaves_with(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    [copy] = rows["dropped/exact_duplicate"]
    assert (copy["id"], copy["of"]) == ("s/y", "s/x#2")


def test_the_parts_of_a_chat_are_masked_like_its_text(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    [record] = rows["instruction"]
    assert record["query"] == CHAT[0] and record["response"].startswith("Write to name@example")
    assert not any("jane.doe" in json.dumps(some) for some in rows.values())


def test_a_classifier_moves_a_document_but_not_the_rating_of_its_chat(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    """Chats given as ordinary are those that people liked: they alone become instructions."""
    assert {row["tier"] for row in rows["train/en_curated"]} == {"curated"}
    assert len(rows["instruction"]) == 1
