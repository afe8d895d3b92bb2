"""The networks that are compared on: random weights, made here, in both forms that are read.

`model/` has the published layout with raw head rows, `llama/` is what `indexlm export --to llama`
makes of it, for transformers. The tokenizer is learned on text of the benchmarks themselves, or on
text that is given: its lengths are then those of a tokenizer that knows the languages.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmarks.evals.official import SOURCES, items_of, subjects_of
from benchmarks.text.corpus import language_of

from indexlm.config import TokenizerConfig
from indexlm.export import forms, hf
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import fingerprint
from indexlm.tokens.tokenizer import Tokenizer, read_model
from indexlm.tokens.train_bpe import train

SEED = 1234
FIRST_PRIVATE = 0xF0000
"""Of 65,534 characters that Unicode leaves to private use."""

PARITY = ModelConfig(
    vocab_size=4096,
    hidden=128,
    layers=4,
    heads=4,
    kv_heads=2,
    ffn=352,
    context=8192,
    head_scale=1.0,
    init_std=0.09,
)
"""Small enough for every item of six benchmarks on two cores. `init_std` and `head_scale` spread
the options' scores (measured: see the parity files), the window takes every five-shot prompt."""

SPEED = ModelConfig(vocab_size=65029, hidden=512, layers=12, heads=8, kv_heads=8, ffn=1408)
"""38.5 million weights in the layers, 66.6 million in embedding and head."""


@dataclass(frozen=True)
class Made:
    published: Path
    llama: Path
    learned: int
    """Pieces that the text gave; the others are filled in."""


def make(folder: Path, shape: ModelConfig, texts: Mapping[str, Iterable[str]]) -> Made:
    """Both forms below `folder`. Where the text is too short for as many pieces as the model has
    rows, pieces that no text reaches fill up: their rows cost time all the same."""
    folder.mkdir(parents=True)
    config = TokenizerConfig(vocab_size=shape.vocab_size, sample_bytes=20_000_000)
    learned = train(texts, config, folder / "learned.model")
    tokenizer = _filled(learned, shape.vocab_size, folder / "filled.model")
    model = Transformer(shape)
    model.initialise(SEED)
    published, llama = folder / "model", folder / "llama"
    made_from = fingerprint(shape.model_dump_json(), str(SEED), tokenizer.fingerprint)
    hf.save(model, tokenizer.path, published, made_from, {}, torch.float32)
    forms.export(published, "llama", llama, None, None, None)
    return Made(published, llama, learned.vocab_size)


def _filled(tokenizer: Tokenizer, size: int, path: Path) -> Tokenizer:
    """The tokenizer with private characters for pieces, up to the rows of the model."""
    model = read_model(tokenizer.path)
    for number in range(size - len(model.pieces)):
        score = model.pieces[-1].score - 1
        model.pieces.add(piece=chr(FIRST_PRIVATE + number), score=score)
    path.write_bytes(model.SerializeToString())
    return Tokenizer(path)


def benchmark_text(data: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Everything that the items say, by language."""
    texts: dict[str, list[str]] = {"zh": [], "en": []}
    for name in names:
        for subject in subjects_of(name, data):
            for item in items_of(name, data, subject, SOURCES[name].tested):
                text = "\n".join(_strings(item))
                texts[language_of(text)].append(text)
    return texts


def _strings(value: object) -> Iterable[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _strings(each)
        case dict():
            for each in value.values():
                yield from _strings(each)
