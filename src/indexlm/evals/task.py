"""A benchmark as data: where its files lie, what in them is what, and how a model is asked.

One TOML file per benchmark; those of `benchmarks/` come with the package, a user's own is read by
its path. Models are frozen and refuse unknown keys. Templates hold `{name}` for a value and
`{name:strip}` or `{name:capitalize}` for one that Python's string method of that name is applied
to; `{{` and `}}` are braces. A value is filled in once and never read as a template, so braces in
questions stay what they are.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from indexlm.errors import UserError, shown

BUILTIN = Path(__file__).parent / "benchmarks"
LETTERS = "ABCDEFGHIJ"
MOST_OPTIONS = len(LETTERS)
SUBJECT = "{subject}"
KINDS = (".csv", ".jsonl", ".parquet")
CHANGES: Mapping[str, Callable[[str], str]] = {
    "": str,
    "strip": str.strip,
    "capitalize": str.capitalize,
}
"""What may stand behind the colon of a placeholder."""

PROMPT_NAMES = {"question", "options", "subject"}
"""Placeholders of every prompt; the names of `more` come on top."""


@lru_cache(maxsize=1024)
def parsed(template: str) -> tuple[tuple[str, str | None, str], ...]:
    """(literal text, name that follows it or None, its change). Raises ValueError."""
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"{template!r} is no template ({error}); a brace is written twice: {{{{ or }}}}"
        ) from error
    parts = []
    for literal, name, change, conversion in pieces:
        if name is not None and (not name or conversion or change not in CHANGES):
            raise ValueError(
                f"{{{name}}} in {template!r} is no placeholder; write {{name}}, {{name:strip}} or "
                "{name:capitalize}, and a brace twice"
            )
        parts.append((literal, name, change or ""))
    return tuple(parts)


def names_in(template: str) -> list[str]:
    """The names of a template's placeholders, in order."""
    return [name for _, name, _ in parsed(template) if name is not None]


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each placeholder replaced by its value."""
    return "".join(
        literal + ("" if name is None else CHANGES[change](values[name]))
        for literal, name, change in parsed(template)
    )


def _checked_template(template: str) -> str:
    parsed(template)
    return template


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _checked_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


def _checked_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts:
        raise ValueError(f"{path!r} does not lie below the benchmark's folder")
    if not path.endswith(KINDS):
        raise ValueError(f"{path!r} ends in none of {', '.join(KINDS)} (.gz and .zst are found)")
    return path


FilePath = Annotated[str, AfterValidator(_checked_path)]
Template = Annotated[str, AfterValidator(_checked_template)]
Templates = Annotated[tuple[Template, ...], BeforeValidator(_listed), Field(min_length=1)]
"""One template, or several of which the first is used whose columns all exist."""
Pattern = Annotated[str, AfterValidator(_checked_pattern)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Form(Section):
    """One way in which the files are laid out: as published, as on the hub.

    Columns are those of a CSV or the keys of a JSON object; `a.b` is the key `b` inside `a`, and
    goes through lists: `choices.text` is the `text` of each of the `choices`.
    """

    test: FilePath
    """Path below the benchmark's folder of what is asked: .csv, .jsonl (each also .gz, .zst) or
    .parquet. `{subject}` is the subject's name, `*` any text."""
    examples: FilePath | None = None
    """Path of what the examples of few-shot prompts are taken from, first rows first."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a CSV without a header line."""
    question: Templates
    """Made of columns."""
    options: str | tuple[str, ...]
    """The column that holds all options, or one column for each."""
    counts: tuple[Annotated[int, Field(ge=2, le=MOST_OPTIONS)], ...] = ()
    """Numbers of options that an item may have; empty is any from 2 to 10."""
    answer: str
    """The column of the right answer."""
    answers: Literal["letter", "from 0", "from 1", "label", "text"] = "letter"
    """How it is written: A for the first option, 0 or 1 for the first, one of `labels`, or the
    text of the option."""
    labels: str | None = None
    """The column that holds the label of each option."""
    id: str | None = None
    """The column of what an item is called; None counts the rows from 0."""
    more: Mapping[str, Templates] = {}
    """Further values for prompts, made of columns."""
    dataset: str | None = None
    """Name on the hub of a dataset of this form."""

    @model_validator(mode="after")
    def _keys_fit(self) -> "Form":
        if (self.answers == "label") != (self.labels is not None):
            raise ValueError("`labels` names the column of labels where `answers` is 'label'")
        if isinstance(self.options, tuple) and not 2 <= len(self.options) <= MOST_OPTIONS:
            raise ValueError(f"`options` names {len(self.options)} columns, not 2 to 10")
        if self.columns and not self.test.endswith(".csv"):
            raise ValueError("`columns` is for a CSV without a header line")
        return self


