"""Bilingual text of any size out of what a user has, with planted truth.

Where the source is smaller than the text that is asked for, new documents are made: their lengths
are drawn from the lengths of a file of the source, their text from its clauses, one by one and at
random. A clause has at most 60 bytes, so that two made documents share single clauses and no
passage; `planted` lays copies, junk and the like among them, and what is laid is known.
"""

import gzip
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

MIN_PIECES = 4
"""Clauses of the shortest made document: of two or three, chance would make the same again."""
_HAN = re.compile(r"[\u3400-\u9fff]")
_PIECES = {
    "zh": re.compile(r".{6,16}?[，。；：？！、\n]\s*|.{17}", re.DOTALL),
    "en": re.compile(r".{20,48}?\s+|.{48}", re.DOTALL),
}


@dataclass(frozen=True)
class Pool:
    """What one file of the source gives: its documents in one language, and their clauses."""

    language: str
    texts: list[str]
    sizes_N: NDArray[np.int64]
    """Bytes of each document."""
    pieces: list[str]
    piece_sizes_P: NDArray[np.int64]

    @cached_property
    def average_piece(self) -> float:
        return float(self.piece_sizes_P.mean())


def language_of(text: str) -> str:
    """`zh` or `en`, by the beginning of the text."""
    beginning = text[:1000]
    return "zh" if len(_HAN.findall(beginning)) > 0.3 * len(beginning) else "en"


def read_pools(folder: Path | None, downloads: Path) -> list[Pool]:
    """The files of a folder (txt and jsonl, each also .gz or .zst), or the starter corpus."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, text in _starter(downloads) if folder is None else _files(folder):
        groups.setdefault((name, language_of(text)), []).append(text)
    pools = [_pool(language, texts) for (_, language), texts in sorted(groups.items())]
    found = [pool for pool in pools if len(pool.pieces) >= 1000]
    if not found:
        raise SystemExit(f"{folder}: no file with enough text; txt or jsonl with a field `text`")
    return found


def made(pool: Pool, generator: np.random.Generator, least_bytes: int = 0) -> str:
    """A document of the pool's clauses, of about the length of some document of the pool."""
    size = max(int(generator.choice(pool.sizes_N)), least_bytes)
    return clauses(pool, size, generator).strip()


def clauses(pool: Pool, size: int, generator: np.random.Generator) -> str:
    """Clauses of the pool in random order, of about `size` bytes."""
    count = int(size / pool.average_piece * 1.3) + 2 * MIN_PIECES
    drawn = generator.integers(len(pool.pieces), size=count)
    ends = np.cumsum(pool.piece_sizes_P[drawn])
    count = max(int(np.searchsorted(ends, size)), MIN_PIECES)
    return "".join([pool.pieces[index] for index in drawn[:count].tolist()])


def chosen_pool(pools: list[Pool], generator: np.random.Generator) -> Pool:
    """Pools in proportion to their documents, so that their shares of the bytes stay."""
    weights = np.array([len(pool.texts) for pool in pools], dtype=float)
    return pools[int(generator.choice(len(pools), p=weights / weights.sum()))]


def real_bytes(pools: list[Pool]) -> int:
    return sum(int(pool.sizes_N.sum()) for pool in pools)


def real_documents(pools: list[Pool], size: int, generator: np.random.Generator) -> Iterator[str]:
    """Documents of the source itself, at random: `size` bytes of them, or all."""
    places = [(n, index) for n, pool in enumerate(pools) for index in range(len(pool.texts))]
    given = 0
    for chosen in generator.permutation(len(places)).tolist():
        number, index = places[chosen]
        given += int(pools[number].sizes_N[index])
        if given > size:
            return
        yield pools[number].texts[index]


def open_text(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8")
    if path.suffix == ".zst":
        return io.TextIOWrapper(zstandard.open(path, "rb"), encoding="utf-8")
    return path.open(encoding="utf-8")


def _pool(language: str, texts: list[str]) -> Pool:
    pieces = _PIECES[language].findall("\n".join(texts))
    return Pool(
        language,
        texts,
        np.array([len(text.encode()) for text in texts]),
        pieces,
        np.array([len(piece.encode()) for piece in pieces]),
    )


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        kind = path.name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
        if kind not in ("jsonl", "txt"):
            continue
        with open_text(path) as file:
            if kind == "txt":
                texts = re.split(r"\n\s*\n\s*\n", file.read())
            else:
                texts = [json.loads(line)["text"] for line in file]
        yield from ((path.name, text) for text in texts if text.strip())


def _starter(downloads: Path) -> Iterator[tuple[str, str]]:
    from indexlm.text.reading.starter import read_starter

    for document, _ in read_starter(downloads):
        yield document.source, document.text
