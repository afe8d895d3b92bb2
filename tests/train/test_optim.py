"""Which weights decay, and the state as tensors shared with the live ones."""

import torch
from workshop import Workshop

from indexlm.config import OptimiserConfig
from indexlm.train.optim import adamw, named_state


def test_gains_never_decay_and_the_head_has_a_decay_of_its_own(workshop: Workshop) -> None:
    """Without gradients a step is decay alone: each weight shrinks by lr x its decay."""
    model = workshop.model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    adamw(model, OptimiserConfig(lr=0.1, weight_decay=0.2, head_weight_decay=0.5)).step()
    for name, parameter in model.named_parameters():
        decay = {"lm_head.weight": 0.5}.get(name, 0.2 if parameter.dim() > 1 else 0.0)
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.1 * decay))


def test_every_weight_is_in_one_group(workshop: Workshop) -> None:
    model = workshop.model()
    groups = adamw(model, OptimiserConfig()).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_frozen_weights_are_neither_updated_nor_saved(workshop: Workshop) -> None:
    model = workshop.model()
    model.requires_grad_(False)
    gate = model.model.layers[1].mlp.gate_proj.weight.requires_grad_()
    optimiser = adamw(model, OptimiserConfig())
    assert [p for group in optimiser.param_groups for p in group["params"]] == [gate]
    assert {name.split(".", 1)[1] for name in named_state(model, optimiser)} == {
        "model.layers.1.mlp.gate_proj.weight"
    }


def test_the_state_names_every_weight_and_moment_and_follows_a_step(workshop: Workshop) -> None:
    model = workshop.model()
    optimiser = adamw(model, OptimiserConfig())
    state = named_state(model, optimiser)
    names = [name for name, _ in model.named_parameters()]
    assert set(state) == {
        f"{part}.{name}" for part in ("weight", "step", "exp_avg", "exp_avg_sq") for name in names
    }
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    assert float(state["step.model.norm.weight"]) == 1
    torch.testing.assert_close(state["exp_avg.model.norm.weight"], torch.full((32,), 0.1))
    assert torch.equal(state["weight.lm_head.weight"], model.lm_head.weight.detach())
