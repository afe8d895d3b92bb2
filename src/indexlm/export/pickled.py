"""`pytorch_model.bin` read as data: the file that could run code when it is opened as intended.

It is a zip archive of stored records: `data.pkl` describes the tensors, `data/KEY` are their bytes.
The pickle is not unpickled. `_interpret` follows the few instructions that `torch.save` writes for
a dict of tensors and refuses every other one, so that no code can run. (`torch.load(weights_only=
True)` runs no code either, but a file can have it allocate any amount.)
"""

import io
import math
import pickletools
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from indexlm.errors import UserError, shown
from indexlm.export.places import LONGEST_HEADER, Place, are_sizes, damaged, read

STORAGES = {
    "torch BoolStorage": torch.bool,
    "torch ByteStorage": torch.uint8,
    "torch CharStorage": torch.int8,
    "torch ShortStorage": torch.int16,
    "torch IntStorage": torch.int32,
    "torch LongStorage": torch.int64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
}
ORDERED_DICT = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"


@dataclass(frozen=True)
class _Record:
    start: int
    size: int
    crc: int


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    length: int


@dataclass(frozen=True)
class _View:
    """A contiguous tensor in a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]


class _ShortReads(io.FileIO):
    """zipfile reads a directory whole, however long the archive says that it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        left = self.seek(0, io.SEEK_END) - at
        self.seek(at)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > LONGEST_HEADER:
            raise zipfile.BadZipFile(f"its directory takes {wanted} bytes")
        return super().read(wanted)


