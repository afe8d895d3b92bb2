"""Items of a benchmark, read from the files as published and checked one by one.

Whatever a row cannot mean is refused with its file and line: a benchmark that is read wrongly
gives a score like any other.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from indexlm.errors import UserError, shown
from indexlm.evals.rows import read_rows
from indexlm.evals.sources import Source, find_source, matching
from indexlm.evals.task import LETTERS, MOST_OPTIONS, SUBJECT, Task, fill, names_in
from indexlm.records import fingerprint, log

_HALF_PAIR = re.compile("[\ud800-\udfff]")
MOST_NAMED = 5
"""Missing subjects that a message names one by one."""


@dataclass(frozen=True)
class Item:
    """A question, its options and the index of the right one, as cleaned by the task."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: int
    place: str
    """File below the benchmark's folder and line, e.g. `test/anatomy_test.csv:12`."""
    fields: Mapping[str, str]
    """The task's further values for prompts."""


@dataclass(frozen=True)
class Subject:
    """The items of one subject and what its few-shot examples are taken from, in file order."""

    name: str
    title: str
    """How prompts call it."""
    category: str
    """Empty where the task has no categories."""
    items: tuple[Item, ...]
    examples: tuple[Item, ...]
    examples_file: str
    """What `examples` were read from or should have been; empty where the task names none."""


def read_subjects(
    task: Task,
    data: Path,
    subjects: Sequence[str] = (),
    limit: int | None = None,
    failed: dict[str, UserError] | None = None,
) -> list[Subject]:
    """The subjects of a task, in the order of the task's file, each with its first `limit` items.

    `data` is the folder that holds a folder per benchmark, or is that folder itself. `subjects`
    are names of subjects, categories or subsets; empty is all that are there. Subjects of the task
    without a file are told in the log; one that is asked for by its name must be there.

    Raises UserError for a folder without the benchmark, a subject that is none or is missing, and
    every row that is no item of the task; where `failed` is given, a subject with such a row is
    left out and its error stands there.
    """
    source = find_source(task, data)
    categories = task.categories or dict.fromkeys(sorted(source.tests), "")
    names = _asked(task, source, list(categories), subjects)
    absent = [name for name in names if name not in source.tests]
    if absent:
        log.info(
            f"{task.name}: {len(absent)} of {len(names)} subjects are not in {source.folder}: "
            + _listed(absent)
        )
    if len(absent) == len(names):
        raise UserError(f"{source.folder} has none of {_listed(absent)}")
    read = []
    for name in names:
        if name not in source.tests:
            continue
        try:
            read.append(_read_subject(task, source, name, categories[name], limit))
        except UserError as error:
            if failed is None:
                raise
            failed[name] = error
    return read


def data_sha256(subjects: Iterable[Subject]) -> str:
    """SHA-256 of all that prompts can be made of, whatever the files were packed in."""
    return fingerprint(
        [
            [
                [subject.name, item.id, item.question, item.options, item.answer, item.fields]
                for part in (subject.items, subject.examples)
                for item in part
            ]
            for subject in subjects
        ]
    )


