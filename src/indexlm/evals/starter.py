"""The starter test: which of four explanations is the one of this word?

It is made from dictionary and idiom entries that no training stage has seen, so that a run on the
starter corpus has a test of its own. The question is the beginning of such an entry as the
training documents write it (`画蛇添足：`) and the options are scored, not generated, in three ways
that are reported apart: which way suits a model is not known beforehand.

The wrong options have the length of the right one and share exactly as many characters with the
word. Without that rule, picking the option with most characters of the word answers 75% of such
items of the starter corpus and measures copying.
"""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from indexlm.evals.results import Marks, guessed, marks_of
from indexlm.evals.scoring import Score, loglikelihood
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

KINDS = ("idiom", "word")
STYLES = ("per_token", "per_byte", "pmi")
OPTIONS = 4
CHANCE = 1 / OPTIONS
NEUTRAL = "词语："
"""Context that names no word: how likely an explanation is by itself."""
LENGTH_TOLERANCE = 0.3
MIN_TOLERANCE = 4
"""Characters; 0.3 of a short explanation leaves hardly a neighbour."""
MAX_SHARED_PAIRS = 0.2
"""Of the neighbouring character pairs of the shorter explanation. 99% of random idiom pairs share
less; common openings (形容, 比喻) stay below it, retellings of one meaning do not."""


class HeldOutEntry(TypedDict):
    """One entry that training has not seen; `kind` is one of KINDS."""

    id: str
    kind: str
    word: str
    explanation: str


@dataclass(frozen=True)
class Item:
    """`options[answer]` is the right continuation of `context`."""

    id: str
    kind: str
    context: str
    options: tuple[str, ...]
    answer: int


def build_items(entries: Sequence[HeldOutEntry], per_kind: int, seed: int) -> list[Item]:
    """At most `per_kind` items of each kind, the same for the same entries and seed.

    Entries without three fitting wrong options make no item. Fewer items asked for are the first
    of more.
    """
    items = []
    for kind in KINDS:
        pool = sorted((e for e in entries if e["kind"] == kind), key=lambda entry: entry["id"])
        order = random.Random(f"{seed}/{kind}").sample(pool, len(pool))
        made: list[Item] = []
        for entry in order:
            if len(made) == per_kind:
                break
            item = _item(entry, pool, random.Random(f"{seed}/{entry['id']}"))
            if item is not None:
                made.append(item)
        items += made
    return items


def score_items(
    model: Transformer, tokenizer: Tokenizer, items: Sequence[Item]
) -> dict[str, np.ndarray]:
    """Style -> scores of the options, float64 [items, OPTIONS]; a higher one is likelier.

    `per_token` and `per_byte` are mean log-probabilities; `pmi` is by how much the word makes the
    whole explanation likelier than NEUTRAL does (Holtzman et al. 2021).
    """
    wanted = {
        (context, option)
        for item in items
        for context in (item.context, NEUTRAL)
        for option in item.options
    }
    pairs = sorted(wanted)
    scores = dict(zip(pairs, loglikelihood(model, tokenizer, pairs)))
    by_style: dict[str, np.ndarray] = {style: np.zeros((len(items), OPTIONS)) for style in STYLES}
    for number, item in enumerate(items):
        for place, option in enumerate(item.options):
            told, alone = scores[item.context, option], scores[NEUTRAL, option]
            for style, score in _styled(told, alone, option).items():
                by_style[style][number, place] = score
    return by_style


