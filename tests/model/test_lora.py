"""LoRA: what is added to a network, what stays as it was, and the way back to plain weights.

Shape suffixes: B rows, T positions, V vocabulary, I inputs, O outputs, R rank.
"""

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.lora import LoraLinear, adapter_state, merge, wrap
from indexlm.model.transformer import Transformer

IDS_BT = torch.randint(5, 512, (2, 24), generator=torch.Generator().manual_seed(1))
CONFIG = LoraConfig(rank=4, alpha=12, dropout=0.0)


def wrapped(model: Transformer, config: LoraConfig = CONFIG, seed: int = 1) -> Transformer:
    """A copy of `model` with an adapter as training would leave it: no zeros in B."""
    model = copy.deepcopy(model)
    wrap(model, config, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, value in adapter_state(model).items():
        if name.endswith("lora_B"):
            value.normal_(std=0.1, generator=generator)
    return model


@torch.no_grad()
def logits_of(model: Transformer) -> Tensor:
    return model.logits(model(IDS_BT))


def with_updates(model: Transformer, adapter: dict[str, Tensor], scale: float) -> Transformer:
    """A copy of the plain `model` with scale x B A added to its weights, in float64."""
    weights = dict(model.state_dict())
    for name, a_RI in adapter.items():
        if name.endswith("lora_A"):
            target = name.removesuffix("lora_A")
            b_OR = adapter[f"{target}lora_B"]
            base_OI = weights[f"{target}weight"].double()
            weights[f"{target}weight"] = base_OI + scale * b_OR.double() @ a_RI.double()
    changed = Transformer(model.config)
    changed.load_state_dict(weights)
    return changed.eval()


def test_a_wrapped_model_begins_with_the_outputs_of_its_base(model: Transformer) -> None:
    fresh = copy.deepcopy(model)
    wrap(fresh, CONFIG, 1)
    assert torch.equal(logits_of(fresh), logits_of(model))


def test_the_update_is_alpha_over_rank_times_b_times_a(model: Transformer) -> None:
    tuned = wrapped(model)
    expected = logits_of(with_updates(model, adapter_state(tuned), 12 / 4))
    torch.testing.assert_close(logits_of(tuned), expected, rtol=0, atol=2e-5)
    for mistake in (0.0, 1.0, 12.0, 12 / 4**0.5):
        other = logits_of(with_updates(model, adapter_state(tuned), mistake))
        assert float((logits_of(tuned) - other).abs().max()) > 0.05


@pytest.mark.parametrize("name", ["model", "grouped_model"])
def test_a_merged_model_is_a_plain_one_with_the_same_logits(
    name: str, request: pytest.FixtureRequest
) -> None:
    base: Transformer = request.getfixturevalue(name)
    tuned = wrapped(base)
    before = logits_of(tuned)
    merge(tuned)
    torch.testing.assert_close(logits_of(tuned), before, rtol=0, atol=2e-5)
    assert [*tuned.state_dict()] == [*base.state_dict()]
    assert not any(isinstance(module, LoraLinear) for module in tuned.modules())
    assert all(p.requires_grad for p in tuned.parameters())
    assert not tuned.model.layers[0].self_attn.q_proj.training
    # It can be loaded where a plain model is, and wrapped again.
    Transformer(base.config).load_state_dict(tuned.state_dict())
    wrap(tuned, CONFIG, 2)


def test_the_base_keeps_its_names_and_only_a_and_b_are_trained(model: Transformer) -> None:
    tuned = wrapped(model)
    added = tuned.state_dict().keys() - model.state_dict().keys()
    assert model.state_dict().keys() <= tuned.state_dict().keys()
    assert {name for name, p in tuned.named_parameters() if p.requires_grad} == added
    assert added == adapter_state(tuned).keys()
    assert len(added) == 3 * 7 * 2
    assert adapter_state(model) == {}
    q = "model.layers.1.self_attn.q_proj.lora_"
    assert tuned.state_dict()[f"{q}A"].shape == (4, 64)
    assert tuned.state_dict()["model.layers.2.mlp.up_proj.lora_B"].shape == (192, 4)


def test_only_the_named_projections_are_wrapped(model: Transformer) -> None:
    tuned = wrapped(model, CONFIG.model_copy(update={"targets": ("v_proj", "down_proj")}))
    kinds = {name.split(".")[-2] for name in adapter_state(tuned)}
    assert kinds == {"v_proj", "down_proj"} and len(adapter_state(tuned)) == 3 * 2 * 2


def test_a_is_drawn_by_the_seed_in_the_range_of_the_papers_code(model: Transformer) -> None:
    """Kaiming-uniform with a = sqrt(5) is uniform within 1 / sqrt(inputs)."""
    config = CONFIG.model_copy(update={"rank": 64})
    one, same, other = (copy.deepcopy(model) for _ in range(3))
    for each, seed in ((one, 1), (same, 1), (other, 2)):
        wrap(each, config, seed)
    for name, value in adapter_state(one).items():
        assert torch.equal(value, adapter_state(same)[name])
        if name.endswith("lora_B"):
            assert not value.any()
            continue
        assert not torch.equal(value, adapter_state(other)[name])
        bound = value.shape[1] ** -0.5
        assert 0.98 * bound < float(value.abs().max()) <= bound
        assert float(value.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_dropout_zeroes_its_share_of_the_inputs_of_a_in_training_alone() -> None:
    linear = nn.Linear(1000, 1000, bias=False)
    nn.init.zeros_(linear.weight)
    layer = LoraLinear(linear, LoraConfig(rank=1000, alpha=2000, dropout=0.3), torch.Generator())
    for part in (layer.lora_A, layer.lora_B):
        part.data.copy_(torch.eye(1000))
    x_BTI = torch.ones(1, 50, 1000)
    torch.manual_seed(4)
    trained = layer(x_BTI).detach()
    assert float((trained == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    kept = trained[trained != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / 0.7))
    assert torch.equal(layer.eval()(x_BTI), 2 * x_BTI)


def test_the_adapter_stays_float32_over_a_bfloat16_base(model: Transformer) -> None:
    base = copy.deepcopy(model).bfloat16()
    tuned = wrapped(base)
    assert {value.dtype for value in adapter_state(tuned).values()} == {torch.float32}
    out = tuned.logits(tuned(IDS_BT))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    gradients = [p.grad for p in tuned.parameters() if p.requires_grad]
    assert all(g is not None and g.dtype == torch.float32 for g in gradients)
    # The update itself is not rounded before it meets the base: the sum is, once.
    layer = tuned.model.layers[0].mlp.up_proj
    x_BTI = torch.randn(1, 30, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    update_OI = layer.scale * layer.lora_B @ layer.lora_A
    base_BTO = x_BTI @ layer.weight.T
    expected_BTO = (base_BTO.float() + x_BTI.float() @ update_OI.T).bfloat16()
    torch.testing.assert_close(layer(x_BTI), expected_BTO, rtol=2**-7, atol=1e-6)
    assert float((layer(x_BTI) == expected_BTO).float().mean()) > 0.99


def test_merging_into_bfloat16_rounds_once(model: Transformer) -> None:
    base = copy.deepcopy(model).bfloat16()
    tuned = wrapped(base)
    layer = tuned.model.layers[0].mlp.up_proj
    weight_OI, update_OI = layer.weight.clone(), 3 * layer.lora_B @ layer.lora_A
    once_OI = (weight_OI.double() + update_OI.double()).bfloat16()
    twice_OI = weight_OI + update_OI.bfloat16()
    merge(tuned)
    merged_OI = tuned.model.layers[0].mlp.up_proj.weight
    # Sums that lie within float32's own error of the middle of two steps may go either way.
    assert float((merged_OI != once_OI).float().mean()) < 1e-3
    assert float((merged_OI != twice_OI).float().mean()) > 0.03


def test_wrapping_drops_gradients_of_the_base_and_is_done_once(model: Transformer) -> None:
    tuned = copy.deepcopy(model)
    tuned.logits(tuned(IDS_BT)).sum().backward()
    wrap(tuned, CONFIG, 1)
    assert all(p.grad is None for p in tuned.parameters())
    with pytest.raises(AssertionError, match="wrapped already"):
        wrap(tuned, CONFIG, 1)


@pytest.mark.parametrize(
    ("rank", "trainable"), [(8, 11_575_296), (16, 23_150_592), (32, 46_301_184)]
)
def test_trainable_parameters_at_the_released_shape(rank: int, trainable: int) -> None:
    """36 layers x 40,192 per rank. With PEFT at rank 8 and all seven projections, a public
    notebook on Index-1.9B-Chat prints 11,575,296 of 2,184,394,752."""
    with torch.device("meta"):
        model = Transformer(ModelConfig())
    wrap(model, LoraConfig(rank=rank), 1)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    if rank == 8:
        assert sum(p.numel() for p in model.parameters()) == 2_184_394_752


@pytest.mark.parametrize(
    "bad",
    [
        {"targets": ("q_proj", "q_proj")},
        {"targets": ("lm_head",)},
        {"targets": ()},
        {"rank": 0},
        {"alpha": 0},
        {"dropout": 1.0},
        {"ranks": 4},
    ],
)
def test_settings_that_make_no_adapter_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        LoraConfig(**bad)
