"""The official files of the six benchmarks, as the fields by which lm-eval's tasks know them.

lm-eval takes its items from the hub, where they lie under other names than in the files that the
authors published: `question`, `choices`, `answer` (a number) for MMLU; `choices.text` and
`choices.label` for ARC. These files are read here with the standard library alone, so that a fault
of `indexlm.evals.items` cannot be on both sides of the comparison.
"""

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Fields = dict[str, Any]
"""One item, as the dataset of the hub has it."""
Splits = dict[str, dict[str, str]]
"""Subject -> split -> path."""

LETTERS = "ABCD"
UNSEEN = "train"
"""lm-eval opens the split that it would take examples from also where it shows none: any file does.
"""


@dataclass(frozen=True)
class Source:
    """Where a benchmark's files lie, below its folder, and what lm-eval makes of them.

    `{subject}` in a pattern stands for the name of a subject.
    """

    folder: str
    splits: Mapping[str, str]
    """Split of lm-eval -> pattern of its file."""
    tested: str
    """The split whose items are asked."""
    read: Callable[[Path], Iterator[Fields]]


def _mmlu(path: Path) -> Iterator[Fields]:
    """Without a header: question, four options, letter."""
    for question, *options, letter in _csv(path):
        yield {"question": question, "choices": options, "answer": LETTERS.index(letter)}


def _by_header(path: Path) -> Iterator[Fields]:
    """C-Eval and CMMLU: the columns have the names that the hub has."""
    header, *rows = _csv(path)
    for row in rows:
        # The explanations of C-Eval's examples are in no prompt, CMMLU's first column has no name.
        fields = dict(zip(header, row, strict=True))
        yield {name: fields[name] for name in header if name not in ("", "id", "explanation")}


def _arc(path: Path) -> Iterator[Fields]:
    for item in _json_lines(path):
        options = item["question"]["choices"]
        yield {
            "id": item["id"],
            "question": item["question"]["stem"],
            "choices": {name: [option[name] for option in options] for name in ("text", "label")},
            "answerKey": item["answerKey"],
        }


def _hellaswag(path: Path) -> Iterator[Fields]:
    """A file without the two halves of the context has it whole in the first."""
    for item in _json_lines(path):
        yield {
            "activity_label": item["activity_label"],
            "ctx_a": item.get("ctx_a", item["ctx"]),
            "ctx_b": item.get("ctx_b", ""),
            "endings": item["endings"],
            "label": str(item["label"]),
        }


SOURCES: Mapping[str, Source] = {
    "mmlu": Source(
        folder="mmlu",
        splits={"test": "test/{subject}_test.csv", "dev": "dev/{subject}_dev.csv"},
        tested="test",
        read=_mmlu,
    ),
    "ceval": Source(
        folder="ceval",
        splits={"val": "val/{subject}_val.csv", "dev": "dev/{subject}_dev.csv"},
        tested="val",
        read=_by_header,
    ),
    "cmmlu": Source(
        folder="cmmlu",
        splits={"test": "test/{subject}.csv", "dev": "dev/{subject}.csv"},
        tested="test",
        read=_by_header,
    ),
    "arc_easy": Source(
        folder="arc",
        splits=dict.fromkeys(("test", UNSEEN), "ARC-Easy-Test.jsonl"),
        tested="test",
        read=_arc,
    ),
    "arc_challenge": Source(
        folder="arc",
        splits=dict.fromkeys(("test", UNSEEN), "ARC-Challenge-Test.jsonl"),
        tested="test",
        read=_arc,
    ),
    "hellaswag": Source(
        folder="hellaswag",
        splits=dict.fromkeys(("validation", UNSEEN), "hellaswag_val.jsonl"),
        tested="validation",
        read=_hellaswag,
    ),
}


def subjects_of(name: str, data: Path) -> list[str]:
    """Subjects of which all splits are there, by name; a benchmark without subjects has its own."""
    source = SOURCES[name]
    pattern = source.splits[source.tested]
    if "{subject}" not in pattern:
        return [name]
    before, after = pattern.split("{subject}")
    folder = data / source.folder
    found = sorted(folder.glob(f"{before}*{after}"))
    names = [path.name.removesuffix(after.rpartition("/")[2]) for path in found]
    if not names:
        raise SystemExit(f"{folder}: no file {pattern}")
    return names


def items_of(name: str, data: Path, subject: str, split: str) -> list[Fields]:
    source = SOURCES[name]
    return list(source.read(_found(data / source.folder / source.splits[split], subject)))


def convert(name: str, data: Path, out: Path, subjects: Sequence[str]) -> Splits:
    """Write a jsonl file for each subject and split; subject -> split -> path."""
    written: dict[str, dict[str, str]] = {}
    out.mkdir(parents=True)
    for subject in subjects:
        written[subject] = {}
        for split in SOURCES[name].splits:
            path = out / f"{subject}.{split}.jsonl"
            _write_json_lines(path, items_of(name, data, subject, split))
            written[subject][split] = str(path)
    return written


def write_halves(data: Path, out: Path) -> bool:
    """HellaSwag with the context in two halves, as it was published, from a file that has it whole:
    the second half begins after the last full stop. False where the file has the halves."""
    source = SOURCES["hellaswag"]
    pattern = source.splits[source.tested]
    items = list(_json_lines(_found(data / source.folder / pattern, "")))
    if all("ctx_a" in item for item in items):
        return False
    for item in items:
        first, stop, second = item["ctx"].rpartition(". ")
        item |= {"ctx_a": first + stop.strip() if stop else second, "ctx_b": second if stop else ""}
    path = out / source.folder / pattern
    path.parent.mkdir(parents=True)
    _write_json_lines(path, items)
    return True


def _write_json_lines(path: Path, items: Iterable[Fields]) -> None:
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    path.write_text("".join(lines), encoding="utf-8")


def _found(pattern: Path, subject: str) -> Path:
    """The file, or the same packed."""
    path = pattern.with_name(pattern.name.replace("{subject}", subject))
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    raise SystemExit(f"{path}: there is no such file, packed (.gz) or not")


def _csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [row for row in csv.reader(file) if row]


def _json_lines(path: Path) -> Iterator[Any]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)
