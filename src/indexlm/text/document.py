"""What the text room passes from step to step: a document, and a filter's answer about it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

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


Filter = Callable[[Document], str | None]
"""A filter answers None (keep) or the reason for which the document is dropped."""
