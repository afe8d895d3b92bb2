"""Items are read as their makers publish them, and what cannot be read is said."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.text.filters.benchmarks import Item, benchmark_files, read_benchmarks

OPTIONS = ("a fox", "a heron", "an otter", "a carp")
QUESTION = "Which animal, said to live by the mill, was seen first?"


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(*rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def items(path: Path) -> list[Item]:
    return list(read_benchmarks([str(path)]))


LETTERS = dict(zip("ABCD", OPTIONS))
LAYOUTS: dict[str, tuple[str, bytes, str]] = {
    "headerless csv": ("x.csv", table([QUESTION, *OPTIONS, "B"]), "1"),
    "csv with ids": (
        "x.csv",
        table(["id", "question", *"ABCD", "answer"], [7, QUESTION, *OPTIONS, "B"]),
        "7",
    ),
    "csv with unnamed numbers": (
        "x.csv",
        "\ufeff".encode()
        + table(["", "Question", *"ABCD", "Answer"], [7, QUESTION, *OPTIONS, "B"]),
        "1",
    ),
    "stem and choices in the question": (
        "x.jsonl",
        lines(
            {
                "id": "m_1",
                "question": {
                    "stem": QUESTION,
                    "choices": [{"text": o, "label": ""} for o in OPTIONS],
                },
                "answerKey": "B",
            }
        ),
        "m_1",
    ),
    "context and endings": ("x.jsonl", lines({"ind": 0, "ctx": QUESTION, "endings": OPTIONS}), "0"),
    "choices of text and label": (
        "x.jsonl",
        lines({"question": QUESTION, "choices": {"text": OPTIONS, "label": list("ABCD")}}),
        "1",
    ),
    "options by letter": (
        "x.jsonl",
        lines({"id": 3, "question": QUESTION, "options": LETTERS}),
        "3",
    ),
    "a list in json": (
        "x.json",
        json.dumps([{"query": QUESTION, "choices": OPTIONS}]).encode(),
        "1",
    ),
    "numbered solutions": (
        "x.jsonl",
        lines({"goal": QUESTION, **{f"sol{n}": text for n, text in enumerate(OPTIONS)}}),
        "1",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_gives_question_and_options(name: str, tmp_path: Path) -> None:
    file, content, identity = LAYOUTS[name]
    (tmp_path / file).write_bytes(content)
    assert items(tmp_path / file) == [Item("x", f"{file}:{identity}", QUESTION, OPTIONS)]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_a_packed_file_is_read_whole_or_not_at_all(
    suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    packed = pack(lines(*({"id": n, "question": f"{QUESTION} {n}"} for n in range(500))))
    path.write_bytes(packed)
    assert [item.name for item in items(path)] == [f"{path.name}:{n}" for n in range(500)]
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match="cannot be unpacked"):
        items(path)


def test_parquet_rows_are_items(tmp_path: Path) -> None:
    rows = [{"question": QUESTION, "choices": list(OPTIONS), "answer": 1}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert items(tmp_path / "x.parquet") == [Item("x", "x.parquet:1", QUESTION, OPTIONS)]


def test_a_folder_is_one_benchmark_in_the_order_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "quiz"
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "birds.csv").write_bytes(table(["who flies", "a", "b", "A"]))
    (folder / "dev.csv").write_bytes(table(["who swims", "a", "b", "B"]))
    (folder / "README.md").write_text("about")
    (folder / "subjects.json").write_text('{"birds": "biology"}')
    assert [(item.benchmark, item.name) for item in items(folder)] == [
        ("quiz", "dev.csv:1"),
        ("quiz", "test/birds.csv:1"),
    ]


def test_the_passage_of_a_reading_task_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines({"passage": "A public text. " * 9, "question": QUESTION}))
    assert items(path) == [Item("x", "x.jsonl:1", QUESTION)]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("x.txt", b"text", "unknown kind"),
        ("x.csv", table(["word", "sense"], ["a", "b"]), "x has no item"),
        ("x.jsonl", lines({"word": "a"}), "x has no item"),
        ("x.jsonl", b'{"question": ', "not jsonl"),
        ("x.jsonl", '{"question": "谁在山那边住着"}'.encode("gb18030"), "not UTF-8 at byte"),
        ("x.parquet", b"PAR1 and then nothing", "not parquet"),
    ],
)
def test_a_file_without_items_is_refused(
    file: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=said):
        items(tmp_path / file)


def test_a_path_that_names_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        items(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="no file of items"):
        items(tmp_path)


def test_two_benchmarks_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "quiz").mkdir(parents=True)
        (tmp_path / folder / "quiz" / "x.csv").write_bytes(table(["who", "a", "b", "A"]))
    with pytest.raises(UserError, match="rename one"):
        list(benchmark_files([str(tmp_path / name / "quiz") for name in ("a", "b")]))


CELLS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(
    lambda text: text.strip() != ""
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS, CELLS, st.sampled_from("ABCD")), min_size=1, max_size=8))
def test_whatever_stands_in_the_cells_of_a_csv_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, str]]
) -> None:
    path = tmp_path_factory.mktemp("cells") / "x.csv"
    header = ("question", "A", "B", "answer")
    path.write_bytes(table(header, *rows))
    expected = [(question, (first, second)) for question, first, second, _ in rows]
    assert [(item.question, item.options) for item in items(path)] == expected
