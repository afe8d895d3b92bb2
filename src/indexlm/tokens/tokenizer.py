"""Text to ids and back: a SentencePiece BPE model with the published special ids.

A tokenizer made here has identity normalisation, no dummy prefix and byte fallback:
`decode(encode(text)) == text` for any text without U+2581, SentencePiece's own mark of a space,
which comes back as a space. With any tokenizer `encode` never gives one of the five control ids,
whatever the text says and however the file stores their pieces.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.errors import UserError, shown
from indexlm.records import sha256_file

# Published ids: `<unk>` is also padding and the system marker, `<s>` is never used, `reserved_0`
# opens a user turn and `reserved_1` an assistant turn.
PAD = SYSTEM = UNK = 0
BOS = 1
EOS = 2
USER = 3
ASSISTANT = 4
SPECIAL_PIECES = ("<unk>", "<s>", "</s>", "reserved_0", "reserved_1")

FILE_NAME = "tokenizer.model"

LARGEST_FILE = 16 * 2**20
"""Bytes. 65,029 pieces take about 1 MB; what is read becomes several times as large in memory."""

_SURROGATE = re.compile("[\ud800-\udfff]")

log = logging.getLogger("indexlm")


def read_model(path: Path) -> Any:
    """The SentencePiece `ModelProto` as it is stored.

    Raises UserError where the file is missing, unreadable or has other pieces at ids 0 to 2.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from sentencepiece import sentencepiece_model_pb2

    if not path.is_file():
        raise UserError(f"no tokenizer at {path}; make one with `indexlm tokenizer train`")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise UserError(
            f"{path} is not a SentencePiece model: it has {size} bytes, at most {LARGEST_FILE} "
            "are read"
        )
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        pieces = tuple(piece.piece for piece in model.pieces)
    except (DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a SentencePiece model: {shown(str(error))}") from error
    if len(pieces) <= len(SPECIAL_PIECES):
        raise UserError(f"{path} is not a SentencePiece model: it has {len(pieces)} pieces")
    if pieces[:USER] != SPECIAL_PIECES[:USER]:
        raise UserError(
            f"{path} begins with the pieces {', '.join(map(shown, pieces[:USER]))}, an Index "
            f"tokenizer with "
            f"{SPECIAL_PIECES[:USER]}"
        )
    return model


def with_control_pieces(model: Any) -> Any:
    """Ids 0 to 4 as pieces that no text can spell.

    Files store ids 3 and 4 as other types, or under other texts; published programs hard-code the
    ids. As ordinary pieces a text could spell them, and forge a turn.
    """
    kinds = model.SentencePiece
    for index, text in enumerate(SPECIAL_PIECES):
        model.pieces[index].piece = text
        model.pieces[index].type = kinds.UNKNOWN if index == UNK else kinds.CONTROL
    return model


class Tokenizer:
    def __init__(self, path: Path) -> None:
        """Raises UserError where the file is missing, unreadable or has other special ids."""
        import sentencepiece

        model = with_control_pieces(read_model(path))
        self.processor = sentencepiece.SentencePieceProcessor()
        try:
            self.processor.LoadFromSerializedProto(model.SerializeToString())
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            # The last one: its complaint quotes a piece that is no text.
            raise UserError(f"{path} is not a SentencePiece model: {shown(str(error))}") from error
        self.path = path
        self.fingerprint = sha256_file(path)
        self._warned = False

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of a model folder or tokenizer folder."""
        return cls(folder / FILE_NAME)

    @property
    def vocab_size(self) -> int:
        return int(self.processor.GetPieceSize())

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: nothing is put before or after it, no control id inside.

        A tokenizer without byte fallback leaves out what it cannot spell, and warns once.
        Raises UserError for half of a UTF-16 pair, as a terminal gives it for bytes that are no
        UTF-8: it is no character and has no bytes to fall back to.
        """
        if _SURROGATE.search(text):
            raise UserError(f"{shown(text)} is not text in UTF-8; check how it was typed or read")
        ids: list[int] = self.processor.EncodeAsIds(text)
        return self._without_unknown(ids)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all processor threads."""
        return [self._without_unknown(row) for row in self._encode_raw(texts)]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`encode` of the texts as one array of ids, int32, and how many each text has, int64.

        On the calling thread alone, without Python's interpreter lock: callers bring the threads.
        """
        rows: list[np.ndarray] = self.processor.Encode(
            list(texts), return_type="numpy", num_threads=1
        )
        ids = np.concatenate([np.empty(0, np.int32), *rows])
        counts = np.array([len(row) for row in rows], np.int64)
        known = ids != UNK
        if not known.all():
            self._warn()
            before = np.concatenate(([0], np.cumsum(known)))
            counts = np.diff(before[np.cumsum(counts)], prepend=0)
            ids = ids[known]
        return ids, counts

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_all` where ids must pay for every character. Raises UserError for one that would
        be left out."""
        ids = self._encode_raw(texts)
        for text, row in zip(texts, ids):
            if UNK in row:
                raise UserError(
                    f"{self.path} has no pieces for some characters of {shown(text)} and no bytes "
                    "to fall back to: a likelihood would leave them out; take a tokenizer with "
                    "byte fallback"
                )
        return ids

    def _encode_raw(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.processor.Encode(list(texts), num_threads=0)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, control ids left out; an unfinished character shows as U+FFFD."""
        text: str = self.processor.DecodeIds([i for i in ids if i >= len(SPECIAL_PIECES)])
        return text

    def piece(self, index: int) -> str:
        return str(self.processor.IdToPiece(index))

    def byte_lengths(self) -> np.ndarray:
        """UTF-8 bytes of the text that each id stands for, [vocabulary]; 0 for control ids."""
        lengths = np.zeros(self.vocab_size, np.int64)
        for index in range(len(SPECIAL_PIECES), self.vocab_size):
            # U+2581 stands for a space.
            text = self.piece(index).replace("\u2581", " ")
            lengths[index] = 1 if self.processor.IsByte(index) else len(text.encode())
        return lengths

    def _without_unknown(self, ids: list[int]) -> list[int]:
        # As an input, the id of what cannot be spelled opens a system turn.
        if UNK not in ids:
            return ids
        self._warn()
        return [index for index in ids if index != UNK]

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                f"{self.path} has no pieces for some characters and no bytes to fall back to; "
                "they are left out"
            )
