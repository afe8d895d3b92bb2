"""Low-rank adaptation (LoRA, Hu et al. 2021): a frozen network and a small trainable update.

A targeted projection W becomes W + (alpha / rank) B A, with A [rank, in] and B [out, rank]. The
base weight keeps its name in the state dict (`...q_proj.weight`); `...q_proj.lora_A` and
`...q_proj.lora_B` stand beside it.

Shape suffixes: B rows, T positions, I inputs, O outputs, R rank.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from indexlm.model.config import PROJECTIONS, LoraConfig, Projection
from indexlm.model.transformer import Transformer


class LoraLinear(nn.Module):
    """A linear layer without bias whose weight is frozen, and its low-rank update.

    A and B are float32 over a base of any dtype: an update of AdamW at 1e-4 is lost in bfloat16.
    """

    def __init__(self, linear: nn.Linear, config: LoraConfig, generator: torch.Generator) -> None:
        super().__init__()
        assert [name for name, _ in linear.named_parameters()] == ["weight"], "it has a bias"
        # Drawn on the CPU, so that a seed means the same adapter on any device.
        a_RI = torch.empty(config.rank, linear.in_features, dtype=torch.float32)
        nn.init.kaiming_uniform_(a_RI, a=math.sqrt(5), generator=generator)
        b_OR = torch.zeros(linear.out_features, config.rank, dtype=torch.float32)
        device = linear.weight.device
        self.weight = linear.weight
        self.lora_A = nn.Parameter(a_RI.to(device))
        self.lora_B = nn.Parameter(b_OR.to(device))
        self.scale = config.alpha / config.rank
        self.dropout = nn.Dropout(config.dropout)
        self.train(linear.training)

    def forward(self, x_BTI: Tensor) -> Tensor:
        base_BTO = functional.linear(x_BTI, self.weight)
        # Cast before the dropout, whose factor 1 / (1 - share) would be rounded in bfloat16.
        kept_BTI = self.dropout(x_BTI.to(self.lora_A.dtype))
        low_BTR = self.scale * functional.linear(kept_BTI, self.lora_A)
        return (base_BTO + functional.linear(low_BTR, self.lora_B)).to(base_BTO.dtype)


def wrap(model: Transformer, config: LoraConfig, seed: int) -> None:
    """Freeze all of `model` and give its targeted projections a trainable update of zero.

    A is Kaiming-uniform with a = sqrt(5), drawn by `seed`, and B zero, as in the code of the paper
    and in PEFT: the wrapped model begins with the outputs of the base.
    """
    assert not adapter_state(model), "the model is wrapped already"
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    generator = torch.Generator().manual_seed(seed)
    for room, name, linear in _children(model, config.targets):
        assert isinstance(linear, nn.Linear)
        setattr(room, name, LoraLinear(linear, config, generator))


@torch.no_grad()
def merge(model: Transformer) -> None:
    """Add every update to its weight and put plain linear layers back, trainable again.

    The sum is made in float32 and cast once. Merging changes the base weights in place.
    """
    for room, name, layer in _children(model, PROJECTIONS):
        if not isinstance(layer, LoraLinear):
            continue
        update_OI = layer.scale * (layer.lora_B.float() @ layer.lora_A.float())
        layer.weight.copy_(layer.weight.float() + update_OI)
        outputs, inputs = layer.weight.shape
        linear = nn.Linear(inputs, outputs, bias=False, device="meta")
        linear.weight = layer.weight
        setattr(room, name, linear.train(layer.training))
    model.requires_grad_(True)


def adapter_state(model: Transformer) -> dict[str, Tensor]:
    """Each A and B by its name in the state dict, sharing memory with the model; empty for a model
    that is not wrapped."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if name.endswith((".lora_A", ".lora_B"))
    }


def _children(
    model: Transformer, names: tuple[Projection, ...]
) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(module, attribute, child) of every child so named, in the order of the layers."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in names:
                yield module, name, child
