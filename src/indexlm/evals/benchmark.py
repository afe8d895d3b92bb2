"""A model on benchmarks: tasks, their prompts, their subjects, each finished part kept.

The work is cut into parts of at most PART_ITEMS items of one subject, asked with one prompt. A part
that is finished is a file (`kept`) and is not done again; processes that work together share the
parts, whose borders do not depend on how many they are. What is wrong with one subject leaves the
others' results as they are.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from indexlm.errors import StoppedError, UserError
from indexlm.evals.choice import Overflow, Start, answer
from indexlm.evals.items import Subject, data_sha256, read_subjects
from indexlm.evals.kept import Kept
from indexlm.evals.prompts import Asked, ask
from indexlm.evals.results import Line, item_line, prompt_scores
from indexlm.evals.scoring import BATCH_TOKENS
from indexlm.evals.task import Prompt, Task
from indexlm.model.transformer import Transformer
from indexlm.records import Progress, fingerprint
from indexlm.runtime import rank, ranks, shared_out, wait_for_all
from indexlm.tokens.tokenizer import Tokenizer

log = logging.getLogger("indexlm")

MOST_TOLD = 5
"""Subjects without a score that are told of one by one."""
PART_ITEMS = 500
"""A kill costs a part at most. Their few examples are computed once in each: 3% more than in one
piece, in the largest subjects of MMLU."""
REPORT = "-report"
"""Ends the names of prompts that are asked only by name."""


@dataclass(frozen=True)
class Settings:
    """What is asked, and how; in the defaults, as lm-eval does."""

    subjects: tuple[str, ...] = ()
    """Subjects, categories or subsets; empty is all."""
    prompts: tuple[str, ...] = ()
    """Names of prompts; empty is all but those of the report's set-up."""
    shots: int | None = None
    limit: int | None = None
    """First items of each subject."""
    start: Start = "none"
    overflow: Overflow = "refuse"
    batch_tokens: int = BATCH_TOKENS


@dataclass(frozen=True)
class Benchmark:
    """A task, how it is asked, and what could be read of its files."""

    task: Task
    prompts: Mapping[str, Prompt]
    subjects: list[Subject]


@dataclass(frozen=True)
class Outcome:
    """`tasks` is what results.json holds of them; `lines` has the items of each (task, prompt).

    `failed` says, for `<task>/<subject>`, why its scores are missing.
    """

    tasks: dict[str, Any]
    lines: dict[tuple[str, str], list[Line]]
    failed: dict[str, str]


@dataclass(frozen=True)
class _Part:
    """Items of one subject, asked with one prompt, and what they are kept under."""

    benchmark: Benchmark
    prompt: str
    subject: Subject
    key: str

    @property
    def size(self) -> int:
        """Characters: what the time grows with where equal text is computed once."""
        every = (*self.subject.items, *self.subject.examples)
        return sum(len(item.question) + sum(map(len, item.options)) for item in every)


def run_benchmarks(
    model: Transformer,
    tokenizer: Tokenizer,
    tasks: Sequence[tuple[Task, Path]],
    settings: Settings,
    kept: Kept,
) -> Outcome:
    """Score the model on each task, whose files lie in the folder beside it.

    Every process of several gets the whole outcome. Raises UserError for a task without its files
    and for prompts and subjects that are none, before anything is scored; StoppedError on Ctrl-C.
    """
    failed: dict[str, str] = {}
    prompts = [_prompts(task, settings.prompts) for task, _ in tasks]
    _refuse_unknown_prompts(settings.prompts, prompts)
    names = [_names_for(task, settings.subjects, [each for each, _ in tasks]) for task, _ in tasks]
    benchmarks = [
        Benchmark(task, asked, _subjects(task, data, some, settings.limit, failed))
        for (task, data), asked, some in zip(tasks, prompts, names)
    ]
    for name, why in list(failed.items())[: MOST_TOLD if rank() == 0 else 0]:
        log.warning(f"{name} is left out: {why}")
    if len(failed) > MOST_TOLD and rank() == 0:
        log.warning(f"and {len(failed) - MOST_TOLD} subjects more")
    parts = [part for benchmark in benchmarks for part in _parts(benchmark, settings)]
    todo = [part for part in parts if not _finished(kept.read(part.key))]
    if len(todo) < len(parts):
        log.info(f"{len(parts) - len(todo)} of {len(parts)} parts are finished already")
    # Everyone has seen the same parts finished before anyone finishes more.
    wait_for_all()
    own = shared_out([part.size for part in todo], ranks())[rank()]
    told: list[str] = []
    progress = Progress("benchmarks, characters", sum(todo[number].size for number in own))
    try:
        for number in own:
            part = todo[number]
            _work(model, tokenizer, part, settings, kept, _within(progress, part.size), told)
    except KeyboardInterrupt as error:
        raise StoppedError(
            f"stopped; what is finished is kept in {kept.folder}, and the same command goes on"
        ) from error
    progress.close()
    wait_for_all()
    return _outcome(benchmarks, parts, settings, kept, failed)


def _prompts(task: Task, names: Sequence[str]) -> dict[str, Prompt]:
    if not names:
        return {n: prompt for n, prompt in task.prompts.items() if not n.endswith(REPORT)}
    found = {name: task.prompts[name] for name in names if name in task.prompts}
    if not found:
        raise UserError(
            f"{task.name} has no prompt {' or '.join(map(repr, names))}; it has "
            + ", ".join(task.prompts)
        )
    return found


def _refuse_unknown_prompts(names: Sequence[str], found: Iterable[Mapping[str, Prompt]]) -> None:
    known = {name for prompts in found for name in prompts}
    if missing := [name for name in names if name not in known]:
        raise UserError(f"none of the tasks has a prompt {missing[0]!r}")


