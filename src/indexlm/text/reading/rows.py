"""Rows of parquet files to records, a row group at a time.

Row groups can be read apart: of a damaged one the rows before the damage are kept, the others are
quarantined together, and reading goes on with the next.
"""

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from indexlm.errors import shown
from indexlm.text.document import Document
from indexlm.text.reading.files import CHUNK, COMPRESSED, Unpacked, UnpackError
from indexlm.text.reading.parsing import SHOWN, Reading, document_of
from indexlm.text.reading.quarantine import END, BadRecordError, Position, Quarantined
from indexlm.text.reading.readers import Item, empty

FIELDS = ("text", "id", "language", "lang", "tier", "source", "license")
BATCH_BYTES = 4_000_000
"""Bytes of rows that are taken out of a row group at a time, by its own account of their size."""
BATCH_ROWS = 256
"""Rows of a batch at most: one value of a dictionary can stand in any number of rows, which their
account does not show."""

_DAMAGE = (pyarrow.ArrowException, OSError, EOFError, UnicodeDecodeError)


def read_parquet(reading: Reading, start: Position | None) -> Iterator[Item]:
    """A document of each row, by the same fields as a line of jsonl.

    Positions: (row group, rows of it).
    """
    path = str(reading.file.path)
    with tempfile.TemporaryFile() as unpacked:
        try:
            table = _open(reading, unpacked)
        except (BadRecordError, UnpackError) as error:
            yield reading.lost(error, path, start), END
            return
        with table:
            if table.metadata.num_rows == 0:
                yield empty(reading), END
                return
            size = unpacked.tell() or reading.file.path.stat().st_size
            rows = _Rows(reading, table, size / table.metadata.num_rows)
            first, skipped = start or (0, 0)
            before = 0
            for group in range(table.num_row_groups):
                if group >= first:
                    yield from rows.group(group, skipped if group == first else 0, before)
                before += table.metadata.row_group(group).num_rows


def row_document(reading: Reading, content: bytes, number: int) -> Document:
    """The document of a parquet file of one row. Raises BadRecordError."""
    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as table:
            [batch] = table.iter_batches()
    except _DAMAGE as error:
        raise _damaged(error) from error
    return _document(reading, _row(batch, 0), number)


def _open(reading: Reading, unpacked: IO[bytes]) -> pyarrow.parquet.ParquetFile:
    """Raises BadRecordError for a file of which no row can be had, and UnpackError."""
    path = reading.file.path
    packed = path.suffix.lower() in COMPRESSED
    if packed:
        # Parquet is read from its end, which a packed stream cannot do.
        with Unpacked(path, reading.limits) as raw:
            while data := raw.read(CHUNK):
                unpacked.write(data)
            if raw.failure is not None:
                raise raw.failure
    try:
        table = pyarrow.parquet.ParquetFile(
            unpacked if packed else path,
            buffer_size=CHUNK,
            page_checksum_verification=True,
        )
        names = table.schema_arrow.names
    except _DAMAGE as error:
        raise _damaged(error) from error
    for name in FIELDS:
        if names.count(name) > 1:
            raise BadRecordError("duplicate_field", f"column {name}")
    if "text" not in names:
        columns = ", ".join(shown(name) for name in names[:SHOWN])
        raise BadRecordError("missing_text", f"columns {columns or 'none'}")
    return table


