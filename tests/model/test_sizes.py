"""Named shapes: what a name promises, and that a pair differs in depth alone."""

import math
import re
from itertools import pairwise

import pytest

from indexlm.model import costs
from indexlm.model.config import ModelConfig
from indexlm.model.sizes import SIZES

UNITS = {"m": 1e6, "b": 1e9}
PAIRS = [name.removesuffix("-deep") for name in SIZES if name.endswith("-deep")]


def promised(name: str) -> float:
    found = re.fullmatch(r"([\d.]+)([mb])(-deep|-shallow)?", name)
    assert found is not None, name
    return float(found[1]) * UNITS[found[2]]


@pytest.mark.parametrize("name", SIZES)
def test_a_name_states_the_parameters_without_embedding_and_head(name: str) -> None:
    assert SIZES[name].non_embedding_parameters == pytest.approx(promised(name), rel=0.1)


def test_sizes_reach_from_a_million_to_the_released_shape_in_steps_of_four_at_most() -> None:
    plain = [name for name in SIZES if "-" not in name]
    assert plain[0] == "1m" and plain[-1] == "1.9b"
    assert SIZES["1.9b"] == ModelConfig()
    for small, large in pairwise(plain):
        assert 1 < promised(large) / promised(small) < 4


@pytest.mark.parametrize("name", [name for name in SIZES if not name.endswith("-shallow")])
def test_sizes_have_the_proportions_of_the_released_model(name: str) -> None:
    model = SIZES[name]
    assert model.ffn / model.hidden == pytest.approx(2.875, rel=0.05)
    assert model.head_dim in (32, 64, 128)
    assert model.kv_heads == model.heads
    assert model.layers >= 8
    # Blocks of 8-bit weights are 32 long.
    assert model.hidden % 32 == model.ffn % 32 == 0


@pytest.mark.parametrize("name", SIZES)
def test_initial_logits_can_reach_far_enough_for_a_likely_token(name: str) -> None:
    """The rows of a Norm-Head have length 1, so a logit is at most head_scale x sqrt(width) before
    the final gain is trained; the released model starts at 45."""
    model = SIZES[name]
    bound = model.head_scale * math.sqrt(model.hidden)
    assert 34 < bound < 55
    assert 1 <= model.head_scale <= 4


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_differs_in_depth_and_hardly_in_weights_and_arithmetic(name: str) -> None:
    deep, shallow = SIZES[f"{name}-deep"], SIZES[f"{name}-shallow"]
    assert deep == SIZES[name]
    assert deep.layers == 4 * shallow.layers
    assert (shallow.hidden, shallow.ffn) == (2 * deep.hidden, 2 * deep.ffn)
    assert shallow.head_dim == deep.head_dim
    assert shallow.vocab_size == deep.vocab_size and shallow.context == deep.context
    assert shallow.non_embedding_parameters == pytest.approx(
        deep.non_embedding_parameters, rel=1e-3
    )
    of_deep, of_shallow = (
        costs.training_flops_per_token(model, model.context) for model in (deep, shallow)
    )
    assert of_shallow == pytest.approx(of_deep, rel=0.1)


def test_the_pair_of_the_report_is_there() -> None:
    """36 layers against 9 at 1.01B; equal in arithmetic to 1%."""
    deep, shallow = SIZES["1b-deep"], SIZES["1b-shallow"]
    assert (deep.layers, shallow.layers) == (36, 9)
    of_deep, of_shallow = (costs.training_flops_per_token(model, 4096) for model in (deep, shallow))
    assert of_shallow == pytest.approx(of_deep, rel=0.01)
