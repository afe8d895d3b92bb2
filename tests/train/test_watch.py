"""Gradient norms by layer, and the guard against broken updates."""

import math
import random

import pytest
import torch
from workshop import Workshop

from indexlm.train.objectives.language import language_loss
from indexlm.train.optim import adamw
from indexlm.train.watch import (
    SkipGuard,
    by_layer,
    gradient_squares,
    head_row_norms,
    layer_of,
    summary,
    update_squares,
    watching,
)


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
    squares = gradient_squares(model)
    every = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    whole = math.hypot(*every)
    assert math.sqrt(sum(squares.values())) == pytest.approx(whole, rel=1e-6)
    layers = by_layer(squares)
    assert math.hypot(*layers.values()) == pytest.approx(whole, rel=1e-6)
    assert model.lm_head.weight.grad is not None
    assert layers["head"] == pytest.approx(float(model.lm_head.weight.grad.norm()), rel=1e-6)


def test_update_norms_are_those_of_what_a_step_adds(workshop: Workshop) -> None:
    """Made from the moments after the step; here from copies of the weights."""
    model = workshop.model()
    optimiser = adamw(model, workshop.stage(4).config.optimiser)
    for step in range(3):
        optimiser.zero_grad()
        loss, units, _ = language_loss(model, next(workshop.feed().micro_batches(step)))
        (loss / units).backward()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimiser.step()
        squares = update_squares(model, optimiser)
        assert squares.keys() == before.keys()
        for name, parameter in model.named_parameters():
            added = float((parameter.detach() - before[name]).norm())
            assert math.sqrt(squares[name]) == pytest.approx(added, rel=2e-4), (step, name)


def test_activations_are_seen_only_where_asked_and_change_nothing(workshop: Workshop) -> None:
    model = workshop.model()
    batches = list(workshop.feed().micro_batches(0))
    with watching([model], False) as unseen:
        plain = [float(language_loss(model, batch)[0].detach()) for batch in batches]
    assert not unseen.squares
    with watching([model], True) as seen:
        assert [float(language_loss(model, batch)[0].detach()) for batch in batches] == plain
    means = seen.means()
    assert list(means) == ["embedding", "layer 0", "layer 1"]
    embedded = torch.cat([model.model.embed_tokens(batch.ids_BT) for batch in batches])
    assert means["embedding"] == pytest.approx(float(embedded.detach().square().mean().sqrt()))
    language_loss(model, batches[0])
    assert seen.counts["embedding", 0] == embedded.numel(), "a hook was left behind"


def test_head_rows_are_measured_as_they_are_kept(workshop: Workshop) -> None:
    model = workshop.model()
    norms = model.lm_head.weight.detach().norm(dim=1)
    found = head_row_norms(model)
    assert found == pytest.approx(
        {"mean": float(norms.mean()), "min": float(norms.min()), "max": float(norms.max())}
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_guard_allows_finite_updates_only(bad: float) -> None:
    guard = SkipGuard()
    assert guard.allows(2.0, 1.0, 0)
    assert not guard.allows(bad, 1.0, 1)
    assert not guard.allows(2.0, bad, 2)
    assert guard.allows(2.0, 1.0, 3)


def test_the_guard_skips_what_is_far_above_the_median() -> None:
    guard = SkipGuard(20.0)
    for step in range(SkipGuard.FEWEST - 1):
        assert guard.allows(2.0, 0.5, step)
    # Too few steps to know what is usual.
    assert guard.allows(2.0, 50.0, 15)
    assert not guard.allows(2.0, 50.0, 16)
    assert not guard.allows(200.0, 0.5, 17)
    assert guard.reason(2.0, 50.0) == "gradient is 100 times its median"
    assert guard.reason(200.0, 0.5) == "loss is 100 times its median"
    assert guard.allows(2.0, 9.0, 18)
    assert SkipGuard(0.0).reason(1e9, 1e9) == ""


def test_a_guard_made_from_the_log_judges_like_the_one_that_saw_the_steps() -> None:
    generator = random.Random(3)
    guard, logged = SkipGuard(4.0), []
    for step in range(200):
        loss, norm = generator.lognormvariate(0, 0.8), generator.lognormvariate(0, 0.8)
        skipped = bool(guard.reason(loss, norm))
        logged.append({"loss": loss, "grad_norm": norm} | ({"skipped": "far"} if skipped else {}))
        again = SkipGuard(4.0, logged[:-1])
        assert again.allows(loss, norm, step) == guard.allows(loss, norm, step) != skipped
        assert again.in_a_row == guard.in_a_row
    assert any("skipped" in entry for entry in logged)


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
