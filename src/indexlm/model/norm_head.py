"""The Norm-Head: an LM head whose rows are L2-normalised in the forward pass.

The gradient flows through the norm, so it is orthogonal to each row and a short row turns faster
(its effective learning rate is lr / |w|). The raw rows are kept: training needs their norms and
files carry them; the normalised copy is cached only while no gradient is asked for and the rows
have not changed since.

Its rows can be shared out among processes (`shard.py`): a row's norm needs no other row, so
normalising them takes no communication.

Shape suffixes: V vocabulary, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# Zero rows stay zero instead of turning into NaN.
SMALLEST_NORM = 1e-12


class NormHead(nn.Module):
    """Rows divided by their L2 norm, then multiplied by `scale`; no bias.

    Index-1.9B report, section 6.1, and Baichuan 2. With `normalise=False` a plain linear head, the
    control arm.
    """

    def __init__(self, vocab_size: int, hidden: int, *, normalise: bool, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden))
        self.normalise = normalise
        self.scale = scale
        self._cached: tuple[tuple[int, int], Tensor] | None = None

    def matrix(self) -> Tensor:
        """The matrix that multiplies hidden states, [V, D], in the dtype of the weight."""
        return self._matrix()

    def own_rows(self) -> Tensor:
        """The rows of `matrix` that this process multiplies with: all, where it does not share."""
        return self._matrix()

    def effective(self, weight_VD: Tensor) -> Tensor:
        """Raw rows, any number of them, as they multiply."""
        if not self.normalise:
            return weight_VD * self.scale if self.scale != 1 else weight_VD
        # Normalised in float32 and cast once: in bf16 the norm itself would be off by a step.
        rows_VD = functional.normalize(weight_VD.float(), dim=1, eps=SMALLEST_NORM)
        scaled_VD = rows_VD * self.scale if self.scale != 1 else rows_VD
        return scaled_VD.to(weight_VD.dtype)

    def _matrix(self) -> Tensor:
        if torch.is_grad_enabled() and self.weight.requires_grad:
            self._cached = None
            return self.effective(self.weight)
        # The counter changes with every in-place update of the rows, the address when they are
        # cast or replaced.
        version = (self.weight._version, self.weight.data_ptr())
        # A copy made for generation cannot be part of a graph: a frozen head is also trained under.
        inference = self._cached is not None and self._cached[1].is_inference()
        stale = inference and not torch.is_inference_mode_enabled()
        if self._cached is None or self._cached[0] != version or stale:
            self._cached = (version, self.effective(self.weight))
        return self._cached[1]
