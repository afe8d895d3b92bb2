"""The run folder: what is written, when it becomes visible, and how it is trusted again.

A finished folder holds `manifest.json` with the size and SHA-256 of every other file; a folder
without one is unfinished. `publish` fills a hidden folder beside the final place and renames it,
so that a reader sees all of it or nothing. No checkpoint format notices a flipped bit by itself,
hence `verify` before anything is loaded; the manifest carries a SHA-256 of its own content.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from indexlm.errors import DamagedError, UserError, shown

log = logging.getLogger("indexlm")

MANIFEST = "manifest.json"
LONGEST_MANIFEST = 8 * 2**20
"""Bytes. A file takes about 150 of them."""


@dataclass(frozen=True)
class Manifest:
    """What a finished folder says of itself; `notes` is free for its maker."""

    fingerprint: str
    files: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, Any] = field(default_factory=dict)


def fingerprint(*parts: Any) -> str:
    """SHA-256 of plain values, equal for equal values in any process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def publish(final: Path, made_from: str, notes: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a folder to fill; on leaving, it becomes `final` as one rename.

    `made_from` is the fingerprint of everything the content depends on. Where the body raises,
    the folder is removed and `final` is untouched. `notes` is read on leaving: a body may fill it.
    """
    partial = begin(final)
    try:
        yield partial
        finish(partial, final, made_from, notes)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def begin(final: Path) -> Path:
    """An empty hidden folder beside `final`, to be filled and given to `finish`."""
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish(
    partial: Path, final: Path, made_from: str, notes: Mapping[str, Any] | None = None
) -> None:
    """Seal what `begin` gave and give it its name."""
    seal(partial, made_from, notes)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _sync(final.parent)


def seal(folder: Path, made_from: str, notes: Mapping[str, Any] | None = None) -> None:
    """Write the manifest of everything in `folder`, last and atomically: the folder is finished."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            _sync(path)
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    content = {"fingerprint": made_from, "files": files, "notes": dict(notes or {})}
    write_json(folder / MANIFEST, content | {"sha256": fingerprint(content)})


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that `path` holds the old text or the new, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # Of a full disk it says no name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    partial.rename(path)
    _sync(path.parent)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished folder, None for an unfinished one. Reads no other file.

    Raises DamagedError where it is not what was written; a downloaded folder may hold any.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        if not path.is_file() or path.stat().st_size > LONGEST_MANIFEST:
            raise ValueError(f"it is no file of at most {LONGEST_MANIFEST} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        if content.pop("sha256", None) != fingerprint(content):
            raise ValueError("it was changed after it was written (SHA-256)")
        # A hash says that it is whole, not that it was written here.
        for name, entry in content["files"].items():
            if {type(entry["bytes"]), type(entry["sha256"])} != {int, str}:
                raise ValueError(f"{name} has no size and SHA-256")
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{name} is not in the folder")
        return Manifest(**content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"{path} cannot be read: {shown(str(error))}; delete {folder} and make or download it "
            "anew"
        ) from error


def verify(folder: Path) -> Manifest:
    """Check every file of a finished folder against its manifest.

    Raises DamagedError naming the first file that is missing, cut short or changed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise DamagedError(
            f"{folder} has no {MANIFEST}: it is unfinished or was not made by indexlm"
        )
    remedy = f"delete {folder} and make or download it anew"
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{path} is missing; {remedy}")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise DamagedError(f"{path} has {size} bytes, its manifest {entry['bytes']}; {remedy}")
        found = sha256_file(path)
        if found != entry["sha256"]:
            raise DamagedError(
                f"{path} was changed after it was written: its SHA-256 is {found[:12]}, in its "
                f"manifest {entry['sha256'][:12]}; {remedy}"
            )
    return manifest


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process. Raises UserError while another one works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder} is in use by another process; wait for it or name another --out"
            ) from error
        yield


class Metrics:
    """An append-only JSONL of one training stage, cut back to the checkpoint on resume."""

    def __init__(self, path: Path, first_step: int, *, writes: bool = True) -> None:
        """Keep the lines of steps before `first_step`, drop the rest: they will be made again.

        One that does not write, beside one that does, only knows what was `kept`.
        """
        self._file: IO[bytes] | None = None
        self.kept = [line for line in read_metrics(path) if line["step"] < first_step]
        if not writes:
            return
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(_line(entry) for entry in self.kept), encoding="utf-8")
        partial.rename(path)
        # Without a buffer, which would be written again, and fail again, when the process ends.
        self._file = path.open("ab", buffering=0)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Raises OSError, naming the file, where the disk is full."""
        if self._file is None:
            return
        line = _line(entry).encode()
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise OSError(
                f"{self._file.name} could not be written ({error.strerror}); make room, and the "
                "same command goes on from the newest checkpoint"
            ) from error

    def sync(self) -> None:
        """To the disk: a checkpoint that survives a power cut needs the steps before it."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; the last one may be cut by a kill and is then left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def start_logging(log_file: Path | None = None, *, quiet: bool = False) -> None:
    """Messages go to stderr, and to `log_file` with a clock; where `quiet`, only warnings."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.addHandler(logging.StreamHandler(sys.stderr))
    if log_file is not None:
        file = logging.FileHandler(log_file, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(file)


class Progress:
    """Percent, rate and time left of one piece of work, on one line of a terminal.

    Elsewhere (a log file, CI) a line every ten seconds.
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self.started = time.monotonic()
        self.terminal = sys.stderr.isatty() and log.level < logging.WARNING
        self.shown = self.started

    def advance(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.shown >= (0.2 if self.terminal else 10.0):
            self.shown = now
            self._show(now)

    def close(self) -> None:
        if self.terminal:
            sys.stderr.write("\r\x1b[K")

    def _show(self, now: float) -> None:
        # Totals can be estimates: more done than expected is all of it, not time before the start.
        share = min(self.done / max(self.total, 1), 1.0)
        left = (now - self.started) * (1 - share) / max(share, 1e-9)
        line = f"{self.label}: {share:4.0%} {self.done:,}/{self.total:,}, {clock(left)} left"
        if self.terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        else:
            log.info(line)


def clock(seconds: float) -> str:
    """65 -> 1:05, 3700 -> 1:01:40."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
