"""A model's results as one plain dictionary, several models as one table, one step as one point.

Everything is drawn from the seed by generators of its own: an evaluation in the middle of a
training run leaves the global random state, the mode and the gradients as they were.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from indexlm.evals.baselines import Bigram, xz_bits_per_byte
from indexlm.evals.scoring import BitsPerByte, bits_per_byte, combined
from indexlm.evals.tasks import (
    CHANCE,
    KINDS,
    STYLES,
    HeldOutEntry,
    build_items,
    score_items,
    summarise,
)
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

HeldOut = Mapping[str, Sequence[str]]
"""`<language>_<tier>` -> documents."""

CURVE_BYTES = 8_000
"""Held-out text per tier in a point of the curve: about 13,000 tokens where there are six."""


def evaluate(
    model: Transformer,
    tokenizer: Tokenizer,
    held_out: HeldOut,
    entries: Sequence[HeldOutEntry],
    items: int,
    seed: int,
) -> dict[str, Any]:
    """Bits per byte by `<language>_<tier>` and by language, and the starter test.

    `items` is per kind. The result holds plain values: {"bits_per_byte": {name: {"value", "bits",
    "bytes", "tokens", "documents"}}, "starter": as `tasks.summarise`}.
    """
    parts = {
        name: bits_per_byte(model, tokenizer, texts) for name, texts in held_out.items() if texts
    }
    test = build_items(entries, items, seed)
    return {
        "bits_per_byte": _bits_by_name(parts),
        "starter": summarise(test, score_items(model, tokenizer, test)),
    }


def baseline_results(
    bigram: Bigram, tokenizer: Tokenizer, held_out: HeldOut
) -> dict[str, dict[str, Any]]:
    """What `evaluate` says of a model, for the bigram model and for xz (by language only)."""
    parts = {
        name: bigram.bits_per_byte(tokenizer, texts) for name, texts in held_out.items() if texts
    }
    packed = {}
    for language, names in _by_language(parts).items():
        # A newline between documents is for xz what the end mark is for a model.
        text = "\n".join(text for name in names for text in held_out[name]).encode()
        packed[language] = {"value": xz_bits_per_byte(text), "bytes": len(text)}
    return {
        "bigram": {"bits_per_byte": _bits_by_name(parts), "starter": {}},
        "xz -9e": {"bits_per_byte": packed, "starter": {}},
    }


def curve_point(
    model: Transformer,
    tokenizer: Tokenizer,
    held_out: HeldOut,
    entries: Sequence[HeldOutEntry],
    items: int,
    seed: int,
    max_bytes: int = CURVE_BYTES,
) -> dict[str, float]:
    """A cheap `evaluate`, flat for a line of metrics: the same subset at every step.

    Keys are `bits_per_byte/<language>` and `starter/<kind>/<style>/accuracy` or `.../margin`.
    """
    subset = {
        name: sample_text(texts, max_bytes, f"{seed}/{name}") for name, texts in held_out.items()
    }
    result = evaluate(model, tokenizer, subset, entries, items, seed)
    point = {
        f"bits_per_byte/{language}": result["bits_per_byte"][language]["value"]
        for language in _by_language(subset)
        if language in result["bits_per_byte"]
    }
    for kind, scores in result["starter"].items():
        for style in STYLES:
            for measure in ("accuracy", "margin"):
                point[f"starter/{kind}/{style}/{measure}"] = scores[style][measure]
    return point


def within_chance(accuracy: float, items: int) -> bool:
    """Whether a guesser's result would differ as much in one run of twenty (two-sided)."""
    return bool(abs(accuracy - CHANCE) <= 1.96 * (CHANCE * (1 - CHANCE) / items) ** 0.5)


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Aligned text: a column per model, a row per measure, `-` where a model has none.

    Accuracies stand in percent with their standard error; `~` marks what guessing explains.
    """
    rows = [["bits per byte", *results]]
    names = sorted({name for result in results.values() for name in result["bits_per_byte"]})
    for name in names:
        values = [result["bits_per_byte"].get(name) for result in results.values()]
        rows.append([f"  {name}", *("-" if v is None else f"{v['value']:.3f}" for v in values)])
    rows.append([f"starter test, % (chance {CHANCE:.0%})", *("" for _ in results)])
    for kind in KINDS:
        scores = [result["starter"].get(kind) for result in results.values()]
        counts = {score["items"] for score in scores if score is not None}
        for style in STYLES if counts else ():
            label = f"  {kind} {style} ({'/'.join(map(str, sorted(counts)))} items)"
            rows.append([label, *(_accuracy_cell(score, style) for score in scores)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(results) + 1)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), "~ within chance (95%)"])


def _bits_by_name(parts: Mapping[str, BitsPerByte]) -> dict[str, dict[str, float]]:
    totals = {
        language: combined([parts[name] for name in names])
        for language, names in _by_language(parts).items()
    }
    return {
        name: {
            "value": part.per_byte,
            "bits": part.bits,
            "bytes": part.bytes,
            "tokens": part.tokens,
            "documents": part.documents,
        }
        for name, part in {**parts, **totals}.items()
    }


def _by_language(names: Mapping[str, Any]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split("_")[0], []).append(name)
    return groups


def sample_text(texts: Sequence[str], max_bytes: int, seed: str) -> list[str]:
    """Documents in a drawn order up to `max_bytes`; the last one is cut to fit."""
    chosen: list[str] = []
    left = max_bytes
    for text in random.Random(seed).sample(texts, len(texts)):
        if left <= 0:
            break
        data = text.encode()
        chosen.append(data[:left].decode(errors="ignore"))
        left -= len(data)
    return [text for text in chosen if text]


def _accuracy_cell(score: Mapping[str, Any] | None, style: str) -> str:
    if score is None:
        return "-"
    accuracy, error = score[style]["accuracy"], score[style]["standard_error"]
    mark = "~" if within_chance(accuracy, score["items"]) else " "
    return f"{100 * accuracy:.1f} ±{100 * error:.1f}{mark}"
