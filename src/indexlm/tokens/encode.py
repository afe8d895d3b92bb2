"""Refined text into a tokens folder, on all cores, that goes on where it was killed.

Threads encode batches of lines side by side: SentencePiece works without Python's interpreter
lock, which only reading JSON holds (7% of the time of one core at a vocabulary of 8,192, so that
about 15 cores can be kept busy). One thread writes the batches in their order, and from time to
time flushes the files and notes in the catalogue how far they are whole. What is behind that place
after a kill is cut off, and the next start goes on there; the bytes are the same as without a kill.
"""

import fcntl
import io
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard

from indexlm.errors import UserError
from indexlm.records import (
    Progress,
    fingerprint,
    finish,
    log,
    read_manifest,
    sha256_file,
    write_json,
)
from indexlm.tokens.shards import CATALOGUE, IDS, OFFSETS, ORIGINS, labels_of, read_catalogue
from indexlm.tokens.tokenizer import EOS, Tokenizer

BATCH_BYTES = 1 << 20
"""Of lines that a thread encodes at a time: about 0.1 s, beside which its waits for Python's
interpreter lock (5 ms at most) are little."""
COMMIT_BYTES = 16 << 20
"""Of lines after which what is written is made safe: all that a kill costs, with what is being
encoded (about 2 s of two cores)."""


class Place(NamedTuple):
    """Up to where the input is encoded: into which file, and how many bytes of its lines."""

    file: int = 0
    byte: int = 0
    packed: int = 0
    """Bytes of all files as they are stored, for the time left."""


class _Batch(NamedTuple):
    source: str
    lines: list[bytes]
    behind: Place


class _Encoded(NamedTuple):
    ids: np.ndarray
    lengths: np.ndarray
    origins: list[str]
    text_bytes: int


def write_shards(
    files: Mapping[str, Sequence[Path]],
    tokenizer: Tokenizer,
    final: Path,
    made_from: str,
    *,
    threads: int,
    commit_bytes: int = COMMIT_BYTES,
) -> dict[str, Any]:
    """Encode the documents of each source's files into folder `final`; returns its catalogue.

    `made_from` is the fingerprint of all that the folder depends on (`inputs_fingerprint`): what a
    killed call with the same one left beside `final` is gone on with, and a `final` of the same one
    is left as it is. Raises UserError while another process makes the same folder.
    """
    unfinished = final.with_name(f".{final.name}.partial")
    with _only_maker(unfinished):
        manifest = read_manifest(final)
        if manifest is not None and manifest.fingerprint == made_from:
            shutil.rmtree(unfinished)
        else:
            try:
                _encode(files, tokenizer, unfinished, made_from, threads, commit_bytes)
                finish(unfinished, final, made_from)
            except OSError as error:
                if error.filename is not None:
                    raise
                # Of a full disk it says no name.
                raise OSError(error.errno, error.strerror, str(unfinished)) from error
    return read_catalogue(final)


def inputs_fingerprint(files: Mapping[str, Sequence[Path]], tokenizer: Tokenizer) -> str:
    """Of everything that a tokens folder depends on."""
    content = {name: [sha256_file(path) for path in paths] for name, paths in files.items()}
    return fingerprint("tokens", tokenizer.fingerprint, content)


def text_of(row: Mapping[str, Any]) -> str:
    """What is encoded of a row: a document's text; of an instruction record, both sides."""
    return row["text"] if "text" in row else f"{row['query']}\n{row['response']}"


