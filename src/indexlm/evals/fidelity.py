"""What a changed model loses against the original: quantised, pruned or cast, on the same text.

Both models read each batch side by side, so that every difference is paired: bits per byte of
both, how often they would choose the same next token, and the Kullback-Leibler divergence of the
changed prediction from the original one. Documents (for text) and items (for the starter test)
are the units of the standard errors: a difference inside its error is no loss.

Memory is both models, one batch, and `CHUNK_FLOATS` logits of each in float64 with a few copies
(200 MB). Two models of the released shape in float32 take 17 GB.

Shapes: N scored ids, P different positions they are asked of, D width, V vocabulary, U units.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from indexlm.errors import UserError
from indexlm.evals.prefix_tree import Targets, make_plan
from indexlm.evals.results import NORMAL
from indexlm.evals.scoring import (
    BATCH_TOKENS,
    CHUNK_FLOATS,
    Row,
    encode_documents,
    evaluating,
    new_past,
    read_pass,
)
from indexlm.evals.starter import (
    KINDS,
    STYLES,
    HeldOutEntry,
    Item,
    build_items,
    item_marks,
    score_items,
)
from indexlm.evals.table import aligned
from indexlm.model.transformer import Transformer
from indexlm.records import Progress
from indexlm.tokens.tokenizer import EOS, Tokenizer


class Positions(NamedTuple):
    """[N] each: negative log-probability of the target by either model, whether both find the
    same token likeliest, and KL(original || changed); nats, float64."""

    original: np.ndarray
    changed: np.ndarray
    same: np.ndarray
    divergence: np.ndarray


@dataclass
class Documents:
    """[U] each: sums over the positions of a document, its size, and its largest divergence."""

    original: np.ndarray
    changed: np.ndarray
    same: np.ndarray
    divergence: np.ndarray
    furthest: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray


def fidelity(
    model: Transformer,
    other: Transformer,
    tokenizer: Tokenizer,
    held_out: Mapping[str, Sequence[str]],
    entries: Sequence[HeldOutEntry],
    items: int,
    seed: int,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, Any]:
    """Compare `other`, a changed `model`, with `model` on held-out text and the starter test.

    `held_out` is `<language>_<tier>` -> documents and `items` is per kind, as in
    `runner.evaluate`, whose bits per byte and accuracies of the two models stand in the result:

    - "text": by tier and by language "original" and "changed" bits per byte, their "difference"
      (above 0: a loss) with "standard_error" (None for one document), "same_next" (share of
      positions), "kl_mean" and "kl_max" of KL(original || changed) in nats per token, and
      "tokens", "bytes", "documents";
    - "starter": kind -> "items" and, for each style, "accuracy" and "margin" with "original",
      "changed", "difference" (below 0: a loss) and "standard_error".

    Raises UserError where the two have different vocabularies.
    """
    sizes = (model.config.vocab_size, other.config.vocab_size)
    if sizes[0] != sizes[1]:
        raise UserError(
            f"the models have vocabularies of {sizes[0]} and {sizes[1]} tokens; "
            "only forms of one model can be compared token by token"
        )
    parts = {
        name: _read_documents(model, other, tokenizer, texts, batch_tokens)
        for name, texts in held_out.items()
        if texts
    }
    languages: dict[str, list[Documents]] = {}
    for name, documents in parts.items():
        languages.setdefault(name.split("_")[0], []).append(documents)
    totals = {language: _joined(documents) for language, documents in languages.items()}
    test = build_items(entries, items, seed)
    return {
        "text": {name: _text_summary(part) for name, part in {**parts, **totals}.items()},
        "starter": _starter_summary(model, other, tokenizer, test),
    }


def compare_positions(original_NV: Tensor, changed_NV: Tensor, target_N: Tensor) -> Positions:
    """Two sets of logits at the same positions.

    In float64: a float32 log-probability is off by 1e-6 and an int8 model's divergence is 1e-4.
    """
    original_NV, changed_NV = original_NV.double(), changed_NV.double()
    same_N = original_NV.argmax(1) == changed_NV.argmax(1)
    original_NV, changed_NV = original_NV.log_softmax(1), changed_NV.log_softmax(1)
    divergence_N = (original_NV.exp() * (original_NV - changed_NV)).sum(1)
    chosen_N1 = target_N[:, None]
    return Positions(
        -original_NV.gather(1, chosen_N1)[:, 0].cpu().numpy(),
        -changed_NV.gather(1, chosen_N1)[:, 0].cpu().numpy(),
        same_N.cpu().numpy(),
        divergence_N.cpu().numpy(),
    )


def fidelity_table(result: Mapping[str, Any]) -> str:
    """A result of `fidelity` as aligned text; `~` marks a difference that noise explains."""
    rows = [["bits per byte", "original", "changed", "difference", "same next", "KL", "KL max"]]
    for name, text in sorted(result["text"].items()):
        rows.append(
            [
                f"  {name} ({text['documents']} documents)",
                f"{text['original']:.4f}",
                f"{text['changed']:.4f}",
                _difference_cell(text, 1, 4),
                f"{text['same_next']:.2%}",
                f"{text['kl_mean']:.2g}",
                f"{text['kl_max']:.2g}",
            ]
        )
    if result["starter"]:
        rows.append(["starter test, %", *[""] * 6])
    for kind, scores in result["starter"].items():
        for style in STYLES:
            score = scores[style]["accuracy"]
            rows.append(
                [
                    f"  {kind} {style} ({scores['items']} items)",
                    f"{100 * score['original']:.1f}",
                    f"{100 * score['changed']:.1f}",
                    _difference_cell(score, 100, 1),
                    *[""] * 3,
                ]
            )
    note = (
        "difference: changed - original ± standard error over the same documents or items, "
        "~ is within noise (95%)\n"
        "KL: of the changed prediction from the original one, nats per token"
    )
    return f"{aligned(rows)}\n{note}"


def _read_documents(
    model: Transformer,
    other: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    batch_tokens: int,
) -> Documents:
    """Each document scored as `scoring.bits_per_byte` scores it, by both models at once."""
    documents = encode_documents(tokenizer, texts)
    rows = [Row([EOS, *ids, EOS], 1) for ids in documents]
    context = min(model.config.context, other.config.context)
    plan = make_plan(rows, context, batch_tokens, share=True)
    tokens_U = np.array([len(row.ids) - 1 for row in rows])
    bytes_U = np.array([len(text.encode()) for text in texts])
    original_U, changed_U, same_U, divergence_U, furthest_U = np.zeros((5, len(rows)))
    # Scored ids stand one document after the other.
    document_of_slot = np.repeat(np.arange(len(rows)), tokens_U)
    progress = Progress("comparing", plan.computed)
    with ExitStack() as modes:
        for network in (model, other):
            modes.enter_context(evaluating(network))
        pasts = [new_past(network, plan) for network in (model, other)]
        for one in plan.passes:
            hidden, changed = (
                read_pass(network, one, past) for network, past in zip((model, other), pasts)
            )
            found = _compare_pass(model, other, hidden, changed, one.targets)
            document_N = document_of_slot[one.targets.slots]
            np.add.at(original_U, document_N, found.original)
            np.add.at(changed_U, document_N, found.changed)
            np.add.at(same_U, document_N, found.same)
            np.add.at(divergence_U, document_N, found.divergence)
            np.maximum.at(furthest_U, document_N, found.divergence)
            progress.advance(len(one.ids))
    progress.close()
    return Documents(original_U, changed_U, same_U, divergence_U, furthest_U, tokens_U, bytes_U)


def _compare_pass(
    model: Transformer,
    other: Transformer,
    hidden_PD: Tensor,
    changed_PD: Tensor,
    targets: Targets,
) -> Positions:
    of_N, target_N = (torch.from_numpy(x).to(hidden_PD.device) for x in (targets.of, targets.ids))
    hidden_ND, changed_ND = hidden_PD[of_N], changed_PD[of_N]
    chunk = max(1, CHUNK_FLOATS // model.config.vocab_size)
    found = []
    for start in range(0, len(target_N), chunk):
        original_NV = model.logits(hidden_ND[start : start + chunk])
        changed_NV = other.logits(changed_ND[start : start + chunk])
        found.append(compare_positions(original_NV, changed_NV, target_N[start : start + chunk]))
    return Positions(*(np.concatenate(values) for values in zip(*found)))


def _joined(parts: Sequence[Documents]) -> Documents:
    """Several tiers as one set of documents."""
    fields = [vars(part) for part in parts]
    return Documents(**{name: np.concatenate([f[name] for f in fields]) for name in fields[0]})


def _text_summary(documents: Documents) -> dict[str, Any]:
    size, tokens = int(documents.bytes.sum()), int(documents.tokens.sum())
    original = float(documents.original.sum()) / math.log(2) / size
    changed = float(documents.changed.sum()) / math.log(2) / size
    loss_U = (documents.changed - documents.original) / math.log(2)
    return {
        "original": original,
        "changed": changed,
        "difference": float(loss_U.sum()) / size,
        "standard_error": _ratio_error(loss_U, documents.bytes),
        "same_next": float(documents.same.sum()) / tokens,
        # Rounding can leave a sum of nothing at -1e-17.
        "kl_mean": max(0.0, float(documents.divergence.sum()) / tokens),
        "kl_max": float(documents.furthest.max()),
        "tokens": tokens,
        "bytes": size,
        "documents": len(documents.bytes),
    }


def _ratio_error(part_U: np.ndarray, whole_U: np.ndarray) -> float | None:
    """Standard error of sum(part) / sum(whole) where the units are drawn (Cochran 1977, 6.3)."""
    units = len(part_U)
    if units < 2:
        return None
    residual_U = part_U - part_U.sum() / whole_U.sum() * whole_U
    variance = float((residual_U**2).sum()) * units / (units - 1)
    return math.sqrt(variance) / float(whole_U.sum())


def _starter_summary(
    model: Transformer, other: Transformer, tokenizer: Tokenizer, test: Sequence[Item]
) -> dict[str, Any]:
    scores = [score_items(network, tokenizer, test) for network in (model, other)]
    answer_N = np.array([item.answer for item in test], dtype=int)
    summary: dict[str, Any] = {}
    for kind in KINDS:
        chosen = [number for number, item in enumerate(test) if item.kind == kind]
        if not chosen:
            continue
        summary[kind] = {"items": len(chosen)}
        for style in STYLES:
            original, changed = (
                item_marks(score[style][chosen], answer_N[chosen]) for score in scores
            )
            summary[kind][style] = {
                "accuracy": _paired(original.right, changed.right),
                "margin": _paired(original.margin, changed.margin),
            }
    return summary


def _paired(original_N: np.ndarray, changed_N: np.ndarray) -> dict[str, float | None]:
    difference_N = changed_N - original_N
    return {
        "original": float(original_N.mean()),
        "changed": float(changed_N.mean()),
        "difference": float(difference_N.mean()),
        "standard_error": _ratio_error(difference_N, np.ones(len(difference_N))),
    }


def _difference_cell(measure: Mapping[str, Any], factor: int, digits: int) -> str:
    difference, error = measure["difference"], measure["standard_error"]
    shown = f"{factor * difference:+.{digits}f}"
    if error is None:
        return f"{shown} ±-~"
    mark = "~" if abs(difference) <= NORMAL * error else " "
    return f"{shown} ±{factor * error:.{digits}f}{mark}"
