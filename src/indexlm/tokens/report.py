"""How well a tokenizer fits some text, beside others: length, coverage, and what is lost.

Shapes: C characters of some documents one after the other, T tokens of them, N documents, V
vocabulary.

Bytes per token compare any tokenizers on the same text. Tokens per word (fertility: Rust et al.
2021, arXiv:2012.15613) and per Han character say how long a language becomes; a word is a run of
Latin letters, and a token counts for it, or for a Han character, where it covers a part of one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexlm.text.block import HAN, LATIN, Block, blocks
from indexlm.text.document import Document
from indexlm.tokens.any_tokenizer import AnyTokenizer, SentencePieceModel, partial_ids
from indexlm.tokens.tokenizer import Tokenizer

ALL = "all"
"""The column of all languages together."""
ROWS = (
    ("bytes per token", "bytes_per_token", ".3f"),
    ("characters per token", "characters_per_token", ".3f"),
    ("tokens per English word", "tokens_per_word", ".3f"),
    ("tokens per Han character", "tokens_per_han", ".3f"),
    ("characters spelled in bytes", "byte_share", ".3%"),
    ("characters unknown", "unknown_share", ".3%"),
    ("pieces used", "used_share", ".1%"),
    ("documents that come back exactly", "exact_share", ".2%"),
)
"""What a table shows: title, key of `Tally.row`, format."""
SHOWN = 5
"""Lost or gained characters of a tokenizer that a table names."""


@dataclass
class Tally:
    """What is counted of one tokenizer on some text."""

    sums: Counter[str] = field(default_factory=Counter)
    used_V: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, np.bool_))
    lost: Counter[str] = field(default_factory=Counter)
    gained: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        self.sums += other.sums
        self.lost += other.lost
        self.gained += other.gained
        self.used_V = self.used_V | other.used_V

    def row(self) -> dict[str, Any]:
        """The figures of a report; without those that this text cannot give."""
        sums, used_V = self.sums, self.used_V
        row: dict[str, Any] = {"tokens": sums["tokens"]}
        for name, part, whole in (
            ("bytes_per_token", sums["bytes"], sums["tokens"]),
            ("characters_per_token", sums["characters"], sums["tokens"]),
            ("tokens_per_word", sums["word_tokens"], sums["words"]),
            ("tokens_per_han", sums["han_tokens"], sums["han"]),
            ("byte_share", sums["byte_characters"], sums["characters"]),
            ("unknown_share", sums["unknown_characters"], sums["characters"]),
            ("used_share", int(used_V.sum()), len(used_V)),
            ("exact_share", sums["exact"], sums["documents"]),
        ):
            if whole:
                row[name] = part / whole
        return row | {"lost": dict(self.lost), "gained": dict(self.gained)}


def compare(
    tokenizers: Mapping[str, AnyTokenizer], documents: Iterable[Document]
) -> dict[str, Any]:
    """What each tokenizer makes of the documents, by their language and of all together.

    `texts`: language -> documents, bytes, characters, English words and Han characters.
    `tokenizers`: name -> kind, vocab_size, and by language the row of a Tally. Documents are read
    once, and a block of them is held at a time.
    """
    meters = {name: _Meter(tokenizer) for name, tokenizer in tokenizers.items()}
    tallies: dict[str, dict[str, Tally]] = {name: {} for name in meters}
    for block in blocks(document for document in documents if document.text):
        for language, part in _by_language(block):
            for name, meter in meters.items():
                tallies[name].setdefault(language, Tally()).add(meter.tally(part))
    for by_language in tallies.values():
        if len(by_language) > 1:
            together = Tally()
            for tally in by_language.values():
                together.add(tally)
            by_language[ALL] = together
    any_tallies = next(iter(tallies.values()))
    counted = ("documents", "bytes", "characters", "words", "han")
    return {
        "texts": {
            language: {name: tally.sums[name] for name in counted}
            for language, tally in any_tallies.items()
        },
        "tokenizers": {
            name: {"kind": each.kind, "vocab_size": each.vocab_size}
            | {"languages": {key: tally.row() for key, tally in tallies[name].items()}}
            for name, each in tokenizers.items()
        },
    }


def compression(
    tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Name of some texts -> the row of their Tally; texts without a character have none."""
    meter = _Meter(SentencePieceModel(tokenizer.processor))
    tallies: dict[str, Tally] = {}
    for name, some in texts.items():
        for block in blocks(Document("", text, "", "", "") for text in some if text):
            tallies.setdefault(name, Tally()).add(meter.tally(block))
    return {name: tally.row() for name, tally in tallies.items()}