@contextmanager
def _only_maker(folder: Path) -> Iterator[None]:
    """As `records.only_writer`, but leaves no file: the folder is going to be sealed as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder} is in use by another process; wait for it or name another --out"
            ) from error
        yield
    finally:
        os.close(held)


def _encode(
    files: Mapping[str, Sequence[Path]],
    tokenizer: Tokenizer,
    folder: Path,
    made_from: str,
    threads: int,
    commit_bytes: int,
) -> None:
    """Fill `folder` up to its catalogue."""
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    catalogue: dict[str, Any] = {
        "tokenizer": tokenizer.fingerprint,
        "dtype": dtype.name,
        "made_from": made_from,
    }
    done = _resumed(folder, catalogue, files)
    if done is not None and "place" not in done:
        return
    place = Place(*done["place"]) if done else Place()
    inputs = [(name, path) for name, paths in files.items() for path in paths]
    total = sum(path.stat().st_size for _, path in inputs)
    if place.packed:
        log.info(f"tokens: going on at {place.packed / max(total, 1):.0%}")
    progress = Progress("tokens", total - place.packed)
    with ExitStack() as opened, ThreadPoolExecutor(threads) as pool:
        known = done["sources"] if done else {}
        sources = {
            name: opened.enter_context(_Source(folder, name, dtype, known.get(name)))
            for name in files
        }
        unsafe = 0
        encode = partial(_encode_lines, tokenizer, dtype)
        for batch, encoded in _in_order(pool, encode, _batches(inputs, place), 2 * threads):
            sources[batch.source].append(encoded)
            progress.advance(batch.behind.packed - place.packed)
            place = batch.behind
            unsafe += sum(map(len, batch.lines))
            if unsafe >= commit_bytes:
                unsafe = 0
                _commit(folder, catalogue | {"place": place}, sources)
        _commit(folder, catalogue, sources)
    progress.close()


def _batches(inputs: Sequence[tuple[str, Path]], start: Place) -> Iterator[_Batch]:
    """Lines of the files in order, from `start` on."""
    packed = sum(path.stat().st_size for _, path in inputs[: start.file])
    for number, (source, path) in enumerate(inputs[start.file :], start=start.file):
        unpacker = zstandard.ZstdDecompressor()
        with (
            path.open("rb") as file,
            unpacker.stream_reader(file, read_across_frames=True) as unpacked,
            io.BufferedReader(unpacked, BATCH_BYTES) as reader,
        ):
            byte = start.byte if number == start.file else 0
            left = byte
            while left:
                passed = reader.read(min(left, BATCH_BYTES))
                assert passed, f"{path} ends {left} bytes before the place to go on from"
                left -= len(passed)
            while lines := reader.readlines(BATCH_BYTES):
                byte += sum(map(len, lines))
                yield _Batch(source, lines, Place(number, byte, packed + file.tell()))
        packed += path.stat().st_size


def _encode_lines(tokenizer: Tokenizer, dtype: np.dtype[Any], batch: _Batch) -> _Encoded:
    rows = json.loads(b"[" + b",".join(batch.lines) + b"]")
    texts = [text_of(row) for row in rows]
    ids, counts = tokenizer.encode_flat(texts)
    return _Encoded(
        np.insert(ids.astype(dtype), np.cumsum(counts), EOS),
        counts + 1,
        [row.get("source", "") for row in rows],
        sum(len(text.encode()) for text in texts),
    )


def _in_order(
    pool: Executor,
    function: Callable[[_Batch], _Encoded],
    batches: Iterable[_Batch],
    ahead: int,
) -> Iterator[tuple[_Batch, _Encoded]]:
    """Each batch with its answer; at most `ahead` batches wait in memory."""
    waiting: deque[tuple[_Batch, Any]] = deque()
    for batch in batches:
        waiting.append((batch, pool.submit(function, batch)))
        if len(waiting) == ahead:
            first, answer = waiting.popleft()
            yield first, answer.result()
    for first, answer in waiting:
        yield first, answer.result()


class _Source:
    """The files of one source, which only grow, and what they hold."""

    def __init__(
        self, folder: Path, name: str, dtype: np.dtype[Any], done: Mapping[str, Any] | None
    ) -> None:
        """`done` is what they held when they were last safe."""
        self.name = name
        self.documents, self.tokens, self.text_bytes = 0, 0, 0
        self.origins: dict[str, dict[str, int]] = {}
        if done:
            self.documents, self.tokens = done["documents"], done["tokens"]
            self.text_bytes, self.origins = done["bytes"], done["origins"]
        self._places = {origin: place for place, origin in enumerate(self.origins)}
        self._files = []
        for suffix, size in _sizes(done, dtype).items():
            path = folder / f"{name}{suffix}"
            file = path.open("ab")
            file.truncate(size)
            self._files.append(file)
        if not done:
            self._files[1].write(np.zeros(1, np.int64).data)

    def append(self, encoded: _Encoded) -> None:
        for origin, length in zip(encoded.origins, encoded.lengths.tolist()):
            self._places.setdefault(origin, len(self._places))
            size = self.origins.setdefault(origin, {"documents": 0, "tokens": 0})
            size["documents"] += 1
            size["tokens"] += length
        ids, offsets, origins = self._files
        ids.write(encoded.ids.data)
        offsets.write((self.tokens + np.cumsum(encoded.lengths)).data)
        places = [self._places[each] for each in encoded.origins]
        origins.write(np.array(places, np.uint32).data)
        self.documents += len(encoded.lengths)
        self.tokens += len(encoded.ids)
        self.text_bytes += encoded.text_bytes

    def sync(self) -> None:
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())

    def entry(self) -> dict[str, Any]:
        """Its line of the catalogue."""
        language, tier = labels_of(self.name)
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.text_bytes,
            "language": language,
            "tier": tier,
            "origins": self.origins,
        }

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()


def _commit(folder: Path, catalogue: Mapping[str, Any], sources: Mapping[str, _Source]) -> None:
    """Make what is written safe, and then the note of it."""
    for source in sources.values():
        source.sync()
    entries = {name: source.entry() for name, source in sources.items()}
    write_json(folder / CATALOGUE, {**catalogue, "sources": entries})


def _sizes(entry: Mapping[str, Any] | None, dtype: np.dtype[Any]) -> dict[str, int]:
    """Bytes of a source's files; None where nothing is written."""
    if entry is None:
        return {IDS: 0, OFFSETS: 0, ORIGINS: 0}
    documents, tokens = entry["documents"], entry["tokens"]
    return {IDS: tokens * dtype.itemsize, OFFSETS: (documents + 1) * 8, ORIGINS: documents * 4}


def _resumed(
    folder: Path, catalogue: Mapping[str, Any], names: Iterable[str]
) -> dict[str, Any] | None:
    """The catalogue of what is whole in `folder` and begins like `catalogue`, with the `place` in
    the input up to which it goes if that is not the end; None where there is nothing to go on
    with. Nothing else is left."""
    path = folder / CATALOGUE
    done: dict[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
    if done is not None and all(done.get(key) == value for key, value in catalogue.items()):
        dtype = np.dtype(done["dtype"])
        sizes = {
            f"{name}{suffix}": size
            for name in names
            for suffix, size in _sizes(done["sources"][name], dtype).items()
        }
    else:
        done, sizes = None, {}
    kept = {path.name, *sizes} if done else set()
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        elif each.name not in kept:
            each.unlink()
    for name, size in sizes.items():
        found = (folder / name).stat().st_size
        assert found >= size, f"{folder / name} has {found} bytes, {size} were safe"
    return done
