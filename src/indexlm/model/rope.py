"""Rotary position embedding of the rotate-half kind (Su et al. 2021; pairs j and j + N/2).

Shape suffixes: B rows, H heads, T positions, N head width.
"""

import torch
from torch import Tensor

from indexlm.errors import UserError


def rotations(positions_BT: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Factors of a position's own number and of its pair's other one, each float32 [B, T, N].

    They are (cos, cos) and (-sin, sin) over the two halves of a head.

    The angle of pair j at position t is t * base^(-2j / N). It is made in float64: at position
    32,767 a float32 angle is off by up to 2e-3. Nothing is kept between calls: a table as long as
    the window would be memory that a configuration asks for and no weight file backs.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions_BT.device)
    angle = positions_BT.double()[..., None] * base ** -(exponent / head_dim)
    cos, sin = angle.cos().float(), angle.sin().float()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x_BHTN: Tensor, cos_BT: Tensor, sin_BT: Tensor) -> Tensor:
    """Turn each pair by its angle. The tables are [B or 1, 1, T, N], in the dtype of x; with the
    second one negated, pairs turn back."""
    other_BHTN = x_BHTN.roll(x_BHTN.shape[-1] // 2, dims=-1)
    return torch.addcmul(x_BHTN * cos_BT, other_BHTN, sin_BT)


def ntk_base(base: float, head_dim: int, trained: int, length: int, factor: float) -> float:
    """The RoPE base with which a model trained on `trained` tokens reads `length` of them.

    Dynamic NTK scaling, as `rope_type: dynamic` of the transformers library computes it:

        base * (factor * length / trained - (factor - 1)) ** (N / (N - 2))

    It stretches the slowest pair by the bracket and leaves the fastest as it is; up to `trained`
    nothing changes. That library takes a new base at every generated token while its cache keeps
    keys turned by the old ones. Here `length` is prompt and answer together, so that one base
    holds from the first token to the last and a step with a cache equals the full forward pass.

    Raises UserError for a factor that is not above 0 and for heads of one pair.
    """
    if factor <= 0:
        raise UserError(f"an NTK factor of {factor:g} stretches nothing; give one above 0")
    if length <= trained:
        return base
    if head_dim == 2:
        raise UserError("heads of width 2 turn at one speed, which NTK scaling leaves as it is")
    stretch = factor * length / trained - (factor - 1)
    return float(base * stretch ** (head_dim / (head_dim - 2)))
