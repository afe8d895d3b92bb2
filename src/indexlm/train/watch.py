"""What is seen of a step: gradient norms by layer, the guard against a broken update."""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from indexlm.model.transformer import Transformer

LAYER = re.compile(r"model\.layers\.(\d+)\.")


def layer_of(name: str) -> str:
    """`embedding`, `layer 0` ..., `final norm`, `head` for a parameter's name."""
    inside = LAYER.match(name)
    if inside:
        return f"layer {inside[1]}"
    return {"model.embed_tokens.weight": "embedding", "lm_head.weight": "head"}.get(
        name, "final norm"
    )


def gradient_norms(model: Transformer) -> tuple[Tensor, dict[str, float]]:
    """(norm of the whole gradient, norm by layer), before clipping; frozen parameters have none.

    The shares of the squared norm add up to one; the report's claim is that the head's is the
    largest.
    """
    names, gradients = zip(
        *((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    )
    norms = torch.stack(torch._foreach_norm(gradients))
    squares: dict[str, float] = {}
    for name, norm in zip(names, norms.tolist()):
        squares[layer_of(name)] = squares.get(layer_of(name), 0.0) + norm * norm
    return norms.norm(), {layer: math.sqrt(square) for layer, square in squares.items()}


class SkipGuard:
    """Counts updates skipped for a loss or gradient that is not finite; too many end the run."""

    MOST_IN_A_ROW = 5

    def __init__(self) -> None:
        self.in_a_row = 0

    def allows(self, loss: float, norm: float, step: int) -> bool:
        """Whether to update. Raises FloatingPointError after MOST_IN_A_ROW skips."""
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        if self.in_a_row > self.MOST_IN_A_ROW:
            raise FloatingPointError(
                f"step {step}: loss {loss}, gradient norm {norm}; {self.in_a_row} updates in a row "
                "were skipped. The last checkpoint is from before; lower the learning rate"
            )
        return False


def summary(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
