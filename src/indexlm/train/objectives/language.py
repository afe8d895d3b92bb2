"""Next-token cross-entropy over labelled positions, without ever holding the logits.

Pre-training, decay and SFT all use it; they differ in which positions carry a label.

Shape suffixes: B rows, T positions, L labelled positions, C positions of a chunk, D width,
V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from indexlm.feed.packing import Batch
from indexlm.model.transformer import Transformer
from indexlm.tokens.chat_format import IGNORED

CHUNK = 512
"""Positions whose logits exist at one time. At a vocabulary of 8,192 they are 16 MB, which stays
near the caches: 1.35x the speed of whole logits on two cores at width 128."""


class SummedCrossEntropy(torch.autograd.Function):
    """Sum of -log p(label), float32, its gradients made in the forward pass chunk by chunk.

    Logits of a bfloat16 model are widened before the softmax: at a logit of 10 bfloat16 steps by
    0.06. A frozen head gets no gradient buffer, which would be 533 MB at 65,029 x 2,048.
    """

    @staticmethod
    def forward(ctx: Any, hidden_LD: Tensor, head_VD: Tensor, labels_L: Tensor) -> Tensor:
        d_hidden_LD = torch.empty_like(hidden_LD)
        d_head_VD = torch.zeros_like(head_VD) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_LD.device)
        buffer = hidden_LD.new_empty(min(CHUNK, len(labels_L)), len(head_VD))
        for start in range(0, len(labels_L), CHUNK):
            hidden_CD, labels_C1 = (
                hidden_LD[start : start + CHUNK],
                labels_L[start : start + CHUNK, None],
            )
            raw_CV = buffer[: len(labels_C1)]
            torch.mm(hidden_CD, head_VD.T, out=raw_CV)
            logits_CV = raw_CV.float()
            log_sum_C1 = logits_CV.logsumexp(1, keepdim=True)
            total += (log_sum_C1 - logits_CV.gather(1, labels_C1)).sum()
            # d loss / d logits = softmax - one-hot, written over the logits.
            logits_CV.sub_(log_sum_C1).exp_()
            logits_CV.scatter_add_(1, labels_C1, logits_CV.new_full(labels_C1.shape, -1.0))
            d_logits_CV = logits_CV.to(head_VD.dtype)
            torch.mm(d_logits_CV, head_VD, out=d_hidden_LD[start : start + CHUNK])
            if d_head_VD is not None:
                d_head_VD.addmm_(d_logits_CV.T, hidden_CD)
        ctx.save_for_backward(d_hidden_LD, d_head_VD)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None]:
        d_hidden_LD, d_head_VD = ctx.saved_tensors
        d_head = None if d_head_VD is None else d_head_VD * upstream[0]
        return d_hidden_LD * upstream[0], d_head, None


def language_loss(model: Transformer, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
    """(summed loss in nats, number of labelled positions, no further metrics)."""
    hidden_BTD = model(
        batch.ids_BT, positions_BT=batch.positions_BT, documents_BT=batch.documents_BT
    )
    labelled_BT = batch.labels_BT != IGNORED
    labels_L = batch.labels_BT[labelled_BT]
    loss = SummedCrossEntropy.apply(hidden_BTD[labelled_BT], model.lm_head.matrix(), labels_L)
    return loss, len(labels_L), {}
