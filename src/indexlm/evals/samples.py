"""Samples of what a model writes, and what can be counted in them without a judge.

The prompts are fixed, so that samples of two steps or two models can be read side by side. The
counts catch the two ways in which small models fail visibly: they fall into loops and they answer
in the other language.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_LETTER = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[A-Za-z]")
# A Han character, or a word of another script: one unit of either carries about as much.
_UNIT = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\d_\u3400-\u4dbf\u4e00-\u9fff]+|\d")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class Prompt:
    """What is asked, and the language that the answer should have (zh or en)."""

    language: str
    text: str


CONTINUATIONS = (
    Prompt("zh", "画蛇添足："),
    Prompt("zh", "却说曹操"),
    Prompt("zh", "春天来了，"),
    Prompt("zh", "学习："),
    Prompt("en", "In the beginning"),
    Prompt("en", "And the king said unto"),
    Prompt("en", "A: Hi, how are you today?\nB:"),
    Prompt("en", "The weather is"),
)
"""For base models: beginnings of text."""

QUERIES = (
    Prompt("zh", "“守株待兔”是什么意思？"),
    Prompt("zh", "你好，请介绍一下你自己。"),
    Prompt("zh", "请用“兴高采烈”举一个例句。"),
    Prompt("zh", "今天天气怎么样？"),
    Prompt("en", "Hello! What do you like to do in your free time?"),
    Prompt("en", "What is your favorite food?"),
    Prompt("en", "Do you have any pets?"),
    Prompt("en", "Where would you like to travel next?"),
)
"""For chat models: first messages."""


@dataclass(frozen=True)
class Sample:
    prompt: Prompt
    text: str


def draw_samples(generate: Callable[[str], str], prompts: Sequence[Prompt]) -> list[Sample]:
    """Let `generate` answer each prompt's text; it returns the new text alone."""
    return [Sample(prompt, generate(prompt.text)) for prompt in prompts]


def measure_samples(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Language -> means over its samples: `in_language`, `repetition`, `distinct_2`, `empty`.

    Repetition and distinct-2 are means over the samples that are not empty (0 where all are): an
    empty answer does not repeat itself, and is counted as `empty` instead.
    """
    measures = {}
    for language in sorted({sample.prompt.language for sample in samples}):
        texts = [sample.text for sample in samples if sample.prompt.language == language]
        written = [text for text in texts if text.strip()]
        measures[language] = {
            "in_language": _mean([language_share(text, language) for text in texts]),
            "repetition": _mean([repetition(text) for text in written]),
            "distinct_2": _mean([distinct_2(text) for text in written]),
            "empty": 1 - len(written) / len(texts),
        }
    return measures


def language_share(text: str, language: str) -> float:
    """Share of the letters that are Han (zh) or Latin (en); 0 for a text without letters."""
    letters = _LETTER.findall(text)
    han = sum(_HAN.match(letter) is not None for letter in letters)
    own = han if language == "zh" else len(letters) - han
    return own / len(letters) if letters else 0.0


def repetition(text: str) -> float:
    """Share of 4-grams (of Han characters and words) that stood before; 0 for a shorter text."""
    grams = _grams(text, 4)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_2(text: str) -> float:
    """Share of different ones among the 2-grams; 1 for a text of fewer than two units."""
    grams = _grams(text, 2)
    return len(set(grams)) / len(grams) if grams else 1.0


def _grams(text: str, size: int) -> list[tuple[str, ...]]:
    units = [unit.lower() for unit in _UNIT.findall(text)]
    return [tuple(units[at : at + size]) for at in range(len(units) - size + 1)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
