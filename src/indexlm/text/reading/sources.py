"""Raw text as it comes: files, folders, datasets of the hub, and what was quarantined before.

txt, jsonl and parquet are read, each also as .gz or .zst, by name. No record ends a run: what
cannot be read is quarantined with its reason and its bytes, and can be given as an input again.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from indexlm.config import ReadingConfig, TextConfig
from indexlm.errors import UserError
from indexlm.records import log
from indexlm.text.document import Document
from indexlm.text.reading import hub
from indexlm.text.reading.files import KNOWN, InputFile, UnpackError, ending_of, kind_of
from indexlm.text.reading.parsing import Reading, jsonl_document, txt_document
from indexlm.text.reading.quarantine import (
    END,
    BadRecordError,
    Position,
    Quarantined,
    read_quarantine,
)
from indexlm.text.reading.readers import Item, empty, read_jsonl, read_txt

HUB = "hub:"
"""How an input is named that is a dataset of the hub."""


def input_files(inputs: Iterable[str], downloads: Path) -> list[InputFile]:
    """Every file behind `text.inputs`, in order; folders in the order of names.

    A dataset of the hub is downloaded first, into `downloads`. Raises UserError for a path that is
    missing or of an unknown kind, a folder without a file that can be read, and for what keeps a
    dataset from being downloaded.
    """
    found: list[InputFile] = []
    for name in inputs:
        if name.startswith(HUB):
            dataset = hub.fetch(name.removeprefix(HUB), downloads)
            files = _folder(name, dataset.folder, dataset.root, dataset.source, dataset.license)
            # A quarantine names files of this machine that are then read: not a stranger's.
            found += [file for file in files if file.kind != "quarantine"]
        else:
            found += _path(Path(name))
    return found


def read_records(
    file: InputFile,
    config: TextConfig,
    limits: ReadingConfig,
    start: Position | None = None,
) -> Iterator[Item]:
    """Every record of a file as (record, position behind it), from `start` on.

    A record is a Document, as it stands in the file: not normalised, blank where it is blank, its
    language empty where neither it nor `config` states one. Or it is Quarantined; of one that has
    a `rest` the bytes can be taken until the next record is asked for. Memory is bounded by
    `limits`, whatever the file. Given a position, for which a list from JSON does, reading goes on
    behind its record and gives what it would have given.
    """
    reading = Reading(file, config, limits)
    start = None if start is None else tuple(start)
    if start == END:
        return iter(())
    if file.path.stat().st_size == 0:
        return iter([(empty(reading), END)])
    if file.kind == "txt":
        return read_txt(reading, start)
    if file.kind == "jsonl":
        return read_jsonl(reading, start)
    if file.kind == "parquet":
        from indexlm.text.reading.rows import read_parquet

        return read_parquet(reading, start)
    return _read_again(reading, start)


def _path(path: Path) -> list[InputFile]:
    if not path.exists():
        raise UserError(f"text.inputs: {path} does not exist; name a file or folder, or starter")
    if path.is_dir():
        return _folder(f"folder {path}", path, path, path.resolve().name)
    kind = kind_of(path)
    if kind is None:
        raise UserError(f"text.inputs: {path} is of an unknown kind; known are {KNOWN}")
    stem = path.name.split(".")[0]
    return [InputFile(path, kind, stem, stem)]


def _folder(name: str, folder: Path, root: Path, source: str, terms: str = "") -> list[InputFile]:
    """The files of a folder; stems are their paths from `root`."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [
        path
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    readable = [path for path in files if kind_of(path)]
    if not readable:
        seen = f"{len(files)} files, none of them {KNOWN}" if files else "no file"
        raise UserError(f"text.inputs: {name} holds {seen}; put text files into it")
    if len(readable) < len(files):
        other = next(path for path in files if path not in readable)
        count = len(files) - len(readable)
        log.info(f"{name}: {count} files are not {KNOWN} and are passed over ({other.name}, ...)")
    found = []
    for path in readable:
        kind = kind_of(path)
        assert kind is not None
        stem = path.relative_to(root).as_posix()[: -len(ending_of(path))]
        found.append(InputFile(path, kind, source, stem, terms))
    return found


def _read_again(reading: Reading, start: Position | None) -> Iterator[Item]:
    """What was quarantined, under its old name and place.

    Positions: (records before it[, position inside the part of a file that the record is about]).
    """
    number, inner = (start[0], start[1:]) if start else (0, ())
    try:
        for bad in islice(read_quarantine(reading.file.path), number, None):
            again = replace(reading, file=bad.file)
            if bad.span is None:
                yield _record_again(again, bad), (number + 1,)
            else:
                for record, position in _part_again(again, bad, inner):
                    yield record, (number, *position)
            number, inner = number + 1, ()
    except (UnpackError, BadRecordError) as error:
        yield reading.lost(error, str(reading.file.path), (number,)), END


def _record_again(reading: Reading, bad: Quarantined) -> Document | Quarantined:
    """A record from its bytes; quarantined again where they are still too many or wrong."""
    # A row is longer as a file than as text, and its reader looks at the text.
    longest = sys.maxsize if bad.file.kind == "parquet" else reading.limits.record_bytes
    parts = [bad.raw]
    while sum(map(len, parts)) <= longest + 1 and (more := next(bad.rest, b"")):
        parts.append(more)
    content = b"".join(parts)
    if len(content) > longest and (len(content) > longest + 1 or content[-1] != 10):
        return replace(bad, raw=content, rest=_readable(bad.rest))
    try:
        if bad.file.kind == "jsonl":
            document = jsonl_document(reading, content, bad.number)
            if document is None:
                raise BadRecordError("not_json", "a blank line")
            return document
        if bad.file.kind == "txt":
            return txt_document(reading, content, bad.number)
        from indexlm.text.reading.rows import row_document

        return row_document(reading, content, bad.number)
    except BadRecordError as error:
        return reading.bad(error, bad.place, bad.number, content)


def _readable(rest: Iterator[bytes]) -> Iterator[bytes]:
    """Up to where the file is damaged; whoever reads its next record is told."""
    with suppress(UnpackError, BadRecordError):
        yield from rest


def _part_again(reading: Reading, bad: Quarantined, start: Position) -> Iterator[Item]:
    """A part of a file from that file. It stays quarantined while the file is not there; a file of
    quarantined records is to be named itself, since it could name itself for ever."""
    assert bad.span is not None
    if bad.file.kind == "quarantine" or not bad.file.path.is_file():
        yield bad, END
        return
    first, end = bad.span
    for record, position in read_records(bad.file, reading.config, reading.limits, start or first):
        if end is not None and position > end:
            return
        yield record, position
