"""Rotary position embedding of the rotate-half kind (Su et al. 2021; pairs j and j + N/2).

Shape suffixes: B rows, H heads, T positions, N head width.
"""

import torch
from torch import Tensor


def rotation_tables(context: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle, each float32 [context, head_dim / 2].

    The angle of pair j at position t is t * base^(-2j / head_dim).
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    angle = torch.outer(torch.arange(context, dtype=torch.float64), base**-exponent)
    return angle.cos().float(), angle.sin().float()


def rotate(x_BHTN: Tensor, cos_BT: Tensor, sin_BT: Tensor) -> Tensor:
    """Turn each pair by its angle. The tables are [B or 1, 1, T, N / 2], in the dtype of x."""
    first, second = x_BHTN.chunk(2, dim=-1)
    return torch.cat((first * cos_BT - second * sin_BT, second * cos_BT + first * sin_BT), dim=-1)
