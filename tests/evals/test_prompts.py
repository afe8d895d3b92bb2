"""Prompts are those of the harnesses they name, byte for byte.

What is expected here is written out by hand from the harnesses' templates.
"""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_layouts import write

from indexlm.errors import UserError
from indexlm.evals.items import Item, Subject, read_subjects
from indexlm.evals.prompts import Asked, ask
from indexlm.evals.task import Prompt, Task, builtin_tasks, read_task


def asked(task: str, prompt: str, data: Path, subject: str = "") -> list[Asked]:
    benchmark = read_task(task)
    found = read_subjects(benchmark, write(data), [subject] if subject else [])
    return ask(benchmark, benchmark.prompts[prompt], found[0])


MMLU_SHOTS = "".join(
    f"{n} + 0?\nA. {n}\nB. {n + 1}\nC. {n + 2}\nD. {n + 3}\nAnswer: A\n\n" for n in range(5)
)


def test_mmlu_by_letters_is_lm_evals(tmp_path: Path) -> None:
    first, second = asked("mmlu", "letters", tmp_path, "us_foreign_policy")
    intro = (
        "The following are multiple choice questions (with answers) about us foreign policy.\n\n"
    )
    assert first.context == (
        intro + MMLU_SHOTS + 'Which is {even}, "two" or one?\nA. two\nB. one\nC. both, surely\n'
        "D. neither\nAnswer:"
    )
    assert second.context == intro + MMLU_SHOTS + "7 + 1?\nA. 6\nB. 7\nC. 8\nD. 9\nAnswer:"
    assert first.continuations == (" A", " B", " C", " D")
    assert (first.item.answer, second.item.answer) == (0, 2)
    assert first.neutral is None


def test_mmlu_by_contents_is_lm_evals_continuation(tmp_path: Path) -> None:
    first, _ = asked("mmlu", "contents", tmp_path, "anatomy")
    shots = "".join(f"Question: {n} + 0?\nAnswer: {n}\n\n" for n in range(5))
    assert first.context == (
        "The following are questions (with answers) about anatomy.\n\n"
        + shots
        + 'Question: Which is {even}, "two" or one?\nAnswer:'
    )
    assert first.continuations == (" two", " one", " both, surely", " neither")
    assert first.neutral == "Answer:"


def test_ceval_by_letters_is_lm_evals(tmp_path: Path) -> None:
    first, second = asked("ceval", "letters", tmp_path)
    shots = "".join(f"{n}加零是____。\nA. {n}\nB. 9\nC. 8\nD. 7\n答案： A\n\n" for n in range(5))
    before = "以下是中国关于大学物理的单项选择题，请选出其中的正确答案。\n\n" + shots
    assert first.context == before + "水在____度结冰。\nA. 0\nB. 10\nC. 50\nD. 100\n答案："
    assert second.context == before + "一加一？\nA. 1\nB. 2\nC. 3\nD. 4\n答案："
    assert second.continuations == (" A", " B", " C", " D")


def test_cmmlu_by_letters_is_lm_evals(tmp_path: Path) -> None:
    (first,) = asked("cmmlu", "letters", tmp_path)
    shots = "".join(
        f"{n}月之后是\nA. {n + 1}月\nB. 一月\nC. 二月\nD. 三月\n答案： A\n\n" for n in range(5)
    )
    assert first.context == (
        "以下是关于天文学的单项选择题，请直接给出正确答案的选项。\n\n"
        + shots
        + "最大的行星是\nA. 木星\nB. 火星\nC. 金星\nD. 水星\n答案："
    )


@pytest.mark.parametrize("task", ["arc_easy", "arc_challenge"])
def test_arc_by_contents_is_lm_evals_with_three_to_five_options(task: str, tmp_path: Path) -> None:
    three, four, five = asked(task, "contents", tmp_path)
    assert three.context == "Question: Which one is hot?\nAnswer:"
    assert three.continuations == (" ice", " fire", " snow")
    assert four.context == "Question: Which is a {metal}?\nAnswer:"
    assert (three.item.answer, four.item.answer, five.item.answer) == (1, 0, 4)
    assert len(five.continuations) == 5