def read_pickled(path: Path) -> dict[str, Place]:
    """Tensor name -> place in one .bin file.

    Raises DamagedError for a file that is cut short or contradicts itself, UserError for one that
    would run code or holds something else than tensors.
    """
    records = _records(path)
    pickles = [name for name in records if re.fullmatch("[^/]+/data\\.pkl", name)]
    if len(pickles) != 1:
        damaged(path, f"it is an archive with {len(pickles)} data.pkl, not one of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = records.get(f"{root}byteorder")
    if order is not None and (order.size > 6 or _content(path, order) != b"little"):
        raise UserError(f"{path} was written on a big-endian machine; save it as safetensors there")
    description = records[pickles[0]]
    if description.size > LONGEST_HEADER:
        damaged(path, f"a pickle of {description.size} bytes; at most {LONGEST_HEADER} are read")
    places = {}
    for name, view in _state_dict(_content(path, description), path).items():
        storage, itemsize = view.storage, view.storage.dtype.itemsize
        record = records.get(f"{root}data/{storage.key}")
        if record is None or record.size != storage.length * itemsize:
            damaged(path, f"the bytes of tensor {shown(name)} are not all there")
        count = math.prod(view.shape)
        if view.offset + count > storage.length:
            damaged(path, f"tensor {shown(name)} is larger than its storage")
        crc = record.crc if count == storage.length else None
        start = record.start + view.offset * itemsize
        places[name] = Place(path, storage.dtype, view.shape, start, crc)
    _check_apart(places, path)
    return places


def _check_apart(places: Mapping[str, Place], path: Path) -> None:
    """Tensors may be one and the same (a tied head), else no byte belongs to two of them."""
    end = 0
    before: tuple[int, int] | None = None
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        span = (place.start, place.start + place.nbytes)
        if span != before and span[0] < end:
            damaged(path, f"tensor {shown(name)} overlaps the tensor before it")
        before, end = span, max(end, span[1])


def _records(path: Path) -> dict[str, _Record]:
    """Where the records of an archive lie; names, places and sizes are consistent."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise UserError(
                f"{path} is no zip archive, as torch.save writes since PyTorch 1.6; nothing of it "
                "was unpickled; take a safetensors file, or one saved by a newer PyTorch"
            )
    try:
        with _ShortReads(path) as reader, zipfile.ZipFile(reader) as archive:
            entries = archive.infolist()
    # What zipfile raises for directories that lie: it checks signatures, little else.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        damaged(path, f"its archive has no whole directory ({shown(str(error))})")
    size = path.stat().st_size
    records: dict[str, _Record] = {}
    with path.open("rb") as file:
        for info in entries:
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                damaged(path, f"{shown(info.filename)} is packed, which torch.save never does")
            if info.filename in records or not 0 <= info.header_offset <= size - 30:
                damaged(path, f"{shown(info.filename)} stands twice or outside the file")
            file.seek(info.header_offset)
            local = struct.unpack("<4s22xHH", file.read(30))
            start = info.header_offset + 30 + local[1] + local[2]
            if local[0] != b"PK\x03\x04" or start + info.file_size > size:
                damaged(path, f"{shown(info.filename)} lies outside the file")
            records[info.filename] = _Record(start, info.file_size, info.CRC)
    return records


def _content(path: Path, record: _Record) -> bytes:
    data = read(Place(path, torch.uint8, (record.size,), record.start, record.crc))
    return data.numpy().tobytes()


def _state_dict(data: bytes, path: Path) -> Mapping[str, _View]:
    try:
        content = _interpret(data, path)
    except UserError:
        raise
    # What instructions in a wrong order do to the stack, and wrong arguments to their readers.
    except (ValueError, IndexError, KeyError, TypeError) as error:
        damaged(path, f"its pickle makes no sense ({shown(str(error))})")
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _View):
            raise UserError(
                f"{path}: {shown(name)} is no tensor; save the model's state dict alone"
            )
    return content


_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None, "EMPTY_TUPLE": ()}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _interpret(data: bytes, path: Path) -> Any:
    """What a pickle of torch.save (protocol 2) describes, tensors as `_View`."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any
    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in ("TUPLE", "SETITEMS"):
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            if name == "TUPLE":
                stack.append(tuple(items))
            else:
                _set(stack[-1], items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set(stack[-1], [key, value])
        elif name == "GLOBAL":
            stack.append(_known(argument, path))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_made(function, arguments))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "BUILD":
            # The only state is `_metadata` of a state dict: versions of the modules.
            state, built = stack.pop(), stack[-1]
            if not isinstance(built, dict) or not isinstance(state, dict):
                raise ValueError("a state for what has none")
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise UserError(
                f"{path}: its pickle holds the instruction {name}, which torch.save does not "
                "write for a dict of tensors; nothing was run; take a safetensors file"
            )
    raise ValueError("it has no end")


def _known(name: str, path: Path) -> _Global:
    if name not in {ORDERED_DICT, TENSOR, PARAMETER, *STORAGES}:
        called = shown(name.replace(" ", "."))
        raise UserError(
            f"{path} is refused: unpickling it would use {called}, and a dict of tensors needs "
            "no such thing; nothing was run; take a safetensors file"
        )
    return _Global(name)


def _made(function: Any, arguments: Any) -> Any:
    if function == _Global(ORDERED_DICT) and arguments == ():
        return {}
    if function == _Global(PARAMETER) and isinstance(arguments[0], _View):
        return arguments[0]
    if function != _Global(TENSOR):
        raise ValueError("a call that makes no tensor")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, _Storage) or not are_sizes((offset,)):
        raise ValueError("a tensor without bytes")
    if not are_sizes(shape) or not are_sizes(strides) or len(shape) != len(strides):
        raise ValueError("a tensor without a shape")
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != step:
            raise ValueError(f"a tensor of shape {shape} that is not stored row by row")
        step *= size
    return _View(storage, offset, shape)


def _storage(reference: Any) -> _Storage:
    tag, kind, key, _, length = reference
    if tag != "storage" or not isinstance(kind, _Global) or kind.name not in STORAGES:
        raise ValueError("a storage of unknown type")
    if not isinstance(key, str) or not are_sizes((length,)):
        raise ValueError("a storage without a name or length")
    return _Storage(STORAGES[kind.name], key, length)


def _set(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("items for what is no dict")
    for key, value in zip(items[::2], items[1::2]):
        if not isinstance(key, str) or key in target:
            raise ValueError("a key that is no name or stands twice")
        target[key] = value
