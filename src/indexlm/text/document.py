"""What the text room passes from step to step: a document, its parts, a step's answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from indexlm.text.block import Block

LANGUAGES = ("zh", "en")
"""The languages that a model speaks."""
LABELS = (*LANGUAGES, "code")
"""What the text of a document may be."""
TIERS = ("curated", "ordinary", "noisy")


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of running text.

    `id` is unique in a corpus and stable between runs (`<source>/<number or name>`); `language` is
    one of LABELS (`other` between reading and the rules, which drop it), `tier` one of TIERS.
    `script` of Chinese is `simplified`, `traditional` or empty where it cannot be told. `license`
    is carried through to the model card.
    """

    id: str
    text: str
    source: str
    language: str
    tier: str
    license: str = ""
    script: str = ""

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


FIELDS = tuple(field.name for field in fields(Document))
"""What of a document stands in every file that holds it."""

Columns = Mapping[str, Sequence[Any]]
"""What a step says of each document of a block, in order. `reason` is always there: empty where the
document is kept, else why it is dropped. Other columns are the step's own."""

Step = Callable[["Block"], Columns]
"""A step looks at many documents at once: a Python call for each costs more than all hashing."""
