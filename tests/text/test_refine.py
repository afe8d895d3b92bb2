"""The whole stage on a small corpus: every record is counted once, the same bytes each time."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexlm.config import PrivacyConfig, TextConfig
from indexlm.errors import UserError
from indexlm.text.engine import Engine
from indexlm.text.filters.privacy import mask
from indexlm.text.jsonl import read_jsonl
from indexlm.text.reading.files import QUARANTINE
from indexlm.text.refine import publish_refined, refine
from indexlm.text.refined import read_documents
from indexlm.text.writing.funnel import funnel_table
from indexlm.text.writing.held_out import split_key
from indexlm.text.writing.inspect import inspect

WORDS = {
    "zh": "山川湖海春夏秋冬人们走过桥看见灯火城里树木安静风雨落下书声朗读孩子远方朋友归来清晨黄昏",
    "en": "the river and a mountain walked to quiet evening friend letter window of morning stone "
    "in garden under",
}
MENU = " ".join(f"{month} {year}" for year in range(2021, 2009, -1) for month in ("May", "June"))
"""Text of 200 bytes and more that stands inside several pages."""


def prose(rng: random.Random, language: str) -> str:
    units = WORDS[language] if language == "zh" else WORDS[language].split()
    gap = "" if language == "zh" else " "
    sentences = [gap.join(rng.choices(units, k=rng.randint(6, 14))) for _ in range(12)]
    frame = "在{}的" if language == "zh" else "the {} of it"
    sentences = [frame.format(sentence) for sentence in sentences]
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
    for number in range(3):
        text = f"{prose(rng, 'en')} {MENU} {prose(rng, 'en')}"
        yield {"id": f"menu-{number}", "text": text}
    yield {"id": "mail", "text": f"{prose(rng, 'en')} Write to jane.doe@mail-server.com today."}
    yield {"id": "blank", "text": "  \n"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "mixed.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(random.Random(0))]
    path.write_text("\n".join([*lines, '{"text": oops}']), encoding="utf-8")
    return path


def clean(out: Path, *, seed: int = 0, **settings: Any) -> dict[str, Any]:
    """Refine into `out`, working beside it."""
    work = out.with_name(f"{out.name}.work")
    out.mkdir()
    return refine(TextConfig(**settings), seed, out, work, Engine())


@pytest.fixture(scope="module")
def refined(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("refined") / "out"
    return out, clean(out, inputs=(str(corpus),), held_out_share=0.05)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_came_in_is_kept_held_out_dropped_blank_or_quarantined(
    corpus: Path, refined: tuple[Path, dict[str, Any]]
) -> None:
    out, funnel = refined
    ends = [funnel[end].values() for end in ("kept", "held_out", "dropped")]
    documents = sum(size["documents"] for sizes in ends for size in sizes)
    records = documents + funnel["blank"] + sum(funnel["quarantined"].values())
    assert records == len(corpus.read_text(encoding="utf-8").splitlines()) == 164
    assert funnel["blank"] == 1 and funnel["quarantined"] == {"not_json": 1}
    assert [step["documents"] for step in funnel["steps"][:2]] == [163, 162]
    left = sum(size["bytes"] for sizes in ends for size in sizes) + funnel["cut_bytes"]
    masked = len("jane.doe@mail-server.com") - len(
        mask("jane.doe@mail-server.com", PrivacyConfig())[0]
    )
    assert left == funnel["steps"][1]["bytes"] - masked
    assert funnel["steps"][-1]["bytes"] == sum(size["bytes"] for size in funnel["kept"].values())
    assert json.loads((out / "funnel.json").read_text(encoding="utf-8")) == funnel
    for folder, end in (("train", "kept"), ("held_out", "held_out")):
        for name, size in funnel[end].items():
            found = list(read_documents(out / folder / f"{name}.jsonl.zst"))
            assert len(found) == size["documents"]
            assert sum(len(document.text.encode()) for document in found) == size["bytes"]
            assert {f"{d.language}_{d.tier}" for d in found} == {name}


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
    near = next(read_jsonl(out / "dropped" / "near_duplicate.jsonl.zst"))
    assert near["of"] == "mixed/copy-0" and near["similarity"] > 0.8


def test_a_passage_stays_where_it_stands_first_and_mail_is_masked(
    refined: tuple[Path, dict[str, Any]],
) -> None:
    out, funnel = refined
    files = [path for side in ("train", "held_out") for path in (out / side).iterdir()]
    texts = {document.id: document.text for path in files for document in read_documents(path)}
    assert [MENU in texts[f"mixed/menu-{number}"] for number in range(3)] == [True, False, False]
    assert funnel["cut_bytes"] >= 2 * len(MENU)
    assert "jane.doe" not in texts["mixed/mail"] and "Write to " in texts["mixed/mail"]
    assert funnel["masked"] == {"email": 1}


def test_a_passage_that_stood_first_in_a_dropped_copy_is_not_lost(tmp_path: Path) -> None:
    draw = random.Random(4)
    whole = " ".join(prose(draw, "en") for _ in range(6))
    passage = prose(draw, "en")[:400]
    texts = [whole, f"{whole} {passage}", f"{prose(draw, 'en')} {passage} {prose(draw, 'en')}"]
    texts += [prose(draw, "en") for _ in range(150)]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    funnel = clean(tmp_path / "out", inputs=(str(path),), steps=("near_copies", "passages"))
    assert funnel["dropped"]["near_duplicate"]["documents"] == 1
    files = [path for side in ("train", "held_out") for path in (tmp_path / "out" / side).iterdir()]
    left = {document.id: document.text for path in files for document in read_documents(path)}
    assert left["few/few-3"] == texts[2]


def test_no_name_is_on_both_sides(refined: tuple[Path, dict[str, Any]]) -> None:
    out, _ = refined
    keys = [
        {split_key(d.id) for path in (out / side).glob("*") for d in read_documents(path)}
        for side in ("train", "held_out")
    ]
    assert keys[0] and keys[1] and not keys[0] & keys[1]


@pytest.mark.parametrize("settings", [{}, {"shard_bytes": 100_000}])
def test_the_same_input_gives_the_same_bytes_however_it_is_cut(
    settings: dict[str, int],
    corpus: Path,
    refined: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:
    out, _ = refined
    clean(tmp_path / "out", inputs=(str(corpus),), held_out_share=0.05, **settings)
    found, expected = contents(tmp_path / "out"), contents(out)
    if settings:
        # Compressed parts of other sizes, and the setting itself, are other bytes.
        found, expected = (
            {name: list(read_jsonl(folder / name)) for name in files if name.endswith(".zst")}
            for folder, files in ((tmp_path / "out", found), (out, expected))
        )
    assert found == expected


def test_a_file_that_is_read_in_parts_gives_each_record_once(tmp_path: Path) -> None:
    """Blank lines, bad lines and lines of other lengths at every border there may be."""
    draw = random.Random(1)
    lines = []
    for number in range(6000):
        row = {"id": str(number), "text": prose(draw, "en")[: draw.randint(20, 900)]}
        if number % 7 == 0:
            row["note"] = "too long " * 150
        lines.append(json.dumps(row) + "\n" * draw.randint(1, 3))
        lines += draw.choices(["", "{bad}\n", " \n", "\u00a0\n", '{"text": ""}\n'], [9, 1, 1, 1, 1])
    path = tmp_path / "parts.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    settings: dict[str, Any] = {"inputs": (str(path),), "steps": ("privacy",)}
    settings |= {"shard_bytes": 100_000, "reading": {"record_bytes": 1200}}
    funnel = clean(tmp_path / "out", **settings)
    assert len(list((tmp_path / "out.work" / "shards").glob("*.arrow"))) > 2
    long = len(range(0, 6000, 7))
    assert funnel["steps"][1]["documents"] == 6000 - long
    assert funnel["quarantined"] == {"not_json": lines.count("{bad}\n"), "too_long": long}
    assert funnel["blank"] == lines.count('{"text": ""}\n')
    files = [path for side in ("train", "held_out") for path in (tmp_path / "out" / side).iterdir()]
    ids = [document.id for path in files for document in read_documents(path)]
    assert sorted(ids) == sorted(f"parts/{number}" for number in range(6000) if number % 7)


def test_the_split_does_not_depend_on_the_seed(
    corpus: Path, refined: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    again = clean(tmp_path / "out", inputs=(str(corpus),), held_out_share=0.05, seed=7)
    assert again["held_out"] == refined[1]["held_out"]


def test_each_language_has_a_held_out_document(corpus: Path, tmp_path: Path) -> None:
    held_out = clean(tmp_path / "out", inputs=(str(corpus),), held_out_share=1e-9)["held_out"]
    assert {name[:2] for name in held_out} == {"zh", "en"}
    assert sum(size["documents"] for size in held_out.values()) == 2


def made_now(work: Path, since: float) -> set[str]:
    """Kinds of outputs that were made after a time."""
    marks = [path for path in work.rglob("*.done") if path.stat().st_mtime_ns > since]
    return {path.parent.name for path in marks}


def test_another_setting_does_again_only_what_depends_on_it(corpus: Path, tmp_path: Path) -> None:
    def refine_with(number: int, **settings: Any) -> set[str]:
        since = max((p.stat().st_mtime_ns for p in work.rglob("*.done")), default=0)
        out = tmp_path / str(number)
        out.mkdir()
        config = TextConfig(inputs=(str(corpus),), **settings)
        refine(config, 0, out, work, Engine())
        return made_now(work, since)

    work = tmp_path / "work"
    everything = refine_with(0)
    assert {"shards", "rules", "instructions", "privacy", "signatures", "stretches"} < everything
    assert refine_with(1) == set()
    assert contents(tmp_path / "0") == contents(tmp_path / "1")
    # Nothing is between 8 and 30 characters long: what is compared is the same as before.
    assert refine_with(2, rules={"min_chars": 30}) == {"rules", "written"}
    assert refine_with(3, rules={"min_chars": 150}) == {"rules", "ranges", "written"}
    assert refine_with(4, rules={"min_chars": 150}, held_out_share=0.1) == {"written"}
    last = {"rules": {"min_chars": 150}, "copies": {"passage_bytes": 300}}
    assert refine_with(5, **last) == {"stretches", "ranges", "cuts", "written"}
    damaged = next(work.glob("privacy/*.arrow"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert refine_with(6, **last) == {"privacy"}


def test_too_little_text_is_an_error_with_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    text = {"text": "Question: who?\nAnswer: me. " + "and me " * 5}
    path.write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(UserError, match=r"only 0 bytes.*few\.jsonl.*instruction_like"):
        clean(tmp_path / "out", inputs=(str(path),))


def test_a_folder_of_something_else_is_not_replaced(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "novel.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(UserError, match="holds no refined text"):
        publish_refined(
            TextConfig(inputs=(str(corpus),)), 0, tmp_path / "mine", tmp_path / "work", Engine()
        )
    assert (tmp_path / "mine" / "novel.txt").read_text(encoding="utf-8") == "dear"


def test_a_work_folder_of_something_else_is_left_alone(corpus: Path, tmp_path: Path) -> None:
    work = tmp_path / "thesis"
    work.mkdir()
    (work / "chapter.txt").write_text("years of work", encoding="utf-8")
    for name in (str(corpus), "nowhere.txt"):
        with pytest.raises(UserError, match=r"thesis holds something else.*--work"):
            publish_refined(TextConfig(inputs=(name,)), 0, tmp_path / "out", work, Engine())
    assert contents(work) == {"chapter.txt": b"years of work"}


def test_what_is_read_and_what_is_written_lie_apart(corpus: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.jsonl").write_bytes(corpus.read_bytes())
    for out, work in (("raw/out", "work"), ("out", "raw/work"), ("raw", "work")):
        (tmp_path / "raw" / "funnel.json").write_text("{}", encoding="utf-8")
        with pytest.raises(UserError, match="lie in one another"):
            publish_refined(
                TextConfig(inputs=(str(raw),)), 0, tmp_path / out, tmp_path / work, Engine()
            )
    assert (raw / "a.jsonl").is_file()


def test_a_quarantine_that_another_run_left_is_not_taken_for_ones_own(
    corpus: Path, tmp_path: Path
) -> None:
    """Two settings in turn in one work folder, and a quarantine that was lost."""
    work, found = tmp_path / "work", []
    for number, limit in enumerate((10_000_000, 1000, 10_000_000, 10_000_000)):
        out = tmp_path / str(number)
        out.mkdir()
        config = TextConfig(inputs=(str(corpus),), reading={"record_bytes": limit})
        refine(config, 0, out, work, Engine())
        found.append(contents(out))
        if number == 2:
            next((work / "shards").glob(f"*{QUARANTINE}")).unlink()
    assert found[0] == found[2] == found[3] != found[1]
    assert f"all{QUARANTINE}" in found[0]


def test_the_table_the_samples_and_the_card_can_be_read(
    refined: tuple[Path, dict[str, Any]],
) -> None:
    out, funnel = refined
    table = funnel_table(funnel)
    assert "instruction_like" in table and "held out:" in table and "not_json" in table
    assert len({len(line) for line in table.splitlines() if "." in line[-4:]}) == 1
    assert "mixed/quiz#2" in inspect(out, "instruction_like", 5)
    assert "of mixed/copy-0" in inspect(out, None, 1)
    with pytest.raises(UserError, match=r"'typo'.*near_duplicate"):
        inspect(out, "typo", 5)
    with pytest.raises(UserError, match="no refined text"):
        inspect(out / "nowhere", None, 5)
    card = (out / "README.md").read_text(encoding="utf-8")
    for told in ("| mixed | CC0 |", "near_duplicate", "masked email: 1", "not_json: 1"):
        assert told in card