def summarise(items: Sequence[Item], scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Kind -> items, chance, and for each style accuracy and margin with standard errors.

    The margin is the score of the right option less the best wrong one, in nats (per token, per
    byte, or whole): it moves long before accuracy does. Kinds without an item are left out.
    """
    summary: dict[str, Any] = {}
    for kind in KINDS:
        chosen = [number for number, item in enumerate(items) if item.kind == kind]
        if not chosen:
            continue
        answers = np.array([items[number].answer for number in chosen])
        summary[kind] = {"items": len(chosen), "chance": CHANCE}
        for style in STYLES:
            summary[kind][style] = _accuracy_and_margin(scores[style][chosen], answers)
    return summary


def item_marks(score_NO: np.ndarray, answer_N: np.ndarray) -> Marks:
    """What each of N items counts, of the scores of its O options.

    A tie is no right answer: a model that tells nothing apart must not score.
    """
    marked = marks_of(score_NO, answer_N, np.full(len(answer_N), CHANCE))
    return replace(marked, right=(marked.margin > 0).astype(float))


def within_chance(accuracy: float, items: int) -> bool:
    """Whether guessing explains an accuracy, as `results.guessed` has it."""
    return guessed(round(accuracy * items), np.full(items, CHANCE))


def item_lines(items: Sequence[Item], scores: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A line of plain values for each item, for a comparison of two models: {"subject" (its kind),
    "id", "prompt_sha256" (of context and options), "answer", "scores" and "choices" by style}.

    The choice is None where the best two options tie.
    """
    lines = []
    for number, item in enumerate(items):
        asked = json.dumps([item.context, NEUTRAL, *item.options], ensure_ascii=False)
        by_style = {style: scores[style][number] for style in STYLES}
        lines.append(
            {
                "subject": item.kind,
                "id": item.id,
                "prompt_sha256": hashlib.sha256(asked.encode()).hexdigest(),
                "answer": item.answer,
                "scores": {style: score_O.tolist() for style, score_O in by_style.items()},
                "choices": {style: _choice(score_O) for style, score_O in by_style.items()},
            }
        )
    return lines


def _choice(score_O: np.ndarray) -> int | None:
    best = np.flatnonzero(score_O == score_O.max())
    return int(best[0]) if len(best) == 1 else None


def _item(entry: HeldOutEntry, pool: Sequence[HeldOutEntry], rng: random.Random) -> Item | None:
    right = entry["explanation"]
    fitting = sorted({e["explanation"] for e in pool if _fits(e, entry)})
    rng.shuffle(fitting)
    # Wrong options around the right length would make the right one rarely the longest or the
    # shortest, and a model that only likes short options worse than chance.
    for shorter in rng.sample(range(OPTIONS), OPTIONS):
        wrong = _draw_wrong(fitting, len(right), shorter)
        if wrong is not None:
            options = rng.sample([right, *wrong], OPTIONS)
            context = f"{entry['word']}："
            return Item(entry["id"], entry["kind"], context, tuple(options), options.index(right))
    return None


def _draw_wrong(fitting: Sequence[str], length: int, shorter: int) -> list[str] | None:
    """The first wrong options of which `shorter` are below `length` and the rest above or equal."""
    room = {True: shorter, False: OPTIONS - 1 - shorter}
    wrong: list[str] = []
    for option in fitting:
        side = len(option) < length
        # Two wrong options that tell the same would be easier to rule out.
        if room[side] and all(_shared_pairs(option, other) <= MAX_SHARED_PAIRS for other in wrong):
            room[side] -= 1
            wrong.append(option)
    return wrong if len(wrong) == OPTIONS - 1 else None


def _fits(other: HeldOutEntry, entry: HeldOutEntry) -> bool:
    """Whether another entry's explanation can stand as a wrong option of `entry`."""
    right, wrong, word = entry["explanation"], other["explanation"], entry["word"]
    tolerance = max(MIN_TOLERANCE, LENGTH_TOLERANCE * len(right))
    return (
        other["word"] != word
        and abs(len(wrong) - len(right)) <= tolerance
        and shared_characters(word, wrong) == shared_characters(word, right)
        and _shared_pairs(wrong, right) <= MAX_SHARED_PAIRS
    )


def shared_characters(word: str, explanation: str) -> int:
    """How many characters of the word the explanation repeats."""
    return sum(character in explanation for character in word)


def _shared_pairs(one: str, other: str) -> float:
    """Share of neighbouring character pairs that the shorter text has from the other."""
    pairs = [{text[at : at + 2] for at in range(len(text) - 1)} for text in (one, other)]
    return len(pairs[0] & pairs[1]) / max(1, min(len(pairs[0]), len(pairs[1])))


def _styled(told: Score, alone: Score, option: str) -> dict[str, float]:
    return {
        "per_token": told.logprob / told.tokens,
        "per_byte": told.logprob / len(option.encode()),
        "pmi": told.logprob - alone.logprob,
    }


def _accuracy_and_margin(score_NO: np.ndarray, answer_N: np.ndarray) -> dict[str, float]:
    marked, count = item_marks(score_NO, answer_N), len(answer_N)
    accuracy = float(marked.right.mean())
    return {
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / count),
        "margin": float(marked.margin.mean()),
        "margin_standard_error": float(marked.margin.std() / math.sqrt(count)),
    }
