"""What is laid into made text, so that what a pipeline finds can be counted.

Every planted document has a row in `truth.jsonl` with its `kind`: what should become of it is known
by how it was made, not by any filter's opinion.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.text.corpus import Pool, chosen_pool, clauses, made

SHARES: Mapping[str, float] = {
    "exact_copy": 0.03,
    "near_copy": 0.06,
    "junk": 0.03,
    "instruction": 0.02,
    "passage": 0.03,
    "personal": 0.02,
    "benchmark": 0.01,
}
"""Of all bytes; copies are counted without the document that they are copies of."""

LEVELS = (0.95, 0.9, 0.85, 0.81, 0.7, 0.5)
"""Jaccard similarities of near copies. The last two are no near copies at the usual bound of 0.8
and must stay."""
SHINGLE = 5

ITEMS = 30_000
"""Questions of the benchmark file, about as many as MMLU, CMMLU, C-Eval and ARC have together. The
first of them stand in planted documents."""

CHANCE = 12
"""Characters beside the shared passage that two pages may have in common by chance, and which are
then part of what is repeated."""

MONTHS = "January February March April May June July August September October November December"
PASSAGE = "Select Month " + " ".join(
    f"{month} {year}" for year in (2021, 2020, 2019) for month in reversed(MONTHS.split())
)
"""The month drop-down of a blog, which pages of otherwise different text have in common."""

_SPACE = re.compile(r"\s+")
_HAN = re.compile(r"[\u3400-\u9fff]+")


@dataclass(frozen=True)
class Planted:
    text: str
    truth: dict[str, Any]
    partner: str = ""
    """The document that this one is a copy of; it goes into the corpus too."""
    item: Mapping[str, Any] | None = None
    """The item of a benchmark that stands in it."""


def planted(
    kind: str, size: int, pools: list[Pool], generator: np.random.Generator
) -> Iterator[Planted]:
    """Documents of one of SHARES, of `size` bytes together."""
    done = number = 0
    while done < size:
        document = _MAKERS[kind](number, chosen_pool(pools, generator), generator)
        yield document
        done += len(document.text.encode())
        number += 1


def shingles(text: str) -> set[str]:
    """Runs of five characters, without white space and case."""
    key = _SPACE.sub("", text).casefold()
    return {key[start : start + SHINGLE] for start in range(len(key) - SHINGLE + 1)}


def jaccard(left: set[str], right: set[str]) -> float:
    return len(left & right) / len(left | right)


# Copies


def _exact_copy(number: int, pool: Pool, generator: np.random.Generator) -> Planted:
    text = made(pool, generator)
    return Planted(text, {"kind": "exact_copy"}, partner=text)


def _near_copy(number: int, pool: Pool, generator: np.random.Generator) -> Planted:
    """One passage is exchanged, or single characters all over the text, in turn."""
    level, scattered = LEVELS[number % len(LEVELS)], number // len(LEVELS) % 2 == 1
    original = made(pool, generator, least_bytes=600)
    edit = _scattered if scattered else _exchanged
    # The share of the shingles to lose: n - m of n + m are then in common.
    share = (1 - level) / (1 + level)
    sought, best, text = shingles(original), 1.0, original
    for _ in range(6):
        edited = edit(original, share, pool, generator)
        found = jaccard(sought, shingles(edited))
        if abs(found - level) < abs(best - level):
            best, text = found, edited
        if abs(found - level) < 0.005:
            break
        share *= (1 - level) / max(1 - found, 1e-3)
    style = "scattered" if scattered else "passage"
    truth = {"kind": "near_copy", "level": level, "jaccard": round(best, 4), "style": style}
    return Planted(text, truth, partner=original)


def _exchanged(text: str, share: float, pool: Pool, generator: np.random.Generator) -> str:
    length = round(len(text) * share)
    begin = int(generator.integers(len(text) - length + 1))
    return text[:begin] + clauses(pool, 3 * length, generator)[:length] + text[begin + length :]


def _scattered(text: str, share: float, pool: Pool, generator: np.random.Generator) -> str:
    characters = list(text)
    count = min(round(len(text) * share / SHINGLE), len(text))
    for place in generator.choice(len(text), size=count, replace=False).tolist():
        characters[place] = text[int(generator.integers(len(text)))]
    return "".join(characters)


# Junk

_CYRILLIC = [chr(code) for code in range(0x430, 0x450)]
_COMMON_HAN = [chr(code) for code in range(0x4E00, 0x5E00)]
_HANGUL = [chr(code) for code in range(0xAC00, 0xAC00 + 2000)]


def _junk(number: int, pool: Pool, generator: np.random.Generator) -> Planted:
    kinds = list(_JUNK)
    name = kinds[number % len(kinds)]
    return Planted(_JUNK[name](pool, generator), {"kind": "junk", "of_kind": name})


def _drawn(choices: list[str], count: int, generator: np.random.Generator) -> list[str]:
    return [choices[index] for index in generator.integers(len(choices), size=count).tolist()]


def _symbols(pool: Pool, generator: np.random.Generator) -> str:
    marks = _drawn(["=", "-", "|", "*", "#", "~", "_", "^", "★", "■", ">", "<"], 60, generator)
    lines = ["".join(mark * 12 for mark in _drawn(marks, 5, generator)) for _ in range(20)]
    return "\n".join(lines)


def _mojibake(pool: Pool, generator: np.random.Generator) -> str:
    return "".join(_drawn(_COMMON_HAN, 300, generator)).encode().decode("latin-1")


def _padding(pool: Pool, generator: np.random.Generator) -> str:
    return clauses(pool, 300, generator) + "锟斤拷" * int(generator.integers(20, 90))


def _broken(pool: Pool, generator: np.random.Generator) -> str:
    characters = list(clauses(pool, 900, generator))
    for place in generator.choice(len(characters), size=len(characters) // 8, replace=False):
        characters[int(place)] = "\ufffd"
    return "".join(characters)


def _menu(pool: Pool, generator: np.random.Generator) -> str:
    lines = [clauses(pool, 20, generator).strip()[:20] for _ in range(6)]
    return "\n".join(_drawn(lines, 60, generator))


def _spam(pool: Pool, generator: np.random.Generator) -> str:
    return clauses(pool, 60, generator).strip() * int(generator.integers(12, 30))


def _keywords(pool: Pool, generator: np.random.Generator) -> str:
    """What a page says to a search engine: a few words, again and again in other orders."""
    words = [_words(pool, 1, generator) for _ in range(60)]
    return ("、" if pool.language == "zh" else ", ").join(_drawn(words, 150, generator))


def _foreign(alphabet: list[str]) -> Callable[[Pool, np.random.Generator], str]:
    def page(pool: Pool, generator: np.random.Generator) -> str:
        lengths = generator.integers(2, 9, size=200).tolist()
        return " ".join("".join(_drawn(alphabet, length, generator)) for length in lengths)

    return page


def _stub(pool: Pool, generator: np.random.Generator) -> str:
    return "".join(_drawn(list("abcdefghij"), 5, generator))


_JUNK: Mapping[str, Callable[[Pool, np.random.Generator], str]] = {
    "symbols": _symbols,
    "utf-8 read as latin-1": _mojibake,
    "padding of a wrong encoding": _padding,
    "replacement characters": _broken,
    "menu, lines repeated": _menu,
    "phrase repeated": _spam,
    "keywords": _keywords,
    "cyrillic": _foreign(_CYRILLIC),
    "korean": _foreign(_HANGUL),
    "five letters": _stub,
}


def lessons(pool: Pool, count: int, generator: np.random.Generator) -> tuple[list[str], list[str]]:
    """Documents to train a classifier of quality from: made ones, and pages of keywords."""
    good = [made(pool, generator) for _ in range(count)]
    return good, [_keywords(pool, generator) for _ in range(count)]


# Instruction data, items of a benchmark, a shared passage, personal data

_FORMS = {
    "zh": (
        "### 指令：\n{a}\n\n### 回答：\n{b}",
        "问：{a}\n答：{b}\n\n问：{c}\n答：{d}",
        "用户：{a}\n助手：{b}\n用户：{c}\n助手：{d}",
        "1. {a}（  ）\nA. {b}\nB. {c}\nC. {d}\nD. {a}\n答案：B",
    ),
    "en": (
        "### Instruction:\n{a}\n\n### Response:\n{b}",
        "Q: {a}\nA: {b}\n\nQ: {c}\nA: {d}",
        "User: {a}\nAssistant: {b}\nUser: {c}\nAssistant: {d}",
        "Question: {a}\nA. {b}\nB. {c}\nC. {d}\nD. {a}\nAnswer: B",
    ),
}
_NAMES = ("instruction and response", "question and answer", "two speakers", "multiple choice")


def _instruction(number: int, pool: Pool, generator: np.random.Generator) -> Planted:
    form = number % len(_NAMES)
    sizes = {"a": 80, "b": 200, "c": 60, "d": 150}
    parts = {name: " ".join(clauses(pool, size, generator).split()) for name, size in sizes.items()}
    text = _FORMS[pool.language][form].format(**parts)
    return Planted(text, {"kind": "instruction", "of_kind": _NAMES[form]})


def item(number: int, pool: Pool, generator: np.random.Generator) -> dict[str, Any]:
    """A question of the benchmark file, of words that stand together nowhere else."""
    question, *choices = (_words(pool, count, generator) for count in (25, 6, 6, 6, 6))
    return {"id": number, "question": question, "choices": choices}


def _words(pool: Pool, count: int, generator: np.random.Generator) -> str:
    pieces = _drawn(pool.pieces, 4 * count, generator)
    if pool.language == "zh":
        return "".join("".join(_HAN.findall(piece))[:2] for piece in pieces[: 2 * count])
    return " ".join(word for piece in pieces for word in piece.split()[1:2])[: 8 * count].strip()


def _benchmark(number: int, pool: Pool, generator: np.random.Generator) -> Planted:
    before, after = made(pool, generator, 300), made(pool, generator, 300)
    asked = item(number, pool, generator)
    options = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", asked["choices"]))
    text = f"{before}\n{asked['question']}\n{options}\n{after}"
    return Planted(text, {"kind": "benchmark"}, item=asked)


def _passage(number: int, pool: Pool, generator: np.random.Generator) -> Planted:
    before, after = made(pool, generator, 300), made(pool, generator, 300)
    text = f"{before}\n{PASSAGE}\n{after}"
    truth = {"before": before[-60 - CHANCE : -CHANCE], "after": after[CHANCE : 60 + CHANCE]}
    return Planted(text, {"kind": "passage", **truth})


def _personal(number: int, pool: Pool, generator: np.random.Generator) -> Planted:
    kinds = list(_SECRETS)
    name = kinds[number % len(kinds)]
    secret = _SECRETS[name](generator)
    before, after = made(pool, generator, 200), made(pool, generator, 200)
    words = {"zh": ("请联系：", "。"), "en": ("Please contact: ", ". ")}[pool.language]
    truth = {"kind": "personal", "secret": secret, "of_kind": name, "before": before[-60:]}
    return Planted(f"{before}\n{words[0]}{secret}{words[1]}\n{after}", truth)


def _digits(count: int, generator: np.random.Generator) -> str:
    return "".join(map(str, generator.integers(10, size=count).tolist()))


def _mail(generator: np.random.Generator) -> str:
    letters = "".join(_drawn(list("abcdeghiklmnoprstuwyz"), 12, generator))
    return f"{letters[:4]}.{letters[4:8]}{_digits(2, generator)}@{letters[8:]}post.com"


def _mobile(generator: np.random.Generator) -> str:
    return _drawn(["138", "139", "150", "177", "186"], 1, generator)[0] + _digits(8, generator)


def _identity(generator: np.random.Generator) -> str:
    """Of a citizen of the PRC, with its check digit (GB 11643-1999, ISO 7064 MOD 11-2)."""
    month, day = int(generator.integers(1, 13)), int(generator.integers(1, 29))
    body = f"110105{generator.integers(1950, 2005)}{month:02}{day:02}{_digits(3, generator)}"
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(body))
    return body + "10X98765432"[total % 11]


def _card(generator: np.random.Generator) -> str:
    """Of a bank, with its check digit (ISO/IEC 7812-1, Luhn)."""
    body = "622588" + _digits(9, generator)
    doubled = [2 * int(digit) if place % 2 == 0 else int(digit) for place, digit in enumerate(body)]
    return body + str(-sum(value // 10 + value % 10 for value in doubled) % 10)


_SECRETS: Mapping[str, Callable[[np.random.Generator], str]] = {
    "mail address": _mail,
    "mobile number": _mobile,
    "identity number": _identity,
    "card number": _card,
}

_MAKERS: Mapping[str, Callable[[int, Pool, np.random.Generator], Planted]] = {
    "exact_copy": _exact_copy,
    "near_copy": _near_copy,
    "junk": _junk,
    "instruction": _instruction,
    "passage": _passage,
    "personal": _personal,
    "benchmark": _benchmark,
}
