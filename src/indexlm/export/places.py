"""One tensor in a weight file: where its bytes lie, and reading them.

A place is made by a reader of a file format once it knows that the file is long enough.
"""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from indexlm.errors import DamagedError, shown

LONGEST_HEADER = 8 * 2**20
"""Bytes of a header, index, config or pickle. The 327 tensors of the released shape take 40 kB;
the 100 MB that safetensors allows could become 3 GB of empty Python dicts."""


@dataclass(frozen=True)
class Place:
    """Where one tensor lies: row by row, little-endian, from byte `start` of `file`."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    crc: int | None = None
    """CRC-32 of its bytes, where the file holds one."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read(place: Place) -> Tensor:
    """One whole tensor, as stored. Raises DamagedError where its bytes are not what they were."""
    flat = _elements(place, 0, math.prod(place.shape))
    if place.crc is not None and zlib.crc32(_bytes_of(flat)) != place.crc:
        damaged(place.file, "a tensor was changed after it was written (CRC-32)")
    return flat.view(place.shape)


def read_finite(place: Place, name: str) -> Tensor:
    """The whole tensor `name`. Raises DamagedError also where NaN or infinity is in it."""
    tensor = read(place)
    if tensor.is_floating_point() and not math.isfinite(largest(tensor)):
        damaged(
            place.file,
            f"tensor {shown(name)} holds NaN or infinity, as after a training that diverged",
        )
    return tensor


def largest(tensor: Tensor) -> float:
    """The largest absolute value; NaN where one is among the values.

    At the released size 0.5 s on two cores; `isfinite` of each value takes 10 s and memory.
    """
    return float(max(map(abs, torch.aminmax(tensor))))


def read_rows(place: Place, first: int, last: int) -> Tensor:
    """Rows first..last-1 of a matrix, [last - first, width]."""
    rows, width = place.shape
    assert 0 <= first <= last <= rows
    return _elements(place, first * width, last * width).view(last - first, width)


def damaged(path: Path, what: str) -> NoReturn:
    raise DamagedError(f"{path} cannot be used: {what}; fetch it again")


def are_sizes(value: Any) -> bool:
    """Whether it is a list of sizes, as a machine can have them: products stay small numbers."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= 8
        and all(type(size) is int and 0 <= size < 2**48 for size in value)
    )


def _elements(place: Place, first: int, last: int) -> Tensor:
    flat = torch.empty(last - first, dtype=place.dtype)
    with place.file.open("rb", buffering=0) as file:
        file.seek(place.start + first * place.dtype.itemsize)
        left = _bytes_of(flat)
        while len(left):
            count = file.readinto(left)
            if not count:
                damaged(place.file, "it became shorter while it was read")
            left = left[count:]
    return flat


def _bytes_of(flat: Tensor) -> memoryview:
    return flat.view(torch.uint8).numpy().data
