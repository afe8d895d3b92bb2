"""Rotary position embedding of the rotate-half kind (Su et al. 2021; pairs j and j + N/2).

Shape suffixes: B rows, H heads, T positions, N head width.
"""

import torch
from torch import Tensor


def rotations(positions_BT: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle, each float32 [B, T, N / 2].

    The angle of pair j at position t is t * base^(-2j / N). It is made in float64: at position
    32,767 a float32 angle is off by up to 2e-3. Nothing is kept between calls: a table as long as
    the window would be memory that a configuration asks for and no weight file backs.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions_BT.device)
    angle = positions_BT.double()[..., None] * base ** -(exponent / head_dim)
    return angle.cos().float(), angle.sin().float()


def rotate(x_BHTN: Tensor, cos_BT: Tensor, sin_BT: Tensor) -> Tensor:
    """Turn each pair by its angle. The tables are [B or 1, 1, T, N / 2], in the dtype of x."""
    first, second = x_BHTN.chunk(2, dim=-1)
    return torch.cat((first * cos_BT - second * sin_BT, second * cos_BT + first * sin_BT), dim=-1)
