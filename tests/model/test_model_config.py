"""The counts and names of the published checkpoints, and shapes that cannot be built."""

import pytest
import torch
from pydantic import ValidationError

from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer

PER_LAYER = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)


@pytest.fixture(scope="module")
def published() -> Transformer:
    """The released architecture, without memory behind it."""
    with torch.device("meta"):
        return Transformer(ModelConfig())


def test_the_defaults_have_the_published_parameter_counts(published: Transformer) -> None:
    counted = sum(p.numel() for p in published.parameters())
    ends = published.lm_head.weight.numel() + published.model.embed_tokens.weight.numel()
    assert counted == ModelConfig().parameters == 2_172_819_456
    assert counted - ends == ModelConfig().non_embedding_parameters == 1_906_460_672


def test_the_state_holds_exactly_the_published_tensor_names(published: Transformer) -> None:
    names = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    names |= {f"model.layers.{layer}.{part}.weight" for layer in range(36) for part in PER_LAYER}
    assert set(published.state_dict()) == names
    assert len(names) == 327


def test_the_tensors_have_the_published_shapes(published: Transformer) -> None:
    shapes = {name: tuple(value.shape) for name, value in published.state_dict().items()}
    assert shapes["model.embed_tokens.weight"] == shapes["lm_head.weight"] == (65029, 2048)
    assert shapes["model.layers.35.self_attn.k_proj.weight"] == (2048, 2048)
    assert shapes["model.layers.0.mlp.up_proj.weight"] == (5888, 2048)
    assert shapes["model.layers.0.mlp.down_proj.weight"] == (2048, 5888)
    assert shapes["model.layers.0.input_layernorm.weight"] == (2048,)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_counts_follow_from_any_shape(kv_heads: int) -> None:
    config = ModelConfig(
        vocab_size=97, hidden=48, layers=3, heads=4, kv_heads=kv_heads, ffn=40, context=8
    )
    model = Transformer(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": 62}, "hidden=62 is not a multiple of heads=4"),
        ({"hidden": 60}, "head width 15 is odd"),
        ({"kv_heads": 3}, "heads=4 is not a multiple of kv_heads=3"),
    ],
)
def test_a_shape_that_cannot_be_built_names_its_numbers(
    wrong: dict[str, int], message: str
) -> None:
    shape = {"hidden": 64, "heads": 4, "kv_heads": 4} | wrong
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**shape)


def spread(weight: torch.Tensor) -> float:
    return float(weight.detach().std())


def test_initial_weights_follow_the_seed_and_shrink_into_the_residual_stream() -> None:
    config = ModelConfig(
        vocab_size=256, hidden=128, layers=8, heads=4, kv_heads=4, ffn=256, init_std=0.04
    )
    first, second, other = Transformer(config), Transformer(config), Transformer(config)
    first.initialise(1)
    second.initialise(1)
    other.initialise(2)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    block = first.model.layers[3]
    assert spread(block.mlp.up_proj.weight) == pytest.approx(0.04, rel=0.03)
    # 2 x 8 additions into the stream, so a fourth of it.
    assert spread(block.mlp.down_proj.weight) == pytest.approx(0.01, rel=0.03)
    assert spread(block.self_attn.o_proj.weight) == pytest.approx(0.01, rel=0.03)
    assert torch.equal(block.input_layernorm.weight, torch.ones(128))