def _asked(task: Task, source: Source, known: list[str], subjects: Sequence[str]) -> list[str]:
    """The subjects that names of subjects, categories and subsets stand for, each once."""
    groups = {name: list(group) for name, group in task.subjects.items()}
    groups |= {name: list(group) for name, group in task.subsets.items()}
    asked = set[str]()
    for name in subjects:
        if name in known and name not in source.tests:
            raise UserError(f"{source.folder} has no file of the subject {name!r} of {task.name}")
        if name not in known and name not in groups:
            near = difflib.get_close_matches(name, [*known, *groups], n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{task.name} has no subject {name!r}{hint}")
        asked |= {name} if name in known else set(groups[name])
    return [name for name in known if name in asked or not subjects]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"


def _read_subject(
    task: Task, source: Source, name: str, category: str, limit: int | None
) -> Subject:
    form = source.form
    items = _read_items(task, source, source.tests[name])
    if not items:
        raise UserError(f"{source.tests[name][0]} holds no item; download it again")
    _refuse_equal_ids(items, source.folder)
    examples: tuple[Path, ...] = ()
    examples_file = ""
    if form.examples is not None:
        sought = form.examples.replace(SUBJECT, name)
        examples = matching(source.folder, sought)
        examples_file = str(examples[0] if examples else source.folder / sought)
    title = task.subjects.get(category, {}).get(name, name.replace("_", " "))
    return Subject(
        name,
        title,
        category,
        tuple(items[:limit]),
        tuple(_read_items(task, source, examples)),
        examples_file,
    )


def _refuse_equal_ids(items: Sequence[Item], folder: Path) -> None:
    """Items of two results are paired by their ids."""
    places: dict[str, str] = {}
    for item in items:
        if item.id in places:
            raise UserError(
                f"{folder / item.place}: the id {shown(item.id)} stands at {places[item.id]} "
                "already; make ids differ, or leave `id` out of the task's file to count rows"
            )
        places[item.id] = item.place


def _read_items(task: Task, source: Source, paths: Sequence[Path]) -> list[Item]:
    items: list[Item] = []
    for path in paths:
        rows = [_Row(path, *row) for row in read_rows(path, source.form.columns)]
        if rows:
            build = _Builder(task, source, rows[0])
            items += [build.item(row, len(items) + number) for number, row in enumerate(rows)]
    return items


@dataclass(frozen=True)
class _Row:
    path: Path
    line: int
    values: Mapping[str, Any]

    def refuse(self, why: str) -> NoReturn:
        raise UserError(f"{self.path}:{self.line}: {why}")

    def find(self, column: str) -> Any:
        """What stands there, None where nothing does; a path goes through lists."""
        if column in self.values:
            return self.values[column]
        found: Any = self.values
        for key in column.split("."):
            if isinstance(found, list):
                found = [part.get(key) if isinstance(part, dict) else None for part in found]
            else:
                found = found.get(key) if isinstance(found, dict) else None
        return found

    def text(self, column: str) -> str:
        return self.as_text(column, self.find(column))

    def as_text(self, column: str, value: Any) -> str:
        if value is None:
            near = difflib.get_close_matches(column, [str(key) for key in self.values], n=1)
            hint = f"; did you mean {shown(near[0])}?" if near else ""
            self.refuse(
                f"there is no {column!r} here, but {shown(', '.join(self.values))}{hint}; "
                "download the file as published, or say in a task's file of your own what it has"
            )
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.refuse(f"{column!r} is {shown(value)}, not a text")
        # JSON can spell half a UTF-16 pair, which no tokenizer takes.
        if _HALF_PAIR.search(str(value)):
            self.refuse(f"{column!r} is {shown(value)}, which holds half of a UTF-16 pair")
        return str(value)


class _Builder:
    """Items of the rows of one file, whose first row decides which templates fit."""

    def __init__(self, task: Task, source: Source, first: _Row) -> None:
        self.form, self.folder = source.form, source.folder
        self.clean = [(re.compile(pattern), text) for pattern, text in task.clean]
        self.question = self._fitting("question", self.form.question, first)
        self.more = {
            name: self._fitting(name, templates, first)
            for name, templates in self.form.more.items()
        }

    def item(self, row: _Row, number: int) -> Item:
        """The item of a row that is the `number`th, from 0, of its subject."""
        question = self._filled(self.question, row)
        if not question.strip():
            row.refuse("the question is empty")
        options = self._options(row)
        place = f"{row.path.relative_to(self.folder).as_posix()}:{row.line}"
        name = str(number) if self.form.id is None else row.text(self.form.id)
        fields = {key: self._filled(template, row) for key, template in self.more.items()}
        return Item(name, question, options, self._answer(row, options), place, fields)

    def _fitting(self, what: str, templates: Sequence[str], first: _Row) -> str:
        for number, template in enumerate(templates):
            if all(first.find(column) is not None for column in names_in(template)):
                if number:
                    log.warning(f"{first.path} has other columns: {what} is made as {template!r}")
                return template
        return templates[0]

    def _filled(self, template: str, row: _Row) -> str:
        return self._cleaned(fill(template, {name: row.text(name) for name in names_in(template)}))

    def _cleaned(self, text: str) -> str:
        for pattern, replacement in self.clean:
            text = pattern.sub(replacement, text)
        return text

    def _options(self, row: _Row) -> tuple[str, ...]:
        form = self.form
        if isinstance(form.options, str):
            found = row.find(form.options)
            if not isinstance(found, list):
                row.refuse(f"{form.options!r} is {shown(found)}, not a list of options")
            texts = [row.as_text(form.options, value) for value in found]
        else:
            texts = [row.text(column) for column in form.options]
            self._refuse_further_option(row, form.options)
            while len(texts) - 1 in form.counts and not texts[-1].strip():
                texts.pop()
        options = tuple(self._cleaned(text) for text in texts)
        counts = form.counts or range(2, MOST_OPTIONS + 1)
        if isinstance(form.options, str) and len(options) not in counts:
            wanted = " or ".join(map(str, form.counts)) or f"2 to {MOST_OPTIONS}"
            row.refuse(f"there are {len(options)} options, not {wanted}")
        for letter, option in zip(LETTERS, options):
            if not option.strip():
                row.refuse(f"option {letter} is empty")
        return options

    def _refuse_further_option(self, row: _Row, columns: Sequence[str]) -> None:
        if "".join(columns) == LETTERS[: len(columns)] and len(columns) < MOST_OPTIONS:
            further = row.values.get(LETTERS[len(columns)])
            if isinstance(further, str) and further.strip():
                row.refuse(
                    f"there is an option {LETTERS[len(columns)]}, {shown(further)}; the task has "
                    f"{len(columns)}: {', '.join(columns)}"
                )

    def _answer(self, row: _Row, options: Sequence[str]) -> int:
        form = self.form
        answer = self._cleaned(row.text(form.answer)).strip()
        names = {
            "letter": list(LETTERS[: len(options)]),
            "from 0": [str(number) for number in range(len(options))],
            "from 1": [str(number) for number in range(1, len(options) + 1)],
            "text": [option.strip() for option in options],
            "label": self._labels(row, options) if form.answers == "label" else [],
        }[form.answers]
        if answer not in names:
            header = form.columns and row.line == 1
            hint = "; where line 1 is a header, take it out" if header else ""
            known = ", ".join(names)
            if form.answers in ("label", "text"):
                known = shown(known)
            row.refuse(f"the answer {shown(answer)} is none of {known}{hint}")
        return names.index(answer)

    def _labels(self, row: _Row, options: Sequence[str]) -> list[str]:
        assert self.form.labels is not None
        found = row.find(self.form.labels)
        if not isinstance(found, list) or len(found) != len(options):
            row.refuse(f"{self.form.labels!r} is {shown(found)}, not a label for each option")
        return [row.as_text(self.form.labels, label) for label in found]
