"""Causal self-attention within documents, with an optional cache of past keys and values.

Shape suffixes: B rows, T new positions, S all positions seen, P positions of all rows, D width,
E width of keys, H heads, K heads of keys, G query heads that share one, N head width, L positions
of a document, Q queries of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from indexlm.model.config import ModelConfig
from indexlm.model.rope import rotate
from indexlm.model.tree_attention import Looks, attend_in_tree

QUERIES = 128
"""Queries of a block of `attend_within_documents`. With 64, rows of 256 with 4 heads took 2% more
of a step, rows of 1,024 with 8 heads 3% less of the operator: fewer calls against less masked."""


@dataclass
class LayerCache:
    """Keys and values of the positions seen so far, preallocated to the longest sequence."""

    keys_BHSN: Tensor
    values_BHSN: Tensor

    def append(self, start: int, keys_BHTN: Tensor, values_BHTN: Tensor) -> tuple[Tensor, Tensor]:
        end = start + keys_BHTN.shape[2]
        self.keys_BHSN[:, :, start:end] = keys_BHTN
        self.values_BHSN[:, :, start:end] = values_BHTN
        return self.until(end)

    def until(self, end: int) -> tuple[Tensor, Tensor]:
        return self.keys_BHSN[:, :, :end], self.values_BHSN[:, :, :end]


@dataclass(frozen=True)
class Sight:
    """What one forward pass shares between its layers: angles, who sees whom, cache position."""

    cos: Tensor
    sin: Tensor
    mask_BTS: Tensor | None
    """0 where position t may look at position s, else -inf, [B, 1, T, S]; None: plain causal."""
    starts_BT: Tensor | None = None
    """First position that each looks at, on a CPU with packed rows; then there is no mask."""
    start: int = 0
    tree: bool = False
    """The row is a packed tree: a cache goes before it and does not take it in."""
    looks: Looks | None = None
    """How a CPU takes the tree apart; then there is no mask."""


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        kv_width = config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.k_proj = nn.Linear(config.hidden, kv_width, bias=False)
        self.v_proj = nn.Linear(config.hidden, kv_width, bias=False)
        self.o_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.grouped = config.kv_heads != config.heads

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None) -> Tensor:
        q_BTD, k_BTE, v_BTE = self.q_proj(x_BTD), self.k_proj(x_BTD), self.v_proj(x_BTD)
        if sight.starts_BT is not None:
            seen_BTD: Tensor = attend_within_documents(
                q_BTD, k_BTE, v_BTE, sight.cos, sight.sin, sight.starts_BT
            )
            return self.o_proj(seen_BTD)
        q_BHTN = rotate(self._heads(q_BTD), sight.cos, sight.sin)
        k_BHSN = rotate(self._heads(k_BTE), sight.cos, sight.sin)
        v_BHSN = self._heads(v_BTE)
        if sight.looks is not None:
            past = cache.until(sight.start) if cache is not None else None
            return self.o_proj(attend_in_tree(q_BHTN, k_BHSN, v_BHSN, past, sight.looks))
        if cache is not None and sight.tree:
            past_BHPN = cache.until(sight.start)
            k_BHSN, v_BHSN = (torch.cat(x, 2) for x in zip(past_BHPN, (k_BHSN, v_BHSN)))
        elif cache is not None:
            k_BHSN, v_BHSN = cache.append(sight.start, k_BHSN, v_BHSN)
        out_BHTN = functional.scaled_dot_product_attention(
            q_BHTN,
            k_BHSN,
            v_BHSN,
            attn_mask=sight.mask_BTS,
            is_causal=sight.mask_BTS is None,
            enable_gqa=self.grouped,
        )
        return self.o_proj(out_BHTN.transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


def starts_of_documents(documents_BT: Tensor) -> Tensor:
    """The first position of the document that each position stands in, [B, T].

    A document is a run of equal numbers; padding (-1) is one more, so that every position sees at
    least itself.
    """
    positions_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    borders_BT = torch.zeros_like(documents_BT)
    borders_BT[:, 1:] = positions_T[1:] * (documents_BT[:, 1:] != documents_BT[:, :-1])
    return borders_BT.cummax(dim=1).values


def mask_within_documents(starts_BT: Tensor) -> Tensor:
    """[B, 1, T, T], True where position t may look at position s: starts[t] <= s <= t."""
    length = starts_BT.shape[1]
    causal_TS = torch.ones(length, length, dtype=torch.bool, device=starts_BT.device).tril()
    positions_S = torch.arange(length, device=starts_BT.device)
    return ((starts_BT[:, :, None] <= positions_S) & causal_TS)[:, None]


@torch.library.custom_op("indexlm::attend_within_documents", mutates_args=(), device_types="cpu")
def attend_within_documents(
    q_BTD: Tensor, k_BTE: Tensor, v_BTE: Tensor, cos: Tensor, sin: Tensor, starts_BT: Tensor
) -> Tensor:
    """Rotate q and k by the tables of RoPE, [B or 1, 1, T, N], and attend within documents.

    For processors: plain products of a block of queries with the keys from the start of their
    document to their end, so that neither the masked half nor another document costs arithmetic
    and no mask exists. It is one operator because torch.compile cannot look inside: how long a
    document is depends on the data. The backward pass makes the scores again from q, k and v as
    they came (Dao et al. 2022), so that these are all it keeps. Scores are float32 or wider.
    """
    out_BTD = torch.empty_like(q_BTD)
    group = q_BTD.shape[2] // k_BTE.shape[2]
    memory = _memory(q_BTD, cos, 2)
    for row, cos_T1N, sin_T1N, blocks in _rows(starts_BT, cos, sin, group):
        q_KRN, k_KTN, v_KTN = _by_head(q_BTD[row], k_BTE[row], v_BTE[row], cos_T1N, sin_T1N)
        out_KRN = torch.empty_like(q_KRN)
        for queries, keys in blocks:
            shares_KXS = _shares(q_KRN[:, queries], k_KTN[:, keys], group, memory)
            torch.bmm(shares_KXS, v_KTN[:, keys], out=out_KRN[:, queries])
        out_KTGN = _heads(out_BTD[row], k_KTN)
        out_KTGN.copy_(out_KRN.view(out_KTGN.shape))
    return out_BTD


@torch.library.custom_op(
    "indexlm::attend_within_documents_backward", mutates_args=(), device_types="cpu"
)
def _attend_backward(
    d_out_BTD: Tensor,
    q_BTD: Tensor,
    k_BTE: Tensor,
    v_BTE: Tensor,
    cos: Tensor,
    sin: Tensor,
    starts_BT: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    d_q_BTD, d_k_BTE, d_v_BTE = map(torch.empty_like, (q_BTD, k_BTE, v_BTE))
    group = q_BTD.shape[2] // k_BTE.shape[2]
    memory = _memory(q_BTD, cos, 3)
    for row, cos_T1N, sin_T1N, blocks in _rows(starts_BT, cos, sin, group):
        q_KRN, k_KTN, v_KTN = _by_head(q_BTD[row], k_BTE[row], v_BTE[row], cos_T1N, sin_T1N)
        d_out_KRN = _wide(_heads(d_out_BTD[row], k_KTN))
        d_q_KRN = torch.empty_like(q_KRN)
        d_k_KTN, d_v_KTN = torch.zeros_like(k_KTN), torch.zeros_like(v_KTN)
        for queries, keys in blocks:
            q_KXN, d_out_KXN, k_KSN = q_KRN[:, queries], d_out_KRN[:, queries], k_KTN[:, keys]
            shares_KXS = _shares(q_KXN, k_KSN, group, memory)
            d_v_KTN[:, keys].baddbmm_(shares_KXS.mT, d_out_KXN)
            d_shares_KXS, d_scores_KXS = (
                numbers[: shares_KXS.numel()].view_as(shares_KXS)
                for numbers in (memory[0], memory[2])
            )
            torch.bmm(d_out_KXN, v_KTN[:, keys].mT, out=d_shares_KXS)
            torch.ops.aten._softmax_backward_data.out(
                d_shares_KXS, shares_KXS, -1, shares_KXS.dtype, grad_input=d_scores_KXS
            )
            torch.bmm(d_scores_KXS, k_KSN, out=d_q_KRN[:, queries])
            d_k_KTN[:, keys].baddbmm_(d_scores_KXS.mT, q_KXN)
        # The gradient of a rotation is the rotation by the negative angle.
        scale = k_KTN.shape[2] ** -0.5
        d_q_KTGN = d_q_KRN.unflatten(1, (-1, group))
        d_k_KT1N = d_k_KTN[:, :, None]
        _heads(d_q_BTD[row], k_KTN).copy_(rotate(d_q_KTGN, cos_T1N * scale, sin_T1N * -scale))
        _heads(d_k_BTE[row], k_KTN).copy_(rotate(d_k_KT1N, cos_T1N, -sin_T1N))
        _heads(d_v_BTE[row], k_KTN).copy_(d_v_KTN[:, :, None])
    return d_q_BTD, d_k_BTE, d_v_BTE


@attend_within_documents.register_fake
def _(q_BTD: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(q_BTD)


@_attend_backward.register_fake
def _(
    d_out_BTD: Tensor, q_BTD: Tensor, k_BTE: Tensor, v_BTE: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q_BTD), torch.empty_like(k_BTE), torch.empty_like(v_BTE)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, d_out_BTD: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _attend_backward(d_out_BTD.contiguous(), *ctx.saved_tensors)
    return *gradients, None, None, None


attend_within_documents.register_autograd(_backward, setup_context=_keep)


def _rows(
    starts_BT: Tensor, cos: Tensor, sin: Tensor, group: int
) -> Iterator[tuple[int, Tensor, Tensor, list[tuple[slice, slice]]]]:
    """Of each row: number, tables of RoPE [T, 1, N], and blocks as (queries, keys they see)."""
    length = starts_BT.shape[1]
    for row, starts_T in enumerate(starts_BT):
        blocks = []
        for start, end in pairwise([*starts_T.unique_consecutive().tolist(), length]):
            for first in range(start, end, QUERIES):
                stop = min(first + QUERIES, end)
                blocks.append((slice(first * group, stop * group), slice(start, stop)))
        angles = row if len(cos) > 1 else 0
        yield row, cos[angles, 0, :, None], sin[angles, 0, :, None], blocks


def _heads(x_TD: Tensor, k_KTN: Tensor) -> Tensor:
    """A view of a row by head, [K, T, G, N]."""
    heads, length, width = k_KTN.shape
    return x_TD.view(length, heads, -1, width).transpose(0, 1)


def _wide(x_KTGN: Tensor) -> Tensor:
    """[K, T x G, N] in memory of its own."""
    return x_KTGN.to(_wide_type(x_KTGN)).contiguous().flatten(1, 2)


def _wide_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _by_head(
    q_TD: Tensor, k_TE: Tensor, v_TE: Tensor, cos_T1N: Tensor, sin_T1N: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """q [K, T x G, N] turned and divided by sqrt(N), k turned and v [K, T, N]."""
    width = cos_T1N.shape[2]
    scale = width**-0.5
    v_KTN = v_TE.view(len(v_TE), -1, width).transpose(0, 1)
    k_KTN = _wide(rotate(_heads(k_TE, v_KTN), cos_T1N, sin_T1N))
    q_KRN = _wide(rotate(_heads(q_TD, v_KTN), cos_T1N * scale, sin_T1N * scale))
    return q_KRN, k_KTN, _wide(v_KTN[:, :, None])


def _memory(q_BTD: Tensor, cos: Tensor, tables: int) -> Tensor:
    """Room for so many tables of a block's scores, [tables, numbers].

    Products into fresh memory run at less than half the speed of products into memory that is in
    use: the system hands out and clears its pages every time.
    """
    length, width = q_BTD.shape[1:]
    numbers = width // cos.shape[-1] * min(QUERIES, length) * length
    return q_BTD.new_empty(tables, numbers, dtype=_wide_type(q_BTD))


def _shares(q_KXN: Tensor, k_KSN: Tensor, group: int, memory: Tensor) -> Tensor:
    """Attention of the last X / G positions to all S of their document until then, [K, X, S].

    Written to `memory[1]`; `memory[0]` is used up.
    """
    shape = *q_KXN.shape[:2], k_KSN.shape[1]
    scores_KXS, shares_KXS = (numbers[: prod(shape)].view(shape) for numbers in memory[:2])
    queries = shape[1] // group
    torch.bmm(q_KXN, k_KSN.mT, out=scores_KXS)
    later_QQ = scores_KXS.new_full((queries, queries), -torch.inf).triu_(1)
    scores_KXS[..., -queries:] += later_QQ.repeat_interleave(group, 0) if group > 1 else later_QQ
    return torch.softmax(scores_KXS, -1, out=shares_KXS)
