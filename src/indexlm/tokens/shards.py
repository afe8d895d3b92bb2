"""Token ids on disk: one memory-mapped array per source, and where its documents begin.

A document is `encode(text) + [</s>]`. The folder carries the tokenizer's hash: ids made by
another tokenizer are a different language, and loading them is an error naming both hashes.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.errors import UserError
from indexlm.records import Progress, write_json
from indexlm.tokens.tokenizer import EOS, Tokenizer

CATALOGUE = "sources.json"


@dataclass(frozen=True)
class Shard:
    """Ids of one source, [tokens], and document borders, [documents + 1]."""

    name: str
    ids: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, its `</s>` included."""
        return np.diff(self.offsets)


def write_shards(
    texts: Mapping[str, Iterable[str]], tokenizer: Tokenizer, folder: Path, total_bytes: int
) -> dict[str, Any]:
    """Encode each source into `folder`; returns the catalogue, by source."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    progress = Progress("tokens", total_bytes)
    sources: dict[str, dict[str, int]] = {}
    for name, documents in texts.items():
        offsets, size = [0], 0
        with (folder / f"{name}.ids").open("wb") as file:
            rest = iter(documents)
            while some := list(islice(rest, 2000)):
                for ids in tokenizer.encode_all(some):
                    np.asarray([*ids, EOS], dtype).tofile(file)
                    offsets.append(offsets[-1] + len(ids) + 1)
                read = sum(len(text.encode()) for text in some)
                size += read
                progress.advance(read)
        np.save(folder / f"{name}.offsets.npy", np.asarray(offsets, np.int64))
        sources[name] = {"documents": len(offsets) - 1, "tokens": offsets[-1], "bytes": size}
    progress.close()
    catalogue = {
        "tokenizer": tokenizer.fingerprint,
        "dtype": np.dtype(dtype).name,
        "sources": sources,
    }
    write_json(folder / CATALOGUE, catalogue)
    return catalogue


def read_shards(folder: Path, tokenizer: Tokenizer) -> dict[str, Shard]:
    """Map every source of a tokens folder. Raises UserError for another tokenizer's ids."""
    catalogue = json.loads((folder / CATALOGUE).read_text(encoding="utf-8"))
    if catalogue["tokenizer"] != tokenizer.fingerprint:
        raise UserError(
            f"{folder} was encoded by tokenizer {catalogue['tokenizer'][:12]}, the one at hand is "
            f"{tokenizer.fingerprint[:12]}; encode the text again with `indexlm data tokens`"
        )
    shards = {}
    for name in catalogue["sources"]:
        offsets = np.load(folder / f"{name}.offsets.npy", allow_pickle=False)
        if len(offsets) > 1:
            ids = np.memmap(folder / f"{name}.ids", catalogue["dtype"], mode="r")
            shards[name] = Shard(name, ids, offsets)
    return shards
