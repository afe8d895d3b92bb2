"""A model's results as one plain dictionary, several models as one table.

Everything is drawn from the seed by generators of its own: an evaluation in the middle of a
training run leaves the global random state, the mode and the gradients as they were. Processes that
work together share out documents and items.

Shapes: N documents or items, O options.
"""

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from indexlm.evals.baselines import Bigram, xz_bits_per_byte
from indexlm.evals.scoring import BitsPerByte, Row, combined, encode_documents, score_rows
from indexlm.evals.starter import (
    CHANCE,
    KINDS,
    OPTIONS,
    STYLES,
    HeldOutEntry,
    Item,
    build_items,
    item_lines,
    score_items,
    summarise,
    within_chance,
)
from indexlm.evals.table import aligned
from indexlm.model.transformer import Transformer
from indexlm.runtime import rank, ranks, shared_out, summed
from indexlm.tokens.tokenizer import EOS, Tokenizer

HeldOut = Mapping[str, Sequence[str]]
"""`<language>_<tier>` -> documents."""


class Evaluation(NamedTuple):
    """`results` are what a reader asks for; `lines` are what they were computed from, a list for
    each file that a comparison of two models reads, one for each document or item. Plain values.
    """

    results: dict[str, Any]
    lines: dict[str, list[dict[str, Any]]]


def evaluate(
    model: Transformer,
    tokenizer: Tokenizer,
    held_out: HeldOut,
    entries: Sequence[HeldOutEntry],
    items: int,
    seed: int,
) -> dict[str, Any]:
    """The results of `evaluate_lines` alone."""
    return evaluate_lines(model, tokenizer, held_out, entries, items, seed).results


def evaluate_lines(
    model: Transformer,
    tokenizer: Tokenizer,
    held_out: HeldOut,
    entries: Sequence[HeldOutEntry],
    items: int,
    seed: int,
) -> Evaluation:
    """Bits per byte by `<language>_<tier>` and by language, and the starter test.

    Results: {"bits_per_byte": {name: {"value", "bits", "bytes", "tokens", "documents"}}, "starter":
    as `starter.summarise`}; lines: "bits_per_byte" and "starter". `items` is per kind.

    Every process of several gets the result of all; each needs the whole model for that. A sharded
    one, of which all have to make every pass together, is scored by all on everything.
    """
    return evaluate_items(model, tokenizer, held_out, build_items(entries, items, seed))


def evaluate_items(
    model: Transformer, tokenizer: Tokenizer, held_out: HeldOut, test: Sequence[Item]
) -> Evaluation:
    """`evaluate_lines` where the items of the starter test are made already."""
    documents = score_documents(model, tokenizer, held_out)
    scores = _shared_scores(model, tokenizer, test)
    parts = {
        name: BitsPerByte(
            sum(line["bits"] for line in lines),
            sum(line["bytes"] for line in lines),
            sum(line["tokens"] for line in lines),
            len(lines),
        )
        for name, lines in documents.items()
    }
    return Evaluation(
        {"bits_per_byte": _bits_by_name(parts), "starter": summarise(test, scores)},
        {
            "bits_per_byte": [line for lines in documents.values() for line in lines],
            "starter": item_lines(test, scores),
        },
    )


def score_documents(
    model: Transformer, tokenizer: Tokenizer, held_out: HeldOut
) -> dict[str, list[dict[str, Any]]]:
    """Name -> a line for each document: {"subject" (the name), "id" (its number), "text_sha256",
    "bits", "bytes", "tokens"}. Names without a document are left out.

    `bits` pay for all tokens and the end mark, as in `scoring.bits_per_byte`.
    """
    named = {name: texts for name, texts in held_out.items() if texts}
    # Every process encodes all: what is wrong with a text is an error in each, and none waits.
    rows = [
        Row([EOS, *ids, EOS], 1)
        for texts in named.values()
        for ids in encode_documents(tokenizer, texts)
    ]
    own = _dealt(model, [len(row.ids) for row in rows])
    bits_N = np.zeros(len(rows))
    for number, score in zip(own, score_rows(model, [rows[number] for number in own]).scores):
        bits_N[number] = -float(score.logprobs.sum()) / math.log(2)
    found = iter(zip(rows, _collected(model, bits_N).tolist()))
    return {
        name: [
            {
                "subject": name,
                "id": str(number),
                "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
                "bits": bits,
                "bytes": len(text.encode()),
                "tokens": len(row.ids) - 1,
            }
            for number, (text, (row, bits)) in enumerate(zip(texts, found))
        ]
        for name, texts in named.items()
    }


def _shared_scores(
    model: Transformer, tokenizer: Tokenizer, items: Sequence[Item]
) -> dict[str, np.ndarray]:
    """`starter.score_items`, the items shared out among the processes."""
    own = _dealt(model, [len(item.context) + sum(map(len, item.options)) for item in items])
    found = score_items(model, tokenizer, [items[number] for number in own])
    scores = {}
    for style in STYLES:
        score_NO = np.zeros((len(items), OPTIONS))
        score_NO[own] = found[style]
        scores[style] = _collected(model, score_NO)
    return scores


def _dealt(model: Transformer, sizes: Sequence[int]) -> list[int]:
    """Numbers of what this process scores, of `sizes` each."""
    return shared_out(sizes, ranks())[rank()] if _usable_alone(model) else list(range(len(sizes)))


def _collected(model: Transformer, values: np.ndarray) -> np.ndarray:
    """What all processes found, where each has left 0 for what it was not dealt."""
    return summed(torch.from_numpy(values)).numpy() if _usable_alone(model) else values


def _usable_alone(model: Transformer) -> bool:
    """Whether a process can make passes that the others do not make."""
    if ranks() == 1:
        return True
    from torch.distributed.tensor import DTensor

    return not any(isinstance(parameter, DTensor) for parameter in model.parameters())


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


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Aligned text: a column per model, a row per measure, `-` where a model has none.

    Accuracies stand in percent with their standard error; `~` marks what guessing explains.
    """
    rows = [["bits per byte", *results]]
    names = sorted({name for result in results.values() for name in result["bits_per_byte"]})
    for name in names:
        values = [result["bits_per_byte"].get(name) for result in results.values()]
        rows.append([f"  {name}", *("-" if v is None else f"{v['value']:.3f}" for v in values)])
    if any(result["starter"] for result in results.values()):
        rows.append([f"starter test, % (chance {CHANCE:.0%})", *("" for _ in results)])
    for kind in KINDS:
        scores = [result["starter"].get(kind) for result in results.values()]
        counts = {score["items"] for score in scores if score is not None}
        for style in STYLES if counts else ():
            label = f"  {kind} {style} ({'/'.join(map(str, sorted(counts)))} items)"
            rows.append([label, *(_accuracy_cell(score, style) for score in scores)])
    return f"{aligned(rows)}\n~ within chance (95%)"


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
