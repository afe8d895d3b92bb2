"""Documents without personal data: it is masked, or the document is dropped, as is one that holds a
word of a list.

Shapes: N documents, C characters, D places of digits or marks.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import ahocorasick_rs
import numpy as np
from numpy.typing import NDArray

from indexlm.config import PrivacyConfig
from indexlm.errors import UserError
from indexlm.text.block import DIGIT, Block
from indexlm.text.document import Columns, Step
from indexlm.text.filters.personal_data import KINDS, Span
from indexlm.text.normalise import normalise

REASONS = {
    "personal_data": "personal data of a kind for which documents are dropped",
    "listed_word": "a word or phrase of a list stands in the document",
}


def mask(text: str, config: PrivacyConfig) -> tuple[str, dict[str, int]]:
    """The text with placeholders for all kinds that are not kept, and how many of each kind.

    Everything else stays as it is. Masking twice changes nothing more.
    """
    counts: Counter[str] = Counter()
    before = ""
    # A mask can take away the word that spoke against what follows it: until nothing is found.
    while text != before:
        before = text
        for kind, find in KINDS.items():
            if getattr(config, kind) != "keep":
                spans = list(find(text, config.private_addresses))
                text = _replaced(text, spans)
                counts[kind] += len(spans)
    return text, dict(+counts)


def _replaced(text: str, spans: Sequence[Span]) -> str:
    parts: list[str] = []
    behind = 0
    for start, end, placeholder in spans:
        parts += (text[behind:start], placeholder)
        behind = end
    return "".join((*parts, text[behind:]))


def privacy(config: PrivacyConfig) -> Step:
    """A step that drops documents with data of the kinds set to `drop`, or with a listed word.

    Columns: `reason`; `suspect`, whether there may be something to mask; `word`, the first listed
    word in the document where that is the reason. Raises UserError where a list cannot be used.
    """
    dropped = [find for kind, find in KINDS.items() if getattr(config, kind) == "drop"]
    words = _Words(config.words) if config.words else None

    def step(block: Block) -> Columns:
        word = words.firsts(block) if words else [""] * len(block.documents)
        reason = ["listed_word" if found else "" for found in word]
        suspect_N = suspects(block)
        for number in np.flatnonzero(suspect_N).tolist() if dropped else ():
            text = block.documents[number].text
            if any(next(find(text, config.private_addresses), None) for find in dropped):
                reason[number], word[number] = "personal_data", ""
        return {"reason": reason, "word": word, "suspect": suspect_N.tolist()}

    return step


def suspects(block: Block) -> NDArray[np.bool_]:
    """[N] documents in which `mask` might find something; in all others it finds nothing.

    An @, ten digits within 16 characters, three dots between digits within 9, or three colons
    within 11: what the shortest of each kind has.
    """
    codes_C, kinds_C = block.codes_C, block.kinds_C
    dots_D = np.flatnonzero(codes_C == ord("."))
    dots_D = dots_D[(dots_D > 0) & (dots_D < len(codes_C) - 1)]
    dots_D = dots_D[(kinds_C[dots_D - 1] == DIGIT) & (kinds_C[dots_D + 1] == DIGIT)]
    found = np.zeros(len(block.documents), dtype=bool)
    for places_D, count, within in (
        (np.flatnonzero(codes_C == ord("@")), 1, 1),
        (np.flatnonzero(kinds_C == DIGIT), 10, 16),
        (dots_D, 3, 9),
        (np.flatnonzero(codes_C == ord(":")), 3, 11),
    ):
        firsts_D, lasts_D = places_D[: max(0, len(places_D) - count + 1)], places_D[count - 1 :]
        close_D = lasts_D - firsts_D < within
        owners_D = np.searchsorted(block.ends_N, firsts_D[close_D], side="right")
        found[owners_D[lasts_D[close_D] < block.ends_N[owners_D]]] = True
    return found


class _Words:
    """Words and phrases of lists, found in any case; where one begins or ends with a letter that
    is written with spaces between words, none may stand beside it."""

    def __init__(self, files: Sequence[str]) -> None:
        self._words = list(dict.fromkeys(word for file in files for word in _read_list(Path(file))))
        self._search = ahocorasick_rs.AhoCorasick([_lower(word) for word in self._words])

    def firsts(self, block: Block) -> list[str]:
        """[N] the listed word that begins first in each document, the longest of several."""
        # A phrase may go over the end of a line.
        text = "\0".join(document.text for document in block.documents).replace("\n", " ")
        text = _lower(text)
        ends_N = np.cumsum([len(document.text) + 1 for document in block.documents])
        best: dict[int, tuple[int, int, str]] = {}
        for number, start, end in self._search.find_matches_as_indexes(text, overlapping=True):
            if _inside_a_word(text, start) or _inside_a_word(text, end):
                continue
            document = int(np.searchsorted(ends_N, start, side="right"))
            found = (start, -end, self._words[number])
            best[document] = min(best.get(document, found), found)
        return [best[n][2] if n in best else "" for n in range(len(block.documents))]


def _read_list(path: Path) -> list[str]:
    """The words of a file, one a line; `#` begins a comment. Raises UserError."""
    place = f"text.privacy.words: {path}"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place} is not UTF-8 at byte {error.start}; iconv -f gb18030 -t utf-8 converts it"
        ) from error
    except OSError as error:
        raise UserError(
            f"{place} cannot be read ({error.strerror}); name a file of words"
        ) from error
    words = [" ".join(normalise(line.partition("#")[0]).split()) for line in lines]
    if not any(words):
        raise UserError(f"{place} has no word; write one a line, or take the file out")
    return [word for word in words if word]


def _lower(text: str) -> str:
    """Lower case, every character at its place (`İ` has two in lower case)."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)


_FIRST_WITHOUT_SPACES = "\u2e80"
"""From here on stand Han, Kana and Hangul, in which a word may be found inside a sentence."""


def _inside_a_word(text: str, place: int) -> bool:
    """Whether letters or digits that belong together stand on both sides of a place."""
    around = text[max(0, place - 1) : place + 1]
    return len(around) == 2 and around.isalnum() and max(around) < _FIRST_WITHOUT_SPACES
