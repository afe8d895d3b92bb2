"""Log-likelihoods of a language model: what held-out text and choice tests are scored with.

A document stands here as it stands in training: its row begins with the end mark of the document
before it (input `[eos] + tokens`, target `tokens + [eos]`), so the first token and the end are
predicted too and every byte is paid for.

Beginnings that rows share go through the network once (`prefix_tree` has the plan), without padding
in between. The head is applied to the scored positions alone and in blocks: at the released
vocabulary, one whole row of 4096 logits in float32 is a gigabyte.

Shapes: B rows (1), T positions, N scored ids, U different positions they are asked of, D width, V
vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from indexlm.errors import UserError
from indexlm.evals.prefix_tree import Pass, Plan, Targets, make_plan
from indexlm.model.transformer import Cache, Transformer
from indexlm.model.tree_attention import Tree
from indexlm.records import Progress
from indexlm.tokens.tokenizer import EOS, Tokenizer

BATCH_TOKENS = 4096
"""Positions that pass through the model at once. On two cores 1,024 to 8,192 took the same time,
and where attention is one masked square its share of the work grows with this number."""
CHUNK_FLOATS = 2**22
"""Logits held at once: 16 MiB of float32; four times as much was no faster on two cores."""


@dataclass(frozen=True)
class Score:
    """`logprob` is the natural logarithm of the probability of all `tokens` tokens together;
    `greedy` says whether each of them was the likeliest one."""

    logprob: float
    tokens: int
    greedy: bool


@dataclass(frozen=True)
class BitsPerByte:
    """`bits` pay for every token and the end of each document; `bytes` are UTF-8, without ends."""

    bits: float
    bytes: int
    tokens: int
    documents: int

    @property
    def per_byte(self) -> float:
        return self.bits / self.bytes


class Row(NamedTuple):
    """Ids of which those from `first` on are scored, each given the ids before it."""

    ids: list[int]
    first: int


class RowScore(NamedTuple):
    """[N] each: log-probability (float64) of each scored id, and whether it was the likeliest."""

    logprobs: np.ndarray
    greedy: np.ndarray


class Scored(NamedTuple):
    """Scores in the order of the rows, and the positions that it took.

    `computed` went through the network; `naive` would have, each row by itself.
    """

    scores: list[RowScore]
    computed: int
    naive: int


def loglikelihood(
    model: Transformer,
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[str, str]],
    batch_tokens: int = BATCH_TOKENS,
) -> list[Score]:
    """Score each (context, continuation) pair: how likely the continuation is after the context.

    The two are encoded apart, so that all continuations of one context share its tokens. A context
    longer than the window loses its beginning. Raises UserError for an empty continuation.
    """
    for context, continuation in pairs:
        if not continuation:
            raise UserError(
                f"the continuation of {context!r} is empty; a likelihood needs a token to score"
            )
    contexts = tokenizer.encode_whole([context for context, _ in pairs])
    continuations = tokenizer.encode_whole([continuation for _, continuation in pairs])
    rows = [
        Row([EOS, *before, *after], 1 + len(before))
        for before, after in zip(contexts, continuations)
    ]
    return [
        Score(float(score.logprobs.sum()), len(score.logprobs), bool(score.greedy.all()))
        for score in score_rows(model, rows, batch_tokens).scores
    ]


def bits_per_byte(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    batch_tokens: int = BATCH_TOKENS,
) -> BitsPerByte:
    """Score whole documents. Raises UserError where there is no text at all."""
    documents = encode_documents(tokenizer, texts)
    rows = [Row([EOS, *ids, EOS], 1) for ids in documents]
    scores = score_rows(model, rows, batch_tokens).scores
    nats = -sum(float(score.logprobs.sum()) for score in scores)
    return measured(nats / math.log(2), documents, texts)


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, end marks not included.

    Raises UserError where there is no text at all, or a character that the tokenizer cannot spell:
    its bytes would be counted and not paid for.
    """
    if not any(texts):
        raise UserError("there is no held-out text to score; raise text.held_out_share")
    return tokenizer.encode_whole(texts)


def measured(bits: float, documents: Sequence[list[int]], texts: Sequence[str]) -> BitsPerByte:
    """`bits` beside the sizes of what they pay for."""
    size = sum(len(text.encode()) for text in texts)
    tokens = sum(len(ids) + 1 for ids in documents)
    return BitsPerByte(bits, size, tokens, len(texts))


def combined(parts: Sequence[BitsPerByte]) -> BitsPerByte:
    """Several measurements as one over all their text."""
    return BitsPerByte(
        sum(part.bits for part in parts),
        sum(part.bytes for part in parts),
        sum(part.tokens for part in parts),
        sum(part.documents for part in parts),
    )


