"""Tokenizers of other makers, learned on the same page as ours."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from indexlm.tokens.any_tokenizer import AnyTokenizer, open_any
from indexlm.tokens.tokenizer import FILE_NAME, Tokenizer


def of_bytes(lines: Iterator[str]) -> Library:
    """As GPT-2 and its many followers: pieces of bytes, nothing unknown."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return library


def of_words(lines: Iterator[str]) -> Library:
    """As BERT: lower case, pieces of words, an id for what is unknown."""
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.train_from_iterator(
        lines,
        trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False),
    )
    return library


@pytest.fixture(scope="session")
def place(
    tokenizer: Tokenizer,
    bilingual: Mapping[str, tuple[str, ...]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with `tokenizer.model`, `bytes.json` and `words.json`."""
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / FILE_NAME).write_bytes(tokenizer.path.read_bytes())
    for name, make in (("bytes", of_bytes), ("words", of_words)):
        lines = (line for some in bilingual.values() for line in some)
        make(lines).save(str(folder / f"{name}.json"))
    return folder


@pytest.fixture(scope="session")
def ours(place: Path) -> AnyTokenizer:
    return open_any(place)


@pytest.fixture(scope="session")
def by_bytes(place: Path) -> AnyTokenizer:
    return open_any(place / "bytes.json")


@pytest.fixture(scope="session")
def by_words(place: Path) -> AnyTokenizer:
    return open_any(place / "words.json")
