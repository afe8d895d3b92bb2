"""Gradient norms by layer, and the guard against broken updates."""

import math

import pytest
from workshop import Workshop

from indexlm.train.objectives.language import language_loss
from indexlm.train.watch import SkipGuard, gradient_norms, layer_of, summary


def test_every_weight_belongs_to_a_named_layer(workshop: Workshop) -> None:
    names = [name for name, _ in workshop.model().named_parameters()]
    assert list(dict.fromkeys(map(layer_of, names))) == [
        "embedding",
        "layer 0",
        "layer 1",
        "final norm",
        "head",
    ]
    assert layer_of("model.layers.35.mlp.up_proj.weight") == "layer 35"


def test_squared_norms_by_layer_add_up_to_the_whole(workshop: Workshop) -> None:
    model = workshop.model()
    loss, _, _ = language_loss(model, next(workshop.feed().micro_batches(0)))
    loss.backward()
    whole, by_layer = gradient_norms(model)
    every = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    assert float(whole) == pytest.approx(math.hypot(*every), rel=1e-5)
    assert math.hypot(*by_layer.values()) == pytest.approx(float(whole), rel=1e-5)
    assert model.lm_head.weight.grad is not None
    assert by_layer["head"] == pytest.approx(float(model.lm_head.weight.grad.norm()), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_guard_allows_finite_updates_only(bad: float) -> None:
    guard = SkipGuard()
    assert guard.allows(2.0, 1.0, 0)
    assert not guard.allows(bad, 1.0, 1)
    assert not guard.allows(2.0, bad, 2)
    assert guard.allows(2.0, 1.0, 3)


def test_the_guard_gives_up_after_its_limit_in_a_row() -> None:
    guard = SkipGuard()
    for _ in range(2):
        for step in range(SkipGuard.MOST_IN_A_ROW):
            assert not guard.allows(math.nan, 1.0, step)
        assert guard.allows(1.0, 1.0, 0)
    for step in range(SkipGuard.MOST_IN_A_ROW):
        guard.allows(math.nan, 1.0, step)
    with pytest.raises(FloatingPointError, match=r"step 77: .*lower the learning rate"):
        guard.allows(math.nan, 1.0, 77)


def test_a_summary_reads_as_a_line() -> None:
    assert summary({"margin": 1.23456, "accuracy": 0.5}) == "margin 1.23, accuracy 0.5"
