"""Bytes of activations are those of the formula, and grow as the report says."""

import pytest

from indexlm.lab.activations import kept_bytes_per_token
from indexlm.lab.reference import shape
from indexlm.lab.world import WorldConfig
from indexlm.model import costs

WORLD = WorldConfig(entities=16, noise_words=16)


@pytest.mark.parametrize(("hidden", "layers"), [(16, 8), (32, 2), (48, 3)])
def test_what_is_counted_is_the_formula(hidden: int, layers: int) -> None:
    """Rows as short as these take torch's own kernel, and one mask for all layers; the starts of
    documents, 8 bytes a token of the formula, are of the kernel of longer rows."""
    model = shape(WORLD, hidden, layers)
    parts = costs.activation_bytes(model, model.context, fused=True)
    assert kept_bytes_per_token(model) == sum(parts.values()) - 8


def test_at_equal_weights_activations_grow_with_the_depth() -> None:
    """Layers x width doubles where layers x width x width stays."""
    deep, shallow = shape(WORLD, 32, 8), shape(WORLD, 64, 2)
    assert deep.non_embedding_parameters == pytest.approx(
        shallow.non_embedding_parameters, rel=0.01
    )
    assert 1.8 < kept_bytes_per_token(deep) / kept_bytes_per_token(shallow) < 2.1


def test_weights_are_not_counted() -> None:
    """A wide feed-forward has more weights than activations of 64 tokens."""
    model = shape(WORLD, 64, 1)
    weights = 4 * model.non_embedding_parameters
    assert kept_bytes_per_token(model) * 2 * model.context < weights * 64
    assert kept_bytes_per_token(model) < 4 * 64 * 40
