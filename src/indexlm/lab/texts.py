"""Real text as a second corpus: a refined folder and a tokenizer, encoded once for all arms.

What an arm scores on it is bits per byte of documents that nothing is trained on, so that models of
different tokenizers could be compared.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from indexlm.config import Section, Shares
from indexlm.evals.scoring import BitsPerByte, bits_per_byte, combined
from indexlm.feed.packing import Source, TextSource
from indexlm.model.transformer import Transformer
from indexlm.runtime import threads_of
from indexlm.text.refined import read_documents, verify_refined
from indexlm.tokens.encode import inputs_fingerprint, write_shards
from indexlm.tokens.shards import labels_of, read_shards, training_files
from indexlm.tokens.tokenizer import FILE_NAME, Tokenizer

LEAST_SHARE = 0.01
"""Of all tokens; a smaller source has hardly a row in a block of the mixture."""

ALL = "bits/all"
"""Score over all languages."""


class Corpus(Section):
    """Encoded text; where it lies is no part of what it is."""

    made_from: str
    vocab_size: int
    shares: Shares
    """Source -> share of tokens, as the text has them."""
    text: str
    tokenizer: str
    tokens: str
    """The refined folder, the tokenizer's file, the folder of encoded tokens."""


def encoded(text: Path, tokenizer: Path, folder: Path) -> Corpus:
    """Encode refined text below `folder`, where it is not there yet.

    Raises UserError for a folder or a file of something else, DamagedError for changed text.
    """
    verify_refined(text)
    file = tokenizer if tokenizer.is_file() else tokenizer / FILE_NAME
    model = Tokenizer(file)
    files = training_files(text)
    made_from = inputs_fingerprint(files, model)
    tokens = folder / f"tokens-{made_from[:16]}"
    catalogue = write_shards(files, model, tokens, made_from, threads=threads_of(0))
    # Documents alone: what instruction records are worth is asked of the world.
    documents = {n: row for n, row in catalogue["sources"].items() if labels_of(n) != (None, None)}
    sizes = {name: row["tokens"] for name, row in documents.items()}
    large = {n: size for n, size in sizes.items() if size >= LEAST_SHARE * sum(sizes.values())}
    return Corpus(
        made_from=made_from,
        vocab_size=model.vocab_size,
        shares={name: round(size / sum(large.values()), 4) for name, size in large.items()},
        text=str(text.absolute()),
        tokenizer=str(file.absolute()),
        tokens=str(tokens.absolute()),
    )


def text_sources(corpus: Corpus, names: Sequence[str], length: int, seed: int) -> dict[str, Source]:
    """Rows of the sources of these names."""
    shards = read_shards(Path(corpus.tokens), Tokenizer(Path(corpus.tokenizer)))
    return {name: TextSource(shards[name], length, seed) for name in names}


def scored_by(corpus: Corpus, most: int) -> Callable[[Transformer], Mapping[str, float]]:
    """A function that scores a model: `bits/<language>` and ALL, over at most `most` held-out
    documents of each source."""
    tokenizer, texts = Tokenizer(Path(corpus.tokenizer)), _held_out(Path(corpus.text), most)

    def measured(model: Transformer) -> Mapping[str, float]:
        parts = {name: bits_per_byte(model, tokenizer, some) for name, some in texts.items()}
        by_language: dict[str, list[BitsPerByte]] = {}
        for name, part in parts.items():
            by_language.setdefault(name.split("_")[0], []).append(part)
        found = {f"bits/{name}": combined(some).per_byte for name, some in by_language.items()}
        return found | {ALL: combined(list(parts.values())).per_byte}

    return measured


def _held_out(text: Path, most: int) -> dict[str, list[str]]:
    """Source -> texts."""
    found = {}
    for file in sorted((text / "held_out").iterdir()):
        texts = [document.text for _, document in zip(range(most), read_documents(file))]
        if texts:
            found[file.name.split(".")[0]] = texts
    return found
