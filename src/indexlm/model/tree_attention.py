"""Attention over sequences that begin alike, packed as a tree: each shared beginning stands once.

The sequences of a prefix tree (Morrison 1968) are written one segment after the other in
depth-first order. A segment's descendants then follow it directly, so that the whole of who sees
whom is one number for each segment: where its descendants end. Position t sees position s where
s <= t < end of the descendants of s; and everything sees the `past`, keys and values computed
before. Speculative decoding checks its drafts in this way (SpecInfer, Miao et al. 2024).

A processor computes the parts that are seen one by one and joins their results by the logarithms
of their sums of exponentials, as FlashAttention joins blocks of keys (Dao et al. 2022, Hydragen,
Juravsky et al. 2024): a past is one product for all that comes after it. The fused kernels of
other devices take a mask.

Shapes: T packed positions, P positions of the past, S both, H heads, K heads of keys, G query
heads that share one, N head width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 128
"""Whole subtrees of together so many positions are one product with a mask. At 8 layers x 96, items
of four options of 2 to 8 tokens took 1.6 times as long with a call for each segment; 64 to 256 took
the same."""


class Segment(NamedTuple):
    """Positions `start` to `stop` of the pack, followed by their descendants until `end`.

    The first of them stands `depth` positions after the past.
    """

    start: int
    stop: int
    end: int
    depth: int


class Look(NamedTuple):
    """`queries` attend to `keys`: causally, by a mask, or to all of them."""

    queries: slice
    keys: slice
    causal: bool = False
    mask_TT: Tensor | None = None
    """0 where seen, else -inf."""


class Looks(NamedTuple):
    """Each position is in one of `own`, with itself in sight; `above` look at ancestors."""

    own: list[Look]
    above: list[Look]


class Tree:
    """Segments in depth-first order, the first beginning at 0; the longest path has `depth`
    positions."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self.depth = max(depth + stop - start for start, stop, _, depth in segments)

    def positions(self, past: int, device: torch.device) -> Tensor:
        """[1, T]: where each position stands in its own sequence."""
        parts = [
            torch.arange(past + depth, past + depth + stop - start)
            for start, stop, _, depth in self.segments
        ]
        return torch.cat(parts)[None].to(device)

    def mask(self, past: int, device: torch.device) -> Tensor:
        """[1, 1, T, S], True where position t may look at position s of past and pack."""
        seen_TT = _seen(self.segments, device)
        seen_TP = torch.ones(len(seen_TT), past, dtype=torch.bool, device=device)
        return torch.cat((seen_TP, seen_TT), dim=1)[None, None]

    def looks(self, dtype: torch.dtype) -> Looks:
        """How a processor takes the tree apart; masks are of this dtype."""
        looks = Looks([], [])
        at = 0
        while at < len(self.segments):
            start, stop, end, _ = self.segments[at]
            after, block_end = at, start
            # Whole subtrees, as many as fit.
            while after < len(self.segments) and self.segments[after].end <= start + BLOCK:
                block_end = max(block_end, self.segments[after].end)
                after += 1
            if after > at + 1:
                seen_TT = _seen(self.segments[at:after], torch.device("cpu"))
                mask_TT = torch.zeros_like(seen_TT, dtype=dtype).masked_fill_(~seen_TT, -torch.inf)
                block = slice(start, block_end)
                looks.own.append(Look(block, block, mask_TT=mask_TT))
                at = after
            else:
                looks.own.append(Look(slice(start, stop), slice(start, stop), causal=True))
                if stop < end:
                    looks.above.append(Look(slice(stop, end), slice(start, stop)))
                at += 1
        return looks


def attend_in_tree(
    q_BHTN: Tensor,
    k_BKTN: Tensor,
    v_BKTN: Tensor,
    past: tuple[Tensor, Tensor] | None,
    looks: Looks,
) -> Tensor:
    """[1, T, H x N] of one packed row, turned by its angles; for processors.

    `past` are keys and values [1, K, P, N].
    """
    kv_heads, length, width = k_BKTN.shape[1:]
    # Query heads that share keys are rows of a batch: its keys are expanded, not copied.
    q_GKTN = q_BHTN.unflatten(1, (kv_heads, -1))[0].transpose(0, 1)
    out_BTKGN = q_BHTN.new_empty(1, length, kv_heads, len(q_GKTN), width)
    out_GKTN = out_BTKGN[0].permute(2, 1, 0, 3)
    wide = torch.promote_types(q_BHTN.dtype, torch.float32)
    logsum_GKT = q_BHTN.new_empty(out_GKTN.shape[:3], dtype=wide)
    for look in looks.own:
        queries, keys = look.queries, look.keys
        out_GKTN[:, :, queries], logsum_GKT[:, :, queries] = _attend(
            q_GKTN[:, :, queries], k_BKTN[:, :, keys], v_BKTN[:, :, keys], look
        )
    parts = [(look, k_BKTN[:, :, look.keys], v_BKTN[:, :, look.keys]) for look in looks.above]
    if past is not None:
        parts.append((Look(slice(0, length), slice(0, past[0].shape[2])), *past))
    for look, k_BKSN, v_BKSN in parts:
        queries = look.queries
        part_GKTN, part_GKT = _attend(q_GKTN[:, :, queries], k_BKSN, v_BKSN, look)
        so_far_GKT = logsum_GKT[:, :, queries]
        # exp(part) / (exp(so far) + exp(part))
        share_GKT = torch.sigmoid(part_GKT - so_far_GKT).to(part_GKTN.dtype)
        out_GKTN[:, :, queries].lerp_(part_GKTN, share_GKT[..., None])
        torch.logaddexp(so_far_GKT, part_GKT, out=so_far_GKT)
    return out_BTKGN.flatten(2)


def _attend(q_GKTN: Tensor, k_BKSN: Tensor, v_BKSN: Tensor, look: Look) -> tuple[Tensor, Tensor]:
    """Attention [G, K, T, N] and the logarithm of its sum of exponentials [G, K, T]."""
    groups = len(q_GKTN)
    # The public function keeps the logarithms to itself.
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q_GKTN,
        k_BKSN.expand(groups, -1, -1, -1),
        v_BKSN.expand(groups, -1, -1, -1),
        is_causal=look.causal,
        attn_mask=None if look.mask_TT is None else look.mask_TT[None, None],
    )


def _seen(segments: Sequence[Segment], device: torch.device) -> Tensor:
    """[T, T], True where position t sees position s: not a later one, nor one of another branch."""
    first = segments[0].start
    lengths = torch.tensor([segment.stop - segment.start for segment in segments])
    ends = torch.tensor([segment.end - first for segment in segments])
    ends_S = ends.repeat_interleave(lengths).to(device)
    positions_T = torch.arange(len(ends_S), device=device)
    return (positions_T <= positions_T[:, None]) & (positions_T[:, None] < ends_S)
