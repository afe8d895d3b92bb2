"""Items are what their rows say; a row that can say nothing is named with its file and line."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_layouts import CEVAL_TEST, HELLASWAG, MMLU_TEST, OFFICIAL, arc_row, json_lines, write

from indexlm.errors import UserError
from indexlm.evals.items import Item, data_sha256, read_subjects
from indexlm.evals.task import Task, builtin_tasks, read_task


def own(**form: Any) -> Task:
    given = {"test": "own.jsonl", "question": "{q}", "options": "o", "answer": "a"} | form
    return Task.model_validate(
        {
            "name": "own",
            "title": "Own",
            "language": "en",
            "source": "here",
            "clean": form.pop("clean", []),
            "forms": {"f": {key: value for key, value in given.items() if key != "clean"}},
            "prompts": {"c": {"style": "contents", "question": "{question}"}},
        }
    )


def items(task: Task, folder: Path, text: str) -> tuple[Item, ...]:
    form = next(iter(task.forms.values()))
    (subject,) = read_subjects(task, write(folder, {form.test: text}))
    return subject.items


def refusal(task: Task, folder: Path, files: dict[str, str]) -> str:
    with pytest.raises(UserError) as error:
        read_subjects(task, write(folder, files))
    return str(error.value)


def test_an_item_is_its_row(tmp_path: Path) -> None:
    write(tmp_path)
    first, second = read_subjects(read_task("ceval"), tmp_path)[0].items
    assert first == Item(
        "0", "水在____度结冰。", ("0", "10", "50", "100"), 0, "val/college_physics_val.csv:2", {}
    )
    assert second.question == " 一加一？ "
    anatomy, policy = read_subjects(read_task("mmlu"), tmp_path)
    assert (anatomy.name, anatomy.title, anatomy.category) == ("anatomy", "anatomy", "stem")
    assert (policy.title, policy.category) == ("us foreign policy", "social sciences")
    assert [item.id for item in anatomy.items] == ["0", "1"]
    assert len(anatomy.examples) == 5
    (arc,) = read_subjects(read_task("arc_easy"), tmp_path)
    assert [item.id for item in arc.items] == ["own_1", "own_2", "own_3"]
    assert (arc.name, arc.category, arc.examples) == ("arc_easy", "", ())
    assert arc.examples_file.endswith("arc/ARC-Easy-Train.jsonl")


def test_missing_subjects_are_told_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "indexlm"):
        found = read_subjects(read_task("mmlu"), write(tmp_path))
    assert [subject.name for subject in found] == ["anatomy", "us_foreign_policy"]
    (record,) = caplog.records
    assert "55 of 57 subjects are not in" in record.message and record.message.endswith(
        "and 50 more"
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["us_foreign_policy"], ["us_foreign_policy"]),
        (["us_foreign_policy", "anatomy"], ["anatomy", "us_foreign_policy"]),
        (["stem"], ["anatomy"]),
        (["stem", "anatomy"], ["anatomy"]),
    ],
)
def test_subjects_are_chosen_by_name_and_category(
    tmp_path: Path, asked: list[str], found: list[str]
) -> None:
    subjects = read_subjects(read_task("mmlu"), write(tmp_path), asked)
    assert [subject.name for subject in subjects] == found


def test_a_subset_is_chosen_by_name(tmp_path: Path) -> None:
    (subject,) = read_subjects(read_task("ceval"), write(tmp_path), ["hard"])
    assert subject.name == "college_physics"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("virology", "has no file of the subject 'virology' of mmlu"),
        ("anatomie", "mmlu has no subject 'anatomie'; did you mean 'anatomy'?"),
        ("humanities", "has none of formal_logic, "),
    ],
)
def test_a_subject_that_is_asked_for_must_be_there(
    tmp_path: Path, asked: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_subjects(read_task("mmlu"), write(tmp_path), [asked])


def test_a_limit_is_of_each_subject_and_of_items_alone(tmp_path: Path) -> None:
    found = read_subjects(read_task("mmlu"), write(tmp_path), limit=1)
    assert [len(subject.items) for subject in found] == [1, 1]
    assert [len(subject.examples) for subject in found] == [5, 5]


def test_a_bad_subject_can_be_left_out_and_told(tmp_path: Path) -> None:
    bad = OFFICIAL | {"mmlu/test/anatomy_test.csv": "One?,1,2,3,4,E\n"}
    failed: dict[str, UserError] = {}
    found = read_subjects(read_task("mmlu"), write(tmp_path, bad), failed=failed)
    assert [subject.name for subject in found] == ["us_foreign_policy"]
    assert "anatomy_test.csv:1" in str(failed["anatomy"])


def test_converted_hellaswag_is_read_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{key: row[key] for key in row if key not in ("ctx_a", "ctx_b")} for row in HELLASWAG]
    files = {"hellaswag/hellaswag_val.jsonl": json_lines(rows)}
    (subject,) = read_subjects(read_task("hellaswag"), write(tmp_path, files))
    assert subject.items[0].question == "Baking bread: A cook kneads the dough. the COOK"
    assert subject.items[0].fields["context"] == "A cook kneads the dough. the COOK"
    assert "question is made as '{activity_label}: {ctx}'" in caplog.text
    files["hellaswag/hellaswag_val.jsonl"] = json_lines([rows[0], HELLASWAG[0], {}])
    assert "hellaswag_val.jsonl:3: there is no 'activity_label'" in refusal(
        read_task("hellaswag"), tmp_path, files
    )


@pytest.mark.parametrize(
    ("task", "file", "text", "message"),
    [
        (
            "mmlu",
            "anatomy",
            "One?,1,2,3,4,E\n",
            "_test.csv:1: the answer 'E' is none of A, B, C, D",
        ),
        ("mmlu", "anatomy", "One?,1,2,3,4,a\n", "the answer 'a' is none of A, B, C, D"),
        ("mmlu", "anatomy", "One?,1,2,3,4,\n", "the answer '' is none of"),
        ("mmlu", "anatomy", "question,A,B,C,D,answer\n", "where line 1 is a header, take it out"),
        (
            "mmlu",
            "anatomy",
            "One?,1,2,3,4,5,E\n",
            "has 7 cells, not 6 ('question, A, B, C, D, answer')",
        ),
        ("mmlu", "anatomy", "One?,1,2,3,4,A\n ,1,2,3,4,A\n", ":2: the question is empty"),
        ("mmlu", "anatomy", "One?,1,2,,4,A\n", ":1: option C is empty"),
        ("mmlu", "anatomy", "One?,1,2,3, ,A\n", ":1: option D is empty"),
        ("mmlu", "anatomy", "", "anatomy_test.csv holds no item"),
        ("ceval", "physics", "id,question,A,B,C,D,answer\n", "physics_val.csv holds no item"),
        (
            "ceval",
            "physics",
            "id,question,A,B,C,answer\n0,一？,1,2,3,A\n",
            "there is no 'D' here, but ",
        ),
        (
            "ceval",
            "physics",
            "id,question,A,B,C,D,anser\n0,一？,1,2,3,4,A\n",
            ":2: there is no 'answer' here, but 'id, question, A, B, C, D, anser'; "
            "did you mean 'anser'?",
        ),
        (
            "ceval",
            "physics",
            "id,question,A,B,C,D,E,answer\n0,一？,1,2,3,4,5,A\n",
            ":2: there is an option E, '5'; the task has 4: A, B, C, D",
        ),
        (
            "ceval",
            "physics",
            CEVAL_TEST + "0,二？,1,2,3,4,A\n",
            "physics_val.csv:4: the id '0' stands at val/college_physics_val.csv:2 already",
        ),
    ],
)
def test_csv_rows_that_are_no_items(
    tmp_path: Path, task: str, file: str, text: str, message: str
) -> None:
    name = next(name for name in OFFICIAL if name.startswith(task) and file in name)
    assert message in refusal(read_task(task), tmp_path, OFFICIAL | {name: text})


ENDINGS = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endings": [*ENDINGS, "e"]}, "_val.jsonl:1: there are 5 options, not 4"),
        ({"endings": ENDINGS[:3]}, "there are 3 options, not 4"),
        ({"endings": ["a", "b", "[x]", "d"]}, "option C is empty"),
        ({"endings": "a"}, "'endings' is 'a', not a list of options"),
        ({"endings": None}, "'endings' is None, not a list of options"),
        ({"endings": [*ENDINGS[:3], 4.5]}, ""),
        ({"endings": [*ENDINGS[:3], {"text": "d"}]}, "'endings' is a dict of 1, not a text"),
        ({"label": ""}, "the answer '' is none of 0, 1, 2, 3"),
        ({"label": 4}, "the answer '4' is none of 0, 1, 2, 3"),
        ({"label": -1}, "the answer '-1' is none of 0, 1, 2, 3"),
        ({"label": True}, "'label' is True, not a text"),
        ({"label": None}, "there is no 'label' here"),
        ({"ctx_b": 5}, ""),
    ],
)
def test_json_rows_that_are_no_items(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    row = HELLASWAG[0] | {"endings": ENDINGS} | change
    files = {"hellaswag/hellaswag_val.jsonl": json_lines([row])}
    if message:
        assert message in refusal(read_task("hellaswag"), tmp_path, files)
    else:
        read_subjects(read_task("hellaswag"), write(tmp_path, files))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (arc_row("x", "Which?", {"A": "a", "B": "b"}, "A"), "there are 2 options, not 3 or 4 or 5"),
        (arc_row("x", "Which?", {"A": "a", "B": "b", "C": "c"}, "D"), "'D' is none of 'A, B, C'"),
        (arc_row("x", "Which?", {"1": "a", "2": "b", "3": "c"}, "A"), "'A' is none of '1, 2, 3'"),
        ({"id": "x", "question": "Which?", "answerKey": "A"}, "there is no 'question.stem' here"),
    ],
)
def test_arc_rows_that_are_no_items(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    files = {"arc/ARC-Easy-Test.jsonl": json_lines([row])}
    assert f"Test.jsonl:1: {message}" in refusal(read_task("arc_easy"), tmp_path, files).replace(
        "the answer ", ""
    )


def test_examples_are_checked_too(tmp_path: Path) -> None:
    bad = OFFICIAL | {"mmlu/dev/anatomy_dev.csv": "One?,1,2,3,4,X\n"}
    assert "anatomy_dev.csv:1: the answer 'X'" in refusal(read_task("mmlu"), tmp_path, bad)


@pytest.mark.parametrize(
    ("answers", "written"), [("letter", "C"), ("from 0", 2), ("from 1", "3"), ("text", " z ")]
)
def test_answers_in_every_way_of_writing(tmp_path: Path, answers: str, written: object) -> None:
    row = {"q": "Last?", "o": ["x", "y", "z"], "a": written}
    (item,) = items(own(answers=answers), tmp_path, json.dumps(row))
    assert item.answer == 2


def test_a_row_may_have_fewer_options_where_the_task_says_so(tmp_path: Path) -> None:
    form = {"test": "own.csv", "options": ["A", "B", "C"]}
    text = "q,A,B,C,a\nOne?,1,2,3,C\nTwo?,1,2,,B\n"
    three, two = items(own(**form, counts=[2, 3]), tmp_path, text)
    assert (len(three.options), len(two.options)) == (3, 2)
    with pytest.raises(UserError, match="option C is empty"):
        items(own(**form), tmp_path, text)


def test_texts_are_cleaned_in_order(tmp_path: Path) -> None:
    task = own(clean=[[r"\[.*?\]", ""], ["  ", " "]], answers="text")
    row = {"q": "a [b] c", "o": ["x [y] z", "w"], "a": "x [q] z"}
    (item,) = items(task, tmp_path, json.dumps(row))
    assert (item.question, item.options, item.answer) == ("a c", ("x z", "w"), 0)


TEXTS = st.text().filter(str.strip)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(TEXTS, st.lists(TEXTS, min_size=2, max_size=10), st.integers(0, 9)), min_size=1
    )
)
def test_texts_come_out_of_json_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[str], int]]
) -> None:
    given_rows = [(q, o, a % len(o)) for q, o, a in rows]
    text = json_lines([{"q": q, "o": o, "a": a} for q, o, a in given_rows])
    read = items(own(answers="from 0"), tmp_path_factory.mktemp("json"), text)
    assert [(item.question, list(item.options), item.answer) for item in read] == given_rows


def test_the_hash_of_data_is_of_what_is_asked(tmp_path: Path) -> None:
    task = read_task("mmlu")
    one = data_sha256(read_subjects(task, write(tmp_path / "a")))
    moved = OFFICIAL | {"mmlu/test/anatomy_test.csv": "\n" + MMLU_TEST}
    assert data_sha256(read_subjects(task, write(tmp_path / "b", moved))) == one
    for name in ("mmlu/test/anatomy_test.csv", "mmlu/dev/anatomy_dev.csv"):
        changed = OFFICIAL | {name: OFFICIAL[name].replace("7", "70").replace("4 +", "40 +")}
        assert data_sha256(read_subjects(task, write(tmp_path / "c", changed))) != one
    tasks = [read_task(name) for name in builtin_tasks()]
    assert len({data_sha256(read_subjects(task, tmp_path / "a")) for task in tasks}) == len(tasks)
