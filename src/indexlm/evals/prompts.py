"""Items as the strings that a model is given: a context and one continuation per option.

Where a prompt names a harness, context and continuations are that harness's, byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from indexlm.errors import UserError
from indexlm.evals.items import Item, Subject
from indexlm.evals.task import Prompt, Task, fill


@dataclass(frozen=True)
class Asked:
    """An item put to a model.

    `continuations` begin with the delimiter and stand in the order of the item's options.
    `neutral` is a context that says nothing of the question, None where the prompt has none.
    """

    item: Item
    context: str
    continuations: tuple[str, ...]
    neutral: str | None


def ask(task: Task, prompt: Prompt, subject: Subject, shots: int | None = None) -> list[Asked]:
    """All items of a subject, with the first `shots` examples before each (the prompt's own
    number where None).

    Raises UserError where there are fewer examples, and for an item with more options than the
    prompt has letters.
    """
    shots = prompt.shots if shots is None else shots
    if shots > len(subject.examples):
        raise UserError(
            f"{task.name}/{subject.name}: {shots} examples are asked for, "
            + (
                f"{subject.examples_file} has {len(subject.examples)}"
                if subject.examples_file
                else "the task's file names none (`examples`)"
            )
            + "; ask for fewer shots or add the file"
        )
    before = fill(prompt.intro, {"subject": subject.title})
    for example in subject.examples[:shots]:
        answer = _answers(prompt, example)[example.answer]
        before += _question(prompt, subject, example) + prompt.delimiter + answer + prompt.between
    if shots:
        before += prompt.lead
    return [
        Asked(
            item,
            before + _question(prompt, subject, item),
            tuple(prompt.delimiter + answer for answer in _answers(prompt, item)),
            None if prompt.neutral is None else fill(prompt.neutral, _values(subject, item)),
        )
        for item in subject.items
    ]


def _values(subject: Subject, item: Item) -> dict[str, str]:
    return {"subject": subject.title, "question": item.question, **item.fields}


def _question(prompt: Prompt, subject: Subject, item: Item) -> str:
    letters = _letters(prompt, item)
    options = "".join(
        fill(prompt.option, {"letter": letter, "option": option})
        for letter, option in zip(letters, item.options)
    )
    return fill(prompt.question, _values(subject, item) | {"options": options})


def _answers(prompt: Prompt, item: Item) -> Sequence[str]:
    return item.options if prompt.style == "contents" else _letters(prompt, item)


def _letters(prompt: Prompt, item: Item) -> str:
    if len(item.options) > len(prompt.letters):
        raise UserError(
            f"{item.place}: {len(item.options)} options, the prompt has letters for "
            f"{len(prompt.letters)}: {prompt.letters}"
        )
    return prompt.letters[: len(item.options)]