def test_hellaswag_by_contents_is_lm_evals(tmp_path: Path) -> None:
    """Marks go, the second sentence is capitalised as Python does it, two spaces become one."""
    first, second = asked("hellaswag", "contents", tmp_path)
    assert first.context == "Baking bread: A cook kneads the dough. The cook"
    assert first.continuations == (" waits.", " sings. loudly", "  sleeps", " leaves {it}.")
    assert second.context == "How to rest: How to rest. Sit down."
    assert (first.item.answer, second.item.answer) == (0, 3)


def test_letters_where_lm_eval_has_none(tmp_path: Path) -> None:
    three, _, five = asked("arc_easy", "letters", tmp_path)
    assert three.context == ("Question: Which one is hot?\nA. ice\nB. fire\nC. snow\nAnswer:")
    assert three.continuations == (" A", " B", " C")
    assert five.continuations[-1] == " E"
    assert read_task("arc_easy").prompts["letters"].harness == ""


def test_the_reports_prompts_are_opencompass_ones(tmp_path: Path) -> None:
    """Rounds are joined by a line break there; examples of C-Eval and CMMLU by three, the last
    with its question by five."""
    first, _ = asked("mmlu", "letters-report", tmp_path, "anatomy")
    assert first.context == (
        "The following are multiple choice questions (with answers) about  anatomy.\n\n"
        + MMLU_SHOTS
        + ' Which is {even}, "two" or one? \nA. two\nB. one\nC. both, surely\nD. neither\nAnswer:'
    )
    intro = "以下是中国关于大学物理考试的单项选择题，请选出其中的正确答案。\n"
    shots = [intro + f"{n}加零是____。\nA. {n}\nB. 9\nC. 8\nD. 7\n答案: \nA" for n in range(5)]
    first, _ = asked("ceval", "letters-report", tmp_path)
    question = intro + "水在____度结冰。\nA. 0\nB. 10\nC. 50\nD. 100\n答案: "
    assert first.context == "\n\n\n".join(shots) + "\n" * 5 + question
    assert first.continuations[0] == "\nA"
    (first,) = asked("cmmlu", "letters-report", tmp_path)
    assert first.context.endswith(
        "答案是: A\n\n\n\n\n以下是关于天文学的单项选择题，请直接给出正确答案的选项。\n"
        "题目：最大的行星是\nA. 木星\nB. 火星\nC. 金星\nD. 水星\n答案是:"
    )
    assert first.continuations[3] == " D"
    three, *_ = asked("arc_challenge", "letters-report", tmp_path)
    assert three.context == "Which one is hot?\nA. ice\nB. fire\nC. snow\nAnswer:"
    three, *_ = asked("arc_challenge", "contents-report", tmp_path)
    assert three.context + three.continuations[0] == "Question: Which one is hot?\nAnswer: \nice"
    first, second = asked("hellaswag", "letters-report", tmp_path)
    assert first.context.startswith("A cook kneads the dough. The cook\nQuestion: Which ending ")
    assert second.context.startswith("How to rest. Sit down.\nQuestion:")
    first, _ = asked("hellaswag", "contents-report", tmp_path)
    assert first.context + first.continuations[0] == ("A cook kneads the dough. The cook\nwaits.")


def test_every_prompt_of_every_task_asks_every_item(tmp_path: Path) -> None:
    write(tmp_path)
    for name in builtin_tasks():
        task = read_task(name)
        assert {"letters", "contents", "letters-report"} <= set(task.prompts)
        for prompt in task.prompts.values():
            for subject in read_subjects(task, tmp_path):
                for each, item in zip(ask(task, prompt, subject), subject.items, strict=True):
                    assert each.item is item
                    assert len(each.continuations) == len(item.options)
                    assert each.context == each.context.rstrip("\n")


def test_shots_are_the_first_examples_and_none_leaves_the_intro(tmp_path: Path) -> None:
    task = read_task("mmlu")
    subject = read_subjects(task, write(tmp_path), ["anatomy"])[0]
    bare, two = (ask(task, task.prompts["letters"], subject, shots)[1] for shots in (0, 2))
    assert bare.context == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "7 + 1?\nA. 6\nB. 7\nC. 8\nD. 9\nAnswer:"
    )
    assert two.context.count("Answer:") == 3
    assert "1 + 0?" in two.context and "2 + 0?" not in two.context


