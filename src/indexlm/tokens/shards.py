"""Token ids on disk: arrays that are mapped, not read, and the tokenizer they belong to.

A document is `encode(text) + [</s>]`. The folder carries the tokenizer's hash: ids made by
another tokenizer are a different language, and loading them is an error naming both hashes.
A source `<name>`, most often `<language>_<tier>`, is three little-endian arrays:

    <name>.ids      [tokens] uint16, uint32 where the vocabulary is larger than 65,536
    <name>.offsets  [documents + 1] int64: where each document begins, and where the last one ends
    <name>.origins  [documents] uint32: where each document came from, by its place in the
                    source's `origins` in the catalogue
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.errors import DamagedError, UserError
from indexlm.text.document import TIERS
from indexlm.tokens.tokenizer import Tokenizer

CATALOGUE = "sources.json"
IDS, OFFSETS, ORIGINS = ".ids", ".offsets", ".origins"


@dataclass(frozen=True)
class Shard:
    """Ids of one source, [tokens], and document borders, [documents + 1]."""

    name: str
    ids: np.ndarray
    offsets: np.ndarray
    origins: np.ndarray | None = None
    """[documents], into `origin_names`."""
    origin_names: tuple[str, ...] = ()

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, its `</s>` included."""
        return np.diff(self.offsets)

    def origin(self, document: int) -> str:
        """The source that the text's maker named, empty where there was none."""
        return "" if self.origins is None else self.origin_names[self.origins[document]]


def read_shards(folder: Path, tokenizer: Tokenizer) -> dict[str, Shard]:
    """Map every source of a tokens folder that has a document.

    Raises UserError for another tokenizer's ids and for a folder of something else, DamagedError
    for a file of the wrong size; other damage shows in `records.verify`.
    """
    catalogue = read_catalogue(folder)
    if catalogue["tokenizer"] != tokenizer.fingerprint:
        raise UserError(
            f"{folder} was encoded by tokenizer {catalogue['tokenizer'][:12]}, the one at hand is "
            f"{tokenizer.fingerprint[:12]}; encode the text again with `indexlm data tokens`"
        )
    shards = {}
    for name, size in catalogue["sources"].items():
        documents = size["documents"]
        if documents == 0:
            # It has no row to give, and an empty file cannot be mapped.
            continue
        ids = _mapped(folder / f"{name}{IDS}", np.dtype(catalogue["dtype"]), size["tokens"])
        # What is looked up one by one: a memmap makes an object of every number it gives.
        offsets = _mapped(folder / f"{name}{OFFSETS}", np.dtype(np.int64), documents + 1)
        origins = _mapped(folder / f"{name}{ORIGINS}", np.dtype(np.uint32), documents)
        shards[name] = Shard(
            name, ids, np.asarray(offsets), np.asarray(origins), tuple(size["origins"])
        )
    return shards


def read_catalogue(folder: Path) -> dict[str, Any]:
    """What a tokens folder holds: `tokenizer`, `dtype`, and by source its `documents`, `tokens`,
    `bytes` of text, `language`, `tier` and `origins`. Raises UserError for another folder."""
    path = folder / CATALOGUE
    if not path.is_file():
        raise UserError(f"{folder} holds no tokens; give the --out of `indexlm data tokens`")
    catalogue: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return catalogue


def labels_of(name: str) -> tuple[str, str] | tuple[None, None]:
    """Language and tier of a source by its name; a source of records has none."""
    language, _, tier = name.rpartition("_")
    return (language, tier) if language and tier in TIERS else (None, None)


def group_files(folder: Path) -> dict[str, list[Path]]:
    """The text files of a folder by source.

    `<name>.jsonl.zst` is a source, and so are all `<name>.<number>.jsonl.zst` in the order of
    their names.
    """
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.jsonl.zst")):
        groups.setdefault(path.name.split(".")[0], []).append(path)
    return groups


def training_files(text: Path) -> dict[str, list[Path]]:
    """What a refined folder has for training, by source: documents, and the `instruction` records
    that were made of them."""
    records = {"instruction": group_files(text).get("instruction", [])}
    return group_files(text / "train") | (records if records["instruction"] else {})


def _mapped(path: Path, dtype: np.dtype[Any], count: int) -> np.ndarray:
    size = path.stat().st_size if path.is_file() else 0
    if size != count * dtype.itemsize:
        raise DamagedError(
            f"{path} has {size} bytes, {count * dtype.itemsize} were written; delete "
            f"{path.parent} and encode the text again with `indexlm data tokens`"
        )
    return np.memmap(path, dtype, mode="r")
