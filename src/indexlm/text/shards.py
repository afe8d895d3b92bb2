"""Shards: about 16 MB of documents in an Arrow file that is mapped, not read.

What one process writes any other can look into at any place: the text of one document among
billions costs a page of disk, which is what makes it possible to compare documents by their text.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from indexlm.text.document import FIELDS, Columns, Document

OPEN_FILES = 256
"""Shards that one process has mapped at a time."""


def write_shard(path: Path, documents: Sequence[Document], entries: Sequence[str]) -> None:
    """Documents column by column; `entries` are the JSON of their parts, empty for most."""
    columns: dict[str, list[str]] = {
        name: [getattr(document, name) for document in documents] for name in FIELDS
    }
    write_columns(path, columns | {"entry": list(entries)})


def write_columns(path: Path, columns: Columns) -> None:
    """Columns as one uncompressed record batch: equal columns give equal bytes."""
    arrays = {
        # Of an empty list no type can be told.
        name: pa.array(values, pa.string()) if list(values[:1]) in ([], [""]) else pa.array(values)
        for name, values in columns.items()
    }
    table = pa.table(arrays)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(len(table), 1))


def read_columns(path: Path) -> pa.Table:
    """The columns, mapped."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


class ShardFile:
    """The documents of one shard."""

    def __init__(self, path: Path) -> None:
        self._table = read_columns(path)
        # The one batch that was written: joining chunks would copy what is mapped.
        [self._text] = self._table.column("text").chunks or [pa.array([], pa.string())]

    def __len__(self) -> int:
        return len(self._table)

    def documents(self) -> Iterator[Document]:
        """Every document, in order."""
        for batch in self._table.select(list(FIELDS)).to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                yield Document(**row)

    def column(self, name: str) -> list[Any]:
        return self._table.column(name).to_pylist()

    def name(self, index: int) -> str:
        """The id of one document."""
        return self._table.column("id")[index].as_py()

    def text(self, index: int) -> str:
        return self._text[index].as_py()

    def text_bytes(self, index: int) -> bytes:
        return self._text[index].as_buffer().to_pybytes()


@lru_cache(maxsize=OPEN_FILES)
def open_shard(path: Path) -> ShardFile:
    """The same file opened again is still open."""
    return ShardFile(path)
