"""The whole stage on a small corpus: every document is counted once, the same bytes each time."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexlm.config import TextConfig
from indexlm.errors import UserError
from indexlm.text.jsonl import read_jsonl
from indexlm.text.refine import (
    funnel_table,
    inspect,
    read_documents,
    refine,
    split_key,
)

WORDS = {
    "zh": "山川湖海春夏秋冬人们走过桥看见灯火城里树木安静风雨落下书声朗读孩子远方朋友归来清晨黄昏",
    "en": "river mountain walked quiet evening friend letter window morning stone garden under",
}


def prose(rng: random.Random, language: str) -> str:
    units = WORDS[language] if language == "zh" else WORDS[language].split()
    gap = "" if language == "zh" else " "
    sentences = [gap.join(rng.choices(units, k=rng.randint(6, 14))) for _ in range(12)]
    return ("。" if language == "zh" else ". ").join(sentences) + "。."[language == "en"]


def rows(rng: random.Random) -> Iterator[dict[str, Any]]:
    for number in range(150):
        language = ("zh", "en")[number % 2]
        tier = ("curated", "ordinary", "noisy")[number % 3]
        yield {"id": str(number), "text": prose(rng, language), "tier": tier, "license": "CC0"}
    copied = prose(rng, "zh")
    yield from ({"id": f"copy-{number}", "text": copied} for number in range(3))
    yield {"id": "near", "text": copied[:-3] + "山山山"}
    yield {"id": "short", "text": "嗯"}
    yield {"id": "symbols", "text": "#### |||| ==== ~~~~ @@@@ word"}
    yield {"id": "quiz", "text": "Question: who?\nAnswer: me, of course, it was always me."}
    yield {"id": "quiz", "text": "问：天为什么是蓝的？\n答：因为空气散射蓝光。"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "mixed.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(random.Random(0))]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def refined(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("refined")
    return out, refine(settings(corpus), 0, out)


def settings(corpus: Path, share: float = 0.05) -> TextConfig:
    return TextConfig(inputs=(str(corpus),), held_out_share=share)


def test_what_came_in_is_kept_held_out_or_dropped(refined: tuple[Path, dict[str, Any]]) -> None:
    out, funnel = refined
    for unit in ("documents", "bytes"):
        ends = [funnel[end].values() for end in ("kept", "held_out", "dropped")]
        total = sum(size[unit] for sizes in ends for size in sizes)
        normalised = next(step for step in funnel["steps"] if step["step"] == "normalise")
        assert total == normalised[unit]
        kept = sum(size[unit] for size in funnel["kept"].values())
        assert funnel["steps"][-1][unit] == kept
    assert funnel["steps"][0]["documents"] == 158
    assert json.loads((out / "funnel.json").read_text(encoding="utf-8")) == funnel
    for folder, end in (("train", "kept"), ("held_out", "held_out")):
        for name, size in funnel[end].items():
            documents = list(read_documents(out / folder / f"{name}.jsonl.zst"))
            assert len(documents) == size["documents"]
            assert sum(len(document.text.encode()) for document in documents) == size["bytes"]
            assert {f"{d.language}_{d.tier}" for d in documents} == {name}


def test_each_planted_document_goes_for_its_reason(refined: tuple[Path, dict[str, Any]]) -> None:
    out, funnel = refined
    expected = {
        "too_short": ["mixed/short"],
        "symbols": ["mixed/symbols"],
        "instruction_like": ["mixed/quiz", "mixed/quiz#2"],
        "exact_duplicate": ["mixed/copy-1", "mixed/copy-2"],
        "near_duplicate": ["mixed/near"],
    }
    found = {}
    for reason in funnel["dropped"]:
        dropped = list(read_jsonl(out / "dropped" / f"{reason}.jsonl.zst"))
        assert all(row["reason"] == reason for row in dropped)
        found[reason] = [row["id"] for row in dropped]
    assert found == expected


def test_no_name_is_on_both_sides(refined: tuple[Path, dict[str, Any]]) -> None:
    out, _ = refined
    keys = [
        {split_key(d.id) for path in (out / side).glob("*") for d in read_documents(path)}
        for side in ("train", "held_out")
    ]
    assert keys[0] and keys[1] and not keys[0] & keys[1]
    assert split_key("word/晨风") == split_key("idiom/晨风#2") == "晨风"


def test_the_same_input_gives_the_same_bytes(
    corpus: Path, refined: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = refined
    refine(settings(corpus), 0, tmp_path)
    names = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((out / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_the_split_does_not_depend_on_the_seed(
    corpus: Path, refined: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    assert refine(settings(corpus), 7, tmp_path)["held_out"] == refined[1]["held_out"]


def test_each_language_has_a_held_out_document(corpus: Path, tmp_path: Path) -> None:
    held_out = refine(settings(corpus, share=1e-9), 0, tmp_path)["held_out"]
    assert {name[:2] for name in held_out} == {"zh", "en"}
    assert sum(size["documents"] for size in held_out.values()) == 2


def test_too_little_text_is_an_error_with_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    text = {"text": "Question: who?\nAnswer: me. " + "and me " * 5}
    path.write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(UserError, match=r"only 0 bytes.*few\.jsonl.*instruction_like"):
        refine(TextConfig(inputs=(str(path),)), 0, tmp_path)


def test_the_table_and_the_samples_can_be_read(refined: tuple[Path, dict[str, Any]]) -> None:
    out, funnel = refined
    table = funnel_table(funnel)
    assert "instruction_like" in table and "held out:" in table
    assert len({len(line.rstrip()) for line in table.splitlines() if line[-1:].isdigit()}) == 1
    assert "mixed/quiz#2" in inspect(out, "instruction_like", 5)
    assert "mixed/near" in inspect(out, None, 1)
    with pytest.raises(UserError, match=r"'typo'.*near_duplicate"):
        inspect(out, "typo", 5)
    with pytest.raises(UserError, match="no refined text"):
        inspect(out / "nowhere", None, 5)