@dataclass(frozen=True)
class _Rows:
    """The rows of a file. Nothing is asked of its columns' metadata: where that is damaged, some
    versions of pyarrow (25.0 is one) end the process."""

    reading: Reading
    table: pyarrow.parquet.ParquetFile
    row_bytes: float
    """Bytes that a row takes in the file on average."""

    def group(self, group: int, skipped: int, before: int) -> Iterator[Item]:
        """The records of one row group behind the first `skipped`; `before` rows are before it."""
        count, row = self.table.metadata.row_group(group).num_rows, 0
        batches = self._batches(group)
        while row < count:
            try:
                batch = next(batches, None)
                if batch is None:
                    raise BadRecordError("damaged", "it holds fewer rows than it says")
            except BadRecordError as error:
                place = f"{self.reading.file.path}: rows {before + row + 1:,} to {before + count:,}"
                end = (group + 1, 0)
                yield self.reading.lost(error, place, (group, row), end), end
                return
            if row + batch.num_rows <= skipped:
                row += batch.num_rows
                continue
            for index, values in enumerate(_rows(batch)):
                row += 1
                if row > skipped:
                    record = _record(self.reading, batch, index, values, before + row)
                    yield record, (group, row)

    def _batches(self, group: int) -> Iterator[pyarrow.RecordBatch]:
        """Some rows at a time. Raises BadRecordError where no more can be had."""
        about, limits = self.table.metadata.row_group(group), self.reading.limits
        names = [name for name in FIELDS if name in self.table.schema_arrow.names]
        packed = int(self.row_bytes * about.num_rows)
        rows = BATCH_BYTES * about.num_rows // max(about.total_byte_size, 1)
        rows = min(max(rows, 1), BATCH_ROWS)
        unpacked = 0
        try:
            for batch in self.table.iter_batches(rows, [group], names, use_threads=False):
                unpacked += _size(batch.column("text"))
                if unpacked > limits.unpacked_bytes and unpacked > limits.unpacked_ratio * packed:
                    raise BadRecordError(
                        "unpacks_too_far",
                        f"row group {group} takes about {packed:,} bytes and unpacks to over "
                        f"{limits.unpacked_bytes:,}, more than {limits.unpacked_ratio:g} times as "
                        "many",
                    )
                yield batch
        except _DAMAGE as error:
            raise _damaged(error) from error


def _rows(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any] | BadRecordError]:
    try:
        columns = [_values(column) for column in batch.columns]
    except (ValueError, OverflowError):  # also for bytes that are not UTF-8
        columns = []
    for index in range(batch.num_rows):
        if columns:
            yield dict(zip(batch.schema.names, (column[index] for column in columns)))
            continue
        try:
            yield _row(batch, index)
        except BadRecordError as error:
            yield error


def _size(text: pyarrow.Array) -> int:
    """Bytes, however often a value of a dictionary stands in it."""
    if not isinstance(text, pyarrow.DictionaryArray) or not _is_string(text.type.value_type):
        return text.nbytes
    lengths = pyarrow.compute.binary_length(text.dictionary)
    return pyarrow.compute.sum(lengths.take(text.indices)).as_py() or 0


def _is_string(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _values(column: pyarrow.Array) -> list[Any]:
    """A value of a dictionary is made once, not for each row that has it."""
    if not isinstance(column, pyarrow.DictionaryArray):
        return column.to_pylist()
    values = column.dictionary.to_pylist()
    return [None if index is None else values[index] for index in column.indices.to_pylist()]


def _row(batch: pyarrow.RecordBatch, index: int) -> dict[str, Any]:
    row = {}
    for name, column in zip(batch.schema.names, batch.columns):
        try:
            row[name] = column[index].as_py()
        except UnicodeDecodeError as error:
            detail = f"`{name}` is not UTF-8 at byte {error.start}"
            raise BadRecordError("encoding", detail) from error
        except (ValueError, OverflowError) as error:
            raise BadRecordError("wrong_type", f"`{name}`: {error}") from error
    return row


def _record(
    reading: Reading,
    batch: pyarrow.RecordBatch,
    index: int,
    values: dict[str, Any] | BadRecordError,
    number: int,
) -> Document | Quarantined:
    try:
        if isinstance(values, BadRecordError):
            raise values
        return _document(reading, values, number)
    except BadRecordError as error:
        alone = io.BytesIO()
        table = pyarrow.Table.from_batches([batch.slice(index, 1)])
        pyarrow.parquet.write_table(table, alone)
        place = f"{reading.file.path}: row {number}"
        return reading.bad(error, place, number, alone.getvalue())


def _document(reading: Reading, values: dict[str, Any], number: int) -> Document:
    document = document_of(reading, values, number)
    longest = reading.limits.record_bytes
    if len(document.text) * 4 > longest and len(document.text.encode()) > longest:
        raise BadRecordError("too_long", f"over {longest:,} bytes: {shown(document.text[:60])}")
    return document


def _damaged(error: Exception) -> BadRecordError:
    """Raises the error itself where the disk, not the file, is at fault."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return BadRecordError("damaged", str(error).splitlines()[0] if str(error) else repr(error))