class Prompt(Section):
    """How an item is put to a model.

    A prompt is the intro, each example's question, delimiter, answer and `between`, and the
    item's question: the context. The delimiter and an answer are what is scored after it.
    """

    style: Literal["letters", "contents"]
    """Whether the answer is the letter of an option or its text."""
    shots: int = Field(0, ge=0)
    harness: str = ""
    """The program, its version and its task that this prompt is equal to; empty is none."""
    intro: Template = ""
    question: Template
    option: Template = "{letter}. {option}\n"
    """Each option in `{options}`, one after the other."""
    letters: str = Field(LETTERS, min_length=2)
    delimiter: str = " "
    between: str = "\n\n"
    """What follows each example."""
    lead: str = ""
    """What stands between the last example, with its `between`, and the question."""
    neutral: Template | None = None
    """The context that says nothing of the question, for the unconditional score of contents."""

    @model_validator(mode="after")
    def _fits_its_style(self) -> "Prompt":
        if self.style == "letters" and "options" not in names_in(self.question):
            raise ValueError("a prompt of style 'letters' shows them: {options} in `question`")
        if self.style == "letters" and self.neutral is not None:
            raise ValueError("`neutral` is for the style 'contents'")
        return self


class Task(Section):
    """A benchmark of multiple choice."""

    name: str = Field(pattern=r"^[\w-]+$")
    version: int = Field(1, ge=1)
    """Raised with every change that can change a score."""
    title: str
    language: str
    source: str
    """Who made it, where it is published."""
    folders: tuple[str, ...] = ()
    """Folders, below the data folder, in which the files may lie; empty is the task's name."""
    clean: tuple[tuple[Pattern, str], ...] = ()
    """(regular expression, replacement) applied in order to each question, option and `more`."""
    forms: Mapping[str, Form] = Field(min_length=1)
    """The first is used of which a test file is there."""
    subjects: Mapping[str, Mapping[str, str]] = {}
    """Category -> subject -> how prompts call it. Where it is empty and paths have `{subject}`,
    every file there is one."""
    subsets: Mapping[str, tuple[str, ...]] = {}
    """Further groups of subjects, which may overlap."""
    prompts: Mapping[str, Prompt] = Field(min_length=1)

    @model_validator(mode="after")
    def _parts_fit(self) -> "Task":
        for name, form in self.forms.items():
            if self.subjects and "{subject}" not in form.test:
                raise ValueError(f"forms.{name}.test has no {{subject}}, the task has subjects")
        named = [subject for group in self.subjects.values() for subject in group]
        named += [*self.subjects, *self.subsets]
        if twice := sorted(name for name in named if named.count(name) > 1):
            raise ValueError(f"{twice[0]!r} names two of the subjects, categories and subsets")
        for name, subset in self.subsets.items():
            if wrong := sorted(set(subset) - set(self.categories)):
                raise ValueError(f"subsets.{name}: {wrong[0]!r} is no subject of the task")
        more = set.intersection(*(set(form.more) for form in self.forms.values()))
        for name, prompt in self.prompts.items():
            _check_names(name, "intro", prompt.intro, {"subject"})
            _check_names(name, "option", prompt.option, {"letter", "option"})
            _check_names(name, "question", prompt.question, PROMPT_NAMES | more)
            _check_names(name, "neutral", prompt.neutral or "", PROMPT_NAMES - {"options"} | more)
        return self

    @property
    def categories(self) -> dict[str, str]:
        """Subject -> category, in the order of the file."""
        return {name: category for category, names in self.subjects.items() for name in names}


def _check_names(prompt: str, key: str, template: str, known: set[str]) -> None:
    for name in names_in(template):
        if name not in known:
            raise ValueError(
                f"prompts.{prompt}.{key}: {{{name}}} is none of "
                + ", ".join(f"{{{name}}}" for name in sorted(known))
            )


def builtin_tasks() -> tuple[str, ...]:
    """The names of the benchmarks that come with the package."""
    return tuple(sorted(path.stem for path in BUILTIN.glob("*.toml")))


def read_task(name_or_path: str) -> Task:
    """A benchmark by its name, or from a user's own TOML file.

    Raises UserError for a name that is none, naming the nearest, and for what is wrong in a file.
    """
    if name_or_path in builtin_tasks():
        path = BUILTIN / f"{name_or_path}.toml"
    elif name_or_path.endswith(".toml"):
        path = Path(name_or_path)
    else:
        near = difflib.get_close_matches(name_or_path, builtin_tasks(), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"there is no task {name_or_path!r}{hint} (known: {', '.join(builtin_tasks())}; "
            "one of your own is named by its file, ending in .toml)"
        )
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML file: {error}") from error
    try:
        return Task.model_validate(tree)
    except ValidationError as error:
        lines = [_explained(detail) for detail in error.errors()]
        raise UserError(f"{path}: " + "; ".join(lines)) from error


def _explained(detail: Any) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _keys_at([str(part) for part in detail["loc"][:-1]])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.4)
        return f"unknown key {path!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "value_error":
        return f"{path}: {detail['ctx']['error']}" if path else str(detail["ctx"]["error"])
    return f"{path}={shown(detail['input'])}: {detail['msg']}"


def _keys_at(path: list[str]) -> list[str]:
    inside: dict[str, type[BaseModel]] = {"forms": Form, "prompts": Prompt}
    return list((inside[path[0]] if path else Task).model_fields)