@contextmanager
def evaluating(model: Transformer) -> Iterator[None]:
    """Evaluation mode without gradients; the mode that was set before comes back."""
    was_training = model.training
    model.eval()
    try:
        # Not inference_mode: a tensor cached under it could not be used in training later.
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def score_rows(
    model: Transformer,
    rows: Sequence[Row],
    batch_tokens: int = BATCH_TOKENS,
    *,
    share: bool = True,
    advance: Callable[[float], None] | None = None,
) -> Scored:
    """Score the ids of each row from `first` on, in the order of `rows`. `first` is at least 1:
    nothing stands before id 0.

    With `share` what rows have in common at their beginning goes through the network once; the
    scores are the same up to rounding, and those of identical rows are equal. Rows beyond the
    window are scored as `cut_windows` says. `advance` is told what part of the work each pass was,
    in place of a line of progress.
    """
    plan = make_plan(rows, model.config.context, batch_tokens, share=share)
    logprobs, greedy = np.zeros(plan.slots), np.zeros(plan.slots, bool)
    progress = Progress("scoring", plan.computed)
    with evaluating(model):
        past = new_past(model, plan)
        for one in plan.passes:
            slots = one.targets.slots
            hidden_UD = read_pass(model, one, past)
            logprobs[slots], greedy[slots] = score_targets(model, hidden_UD, one.targets)
            if advance is None:
                progress.advance(len(one.ids))
            else:
                advance(len(one.ids) / plan.computed)
    progress.close()
    borders = np.cumsum([len(row.ids) - row.first for row in rows])[:-1]
    scores = [
        RowScore(*found) for found in zip(np.split(logprobs, borders), np.split(greedy, borders))
    ]
    return Scored(scores[: len(rows)], plan.computed, plan.naive)


def new_past(model: Transformer, plan: Plan) -> Cache | None:
    """Room for the longest beginning that passes of the plan look back at."""
    if not plan.past:
        return None
    device = model.lm_head.weight.device
    return model.new_cache(torch.ones(1, plan.past, dtype=torch.bool, device=device))


def read_pass(model: Transformer, one: Pass, past: Cache | None) -> Tensor:
    """Hidden states of the positions that are asked for, [U, D].

    The passes of a plan are read in their order, with one `past`.
    """
    device = model.lm_head.weight.device
    ids_BT = torch.from_numpy(one.ids)[None].to(device)
    if past is not None:
        # What passes before left behind this place is written over.
        past.seen = one.seen
    cache = past if one.kept or one.seen else None
    tree = None if one.kept else Tree(one.segments)
    hidden_TD = model(ids_BT, cache=cache, tree=tree)[0]
    return hidden_TD[torch.from_numpy(one.targets.positions).to(device)]


def score_targets(
    model: Transformer, hidden_UD: Tensor, targets: Targets
) -> tuple[np.ndarray, np.ndarray]:
    """[N] each: log-probability of every target, and whether no token is likelier.

    The vocabulary goes by in blocks, each for all positions: 92 GFLOP/s of one core, where 64
    positions at a time with the whole vocabulary of 65,029 reach 48.
    """
    matrix_VD = model.lm_head.matrix()
    of_N, ids_N = (torch.from_numpy(x).to(hidden_UD.device) for x in (targets.of, targets.ids))
    wide = torch.promote_types(hidden_UD.dtype, torch.float32)
    logit_N = hidden_UD.new_zeros(len(ids_N), dtype=wide)
    logsums, largest = [], []
    width = max(1, CHUNK_FLOATS // max(1, len(hidden_UD)))
    for start in range(0, len(matrix_VD), width):
        block_VD = matrix_VD[start : start + width]
        logits_UV = (hidden_UD @ block_VD.T).to(wide)
        largest.append(logits_UV.amax(1))
        # log_softmax is x - logsumexp(x), and 13 times as fast as logsumexp on a processor.
        logsums.append(largest[-1].double() - logits_UV.log_softmax(1).amax(1).double())
        column_N = (ids_N - start).clamp(0, len(block_VD) - 1)
        inside_N = column_N == ids_N - start
        logit_N = torch.where(inside_N, logits_UV[of_N, column_N], logit_N)
    logsum_U, largest_U = torch.stack(logsums).logsumexp(0), torch.stack(largest).amax(0)
    logprob_N = logit_N.double() - logsum_U[of_N]
    return logprob_N.cpu().numpy(), (logit_N == largest_U[of_N]).cpu().numpy()
