"""One file of input: what it is by its name, and its bytes as they were before it was packed."""

import io
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from indexlm.config import ReadingConfig

KINDS = ("txt", "jsonl", "parquet")
COMPRESSED = (".gz", ".zst")
QUARANTINE = ".quarantine.jsonl.zst"
"""How the names of files end that hold quarantined records."""
KNOWN = "txt, jsonl or parquet, each also .gz or .zst"

CHUNK = 2**20
"""Bytes that are unpacked and held at a time."""
FEED = 2**16
"""Packed bytes that are read at a time."""
ZSTD_FEED = 2**10
"""Bytes that its decoder is given at a time. Unlike zlib's it has no bound for what it gives back,
and 4 bytes of a frame can stand for a block of 128 KiB: 1 KiB for 32 MiB."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file and what is known of its documents before it is opened.

    `kind` is one of KINDS or `quarantine`; `source` and `stem` begin the ids of its documents,
    `<source>/<stem>-<number>`; `license` is that of documents that do not state one.
    """

    path: Path
    kind: str
    source: str
    stem: str
    license: str = ""

    def as_row(self) -> dict[str, str]:
        """Plain values, for JSON."""
        return {**asdict(self), "path": str(self.path)}

    @staticmethod
    def from_row(row: dict[str, str]) -> "InputFile":
        return InputFile(**{**row, "path": Path(row["path"])})  # type: ignore[arg-type]


def kind_of(path: Path) -> str | None:
    """One of KINDS, `quarantine`, or None for anything else."""
    if path.name.lower().endswith(QUARANTINE):
        return "quarantine"
    ending = ending_of(path)
    kind = ending.split(".")[1] if ending else ""
    return kind if kind in KINDS else None


def ending_of(path: Path) -> str:
    """`.jsonl` or `.jsonl.gz` of a name."""
    suffixes = path.suffixes[-2:]
    packed = bool(suffixes) and suffixes[-1].lower() in COMPRESSED
    return "".join(suffixes if packed else suffixes[-1:]).lower()


class UnpackError(EOFError):
    """The rest of a packed file cannot be had; `reason` is one of quarantine.REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Unpacked(io.RawIOBase):
    """The bytes of a file from `offset` on, unpacked where its name says that it is packed.

    It ends where nothing more can be had; `failure` then says why, None at the true end. So what
    was unpacked before is not lost to whoever reads through a buffer. `limits` guards against
    files that unpack to far more than text does; without it they are unpacked however large.
    """

    def __init__(self, path: Path, limits: ReadingConfig | None, offset: int = 0) -> None:
        self.failure: UnpackError | None = None
        self._limits = limits
        self._packing = path.suffix.lower() if path.suffix.lower() in COMPRESSED else ""
        self._decoder: Any = None
        self._members = 0
        self._pending = b""
        self._ready = memoryview(b"")
        self._sizes = [0, 0]
        self._file = io.FileIO(path)
        if self._packing:
            self._skip(offset)
        else:
            self._file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._packing:
            return self._file.readinto(buffer)
        filled = 0
        with memoryview(buffer) as view:
            while filled < len(view):
                if not self._ready:
                    self._ready = memoryview(self._unpack())
                    if not self._ready:
                        break
                count = min(len(view) - filled, len(self._ready))
                view[filled : filled + count] = self._ready[:count]
                self._ready = self._ready[count:]
                filled += count
        return filled

    def close(self) -> None:
        self._file.close()
        super().close()

    def _skip(self, count: int) -> None:
        while count > 0 and (data := self._unpack()):
            self._ready = memoryview(data)[count:]
            count -= len(data)

    def _unpack(self) -> bytes:
        """Bytes that follow; none at the end and from a failure on."""
        while self.failure is None:
            packed = self._pending or self._file.read(FEED)
            self._pending = b""
            if self._decoder is None:
                ended = not packed
                if self._members:
                    # Tapes and block devices fill up with zeros.
                    packed = packed.lstrip(b"\0")
                if ended:
                    return b""
                if not packed:
                    continue
                self._decoder = _decoder(self._packing)
            data = self._feed(packed)
            if data:
                return data
        return b""

    def _feed(self, packed: bytes) -> bytes:
        step = _inflate if self._packing == ".gz" else _decompress
        try:
            data, self._pending = step(self._decoder, packed)
        except (zlib.error, zstandard.ZstdError) as error:
            self.failure = UnpackError("damaged", str(error))
            return b""
        if self._decoder.eof:
            self._decoder = None
            self._members += 1
        elif not packed and not data:
            what = "gzip member" if self._packing == ".gz" else "zstd frame"
            self.failure = UnpackError("cut_short", f"the file ends inside a {what}")
        self._sizes[0] += len(packed) - len(self._pending)
        self._sizes[1] += len(data)
        return data if self._within_limits() else b""

    def _within_limits(self) -> bool:
        packed, unpacked = self._sizes
        limits = self._limits
        if limits is None or unpacked <= limits.unpacked_bytes:
            return True
        if unpacked <= limits.unpacked_ratio * packed:
            return True
        self.failure = UnpackError(
            "unpacks_too_far",
            f"its first {packed:,} bytes unpack to over {limits.unpacked_bytes:,}, more than "
            f"{limits.unpacked_ratio:g} times as many",
        )
        return False


class _Raising(Unpacked):
    """It raises its failure instead of ending, for readers that do not look for one."""

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if count == 0 and self.failure is not None:
            raise self.failure
        return count


def open_packed(path: Path, limits: ReadingConfig | None = None) -> IO[bytes]:
    """The bytes of a file, unpacked by its name. Reading raises UnpackError where it is damaged,
    cut short, or unpacks beyond the limits."""
    return io.BufferedReader(_Raising(path, limits), CHUNK)


def _decoder(packing: str) -> Any:
    if packing == ".gz":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    return zstandard.ZstdDecompressor().decompressobj()


def _inflate(decoder: Any, packed: bytes) -> tuple[bytes, bytes]:
    """Up to CHUNK unpacked bytes, and the packed ones behind them."""
    data = decoder.decompress(packed, CHUNK)
    return data, decoder.unused_data if decoder.eof else decoder.unconsumed_tail


def _decompress(decoder: Any, packed: bytes) -> tuple[bytes, bytes]:
    """As `_inflate`; more than CHUNK where a little of zstd stands for much."""
    parts: list[bytes] = []
    size = 0
    for fed in range(ZSTD_FEED, len(packed) + ZSTD_FEED, ZSTD_FEED):
        parts.append(decoder.decompress(packed[fed - ZSTD_FEED : fed]))
        size += len(parts[-1])
        if decoder.eof:
            return b"".join(parts), decoder.unused_data + packed[fed:]
        if size >= CHUNK:
            return b"".join(parts), packed[fed:]
    return b"".join(parts), b""