def _subjects(
    task: Task, data: Path, names: Sequence[str], limit: int | None, failed: dict[str, str]
) -> list[Subject]:
    errors: dict[str, UserError] = {}
    subjects = read_subjects(task, data, names, limit, errors)
    failed |= {f"{task.name}/{subject}": str(error) for subject, error in errors.items()}
    return subjects


def _names_for(task: Task, names: Sequence[str], tasks: Sequence[Task]) -> list[str]:
    """Of the names of subjects, those that are for this task: not those that others alone know."""
    # A task without subjects is one by itself.
    known = {
        each.name: {*each.categories, *each.subjects, *each.subsets} or {each.name}
        for each in tasks
    }
    anywhere = set().union(*known.values())
    mine = [name for name in names if name in known[task.name] or name not in anywhere]
    if names and not mine:
        raise UserError(f"{task.name} has no subject {' or '.join(map(repr, names))}")
    return mine


def _parts(benchmark: Benchmark, settings: Settings) -> Iterator[_Part]:
    task = benchmark.task.model_dump(mode="json")
    for name, prompt in benchmark.prompts.items():
        shots = _shots(prompt, settings)
        how = [name, shots, settings.start, settings.overflow]
        for subject in benchmark.subjects:
            for at in range(0, len(subject.items), PART_ITEMS):
                items = subject.items[at : at + PART_ITEMS]
                part = replace(subject, items=items, examples=subject.examples[:shots])
                places = [item.place for item in items]
                key = fingerprint(task, how, subject.name, data_sha256([part]), places)
                yield _Part(benchmark, name, part, key)


def _shots(prompt: Prompt, settings: Settings) -> int:
    return prompt.shots if settings.shots is None else settings.shots


def _within(progress: Progress, size: int) -> Callable[[float], None]:
    """What is told the share of one piece of `size` that was done, and shows it of the whole."""
    begun, share = progress.done, 0.0

    def advance(more: float) -> None:
        nonlocal share
        share += more
        progress.advance(begun + round(share * size) - progress.done)

    return advance


def _work(
    model: Transformer,
    tokenizer: Tokenizer,
    part: _Part,
    settings: Settings,
    kept: Kept,
    advance: Callable[[float], None],
    told: list[str],
) -> None:
    """Score a part and keep it; of one that cannot be scored, keep why, and tell of the first."""
    began = time.monotonic()
    prompt = part.benchmark.prompts[part.prompt]
    shots = _shots(prompt, settings)

    def asked(shots: int) -> list[Asked]:
        return ask(part.benchmark.task, prompt, part.subject, shots)

    try:
        answers = answer(
            model,
            tokenizer,
            asked(shots),
            start=settings.start,
            overflow=settings.overflow,
            fewer=map(asked, range(shots - 1, -1, -1)),
            batch_tokens=settings.batch_tokens,
            advance=advance,
        )
    except UserError as error:
        name = f"{part.benchmark.task.name}/{part.subject.name}"
        if len(told) < MOST_TOLD:
            log.warning(f"{name} is left out, asked with {part.prompt}: {error}")
        told.append(name)
        kept.write({"failed": str(error)}, part.key)
        return
    lines = [item_line(part.subject.name, each, prompt.style) for each in answers.answered]
    content = {
        "lines": lines,
        "cut": sum(each.cut for each in answers.answered),
        "computed": answers.computed,
        "naive": answers.naive,
        "seconds": round(time.monotonic() - began, 3),
    }
    kept.write(content, part.key)


def _finished(content: Any) -> bool:
    return content is not None and "failed" not in content


def _how_asked(prompt: Prompt, settings: Settings, done: Sequence[Any]) -> dict[str, Any]:
    cut = sum(content["cut"] for content in done)
    # Another start, or fewer examples for some, is not what the harness does.
    same = settings.start == "none" and not (cut and settings.overflow == "fewer")
    return {
        "style": prompt.style,
        "harness": prompt.harness if same else "",
        "shots": _shots(prompt, settings),
        "cut": cut,
        **{name: sum(each[name] for each in done) for name in ("seconds", "computed", "naive")},
    }


def _outcome(
    benchmarks: Sequence[Benchmark],
    parts: Sequence[_Part],
    settings: Settings,
    kept: Kept,
    failed: dict[str, str],
) -> Outcome:
    outcome = Outcome({}, {}, failed)
    contents = [kept.read(part.key) for part in parts]
    for part, content in zip(parts, contents):
        if content is None:
            raise UserError(
                f"{kept.folder}: what another process has scored is not there; all machines need "
                "one folder"
            )
        if not _finished(content):
            name = f"{part.benchmark.task.name}/{part.subject.name}"
            failed.setdefault(name, content["failed"])
    for benchmark in benchmarks:
        task = benchmark.task
        prompts = {}
        for name in benchmark.prompts:
            # A subject is scored whole or not at all.
            done = [
                content
                for part, content in zip(parts, contents)
                if part.benchmark is benchmark
                and part.prompt == name
                and f"{task.name}/{part.subject.name}" not in failed
            ]
            if done:
                lines = [line for content in done for line in content["lines"]]
                outcome.lines[task.name, name] = lines
                how = _how_asked(benchmark.prompts[name], settings, done)
                prompts[name] = how | prompt_scores(task, lines)
        if prompts:
            outcome.tasks[task.name] = {
                "version": task.version,
                "title": task.title,
                "language": task.language,
                "data_sha256": data_sha256(benchmark.subjects),
                "prompts": prompts,
            }
    return outcome
