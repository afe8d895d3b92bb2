"""Weight files in and out. What is read is read as data: nothing in it is trusted.

A folder holds `model.safetensors` or `pytorch_model.bin`, or shards of one of them behind an index.
`catalogue` says where the bytes of every tensor lie, of what type and shape, after it has checked
that they are there; `places.read` then takes one tensor from its place. A size that a file merely
claims is never allocated: every claim is first held against the length of the file.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from indexlm.errors import UserError, shown
from indexlm.export.pickled import read_pickled
from indexlm.export.places import LONGEST_HEADER, Place, are_sizes, damaged, largest
from indexlm.records import write_json

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
INDEX = ".index.json"
FILES = (SAFETENSORS, SAFETENSORS + INDEX, PICKLE, PICKLE + INDEX)
"""Where weights are looked for, in this order."""
SHARD_BYTES = 4 * 2**30
"""Tensors in one file that is written, unless one alone is longer."""

# Names of the safetensors format.
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}

_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_POINTER = b"version https://git-lfs"


def write(
    tensors: Mapping[str, Tensor], folder: Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write `model.safetensors` cast to `dtype`, or shards of it behind an index.

    Where nothing is cast, no tensor is copied; else one file's tensors at a time. Raises UserError
    for a weight that is no number or that the dtype cannot hold.
    """
    for name, tensor in tensors.items():
        check_fits(name, tensor, dtype)
    sizes = {name: tensor.numel() * dtype.itemsize for name, tensor in tensors.items()}
    files = _files(sizes, shard_bytes)
    for file, names in files.items():
        # The tensors of one file must be gone before those of the next are cast.
        save_file({name: tensors[name].to(dtype) for name in names}, folder / file)
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_json(folder / (SAFETENSORS + INDEX), index)


def check_fits(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raises UserError where NaN or infinity is in `tensor`, or more than `dtype` can hold."""
    value = largest(tensor)
    if not math.isfinite(value):
        raise UserError(
            f"{name} holds NaN or infinity: no model computes with that; take the weights from "
            "before the training diverged"
        )
    if not value <= torch.finfo(dtype).max:
        raise UserError(f"{name} holds {value:g}, too much for {dtype}; choose bfloat16")


def save_file(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """One safetensors file, readable by whom the umask lets: the library makes it private."""
    from safetensors.torch import save_file as save

    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save(contiguous, path, metadata={"format": "pt", **(metadata or {})})
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _files(sizes: Mapping[str, int], limit: int) -> dict[str, list[str]]:
    """File name -> tensor names, in order, each file filled up to `limit` bytes."""
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    if len(shards) == 1:
        return {SAFETENSORS: shards[0]}
    return {
        f"model-{number:05}-of-{len(shards):05}.safetensors": names
        for number, names in enumerate(shards, start=1)
    }


def entry(folder: Path) -> Path:
    """The weight file of a model folder, or the index of its shards. Raises UserError for none."""
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds no weights; expected one of {', '.join(FILES)}")


def catalogue(folder: Path) -> dict[str, Place]:
    """Tensor name -> place, for all weight files of a folder; reads headers only.

    Raises DamagedError naming the file that is cut short, contradicts itself or its index, and
    UserError for one that is of another kind or would run code.
    """
    path = entry(folder)
    return _sharded(path) if path.name.endswith(INDEX) else tensors_of(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in which every key stands once. Raises DamagedError naming the file."""
    if not path.is_file():
        damaged(path, "there is no such file")
    if path.stat().st_size > LONGEST_HEADER:
        damaged(path, f"it has {path.stat().st_size} bytes, at most {LONGEST_HEADER} are read")
    return _parse(path.read_bytes(), path)


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(
            data.decode("utf-8"), object_pairs_hook=_keys_once, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        damaged(path, f"it is not JSON ({shown(str(error))})")
    if not isinstance(content, dict):
        damaged(path, "it is no JSON object")
    return content


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return content


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _sharded(path: Path) -> dict[str, Place]:
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        damaged(path, f"weight_map={shown(files)} is no table of tensor names and files")
    suffix = Path(path.name.removesuffix(INDEX)).suffix
    for file in files.values():
        if not (isinstance(file, str) and _SHARD.fullmatch(file) and file.endswith(suffix)):
            damaged(path, f"{shown(file)} is not the name of a {suffix} file beside it")
    places: dict[str, Place] = {}
    for file in sorted(set(files.values())):
        for name, place in tensors_of(path.parent / file).items():
            if files.get(name) != file:
                stated = shown(files[name]) if name in files else "no file"
                damaged(path, f"{shown(name)} is in {file}, the index says {stated}")
            places[name] = place
    for name in files:
        if name not in places:
            damaged(path, f"{shown(name)} is not in {files[name]}, as the index says")
    return places


def tensors_of(path: Path) -> dict[str, Place]:
    if not path.is_file():
        damaged(path, "there is no such file")
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(
                f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder"
            )
    return _safetensors(path) if path.suffix == ".safetensors" else read_pickled(path)


# safetensors: 8 bytes with the length of the header, a JSON header, the tensors end to end.


def _safetensors(path: Path) -> dict[str, Place]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            damaged(path, f"it has {size} bytes and claims a header of {length}")
        if length > LONGEST_HEADER:
            damaged(path, f"a header of {length} bytes; at most {LONGEST_HEADER} are read")
        header = _parse(file.read(length), path)
    header.pop("__metadata__", None)
    start = 8 + length
    spans = sorted(_span(name, stated, path) for name, stated in header.items())
    end = 0
    for first, last, name in spans:
        if first != end:
            how = "overlaps the tensor before it" if first < end else "leaves a gap before it"
            damaged(path, f"tensor {shown(name)} {how}")
        end = last
    if start + end != size:
        damaged(path, f"its tensors end at byte {start + end}, the file at {size}")
    return {
        name: Place(
            path, DTYPES[header[name]["dtype"]], tuple(header[name]["shape"]), start + first
        )
        for first, _, name in spans
    }


def _span(name: str, stated: Any, path: Path) -> tuple[int, int, str]:
    """First byte, end and name of a tensor, once its entry is known to make sense."""
    if not isinstance(stated, dict) or stated.keys() != {"dtype", "shape", "data_offsets"}:
        damaged(path, f"tensor {shown(name)} has the entry {shown(stated)}")
    kind, shape, offsets = stated["dtype"], stated["shape"], stated["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        damaged(path, f"tensor {shown(name)} is of unknown dtype {shown(kind)}")
    if not are_sizes(shape):
        damaged(path, f"tensor {shown(name)} has a shape that is no list of sizes")
    if not are_sizes(offsets) or len(offsets) != 2:
        damaged(path, f"tensor {shown(name)} has data_offsets that are no two places")
    first, last = offsets
    if last - first != math.prod(shape) * DTYPES[kind].itemsize:
        damaged(path, f"tensor {shown(name)} takes {last - first} bytes, not what its shape needs")
    return first, last, name
