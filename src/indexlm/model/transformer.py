"""The network: embedding, deep and slim Llama-shaped blocks, Norm-Head. Architecture only.

Attribute names give the tensor names of the published checkpoints (`model.layers.0.self_attn.
q_proj.weight`, `lm_head.weight`), so a state dict is a checkpoint's content unchanged.

Shape suffixes: B rows, T positions, S all positions seen, D width, F width of the feed-forward,
V vocabulary.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from indexlm.model.attention import (
    QUERIES,
    Attention,
    LayerCache,
    Sight,
    mask_within_documents,
    starts_of_documents,
)
from indexlm.model.config import ModelConfig
from indexlm.model.norm_head import NormHead
from indexlm.model.rope import rotations
from indexlm.model.tree_attention import Tree


class _Gated(torch.autograd.Function):
    """silu(gate) * up. Keeps both and makes silu(gate) again in the backward pass: on a processor
    that is less work than to write it to memory and read it back."""

    @staticmethod
    def forward(ctx: Any, gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
        ctx.save_for_backward(gate_BTF, up_BTF)
        # Not in place: PyTorch 2.11 compiles that to wrong gradients (pytorch/pytorch #180642).
        return functional.silu(gate_BTF) * up_BTF

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        (d_out_BTF,) = upstream
        gate_BTF, up_BTF = ctx.saved_tensors
        d_gate_BTF = torch.ops.aten.silu_backward(d_out_BTF * up_BTF, gate_BTF)
        return d_gate_BTF, functional.silu(gate_BTF).mul_(d_out_BTF)


class _Normalised(torch.autograd.Function):
    """x / rms(x) * gain (Zhang and Sennrich 2019). Keeps x, which the residual stream keeps
    anyway. The derivative that torch takes of its own is twice the passes over memory."""

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x_BTD, gain_D)
        ctx.eps = eps
        return functional.rms_norm(x_BTD, gain_D.shape, gain_D, eps)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x_BTD, gain_D = ctx.saved_tensors
        wide = torch.promote_types(x_BTD.dtype, torch.float32)
        d_out_BTD, x_BTD = upstream[0].to(wide), x_BTD.to(wide)
        size_BT1 = torch.linalg.vector_norm(x_BTD, dim=-1, keepdim=True)
        inverse_BT1 = (size_BT1.square() / len(gain_D) + ctx.eps).rsqrt()
        unit_BTD = x_BTD * inverse_BT1
        product_BTD = d_out_BTD * unit_BTD
        along_BT1 = (product_BTD @ gain_D.to(wide))[..., None] / len(gain_D)
        d_x_BTD = (d_out_BTD * gain_D).addcmul_(unit_BTD, along_BT1, value=-1).mul_(inverse_BT1)
        trained = ctx.needs_input_grad[1]
        d_gain_D = product_BTD.flatten(0, -2).sum(0).to(gain_D.dtype) if trained else None
        return d_x_BTD.to(upstream[0].dtype), d_gain_D, None


class RMSNorm(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = _Normalised.apply(x, self.weight, self.eps)
        return normed


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(_Gated.apply(self.gate_proj(x_BTD), self.up_proj(x_BTD)))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.hidden, eps=config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden, eps=config.norm_eps)

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), sight, cache)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Trunk(nn.Module):
    """Everything below the head; holds the published prefix `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, eps=config.norm_eps)


@dataclass
class Cache:
    """Keys and values of a batch that is being generated; `seen` positions are filled."""

    layers: list[LayerCache]
    visible_BS: Tensor
    """False on left padding, [B, longest]."""
    seen: int = 0


class Transformer(nn.Module):
    """`model(ids)` gives hidden states, `model.logits(hidden)` logits.

    They are apart because a loss takes the head in chunks and a scorer only at a few positions;
    at a vocabulary of 65,029 the full logits are the largest tensor of a step.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = NormHead(
            config.vocab_size,
            config.hidden,
            normalise=config.norm_head,
            scale=config.head_scale,
        )

    def initialise(self, seed: int) -> None:
        """Normal weights of `init_std`, projections into the residual stream divided by
        sqrt(2 x layers) (Radford et al. 2019), gains 1."""
        generator = torch.Generator().manual_seed(seed)
        residual_std = self.config.init_std / (2 * self.config.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.ones_(parameter)
                continue
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = residual_std if into_residual else self.config.init_std
            nn.init.normal_(parameter, std=std, generator=generator)

    def forward(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        cache: Cache | None = None,
        tree: Tree | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, [B, T, D].

        `documents_BT` names the document of each position: attention stays inside it and -1 is
        padding. `positions_BT` restarts at 0 in every document; without it 0..T-1. With a `cache`
        the ids continue what it has seen. One row may be a `tree` of sequences packed together;
        they continue what the cache has seen, which it stays with.
        """
        start = cache.seen if cache is not None else 0
        length = ids_BT.shape[1]
        longest = start + (length if tree is None else tree.depth)
        assert longest <= self.config.context, (
            f"{longest} positions in a window of {self.config.context}"
        )
        starts_BT, mask = None, None
        if documents_BT is not None:
            assert cache is None and tree is None, "packed documents are not gone on from"
            starts_BT = starts_of_documents(documents_BT)
            if ids_BT.device.type != "cpu" or length <= QUERIES:
                # The fused kernels there take a mask, and so short a row is one block of queries.
                mask = mask_within_documents(starts_BT)
                starts_BT = None
        elif tree is not None:
            assert positions_BT is None and len(ids_BT) == 1
            positions_BT = tree.positions(start, ids_BT.device)
            if ids_BT.device.type != "cpu":
                mask = tree.mask(start, ids_BT.device)
        elif cache is not None:
            mask = _mask(cache, length)
        if positions_BT is None:
            positions_BT = torch.arange(start, start + length, device=ids_BT.device)[None]
        x_BTD = self.model.embed_tokens(ids_BT)
        cos_BTN, sin_BTN = rotations(positions_BT, self.config.head_dim, self.config.rope_base)
        sight = Sight(
            cos=cos_BTN[:, None].to(x_BTD.dtype),
            sin=sin_BTN[:, None].to(x_BTD.dtype),
            mask_BTS=_additive(mask, x_BTD.dtype),
            starts_BT=starts_BT,
            start=start,
            tree=tree is not None,
            looks=tree.looks(x_BTD.dtype) if tree is not None and mask is None else None,
        )
        for index, block in enumerate(self.model.layers):
            x_BTD = block(x_BTD, sight, cache.layers[index] if cache is not None else None)
        if cache is not None and tree is None:
            cache.seen += length
        return self.model.norm(x_BTD)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of any [..., D] hidden states, [..., V]."""
        return hidden @ self.lm_head.matrix().T

    def new_cache(self, visible_BS: Tensor) -> Cache:
        """An empty cache for rows that will see `visible_BS.shape[1]` positions, padding False."""
        rows, longest = visible_BS.shape
        weight = self.lm_head.weight
        shape = (rows, self.config.kv_heads, longest, self.config.head_dim)
        layers = [
            LayerCache(weight.new_zeros(shape), weight.new_zeros(shape))
            for _ in range(self.config.layers)
        ]
        return Cache(layers, visible_BS)


def with_window(model: Transformer, context: int, rope_base: float | None = None) -> Transformer:
    """The same network with a window of `context` tokens and, where given, another RoPE base.

    It shares every module with `model`, so it costs no memory and follows its training; only the
    configuration is its own. A longer window with the base unchanged is plain extrapolation, with
    `rope.ntk_base` NTK scaling.
    """
    base = model.config.rope_base if rope_base is None else rope_base
    seen = copy.copy(model)
    changes = {"context": context, "rope_base": base}
    seen.config = ModelConfig(**(model.config.model_dump() | changes))
    return seen


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """0 where a position may be seen and -inf elsewhere. Given a bool mask, attention makes these
    numbers in every layer and keeps each for the backward pass: 2.4 GB a row at 36 x 4,096."""
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)


def _mask(cache: Cache, length: int) -> Tensor | None:
    """True where a position may be seen, [B, 1, T, S]; None is plain causal."""
    end = cache.seen + length
    visible_BS = cache.visible_BS[:, :end]
    if cache.seen == 0 and bool(visible_BS.all()):
        # Plain causal: a mask of 32,768 positions squared would be a gibibyte for each row.
        return None
    causal_TS = torch.ones(length, end, dtype=torch.bool, device=visible_BS.device)
    causal_TS = causal_TS.tril(diagonal=cache.seen)
    # A padded query sees nothing; letting it see itself keeps its softmax finite.
    itself_TS = torch.zeros_like(causal_TS)
    itself_TS[:, cache.seen :] = torch.eye(length, dtype=torch.bool, device=visible_BS.device)
    return ((visible_BS[:, None] & causal_TS) | itself_TS)[:, None]
