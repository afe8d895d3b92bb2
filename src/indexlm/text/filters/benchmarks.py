"""Items of benchmarks as they are published: a question, and its options where it has some.

A file is csv, jsonl, json (a list of rows, or lines) or parquet, each also as .gz or .zst. The
names of the fields tell what is what; a csv without a header is read as MMLU's: question, options,
answer. The passage of a reading task is left out: it is most often public text that a corpus holds
by right, and its questions stand for the item.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from indexlm.errors import UserError
from indexlm.records import log

COMPRESSED = (".gz", ".zst")
SUFFIXES = (".csv", ".jsonl", ".json", ".parquet")
QUESTIONS = (
    *("question", "ctx", "query", "prompt", "problem", "goal", "stem", "sentence", "premise"),
    *("instruction", "input", "text", "题目", "问题", "题干"),
)
"""Names of the field that asks, in any case; of several in a row the first here."""
OPTIONS = ("choices", "options", "endings", "选项")
"""Names of a field that holds all options."""
IDS = ("id", "ind", "task_id", "question_id", "qid")
_ONE_OPTION = re.compile(r"[a-j]|(?:option|choice|ending|sol|op)_?[0-9a-j]")
_ANSWER = re.compile(r"[A-J]|[0-9]")
_KNOWN = "csv, jsonl, json or parquet, each also .gz or .zst"
_FIELDS = (
    'a row has a "question" (or ctx, query, prompt, problem, goal, stem, sentence, text, 题目) '
    'and, where it has options, "choices", "options", "endings" or columns A, B, C, D'
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark; `name` is its file and its id there, or its row from 1 on."""

    benchmark: str
    name: str
    question: str
    options: tuple[str, ...] = ()


def benchmark_files(names: Sequence[str]) -> Iterator[tuple[str, str, Path]]:
    """Benchmark, name of the file in it, and path, of all files of the named files and folders.

    A file is a benchmark by itself, a folder is one with all files in it. Raises UserError for a
    path that is missing or empty, and for two of one name.
    """
    seen: dict[str, str] = {}
    for name in names:
        path = Path(name)
        place = f"text.contamination.benchmarks: {path}"
        if not path.exists():
            raise UserError(f"{place} does not exist; name a file or a folder of benchmark items")
        benchmark = path.resolve().name if path.is_dir() else path.name.split(".")[0]
        if benchmark in seen:
            raise UserError(
                f"{place} has the name of {seen[benchmark]}; rename one of them, or name the "
                "folder that holds both"
            )
        seen[benchmark] = name
        if path.is_file():
            if _kind(path) is None:
                raise UserError(f"{place} is of an unknown kind; known are {_KNOWN}")
            yield benchmark, path.name, path
            continue
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and _kind(file)]
        if not files:
            raise UserError(f"{place} holds no file of items; known are {_KNOWN}")
        for file in files:
            yield benchmark, file.relative_to(path).as_posix(), file


def read_benchmarks(names: Sequence[str]) -> Iterator[Item]:
    """The items of all named files and folders, in order.

    Files of a folder that hold no question (a list of subjects, say) are passed over. Raises
    UserError where a named file, or all of a named folder, holds none, and for a damaged file.
    """
    counts: dict[str, int] = {}
    for benchmark, name, path in benchmark_files(names):
        counts.setdefault(benchmark, 0)
        found = 0
        for item_id, question, options in _read_file(path):
            found += 1
            yield Item(benchmark, f"{name}:{item_id}", question, options)
        counts[benchmark] += found
        if not found:
            log.info("%s: %s has no field that asks and is passed over", benchmark, path)
    for benchmark, count in counts.items():
        if not count:
            raise UserError(f"text.contamination.benchmarks: {benchmark} has no item; {_FIELDS}")


def _kind(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def _read_file(path: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    readers = {
        ".csv": _csv_rows,
        ".jsonl": _json_rows,
        ".json": _json_rows,
        ".parquet": _parquet_rows,
    }
    kind = _kind(path)
    assert kind is not None
    try:
        with pa.input_stream(str(path)) as file:
            rows = readers[kind](file)
            for number, row in enumerate(rows, start=1):
                question, options = _parts(row)
                if question.strip():
                    identity = _first(row, IDS)
                    yield str(number if identity is None else identity), question, options
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 at byte {error.start}; iconv -f gb18030 -t utf-8 converts what "
            "was made on a Chinese Windows"
        ) from error
    except (csv.Error, json.JSONDecodeError, pa.ArrowException) as error:
        raise UserError(f"{path} is not {kind[1:]} ({error}); repair it or take it out") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # What unpacks says no number.
        raise UserError(f"{path} cannot be unpacked ({error}); copy it again") from error


def _csv_rows(file: Any) -> Iterator[dict[str, Any]]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = (row for row in csv.reader(text) if row)
    first = next(rows, [])
    header = [name.strip().lower() for name in first]
    if set(header) & set(QUESTIONS):
        for row in rows:
            yield dict(zip(header, row))
        return
    for row in [first, *rows]:
        if len(row) >= 3 and _ANSWER.fullmatch(row[-1].strip()):
            yield {"question": row[0], "options": row[1:-1]}


def _json_rows(file: Any) -> Iterator[dict[str, Any]]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig").read()
    content: Any = None
    if text.lstrip().startswith("["):
        content = json.loads(text)
    else:
        content = [json.loads(line) for line in text.split("\n") if line.strip()]
    for row in content:
        if isinstance(row, dict):
            yield {str(name).strip().lower(): value for name, value in row.items()}


def _parquet_rows(file: Any) -> Iterator[dict[str, Any]]:
    for row in pyarrow.parquet.read_table(pa.BufferReader(file.read())).to_pylist():
        yield {name.strip().lower(): value for name, value in row.items()}


def _parts(row: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Question and options of a row; an empty question where the row has none.

    ARC keeps both in one field: {"question": {"stem": ..., "choices": [{"text": ...}, ...]}}.
    """
    asked = _first(row, QUESTIONS)
    if isinstance(asked, dict):
        return _parts({str(name).lower(): value for name, value in asked.items()})
    question = asked if isinstance(asked, str) else ""
    several = _first(row, OPTIONS)
    if several is None:
        several = [row[name] for name in sorted(row) if _ONE_OPTION.fullmatch(name)]
    elif isinstance(several, dict):
        # {"text": [...], "label": [...]} or {"A": ..., "B": ...}
        several = several.get("text", list(several.values()))
    texts = [one.get("text") if isinstance(one, dict) else one for one in several]
    return question, tuple(text for text in texts if isinstance(text, str) and text.strip())


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of the names that the row has; None where it has none."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)
