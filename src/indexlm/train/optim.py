"""AdamW with the groups of the recipe, and its state as named tensors."""

import torch
from torch import Tensor

from indexlm.config import OptimiserConfig
from indexlm.model.transformer import Transformer


def adamw(model: Transformer, config: OptimiserConfig) -> torch.optim.AdamW:
    """Weight decay on matrices, never on gains: a decayed final gain caps the logits of a
    Norm-Head. The head has a decay of its own, which sets its row norms and with them the
    effective learning rate of their directions. Frozen parameters are left out."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    head = [p for p in trainable if p is model.lm_head.weight]
    matrices = [p for p in trainable if p.dim() > 1 and p is not model.lm_head.weight]
    gains = [p for p in trainable if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": head, "weight_decay": config.head_weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)


def named_state(model: Transformer, optimiser: torch.optim.AdamW) -> dict[str, Tensor]:
    """Weights and moments as one flat dictionary of tensors that share memory with the live ones.

    Of trainable parameters alone: a checkpoint of LoRA is as large as its adapter, three times.
    Before the first step AdamW has no moments; they are made here as the zeros it would begin with.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    state = {f"weight.{name}": p.detach() for name, p in trainable}
    for name, parameter in trainable:
        moments = optimiser.state[parameter]
        if not moments:
            moments["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            moments["exp_avg"] = torch.zeros_like(parameter)
            moments["exp_avg_sq"] = torch.zeros_like(parameter)
        state |= {f"{key}.{name}": value for key, value in moments.items()}
    return state
