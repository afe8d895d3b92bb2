"""Names that are unique in a corpus: of documents that came with the same one, later get `#2`...

Names are compared by hash, range by range of it, so that no process holds them all; only names that
occur more than once are looked at. A document's number is shard << 32 | index: the order of input.

Shapes: N documents of a shard, M documents whose hashes lie in a range.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexlm.text.shards import open_shard

Uint64s = NDArray[np.uint64]


def write_hashes(path: Path, ids: Sequence[str]) -> None:
    """[2, N]: the hashes of the names without their `#2`, sorted, and whose they are."""
    hashes_N = np.array([_hash(_base(name)) for name in ids], dtype=np.uint64)
    order_N = np.argsort(hashes_N, kind="stable")
    with path.open("wb") as file:
        np.save(file, np.stack([hashes_N[order_N], order_N.astype(np.uint64)]))


def renamed(
    hash_files: Sequence[Path], shards: Sequence[Path], part: int, parts: int
) -> list[tuple[int, str]]:
    """Documents of one of `parts` ranges of hashes that need another name: number, new name."""
    hashes_M, numbers_M = slices(hash_files, part, parts)
    order_M = np.lexsort((numbers_M, hashes_M))
    hashes_M, numbers_M = hashes_M[order_M], numbers_M[order_M]
    borders = np.flatnonzero(hashes_M[1:] != hashes_M[:-1]) + 1
    found: list[tuple[int, str]] = []
    for start, end in zip([0, *borders.tolist()], [*borders.tolist(), len(hashes_M)]):
        if end - start > 1:
            numbers = numbers_M[start:end].tolist()
            names = [open_shard(shards[n >> 32]).name(n & 0xFFFFFFFF) for n in numbers]
            found += [(n, new) for n, name, new in zip(numbers, names, _free(names)) if new != name]
    return sorted(found)


def slices(hash_files: Sequence[Path], part: int, parts: int) -> tuple[Uint64s, Uint64s]:
    """What the files of all shards hold in a range of hashes, with the documents' numbers."""
    low = (part << 64) // parts
    high = ((part + 1) << 64) // parts
    hashes, numbers = [], []
    for shard, file in enumerate(hash_files):
        both_N = np.load(file, mmap_mode="r", allow_pickle=False)
        start = np.searchsorted(both_N[0], np.uint64(low))
        end = np.searchsorted(both_N[0], np.uint64(high - 1), side="right")
        hashes.append(np.array(both_N[0, start:end]))
        numbers.append(np.array(both_N[1, start:end]) | np.uint64(shard << 32))
    return np.concatenate(hashes), np.concatenate(numbers)


def _free(names: Sequence[str]) -> Iterator[str]:
    """Each name itself, or the first of `name#2`, `name#3`, ... that none before it has."""
    taken: set[str] = set()
    repeats: dict[str, Iterator[int]] = {}
    for name in names:
        new = name
        while new in taken:
            new = f"{name}#{next(repeats.setdefault(name, itertools.count(2)))}"
        taken.add(new)
        yield new


def _base(name: str) -> str:
    return re.sub(r"(?:#\d+)+$", "", name)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
