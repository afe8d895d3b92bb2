"""Rule filters: cheap tests that throw away what is plainly not running text.

No rule assumes that words are separated by spaces: repetition is counted in characters, so
that the same threshold serves Chinese and English. Bounds follow the repetition and
character rules of the MassiveText filters (Rae et al. 2021, table A1).
"""

import re
from collections.abc import Iterable

from indexlm.config import TextConfig
from indexlm.text.document import Document, Filter

MIN_LANGUAGE_SHARE = 0.5
"""Share of the Han characters and other words that is in the script of the language."""
MAX_BROKEN_SHARE = 0.01
"""Share of replacement characters: a long page may hold one, a broken one holds many."""
GRAM = {"zh": 6, "en": 20}
"""Characters of a phrase whose return counts as a repetition, about four words."""

HAN = re.compile(r"[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LETTERS = re.compile(r"[^\W\d_]+")
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+")
# Marks of ordinary prose count only where they are repeated: !!!!! or ......
_MARKS = r",.;:?!'\"()\-—–…，。、；：？！“”‘’（）《》〈〉〔〕「」『』【】·"
_SYMBOLS = re.compile(rf"[^\w\s{_MARKS}]+|([{_MARKS}])\1+")
# UTF-8 read as Latin-1 or CP1252 (Ã©, â€™), and UTF-8 read as GBK (the commonest wrong pairs).
_LATIN_MOJIBAKE = re.compile(r"[ÃÂ][\u0080-\u00bf]|â(?:€|\u0080)|ï¼|[åæçèé][\u0080-\u00bf‚-›€]{2}")
_GBK_MOJIBAKE = re.compile(r"[鐨鍦鏄鈥銆锛鎴浠嶅]")
_GBK_PADDING = re.compile(r"锟斤拷|烫烫烫|屯屯屯")


def rule_filters(config: TextConfig) -> dict[str, Filter]:
    """The filters in the order they are applied, by the reason they give."""

    def too_short(document: Document) -> str | None:
        return "too_short" if len(document.text) < config.min_chars else None

    def symbols(document: Document) -> str | None:
        return "symbols" if symbol_share(document.text) > config.max_symbol_share else None

    def repeated_lines(document: Document) -> str | None:
        share = repeated_line_share(document.text)
        return "repeated_lines" if share > config.max_repeated_line_share else None

    def repeated_grams(document: Document) -> str | None:
        share = repeated_gram_share(document.text, GRAM[document.language])
        return "repeated_grams" if share > config.max_repeated_gram_share else None

    return {
        "too_short": too_short,
        "broken_characters": broken_characters,
        "symbols": symbols,
        "wrong_language": wrong_language,
        "repeated_lines": repeated_lines,
        "repeated_grams": repeated_grams,
    }


def broken_characters(document: Document) -> str | None:
    """Text decoded with the wrong encoding, now or somewhere on its way here."""
    text = document.text
    if text.isascii():
        return None
    broken = text.count("\ufffd") + sum(len(match) for match in _LATIN_MOJIBAKE.findall(text))
    # Each of these Han characters is real, if rare; several different ones are a broken encoding.
    wrong_han = _GBK_MOJIBAKE.findall(text)
    many_wrong = len(set(wrong_han)) >= 3 and len(wrong_han) > 0.05 * len(text)
    many_wrong = many_wrong or _GBK_PADDING.search(text) is not None
    return "broken_characters" if broken > MAX_BROKEN_SHARE * len(text) or many_wrong else None


def wrong_language(document: Document) -> str | None:
    """Too little of the script that the document's language is written in.

    A Han character counts as much as a word of other letters: with a pinyin reading behind it, a
    Chinese word is still Chinese.
    """
    without_han, han = HAN.subn(" ", document.text)
    words = len(_LETTERS.findall(without_han))
    own = han if document.language == "zh" else len(_LATIN_WORD.findall(without_han))
    return "wrong_language" if own < MIN_LANGUAGE_SHARE * max(han + words, 1) else None


def symbol_share(text: str) -> float:
    """Share of the visible characters that is no letter, digit or ordinary mark of prose."""
    visible = sum(map(len, text.split()))
    return (len(text) - len(_SYMBOLS.sub("", text))) / max(visible, 1)


def repeated_line_share(text: str) -> float:
    """Share of the characters that stands in lines which stood before."""
    lines = [line for line in (part.strip() for part in text.split("\n")) if line]
    if len(lines) < 3:
        return 0.0
    return 1 - _length(set(lines)) / _length(lines)


def repeated_gram_share(text: str, length: int) -> float:
    """Share of the character phrases of `length` that stood before in the same text."""
    count = len(text) - length + 1
    if count <= length:
        return 0.0
    return 1 - len({text[start : start + length] for start in range(count)}) / count


def _length(lines: Iterable[str]) -> int:
    return sum(map(len, lines))