def report_table(report: Mapping[str, Any]) -> str:
    """A report of `compare` as aligned text: languages side by side, tokenizers one below the
    other."""
    texts, tokenizers = report["texts"], report["tokenizers"]
    titles = {name: f"  {name} ({made['vocab_size']:,})" for name, made in tokenizers.items()}
    lines = [["text", *texts]]
    lines.append(["  documents", *(f"{text['documents']:,}" for text in texts.values())])
    lines.append(["  MB", *(f"{text['bytes'] / 1e6:.3f}" for text in texts.values())])
    for title, key, form in ROWS:
        lines.append([title])
        for name, made in tokenizers.items():
            rows = (made["languages"][language] for language in texts)
            cells = (format(row[key], form) if key in row else "-" for row in rows)
            lines.append([titles[name], *cells])
    width = max(len(line[0]) for line in lines)
    table = [f"{line[0]:<{width}}" + "".join(f"{cell:>12}" for cell in line[1:]) for line in lines]
    return "\n".join(line.rstrip() for line in [*table, *_losses(report)])


def _losses(report: Mapping[str, Any]) -> Iterator[str]:
    """What changes on the way to ids and back, of the tokenizers that change something."""
    for name, made in report["tokenizers"].items():
        for language, row in made["languages"].items():
            if row.get("exact_share") != 1 and (language != ALL):
                lost, gained = (_named(row[way]) for way in ("lost", "gained"))
                yield f"{name}, {language}: lost {lost}; gained {gained}"


def _named(counts: Mapping[str, int]) -> str:
    common = Counter(counts).most_common(SHOWN)
    names = [f"U+{ord(character):04X} x{count:,}" for character, count in common]
    return ", ".join([*names, *["..."] * (len(counts) > SHOWN)]) or "nothing but order"


def _by_language(block: Block) -> Iterator[tuple[str, Block]]:
    parts: dict[str, list[Document]] = {}
    for document in block.documents:
        parts.setdefault(document.language, []).append(document)
    for language, documents in parts.items():
        yield language, Block(documents)


class _Meter:
    """Counts what one tokenizer does."""

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self.tokenizer = tokenizer
        self._partial_V = partial_ids(tokenizer)

    def tally(self, block: Block) -> Tally:
        encoded = self.tokenizer.encode([document.text for document in block.documents])
        counts_N = [len(each.ids) for each in encoded]
        ids_T = np.fromiter(chain.from_iterable(each.ids for each in encoded), np.int64)
        spans_T2 = np.array([span for each in encoded for span in each.spans], np.int64)
        spans_T2 = spans_T2.reshape(-1, 2) + np.repeat(block.starts_N, counts_N)[:, None]
        latin_C, han_C = block.kinds_C == LATIN, block.kinds_C == HAN
        used_V = np.zeros(len(self._partial_V), bool)
        used_V[ids_T] = True
        tally = Tally(used_V=used_V)
        tally.sums.update(
            documents=len(block.documents),
            bytes=sum(len(document.text.encode()) for document in block.documents),
            characters=len(block.codes_C),
            words=_runs(latin_C, block.starts_N),
            han=int(han_C.sum()),
            tokens=len(ids_T),
            word_tokens=_touching(spans_T2, latin_C),
            han_tokens=_touching(spans_T2, han_C),
            byte_characters=_covered(spans_T2[self._partial_V[ids_T]], len(latin_C)),
            unknown_characters=_covered(spans_T2[ids_T == self.tokenizer.unknown], len(latin_C)),
        )
        backs = self.tokenizer.decode([each.ids for each in encoded])
        for document, back in zip(block.documents, backs):
            if document.text == back:
                tally.sums["exact"] += 1
            else:
                tally.lost += Counter(document.text) - Counter(back)
                tally.gained += Counter(back) - Counter(document.text)
        return tally


def _runs(marked_C: NDArray[np.bool_], starts_N: NDArray[np.int64]) -> int:
    """Runs of marked characters; each document begins anew."""
    before_C = np.concatenate(([False], marked_C[:-1]))
    before_C[starts_N] = False
    return int((marked_C & ~before_C).sum())


def _touching(spans_T2: NDArray[np.int64], marked_C: NDArray[np.bool_]) -> int:
    """Spans with a marked character in them."""
    before = np.concatenate(([0], np.cumsum(marked_C)))
    return int((before[spans_T2[:, 1]] > before[spans_T2[:, 0]]).sum())


def _covered(spans_T2: NDArray[np.int64], characters: int) -> int:
    """Characters that lie in any of the spans."""
    begins, ends = (np.bincount(side, minlength=characters + 1) for side in spans_T2.T)
    return int((np.cumsum(begins - ends) > 0).sum())
