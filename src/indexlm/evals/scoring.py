"""Log-likelihoods of a language model: what held-out text and choice tests are scored with.

A document stands here as it stands in training: its row begins with the end mark of the document
before it (input `[eos] + tokens`, target `tokens + [eos]`), so the first token and the end are
predicted too and every byte is paid for. The head is applied to the scored positions alone and in
chunks: at the released vocabulary, one whole row of 4096 logits in float32 is a gigabyte.

Shapes: B rows, T positions, N scored positions, D width, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from indexlm.errors import UserError
from indexlm.model.transformer import Transformer
from indexlm.records import Progress
from indexlm.tokens.tokenizer import EOS, Tokenizer

BATCH_TOKENS = 8192
"""Positions, padding among them, that pass through the model at once."""
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


class Window(NamedTuple):
    """Inputs `start` to `end` of one row; the targets from `scored` to `end` are taken."""

    row: int
    start: int
    scored: int
    end: int


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
        for score in score_rows(model, rows, batch_tokens)
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
    scores = score_rows(model, rows, batch_tokens)
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


def score_rows(model: Transformer, rows: Sequence[Row], batch_tokens: int) -> list[RowScore]:
    """Score the ids of each row from `first` on, in the order of `rows`.

    Windows of like length share a batch. `first` is at least 1: nothing stands before id 0.
    """
    windows = [
        window
        for number, row in enumerate(rows)
        for window in cut_windows(number, len(row.ids) - 1, row.first - 1, model.config.context)
    ]
    windows.sort(key=lambda window: window.end - window.start, reverse=True)
    scores = [
        RowScore(np.zeros(len(row.ids) - row.first), np.zeros(len(row.ids) - row.first, bool))
        for row in rows
    ]
    progress = Progress("scoring", len(windows))
    with evaluating(model):
        for batch in batches(windows, batch_tokens):
            logprob_N, greedy_N = _score_batch(model, rows, batch)
            at = 0
            for window in batch:
                count = window.end - window.scored
                to = window.scored - (rows[window.row].first - 1)
                scores[window.row].logprobs[to : to + count] = logprob_N[at : at + count]
                scores[window.row].greedy[to : to + count] = greedy_N[at : at + count]
                at += count
            progress.advance(len(batch))
    progress.close()
    return scores


def cut_windows(row: int, inputs: int, first: int, context: int) -> Iterator[Window]:
    """Windows over a row of `inputs` positions that score each one from `first` on exactly once.

    What does not fit in one window is scored half a window at a time after a full first one: each
    position sees all that stands before it, or at least half a window.
    """
    scored = first
    while scored < inputs:
        end = min(inputs, max(scored + context // 2, context))
        yield Window(row, max(0, end - context), scored, end)
        scored = end


def batches(windows: Sequence[Window], batch_tokens: int) -> Iterator[Sequence[Window]]:
    """Windows, longest first, in groups of at most `batch_tokens` positions, or one window."""
    at = 0
    while at < len(windows):
        longest = windows[at].end - windows[at].start
        rows = max(1, batch_tokens // longest)
        yield windows[at : at + rows]
        at += rows


def gather(
    rows: Sequence[Row], batch: Sequence[Window], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids [B, T] of a batch, which positions are scored [B, T], and their targets [N] in order."""
    longest = max(window.end - window.start for window in batch)
    # Padding stands on the right, where causal attention does not see it.
    ids_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    scored_BT = torch.zeros(len(batch), longest, dtype=torch.bool)
    targets: list[int] = []
    for number, window in enumerate(batch):
        ids, length = rows[window.row].ids, window.end - window.start
        ids_BT[number, :length] = torch.tensor(ids[window.start : window.end])
        scored_BT[number, window.scored - window.start : length] = True
        targets += ids[window.scored + 1 : window.end + 1]
    return ids_BT.to(device), scored_BT.to(device), torch.tensor(targets, device=device)


def _score_batch(
    model: Transformer, rows: Sequence[Row], batch: Sequence[Window]
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability and greediness of the batch's scored positions, window after window."""
    ids_BT, scored_BT, target_N = gather(rows, batch, next(model.parameters()).device)
    return _score_targets(model, model(ids_BT)[scored_BT], target_N)


def _score_targets(
    model: Transformer, hidden_ND: torch.Tensor, target_N: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    chunk = max(1, CHUNK_FLOATS // model.config.vocab_size)
    logprobs, greedy = [], []
    for start in range(0, len(target_N), chunk):
        logits_NV = model.logits(hidden_ND[start : start + chunk]).float()
        chosen_N = target_N[start : start + chunk]
        logit_N = logits_NV.gather(1, chosen_N[:, None])[:, 0]
        logprobs.append((logit_N - logits_NV.logsumexp(1)).cpu().numpy())
        greedy.append((logits_NV.argmax(1) == chosen_N).cpu().numpy())
    return np.concatenate(logprobs), np.concatenate(greedy)
