"""The LM head and its softmax in chunks of positions: the logits of a batch never exist as a whole,
neither in the forward pass nor in the backward.

Shape suffixes: L labelled positions, G labelled positions of all processes that share the head,
C positions of a chunk, D width, V vocabulary, R rows of the head on this process.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from indexlm.model.shard import HeadGroup, head_group
from indexlm.model.transformer import Transformer

CHUNK = 512
"""Positions whose logits exist at one time: 16 MB at a vocabulary of 8,192, 133 MB at 65,029.
Chunks of 128 cost 7% more of the head's time at that vocabulary, chunks of 1,024 are no faster."""
CHUNK_ON_GPU = 2048
"""Larger products, for processors that need them to be busy."""

NOT_MINE = -1
"""Label of a position whose label's row is on another process, or that only fills up."""


def cross_entropy(model: Transformer, hidden_LD: Tensor, labels_L: Tensor) -> Tensor:
    """Sum of -log p(label) over positions, nats, float32."""
    head_RD = model.lm_head.own_rows()
    shared = head_group(model)
    if shared is None:
        return SummedCrossEntropy.apply(hidden_LD, head_RD, labels_L)
    return -SharedLogProbs.apply(hidden_LD, head_RD, labels_L, shared).sum()


def log_probs(model: Transformer, hidden_LD: Tensor, labels_L: Tensor) -> Tensor:
    """log p(label) of each position, nats, float32 [L]; its gradient may weigh them apart."""
    return SharedLogProbs.apply(hidden_LD, model.lm_head.own_rows(), labels_L, head_group(model))


class SummedCrossEntropy(torch.autograd.Function):
    """Sum of -log p(label), its gradients made in the forward pass chunk by chunk.

    With E = exp(logits - max) and s its sum over the vocabulary, the softmax is E / s. In float32
    it is never written down: s goes into the narrow side of both products, and the label's part is
    a row added after them. That leaves the arithmetic at 2% to 8% over the three matrix products.

    Products are in the dtype of the hidden states. In bfloat16 logits are widened before the
    softmax, for at 10 they step by 0.06, and the label is taken out before the products: a row
    added after them would leave the rounding of a whole row where the label is nearly certain.
    The head's gradient is float32 where its rows are. A frozen head gets no gradient buffer, which
    would be 533 MB at 65,029 x 2,048.
    """

    @staticmethod
    def forward(ctx: Any, hidden_LD: Tensor, raw_head_VD: Tensor, labels_L: Tensor) -> Tensor:
        head_VD = raw_head_VD.to(hidden_LD.dtype)
        d_hidden_LD = torch.empty_like(hidden_LD)
        d_head_VD = _gradient_of(head_VD) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_LD.device)
        chunk = _chunk(hidden_LD)
        buffer = hidden_LD.new_empty(min(chunk, len(labels_L)), len(head_VD))
        for start in range(0, len(labels_L), chunk):
            part = slice(start, start + chunk)
            hidden_CD, labels_C = hidden_LD[part], labels_L[part]
            raw_CV = buffer[: len(labels_C)]
            torch.mm(hidden_CD, head_VD.T, out=raw_CV)
            logits_CV = raw_CV.float()
            at_label_C1 = logits_CV.gather(1, labels_C[:, None])
            most_C1 = logits_CV.amax(1, keepdim=True)
            e_CV = logits_CV.sub_(most_C1).exp_()
            sum_C1 = e_CV.sum(1, keepdim=True)
            total += (most_C1 + sum_C1.log() - at_label_C1).sum()
            if head_VD.dtype == torch.float32:
                d_hidden_CD = torch.mm(e_CV, head_VD, out=d_hidden_LD[part])
                d_hidden_CD.div_(sum_C1).sub_(head_VD[labels_C])
                if d_head_VD is not None:
                    d_head_VD.addmm_(e_CV.T, hidden_CD / sum_C1)
                    d_head_VD.index_add_(0, labels_C, hidden_CD, alpha=-1)
                continue
            d_logits_CV = e_CV.div_(sum_C1)
            d_logits_CV.scatter_add_(1, labels_C[:, None], -torch.ones_like(sum_C1))
            narrow_CV = d_logits_CV.to(head_VD.dtype)
            torch.mm(narrow_CV, head_VD, out=d_hidden_LD[part])
            if d_head_VD is not None:
                _add_product(d_head_VD, narrow_CV.T, hidden_CD)
        if d_head_VD is not None:
            d_head_VD = d_head_VD.to(raw_head_VD.dtype)
        ctx.save_for_backward(d_hidden_LD, d_head_VD)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None]:
        # In place, for a copy of the head's would be the largest tensor of a step; it runs once.
        d_hidden_LD, d_head_VD = ctx.saved_tensors
        d_head = None if d_head_VD is None else d_head_VD.mul_(upstream[0])
        return d_hidden_LD.mul_(upstream[0]), d_head, None


