"""Where the files of a benchmark lie: which of its forms, in which folder, which subjects."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from indexlm.errors import UserError
from indexlm.evals.rows import PACKED
from indexlm.evals.task import SUBJECT, Form, Task
from indexlm.records import log


@dataclass(frozen=True)
class Source:
    """A form of a task whose files lie in a folder."""

    folder: Path
    form: Form
    tests: Mapping[str, tuple[Path, ...]]
    """Subject -> the files of its items."""


def find_source(task: Task, data: Path) -> Source:
    """The first of a task's forms of which a test file is there, told in the log unless it is the
    form that comes first.

    Raises UserError naming what was looked for.
    """
    if not data.is_dir():
        raise UserError(f"{data} is no folder; name the one that holds the files of {task.name}")
    first, *_ = task.forms.values()
    for source in _sources(task, data):
        if source.form is not first:
            name = next(name for name, form in task.forms.items() if form is source.form)
            log.info(f"{task.name}: {source.folder} holds its form {name!r}")
        return source
    raise UserError(
        f"{data} has no files of {task.name}: looked for "
        f"{', '.join(form.test for form in task.forms.values())} (CSV and jsonl also as .gz or "
        f".zst) there and in {', '.join(f'{name}/' for name in task.folders or (task.name,))}; "
        f"published: {task.source}"
    )


def benchmark_files(task: Task, data: Path) -> list[Path]:
    """The files that the task's items and examples are read from."""
    source = find_source(task, data)
    found = [path for paths in source.tests.values() for path in paths]
    if source.form.examples is not None:
        for subject in source.tests:
            found += matching(source.folder, source.form.examples.replace(SUBJECT, subject))
    return list(dict.fromkeys(found))


def holds(task: Task, data: Path) -> bool:
    """Whether `find_source` would find the task's files."""
    return any(_sources(task, data))


def hub_files(task: Task) -> tuple[str, list[str]]:
    """A dataset of the hub in one of the task's forms, and patterns of its files.

    Raises UserError where there is none.
    """
    for form in task.forms.values():
        if form.dataset is not None:
            paths = [form.test, *([form.examples] if form.examples else [])]
            return form.dataset, [path.replace(SUBJECT, "*") for path in paths]
    raise UserError(
        f"the hub has no files of {task.name} that can be read as they are; download and unpack "
        f"what is published, {task.source}, and name the folder"
    )


def matching(folder: Path, pattern: str) -> tuple[Path, ...]:
    """The files below a folder that match, in order: plain ones, else those of one packing, since
    one may stand beside the other."""
    for packing in PACKED if not pattern.endswith(".parquet") else PACKED[:1]:
        if paths := sorted(path for path in folder.glob(pattern + packing) if path.is_file()):
            return tuple(paths)
    return ()


def _sources(task: Task, data: Path) -> Iterator[Source]:
    for form in task.forms.values():
        for name in (*(task.folders or (task.name,)), ""):
            if tests := _test_files(task, data / name, form):
                yield Source(data / name, form, tests)


def _test_files(task: Task, folder: Path, form: Form) -> dict[str, tuple[Path, ...]]:
    """Subject -> its files. A task whose paths have no `{subject}` is one subject by itself."""
    if SUBJECT not in form.test:
        names: Iterable[str] = [task.name]
    elif task.subjects:
        names = task.categories
    else:
        names = _subjects_found(folder, form.test)
    files = {name: matching(folder, form.test.replace(SUBJECT, name)) for name in names}
    return {name: paths for name, paths in files.items() if paths}


def _subjects_found(folder: Path, pattern: str) -> list[str]:
    """What stands for `{subject}` in the paths of the files that match."""
    parts = [re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split(SUBJECT)]
    packing = "|".join(map(re.escape, PACKED))
    path = re.compile(parts[0] + "([^/]+)" + r"\1".join(parts[1:]) + f"(?:{packing})")
    found = (
        path.fullmatch(file.relative_to(folder).as_posix())
        for packed in PACKED
        for file in folder.glob(pattern.replace(SUBJECT, "*") + packed)
    )
    return sorted({match[1] for match in found if match})
