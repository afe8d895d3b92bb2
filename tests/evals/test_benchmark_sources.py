"""A benchmark's files are found as published, packed or as on the hub; else what was looked for."""

import gzip
import logging
from pathlib import Path

import pytest
from official_layouts import ARC, OFFICIAL, json_lines, write

from indexlm.errors import UserError
from indexlm.evals.items import read_subjects
from indexlm.evals.sources import find_source, holds, hub_files, matching
from indexlm.evals.task import Task, builtin_tasks, read_task


@pytest.mark.parametrize("name", builtin_tasks())
def test_files_are_found_below_the_data_folder_or_in_it(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    task = read_task(name)
    above = find_source(task, tmp_path)
    assert above.folder != tmp_path
    inside = find_source(task, above.folder)
    assert dict(above.tests) == dict(inside.tests)
    assert holds(task, tmp_path) and holds(task, above.folder)


@pytest.mark.parametrize("name", builtin_tasks())
def test_what_was_looked_for_is_named(name: str, tmp_path: Path) -> None:
    task = read_task(name)
    assert not holds(task, tmp_path)
    with pytest.raises(UserError) as refusal:
        find_source(task, tmp_path)
    for part in (str(tmp_path), task.forms["published"].test, task.source):
        assert part in str(refusal.value)
    with pytest.raises(UserError, match="is no folder"):
        find_source(task, tmp_path / "none")


def test_a_benchmark_is_not_taken_for_another(tmp_path: Path) -> None:
    """MMLU's and CMMLU's folders both have test/ and dev/."""
    write(tmp_path)
    for name in builtin_tasks():
        folder = find_source(read_task(name), tmp_path).folder
        for other in builtin_tasks():
            same = name.split("_")[0] == other.split("_")[0]
            assert holds(read_task(other), folder) == same


def test_plain_files_stand_before_packed_ones(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv.gz", "c.parquet.gz"):
        (tmp_path / name).touch()
    assert [path.name for path in matching(tmp_path, "*.csv")] == ["a.csv.gz", "b.csv.gz"]
    assert matching(tmp_path, "*.parquet") == ()
    (tmp_path / "a.csv").touch()
    assert [path.name for path in matching(tmp_path, "*.csv")] == ["a.csv"]


def test_packed_files_have_the_same_items(tmp_path: Path) -> None:
    task = read_task("mmlu")
    plain = read_subjects(task, write(tmp_path / "plain"))
    for name, text in OFFICIAL.items():
        path = tmp_path / "packed" / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
    packed = read_subjects(task, tmp_path / "packed")
    assert [s.items[0].question for s in packed] == [s.items[0].question for s in plain]
    assert packed[0].items[0].place == "test/anatomy_test.csv.gz:1"


def test_the_form_of_the_hub_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [
        {
            "id": row["id"],
            "question": row["question"]["stem"],
            "choices": {
                "text": [choice["text"] for choice in row["question"]["choices"]],
                "label": [choice["label"] for choice in row["question"]["choices"]],
            },
            "answerKey": row["answerKey"],
        }
        for row in ARC
    ]
    path = tmp_path / "hub" / "ARC-Easy" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    published = write(tmp_path / "own", {"arc/ARC-Easy-Test.jsonl": json_lines(ARC)})
    task = read_task("arc_easy")
    with caplog.at_level(logging.INFO, "indexlm"):
        (one,) = read_subjects(task, published)
        assert not caplog.records
        (other,) = read_subjects(task, tmp_path / "hub")
    assert "holds its form 'hub'" in caplog.text
    for a, b in zip(one.items, other.items, strict=True):
        assert (a.id, a.question, a.options, a.answer) == (b.id, b.question, b.options, b.answer)


def by_pattern(pattern: str) -> Task:
    return Task.model_validate(
        {
            "name": "own",
            "title": "Own",
            "language": "en",
            "source": "here",
            "forms": {
                "f": {"test": pattern, "question": "{q}", "options": ["a", "b"], "answer": "x"}
            },
            "prompts": {"c": {"style": "contents", "question": "{question}"}},
        }
    )


@pytest.mark.parametrize(
    ("pattern", "files", "subjects"),
    [
        ("{subject}.csv", ["b.csv", "a.csv.gz", "c.jsonl"], ["a", "b"]),
        ("{subject}/test-*.csv", ["x/test-1.csv", "x/test-2.csv", "y/dev-1.csv"], ["x"]),
        ("{subject}/{subject}.csv", ["x/x.csv", "x/y.csv"], ["x"]),
        ("all.csv", ["all.csv"], ["own"]),
    ],
)
def test_subjects_that_no_task_lists_are_what_the_files_are_called(
    pattern: str, files: list[str], subjects: list[str], tmp_path: Path
) -> None:
    write(tmp_path, dict.fromkeys(files, ""))
    assert list(find_source(by_pattern(pattern), tmp_path).tests) == subjects


def test_datasets_of_the_hub_are_those_that_can_be_read() -> None:
    assert hub_files(read_task("mmlu")) == (
        "cais/mmlu",
        ["*/test-*.parquet", "*/dev-*.parquet"],
    )
    easy, challenge = hub_files(read_task("arc_easy")), hub_files(read_task("arc_challenge"))
    assert easy[0] == challenge[0] and easy[1] != challenge[1]
    with pytest.raises(UserError, match=r"cmmlu .*cmmlu_v1_0_1\.zip"):
        hub_files(read_task("cmmlu"))


@pytest.mark.parametrize(
    ("task", "folder"),
    [("mmlu", "mmlu/data"), ("mmlu", "data"), ("ceval", "ceval/formal_ceval")],
)
def test_archives_may_be_unpacked_with_their_own_folder(
    task: str, folder: str, tmp_path: Path
) -> None:
    files = {
        name.replace(f"{task}/", f"{folder}/", 1): text
        for name, text in OFFICIAL.items()
        if name.startswith(f"{task}/")
    }
    assert find_source(read_task(task), write(tmp_path, files)).folder == tmp_path / folder
