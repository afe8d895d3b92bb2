"""Samples of what a model writes, and what can be counted in them without a judge.

The prompts are fixed (`samples.toml`), so that samples of two steps or two models can be read side
by side. The counts catch the two ways in which small models fail visibly: they fall into loops and
they answer in the other language. What is counted is an average over prompts, with its standard
error over them: one draw of each says little about one prompt and much about forty.
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from indexlm.evals.table import aligned
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import EOS, Tokenizer

_LETTER = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[A-Za-z]")
# A Han character, or a word of another script: one unit of either carries about as much.
_UNIT = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\d_\u3400-\u4dbf\u4e00-\u9fff]+|\d")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")

Kind = Literal["continuations", "queries"]
"""What a base model goes on with, or a chat model answers."""

LOOP = 0.3
"""A text that has said more of its 4-grams before is a loop; people repeat far fewer."""
MISMATCH = 0.5
"""A text with fewer of its letters in the language of its prompt is in the other one."""

DRAW: Mapping[str, Any] = {
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.9,
    "repetition_penalty": 1.0,
    "max_new_tokens": 128,
}
"""How the texts of `generation_test` are to be drawn: without the penalty that chats use, which
hides the loops that are to be counted."""


@dataclass(frozen=True)
class Prompt:
    """What is asked, and the language that the answer should have (zh or en)."""

    language: str
    text: str


def _read_prompts() -> tuple[int, dict[Kind, tuple[Prompt, ...]]]:
    path = Path(__file__).with_name("samples.toml")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return content["version"], {
        kind: tuple(
            Prompt(language, text) for language, texts in content[kind].items() for text in texts
        )
        for kind in get_args(Kind)
    }


def _for_reading(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The first four of each language."""
    languages = dict.fromkeys(prompt.language for prompt in prompts)
    return tuple(p for each in languages for p in [p for p in prompts if p.language == each][:4])


VERSION, PROMPTS = _read_prompts()
CONTINUATIONS = _for_reading(PROMPTS["continuations"])
"""For base models: beginnings of text, few enough to read what becomes of them."""
QUERIES = _for_reading(PROMPTS["queries"])
"""For chat models: first messages."""


@dataclass(frozen=True)
class Sample:
    prompt: Prompt
    text: str


def draw_samples(generate: Callable[[str], str], prompts: Sequence[Prompt]) -> list[Sample]:
    """Let `generate` answer each prompt's text; it returns the new text alone."""
    return [Sample(prompt, generate(prompt.text)) for prompt in prompts]


def generation_test(
    tokenizer: Tokenizer,
    generate: Callable[[Sequence[list[int]]], Sequence[Sequence[int]]],
    kind: Kind,
) -> dict[str, Any]:
    """Let a model write after all prompts of a kind and count what can be counted.

    `generate` takes prompts as ids and draws as DRAW says. Plain values: {"version", "kind",
    "draw", "languages": {language: {"samples", and measure: {"value", "standard_error"}}},
    "texts": [{"language", "prompt", "text"}]}, the measures as in `measure_samples`.
    """
    prompts = PROMPTS[kind]
    asked = [_prompt_ids(tokenizer, prompt, kind) for prompt in prompts]
    samples = [
        Sample(prompt, tokenizer.decode(list(ids))) for prompt, ids in zip(prompts, generate(asked))
    ]
    languages: dict[str, Any] = {}
    for language, own in _by_language(samples).items():
        counted = [_counts(sample) for sample in own]
        languages[language] = {"samples": len(own)} | {
            measure: _with_error([counts[measure] for counts in counted if measure in counts])
            for measure in MEASURES
        }
    texts = [
        {"language": sample.prompt.language, "prompt": sample.prompt.text, "text": sample.text}
        for sample in samples
    ]
    about = {"version": VERSION, "kind": kind, "draw": dict(DRAW)}
    return {**about, "languages": languages, "texts": texts}


def _prompt_ids(tokenizer: Tokenizer, prompt: Prompt, kind: Kind) -> list[int]:
    if kind == "queries":
        return prompt_ids(tokenizer, Conversation("", (), prompt.text))
    return [EOS, *tokenizer.encode(prompt.text)]


def generation_table(result: Mapping[str, Any]) -> str:
    """A result of `generation_test` as aligned text: a row for each measure, in percent with its
    standard error; the length in units."""
    languages = result["languages"]
    rows = [[f"writing, {result['kind']}, %", *languages]]
    for measure, told in MEASURES.items():
        cells = []
        for found in languages.values():
            value, error = found[measure]["value"], found[measure]["standard_error"]
            if value is None:
                cells.append("-")
                continue
            factor = 1 if measure == "length" else 100
            cells.append(f"{factor * value:.1f} ±{factor * error:.1f}")
        rows.append([f"  {told}", *cells])
    counts = ", ".join(f"{found['samples']} {name}" for name, found in languages.items())
    return f"{aligned(rows)}\none text after each of {counts} prompts; ± one standard error"


MEASURES = {
    "in_language": "letters in the language asked",
    "mismatch": "texts in the other language",
    "repetition": "4-grams that stood before",
    "loop": f"loops (over {LOOP:.0%} such 4-grams)",
    "distinct_1": "distinct 1-grams",
    "distinct_2": "distinct 2-grams",
    "distinct_3": "distinct 3-grams",
    "length": "length, characters or words",
    "empty": "empty",
}
"""Names of what is counted, and what a table calls it."""


def measure_samples(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Language -> means over its samples of all MEASURES, 0 where nothing was written.

    An empty answer does not repeat itself and has no length: it is counted as `empty`, and in
    `in_language` as 0, but in no other measure. `distinct_n` is the share of different ones among
    the n-grams of a text (Li et al. 2016), a mean over texts; it falls with their length.
    """
    return {
        language: {
            measure: _mean([counts[measure] for counts in counted if measure in counts])
            for measure in MEASURES
        }
        for language, own in sorted(_by_language(samples).items())
        for counted in [[_counts(sample) for sample in own]]
    }


def _counts(sample: Sample) -> dict[str, float]:
    """Each measure that a sample has."""
    text, language = sample.text, sample.prompt.language
    share = language_share(text, language)
    if not text.strip():
        return {"in_language": 0.0, "empty": 1.0}
    repeated = repetition(text)
    return {
        "in_language": share,
        "mismatch": float(share < MISMATCH),
        "repetition": repeated,
        "loop": float(repeated > LOOP),
        **{f"distinct_{size}": distinct(text, size) for size in (1, 2, 3)},
        "length": float(len(_UNIT.findall(text))),
        "empty": 0.0,
    }


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


def distinct(text: str, size: int) -> float:
    """Share of different ones among the n-grams of `size`; 1 for a text that has none."""
    grams = _grams(text, size)
    return len(set(grams)) / len(grams) if grams else 1.0


def _grams(text: str, size: int) -> list[tuple[str, ...]]:
    units = [unit.lower() for unit in _UNIT.findall(text)]
    return [tuple(units[at : at + size]) for at in range(len(units) - size + 1)]


def _by_language(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.prompt.language, []).append(sample)
    return groups


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _with_error(values: Sequence[float]) -> dict[str, float | None]:
    """None where no sample has the measure, and no error of one alone."""
    if not values:
        return {"value": None, "standard_error": None}
    mean, count = _mean(values), len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(count - 1, 1)
    return {"value": mean, "standard_error": math.sqrt(spread / count)}
