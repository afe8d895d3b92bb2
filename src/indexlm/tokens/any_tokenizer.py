"""Tokenizers of any maker behind one form: ids, and the characters that each id stands for.

SentencePiece models and files of the tokenizers library are opened as they are, with their own
normalisation and whatever they put before a text; only markers such as `<s>` are left out.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from indexlm.errors import UserError, shown
from indexlm.tokens.tokenizer import FILE_NAME

if TYPE_CHECKING:
    import tokenizers

JSON_NAME = "tokenizer.json"
KNOWN = f"a folder with {FILE_NAME} or {JSON_NAME}, a SentencePiece .model, or a {JSON_NAME}"


class Encoded(NamedTuple):
    """A text as ids, and for each the characters it covers as (begin, end)."""

    ids: list[int]
    spans: list[tuple[int, int]]


class AnyTokenizer(Protocol):
    """What a tokenizer must answer to be reported on."""

    kind: str
    unknown: int | None
    """The id of what cannot be spelled, None where there is none."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> list[Encoded]: ...

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]: ...


class SentencePieceModel:
    kind = "sentencepiece"

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.unknown: int | None = processor.unk_id()

    @property
    def vocab_size(self) -> int:
        return int(self._processor.GetPieceSize())

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        rows = self._processor.Encode(list(texts), return_type="offset_mapping", num_threads=0)
        return [Encoded(row["ids"], self._whole(row["ids"], row["offsets"])) for row in rows]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        texts: list[str] = self._processor.Decode([list(row) for row in rows])
        return texts

    @cached_property
    def _bytes(self) -> list[bool]:
        return [self._processor.IsByte(index) for index in range(self.vocab_size)]

    def _whole(self, ids: list[int], spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Of the bytes of a character only the last covers it; here each does."""
        is_byte = self._bytes
        return [
            (begin, begin + 1) if begin == end and is_byte[index] else (begin, end)
            for index, (begin, end) in zip(ids, spans)
        ]


class TokenizersFile:
    kind = "tokenizers"

    def __init__(self, library: "tokenizers.Tokenizer", unknown: str | None) -> None:
        self._library = library
        self.unknown = None if unknown is None else library.token_to_id(unknown)

    @property
    def vocab_size(self) -> int:
        return self._library.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        rows = self._library.encode_batch(list(texts), add_special_tokens=False)
        return [Encoded(row.ids, row.offsets) for row in rows]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return self._library.decode_batch([list(row) for row in rows], skip_special_tokens=False)


def open_any(path: Path) -> AnyTokenizer:
    """The tokenizer of a folder or file.

    Raises UserError for a path without one, for a file that cannot be read, and for a package that
    is not there.
    """
    if path.is_dir():
        files = [path / name for name in (FILE_NAME, JSON_NAME) if (path / name).is_file()]
        if not files:
            raise UserError(f"{path} holds no tokenizer; name {KNOWN}")
        path = files[0]
    if not path.is_file():
        raise UserError(f"{path} does not exist; name {KNOWN}")
    if path.suffix == ".model":
        return _sentencepiece(path)
    if path.suffix == ".json":
        return _tokenizers(path)
    raise UserError(f"{path} is of an unknown kind; name {KNOWN}")


def partial_ids(tokenizer: AnyTokenizer) -> NDArray[np.bool_]:
    """[vocabulary] whether an id is only a part of a character: it is no text by itself."""
    texts = tokenizer.decode([[index] for index in range(tokenizer.vocab_size)])
    return np.array(["\ufffd" in text for text in texts])


def _sentencepiece(path: Path) -> SentencePieceModel:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(path.read_bytes())
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a SentencePiece model: {shown(str(error))}") from error
    return SentencePieceModel(processor)


def _tokenizers(path: Path) -> TokenizersFile:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            f"{path} needs a package of its own: pip install 'indexlm[tokenizers]'"
        ) from error
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {shown(str(error))}") from error
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(
            f"{path} is not a file of the tokenizers library: {shown(str(error))}"
        ) from error
    # An unknown token is named by its text, in a Unigram model by its place.
    model = content["model"]
    unknown = model.get("unk_token")
    if model.get("unk_id") is not None:
        unknown = model["vocab"][model["unk_id"]][0]
    return TokenizersFile(library, unknown)
