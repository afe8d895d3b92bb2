"""Causal self-attention within documents, with an optional cache of past keys and values.

Shape suffixes: B rows, T new positions, S all positions seen, D width, H heads, N head width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from indexlm.model.config import ModelConfig
from indexlm.model.rope import rotate


@dataclass
class LayerCache:
    """Keys and values of the positions seen so far, preallocated to the longest sequence."""

    keys_BHSN: Tensor
    values_BHSN: Tensor

    def append(self, start: int, keys_BHTN: Tensor, values_BHTN: Tensor) -> tuple[Tensor, Tensor]:
        end = start + keys_BHTN.shape[2]
        self.keys_BHSN[:, :, start:end] = keys_BHTN
        self.values_BHSN[:, :, start:end] = values_BHTN
        return self.keys_BHSN[:, :, :end], self.values_BHSN[:, :, :end]


@dataclass(frozen=True)
class Sight:
    """What one forward pass shares between its layers: angles, who sees whom, cache position."""

    cos: Tensor
    sin: Tensor
    mask_BTS: Tensor | None
    """0 where position t may look at position s, else -inf, [B, 1, T, S]; None: plain causal."""
    start: int = 0


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
        q_BHTN = rotate(self._heads(self.q_proj(x_BTD)), sight.cos, sight.sin)
        k_BHSN = rotate(self._heads(self.k_proj(x_BTD)), sight.cos, sight.sin)
        v_BHSN = self._heads(self.v_proj(x_BTD))
        if cache is not None:
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


def mask_within_documents(documents_BT: Tensor) -> Tensor:
    """[B, 1, T, T], True where s <= t and both stand in the same document.

    Padding (document -1) sees itself only by the same rule, so no row of the mask is empty.
    """
    same_BTS = documents_BT[:, :, None] == documents_BT[:, None, :]
    length = documents_BT.shape[1]
    causal_TS = torch.ones(length, length, dtype=torch.bool, device=documents_BT.device).tril()
    return (same_BTS & causal_TS)[:, None]