class SharedLogProbs(torch.autograd.Function):
    """log p(label) of each position; the backward pass makes the logits of a chunk again.

    Where processes share the head's rows, hidden states are gathered from all of them, each makes
    the logits of its rows, and the sums of exponentials are put together from all.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_LD: Tensor, raw_head_RD: Tensor, labels_L: Tensor, shared: HeadGroup | None
    ) -> Tensor:
        head_RD = raw_head_RD.to(hidden_LD.dtype)
        longest = _longest(len(labels_L), shared)
        hidden_GD = _gathered(_filled(hidden_LD, longest, 0.0), shared)
        labels_G = _rows_of(
            _gathered(_filled(labels_L, longest, NOT_MINE), shared), shared, head_RD
        )
        log_sum_G = hidden_LD.new_empty(len(labels_G), dtype=torch.float32)
        at_label_G = torch.zeros_like(log_sum_G)
        chunk = _chunk(hidden_GD)
        for start in range(0, len(labels_G), chunk):
            part = slice(start, start + chunk)
            logits_CR = (hidden_GD[part] @ head_RD.T).float()
            mine_C = labels_G[part] != NOT_MINE
            at_C1 = logits_CR.gather(1, labels_G[part].clamp(min=0)[:, None])
            at_label_G[part] = at_C1[:, 0].where(mine_C, 0.0)
            log_sum_G[part] = logits_CR.logsumexp(1)
        if shared is not None:
            parts = [torch.empty_like(log_sum_G) for _ in range(dist.get_world_size(shared.group))]
            dist.all_gather(parts, log_sum_G, group=shared.group)
            log_sum_G = torch.stack(parts).logsumexp(0)
            dist.all_reduce(at_label_G, group=shared.group)
        ctx.save_for_backward(hidden_GD, head_RD, labels_G, log_sum_G)
        ctx.shared, ctx.count, ctx.longest = shared, len(labels_L), longest
        return _own(at_label_G - log_sum_G, len(labels_L), shared)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden_GD, head_RD, labels_G, log_sum_G = ctx.saved_tensors
        shared = ctx.shared
        upstream_G = _gathered(_filled(upstream[0], ctx.longest, 0.0), shared)
        d_hidden_GD = torch.empty_like(hidden_GD)
        d_head_RD = _gradient_of(head_RD) if ctx.needs_input_grad[1] else None
        chunk = _chunk(hidden_GD)
        for start in range(0, len(labels_G), chunk):
            part = slice(start, start + chunk)
            logits_CR = (hidden_GD[part] @ head_RD.T).float()
            d_logits_CR = logits_CR.sub_(log_sum_G[part, None]).exp_().neg_()
            mine_C = labels_G[part] != NOT_MINE
            one_C1 = mine_C.to(d_logits_CR.dtype)[:, None]
            d_logits_CR.scatter_add_(1, labels_G[part].clamp(min=0)[:, None], one_C1)
            d_logits_CR.mul_(upstream_G[part, None])
            narrow_CR = d_logits_CR.to(head_RD.dtype)
            torch.mm(narrow_CR, head_RD, out=d_hidden_GD[part])
            if d_head_RD is not None:
                _add_product(d_head_RD, narrow_CR.T, hidden_GD[part])
        if shared is not None:
            own_LD = hidden_GD.new_empty(ctx.longest, hidden_GD.shape[1])
            parts = d_hidden_GD.chunk(dist.get_world_size(shared.group))
            dist.reduce_scatter(own_LD, list(parts), group=shared.group)
            d_hidden_GD = own_LD
        return d_hidden_GD[: ctx.count], d_head_RD, None, None


def _chunk(hidden: Tensor) -> int:
    return CHUNK_ON_GPU if hidden.is_cuda else CHUNK


def _gradient_of(head: Tensor) -> Tensor:
    """Where its gradient is added up, in float32: chunk after chunk, bfloat16 would lose most."""
    return torch.zeros_like(head, dtype=torch.float32)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _longest(count: int, shared: HeadGroup | None) -> int:
    """Positions of the process of the group that has most."""
    if shared is None:
        return count
    most = torch.tensor(count)
    dist.all_reduce(most, op=dist.ReduceOp.MAX, group=shared.group)
    return int(most)


def _filled(tensor: Tensor, length: int, value: float) -> Tensor:
    """Made longer in its first dimension, up to `length`."""
    missing = length - len(tensor)
    if not missing:
        return tensor.contiguous()
    return torch.cat([tensor, tensor.new_full((missing, *tensor.shape[1:]), value)])


def _gathered(tensor: Tensor, shared: HeadGroup | None) -> Tensor:
    if shared is None:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(shared.group))]
    dist.all_gather(parts, tensor, group=shared.group)
    return torch.cat(parts)


def _own(tensor_G: Tensor, count: int, shared: HeadGroup | None) -> Tensor:
    """The part of this process, without what was filled up."""
    if shared is None:
        return tensor_G
    each = len(tensor_G) // dist.get_world_size(shared.group)
    start = dist.get_rank(shared.group) * each
    return tensor_G[start : start + count]


def _rows_of(labels_G: Tensor, shared: HeadGroup | None, head_RD: Tensor) -> Tensor:
    """Labels as row numbers of this process's part of the head, else NOT_MINE."""
    if shared is None:
        return labels_G
    row_G = labels_G - shared.first_row
    mine_G = (labels_G != NOT_MINE) & (row_G >= 0) & (row_G < len(head_RD))
    return row_G.where(mine_G, NOT_MINE)
