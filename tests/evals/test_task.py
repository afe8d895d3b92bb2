"""Task files: what is in those of the package, and that a mistake in one is named."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.evals.task import builtin_tasks, fill, names_in, parsed, read_task

OWN = """
name = "rivers"
title = "Rivers"
language = "en"
source = "made for this test"

[forms.published]
test = "{subject}.csv"
question = "{question}"
options = ["A", "B"]
answer = "answer"

[subjects.nature]
rhine = "the Rhine"

[prompts.letters]
style = "letters"
question = "{question}\\n{options}Answer:"
"""


def written(folder: Path, text: str = OWN) -> str:
    path = folder / "rivers.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_six_benchmarks_come_with_the_package() -> None:
    assert builtin_tasks() == ("arc_challenge", "arc_easy", "ceval", "cmmlu", "hellaswag", "mmlu")
    for name in builtin_tasks():
        task = read_task(name)
        assert task.name == name
        assert task.title and task.source and task.language in {"en", "zh"}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mmlu", {"stem": 19, "humanities": 13, "social sciences": 12, "other": 13}),
        ("ceval", {"STEM": 20, "Social Science": 10, "Humanities": 11, "Other": 11}),
        ("cmmlu", {"STEM": 17, "Humanities": 13, "Social Science": 22, "Other": 15}),
    ],
)
def test_categories_have_all_published_subjects(name: str, sizes: dict[str, int]) -> None:
    task = read_task(name)
    assert {category: len(names) for category, names in task.subjects.items()} == sizes
    assert len(task.categories) == sum(sizes.values())


def test_published_subsets() -> None:
    assert len(read_task("ceval").subsets["hard"]) == 8
    assert len(read_task("cmmlu").subsets["China specific"]) == 15


def test_prompts_of_lm_eval_are_named_where_it_has_the_task() -> None:
    both = {name: read_task(name).prompts for name in builtin_tasks()}
    named = {
        (name, prompt): both[name][prompt].harness
        for name in both
        for prompt in ("letters", "contents")
    }
    assert {key for key, harness in named.items() if harness.startswith("lm-eval 0.4.13 ")} == {
        *(("mmlu", prompt) for prompt in ("letters", "contents")),
        *((name, "letters") for name in ("ceval", "cmmlu")),
        *((name, "contents") for name in ("arc_easy", "arc_challenge", "hellaswag")),
    }
    assert all(not harness or harness.startswith("lm-eval") for harness in named.values())
    assert {both[name]["letters"].shots for name in ("mmlu", "ceval", "cmmlu")} == {5}
    assert {both[name]["contents"].shots for name in ("arc_easy", "hellaswag")} == {0}


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    task = read_task(written(tmp_path))
    assert task.categories == {"rhine": "nature"}
    assert task.prompts["letters"].shots == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Rivers"\n', "", "title is missing"),
        ("title =", "titel =", "unknown key 'titel'; did you mean 'title'?"),
        ("answer =", "anser =", "unknown key 'forms.published.anser'; did you mean 'answer'?"),
        ("style =", "styl =", "unknown key 'prompts.letters.styl'; did you mean 'style'?"),
        ('"letters"\n', '"lettres"\n', "prompts.letters.style='lettres'"),
        ("{options}", "", "style 'letters' shows them: {options}"),
        ("{options}", "{option}", "style 'letters' shows them: {options}"),
        ("{options}", "{options}{answer}", "prompts.letters.question: {answer} is none of"),
        ("{options}", "{options}{", "is no template"),
        ("{options}", "{options!r}", "is no placeholder"),
        ('"{question}"', '"{question:upper}"', "is no placeholder"),
        ('["A", "B"]', '["A"]', "`options` names 1 columns, not 2 to 10"),
        ("{subject}.csv", "rivers.csv", "has no {subject}"),
        ("{subject}.csv", "../{subject}.csv", "does not lie below"),
        ("{subject}.csv", "/{subject}.csv", "does not lie below"),
        ("{subject}.csv", "{subject}.xlsx", "ends in none of .csv, .jsonl, .parquet"),
        ('answer = "answer"\n', 'answer = "answer"\nanswers = "label"\n', "`labels` names"),
        ('answer = "answer"\n', 'answer = "answer"\nlabels = "x"\n', "`labels` names"),
        (
            'answer = "answer"\n',
            'answer = "answer"\ncounts = [11]\n',
            "forms.published.counts.0=11",
        ),
        ("{subject}.csv", '{subject}.jsonl"\ncolumns = ["a"]\nid = "a', "`columns` is for a CSV"),
        ("[subjects.nature]", "[subjects.rhine]", "'rhine' names two of"),
        (
            "[subjects.nature]",
            '[subsets]\nold = ["elbe"]\n[subjects.nature]',
            "'elbe' is no subject",
        ),
        ('name = "rivers"', 'name = "my rivers"', "name='my rivers'"),
        ('language = "en"', 'clean = [["(", ""]]\nlanguage = "en"', "'(' is no regular expression"),
        ('style = "letters"', 'style = "letters"\nneutral = "x"', "`neutral` is for the style"),
        ("title =", "title", "is no TOML file"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    changed = OWN.replace(old, new, 1)
    assert changed != OWN
    with pytest.raises(UserError) as refusal:
        read_task(written(tmp_path, changed))
    assert str(refusal.value).startswith(str(tmp_path / "rivers.toml"))
    assert message in str(refusal.value)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    changed = OWN.replace("title =", "titel =").replace("answer =", "anser =")
    with pytest.raises(UserError) as refusal:
        read_task(written(tmp_path, changed))
    for key in ("titel", "title is missing", "anser", "forms.published.answer is missing"):
        assert key in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlu", "no task 'mlu'; did you mean mmlu? (known: arc_challenge, "),
        ("qqqq", "no task 'qqqq' (known: "),
        ("no/such.toml", "there is no file no/such.toml"),
    ],
)
def test_unknown_tasks_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_task(name)


def test_a_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(OWN.replace("Rivers", "河流").encode("gb18030"))
    with pytest.raises(UserError, match="is no TOML file"):
        read_task(str(path))


VALUES = st.text()


@settings(deadline=None)
@given(st.text(), VALUES, VALUES)
def test_values_are_filled_in_once(literal: str, one: str, two: str) -> None:
    template = literal.replace("{", "{{").replace("}", "}}") + "{a}|{b:strip}|{a:capitalize}"
    filled = fill(template, {"a": one, "b": two})
    assert filled == f"{literal}{one}|{two.strip()}|{one.capitalize()}"
    assert names_in(template) == ["a", "b", "a"]


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_template_or_a_value_error(text: str) -> None:
    try:
        names = names_in(text)
    except ValueError:
        return
    assert fill(text, dict.fromkeys(names, "")) == "".join(part for part, _, _ in parsed(text))
