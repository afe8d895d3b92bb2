"""Text to ids and back: a SentencePiece BPE model with the published special ids.

Identity normalisation, no dummy prefix, byte fallback: `decode(encode(text)) == text` for any
text without U+2581, SentencePiece's own mark of a space, which comes back as a space. `encode`
never gives one of the five control ids, whatever the text says.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from indexlm.errors import UserError
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

_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    def __init__(self, path: Path) -> None:
        """Raises UserError where the file is missing, unreadable or has other special ids."""
        import sentencepiece

        if not path.is_file():
            raise UserError(f"no tokenizer at {path}; make one with `indexlm tokenizer train`")
        self.processor = sentencepiece.SentencePieceProcessor()
        try:
            self.processor.LoadFromFile(str(path))
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path} is not a SentencePiece model: {error}") from error
        self.path = path
        self.fingerprint = sha256_file(path)
        pieces = tuple(self.processor.IdToPiece(i) for i in range(len(SPECIAL_PIECES)))
        if pieces != SPECIAL_PIECES:
            raise UserError(f"{path} begins with {pieces}, expected {SPECIAL_PIECES}")

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of a model folder or tokenizer folder."""
        return cls(folder / FILE_NAME)

    @property
    def vocab_size(self) -> int:
        return int(self.processor.GetPieceSize())

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: nothing is put before or after it, no control id inside.

        Raises UserError for half of a UTF-16 pair, as a terminal gives it for bytes that are no
        UTF-8: it is no character and has no bytes to fall back to.
        """
        if _SURROGATE.search(text):
            raise UserError(f"{text!r} is not text in UTF-8; check how it was typed or read")
        ids: list[int] = self.processor.EncodeAsIds(text)
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all processor threads."""
        ids: list[list[int]] = self.processor.Encode(list(texts), num_threads=0)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, control ids left out; an unfinished character shows as U+FFFD."""
        text: str = self.processor.DecodeIds([i for i in ids if i >= len(SPECIAL_PIECES)])
        return text

    def piece(self, index: int) -> str:
        return str(self.processor.IdToPiece(index))