def test_too_few_examples_are_refused_with_their_file(tmp_path: Path) -> None:
    task = read_task("mmlu")
    subject = read_subjects(task, write(tmp_path), ["anatomy"])[0]
    with pytest.raises(UserError, match=r"anatomy: 6 examples .*anatomy_dev\.csv has 5.*fewer"):
        ask(task, task.prompts["letters"], subject, 6)
    (tmp_path / "mmlu/dev/anatomy_dev.csv").unlink()
    subject = read_subjects(task, tmp_path, ["anatomy"])[0]
    assert len(ask(task, task.prompts["letters"], subject, 0)) == 2
    with pytest.raises(UserError, match=r"5 examples .*dev/anatomy_dev\.csv has 0"):
        ask(task, task.prompts["letters"], subject)


def own_task(**prompt: object) -> Task:
    return Task.model_validate(
        {
            "name": "own",
            "title": "Own",
            "language": "en",
            "source": "here",
            "forms": {
                "files": {
                    "test": "own.csv",
                    "question": "{q}",
                    "options": ["a", "b"],
                    "answer": "x",
                }
            },
            "prompts": {"only": prompt},
        }
    )


def own_subject(question: str, options: tuple[str, ...]) -> Subject:
    item = Item("0", question, options, 1, "own.csv:2", {})
    return Subject("own", "own", "", (item,), (item,), "")


def test_more_options_than_letters_are_refused() -> None:
    task = own_task(style="letters", question="{question}\n{options}=", letters="甲乙")
    subject = own_subject("?", ("1", "2", "3"))
    with pytest.raises(UserError, match=r"own\.csv:2: 3 options.* 2: 甲乙"):
        ask(task, task.prompts["only"], subject)
    (fits,) = ask(task, task.prompts["only"], own_subject("?", ("1", "2")))
    assert fits.context == "?\n甲. 1\n乙. 2\n="
    assert fits.continuations == (" 甲", " 乙")


@settings(deadline=None)
@given(st.text(), st.lists(st.text(), min_size=2, max_size=10))
def test_texts_stand_in_prompts_as_they_are(question: str, options: list[str]) -> None:
    """Braces, percent signs and line breaks of an item are no templates."""
    task = own_task(style="letters", shots=1, question="Q{question}\n{options}=")
    subject = own_subject(question, tuple(options))
    (letters,) = ask(task, task.prompts["only"], subject)
    shown = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCDEFGHIJ", options))
    one = f"Q{question}\n{shown}="
    assert letters.context == f"{one} B\n\n{one}"
    task = own_task(style="contents", question="{question}", neutral="{{}}")
    (contents,) = ask(task, task.prompts["only"], subject)
    assert contents.context == question
    assert contents.continuations == tuple(f" {text}" for text in options)
    assert contents.neutral == "{}"


def test_a_changed_template_is_seen(tmp_path: Path) -> None:
    """The expectations above would not hold for another prompt."""
    task = read_task("mmlu")
    subject = read_subjects(task, write(tmp_path), ["anatomy"])[0]
    prompt = task.prompts["letters"]
    usual = [each.context for each in ask(task, prompt, subject)]
    changes = [
        {"delimiter": ""},
        {"between": "\n"},
        {"intro": ""},
        {"option": "{letter}) {option}\n"},
    ]
    for change in changes:
        other = Prompt.model_validate(prompt.model_dump() | change)
        assert [each.context for each in ask(task, other, subject)] != usual


@pytest.mark.parametrize("page", ["add_a_benchmark.md", "add_a_benchmark_zh.md"])
def test_the_benchmark_of_the_documents_asks_what_they_show(page: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(csv|toml|text)\n(.*?)```", text, re.DOTALL))
    write(tmp_path, {"mine/planets.csv": blocks["csv"], "planets.toml": blocks["toml"]})
    task = read_task(str(tmp_path / "planets.toml"))
    (subject,) = read_subjects(task, tmp_path / "mine")
    letters = ask(task, task.prompts["letters"], subject)
    assert letters[1].context + "\n" == blocks["text"]
    assert letters[1].continuations == (" A", " B", " C")
    contents = ask(task, task.prompts["contents"], subject)
    assert contents[2].continuations[contents[2].item.answer] == " Mars"
