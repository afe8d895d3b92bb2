"""What the text room passes from step to step: a document, its parts, a filter's answer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

LANGUAGES = ("zh", "en")
TIERS = ("curated", "ordinary", "noisy")


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of running text.

    `id` is unique in a corpus and stable between runs (`<source>/<number or name>`); `language` is
    one of LANGUAGES, `tier` one of TIERS. `license` is carried through to the model card.
    """

    id: str
    text: str
    source: str
    language: str
    tier: str
    license: str = ""

    def with_text(self, text: str) -> "Document":
        return replace(self, text=text)


@dataclass(frozen=True, slots=True)
class Entry:
    """The parts of a document that was put together from parts.

    An idiom or a word has `word` and `senses` (an idiom also `origin` and `example`, where known);
    a chat has `turns`, spoken by two people one after the other.
    """

    kind: Literal["idiom", "word", "chat"]
    word: str = ""
    senses: tuple[str, ...] = ()
    origin: str = ""
    example: str = ""
    turns: tuple[str, ...] = ()


Filter = Callable[[Document], str | None]
"""A filter answers None (keep) or the reason for which the document is dropped."""
