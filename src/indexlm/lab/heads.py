"""The heads that studies compare: how they begin, and one whose norms get no gradient.

Shape suffixes: V vocabulary, D width.
"""

import torch
from torch import Tensor

from indexlm.model.norm_head import SMALLEST_NORM, NormHead
from indexlm.model.transformer import Transformer


class DetachedNormHead(NormHead):
    """A Norm-Head through whose norms no gradient flows: that of a row is not orthogonal to it."""

    def effective(self, weight_VD: Tensor) -> Tensor:
        norm_V1 = torch.linalg.vector_norm(weight_VD.detach().float(), dim=1, keepdim=True)
        rows_VD = weight_VD.float() / norm_V1.clamp(min=SMALLEST_NORM)
        return (rows_VD * self.scale).to(weight_VD.dtype)


def detach_norms(model: Transformer) -> None:
    """Put a DetachedNormHead over the same rows in the place of the model's head."""
    config = model.config
    assert config.norm_head, "a plain head has no norms to detach"
    head = DetachedNormHead(
        config.vocab_size, config.hidden, normalise=True, scale=config.head_scale
    )
    head.weight = model.lm_head.weight
    model.lm_head = head


@torch.no_grad()
def set_row_norms(model: Transformer, norm: float) -> None:
    """Make every raw row of the head as long as `norm`; directions stay as they were drawn."""
    weight_VD = model.lm_head.weight
    weight_VD.mul_(norm / torch.linalg.vector_norm(weight_VD, dim=1, keepdim=True))
