"""Another window over the same weights: dynamic NTK against its public edition, and sharing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from indexlm.errors import UserError
from indexlm.model.rope import ntk_base
from indexlm.model.transformer import Transformer, with_window

TRAINED = 64
LENGTH = 200
FACTOR = 8.0
IDS = torch.randint(5, 512, (1, LENGTH), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def logits_of(model: Transformer, ids_BT: Tensor = IDS) -> Tensor:
    return model.logits(model(ids_BT))


def furthest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def stretched(model: Transformer, length: int = LENGTH) -> Transformer:
    config = model.config
    base = ntk_base(config.rope_base, config.head_dim, TRAINED, length, FACTOR)
    return with_window(model, length, base)


def public_edition(model: Transformer) -> torch.nn.Module:
    """The same weights as a Llama of the transformers library with its dynamic RoPE scaling."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = model.config
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden,
            intermediate_size=config.ffn,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=TRAINED,
            rms_norm_eps=config.norm_eps,
            rope_parameters={
                "rope_type": "dynamic",
                "factor": FACTOR,
                "rope_theta": config.rope_base,
            },
            tie_word_embeddings=False,
        )
    )
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["lm_head.weight"] = model.lm_head.matrix().detach().clone()
    llama.load_state_dict(weights)
    return llama.eval()


@torch.no_grad()
def test_one_pass_beyond_the_window_is_that_of_the_public_edition(model: Transformer) -> None:
    llama = public_edition(model)
    theirs = llama(IDS).logits
    ours = stretched(model)
    assert furthest(logits_of(ours), theirs) < 1e-4
    exponent = torch.arange(0, 16, 2) / 16
    turns = ours.config.rope_base**-exponent
    assert torch.allclose(turns, llama.model.rotary_emb.inv_freq, rtol=1e-5)
    # The ways to get it wrong that look alike.
    plain = with_window(model, LENGTH)
    other_factor = ntk_base(10000.0, 16, TRAINED, LENGTH, FACTOR / 2)
    other_length = ntk_base(10000.0, 16, TRAINED, LENGTH - 20, FACTOR)
    for base in (plain.config.rope_base, other_factor, other_length, 10000.0 * FACTOR):
        assert furthest(logits_of(with_window(model, LENGTH, base)), theirs) > 1e-2


@torch.no_grad()
def test_a_cache_step_beyond_the_window_equals_the_full_pass(model: Transformer) -> None:
    """Ours has one base for the whole length; the public edition's cache mixes several."""
    ours = stretched(model)
    cache = ours.new_cache(torch.ones(1, LENGTH, dtype=torch.bool))
    first = ours(IDS[:, :100], cache=cache)
    parts = [first, *(ours(IDS[:, at : at + 1], cache=cache) for at in range(100, LENGTH))]
    assert furthest(ours.logits(torch.cat(parts, dim=1)), logits_of(ours)) < 1e-4
    llama = public_edition(model)
    begun = llama(IDS[:, :100], use_cache=True)
    for at in range(100, LENGTH):
        begun = llama(IDS[:, at : at + 1], cache=begun.past_key_values, use_cache=True)
    assert furthest(begun.logits[:, -1], logits_of(ours)[:, -1]) > 1e-2


@given(st.integers(1, 10**6), st.floats(1e-3, 64))
def test_nothing_changes_up_to_the_trained_length(length: int, factor: float) -> None:
    found = ntk_base(10000.0, 128, 4096, length, factor)
    assert (found == 10000.0) if length <= 4096 else (found > 10000.0)


@given(st.integers(65, 10**5), st.floats(1e-2, 64), st.sampled_from([4, 16, 32, 128]))
def test_the_slowest_pair_is_stretched_and_the_fastest_kept(
    length: int, factor: float, head_dim: int
) -> None:
    base = ntk_base(10000.0, head_dim, 64, length, factor)
    slowest = -(head_dim - 2) / head_dim
    stretch = 10000.0**slowest / base**slowest
    assert stretch == pytest.approx(1 + factor * (length / 64 - 1))


def test_a_factor_that_means_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="factor of 0 "):
        ntk_base(10000.0, 16, 64, 128, 0.0)
    with pytest.raises(UserError, match="width 2"):
        ntk_base(10000.0, 2, 64, 128, 8.0)


def test_another_window_shares_the_parameters_and_leaves_the_model_as_it_was(
    model: Transformer,
) -> None:
    before = logits_of(model, IDS[:, :TRAINED])
    longer = with_window(model, LENGTH, 80000.0)
    assert (longer.config.context, longer.config.rope_base) == (LENGTH, 80000.0)
    assert (model.config.context, model.config.rope_base) == (TRAINED, 10000.0)
    ours, theirs = dict(model.named_parameters()), dict(longer.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(theirs[name] is parameter for name, parameter in ours.items())
    assert torch.equal(logits_of(model, IDS[:, :TRAINED]), before)
    with pytest.raises(AssertionError, match="65 positions in a window of 64"):
        logits_of(model, IDS[:, : TRAINED + 1])
    # A longer window alone changes nothing inside the shorter one; another base does.
    assert torch.equal(logits_of(with_window(model, LENGTH), IDS[:, :TRAINED]), before)
    assert furthest(logits_of(longer, IDS[:, :TRAINED]), before) > 1e-2
