"""Heads over learning rates: what is equal is equal, and no arm is chosen by its own luck."""

import math
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from short_studies import made

from indexlm.feed.packing import collate
from indexlm.lab.arms import Arm
from indexlm.lab.corpus import WorldSource
from indexlm.lab.drawing import number
from indexlm.lab.heads import set_row_norms
from indexlm.lab.studies import head_gradient, learning_rate, norm_head, schedules, shape
from indexlm.lab.study import PresetName, Results
from indexlm.lab.sweep import LOSS, SWEPT, at, at_best, at_rates, best, by_step, rates, swept
from indexlm.lab.verdict import Said
from indexlm.lab.world import World
from indexlm.model.transformer import Transformer
from indexlm.train.objectives.language import language_loss


def table(head: str, losses: dict[float, list[float | None]]) -> Results:
    """Arms of a head with a loss for each seed; None diverged."""
    found = {}
    for rate, of_seeds in losses.items():
        arm = at("quick", 0, head, rate)
        found[arm.name] = {
            seed: made(arm, diverged="" if loss is not None else "spike", loss__hq=loss or 0.0)
            for seed, loss in enumerate(of_seeds)
        }
    return found


@pytest.mark.parametrize("preset", ["quick", "full", "gpu"])
def test_the_rates_begin_with_the_reports_pair_and_go_on_by_its_ratio(preset: PresetName) -> None:
    found = rates(preset)
    assert found[:2] == [2e-4, 5e-4]
    assert all(b / a == pytest.approx(2.5, rel=1e-4) for a, b in pairwise(found))
    assert len(found) >= 5


@pytest.mark.parametrize("study", [norm_head, schedules, shape])
def test_models_of_the_gpu_preset_have_ten_million_weights_outside_the_embeddings(
    study: ModuleType,
) -> None:
    assert min(a.model.non_embedding_parameters for a in study.STUDY.arms("gpu", 0)) >= 10_000_000


def test_three_studies_share_their_arms() -> None:
    studies = [
        {arm.fingerprint() for arm in study.arms("quick", 0)}
        for study in (head_gradient, norm_head, learning_rate)
    ]
    assert len(studies[0] - studies[1]) == 0
    assert len(studies[2] - studies[1]) == 0


def test_the_controls_begin_with_the_logits_of_the_norm_head() -> None:
    """Else what they are compared by would not be the normalisation."""
    losses = {head: first_loss(at("quick", 0, head)) for head in SWEPT}
    assert losses["plain, long rows"] == pytest.approx(losses["norm-head"], rel=1e-5)
    assert losses["plain, scaled"] == pytest.approx(losses["norm-head"], rel=1e-5)
    assert abs(losses["plain"] - losses["norm-head"]) > 0.5


def first_loss(arm: Arm) -> float:
    world = World(arm.world)
    model = Transformer(arm.model)
    model.initialise(arm.seed)
    if arm.head_rows is not None:
        set_row_norms(model, arm.head_rows)
    source = WorldSource(world, "hq", 1, arm.model.context)
    with torch.no_grad():
        loss, units, _ = language_loss(model, collate([source.row(n) for n in range(8)], 32))
    return float(loss) / units


def test_the_scaled_head_has_the_rows_of_the_norm_head_too() -> None:
    lengths = {}
    for head in ("plain, scaled", "norm-head", "plain, long rows"):
        arm = at("quick", 0, head)
        model = Transformer(arm.model)
        model.initialise(0)
        if arm.head_rows is not None:
            set_row_norms(model, arm.head_rows)
        lengths[head] = float(model.lm_head.weight.detach().norm(dim=1).mean())
    assert lengths["plain, scaled"] == pytest.approx(lengths["norm-head"], rel=0.03)
    assert lengths["plain, long rows"] > 10 * lengths["norm-head"]


def test_arms_are_found_by_their_rate() -> None:
    arms = {arm.name: {0: made(arm)} for head in SWEPT for arm in swept("quick", 0, head)}
    assert list(at_rates(arms, "plain")) == rates("quick")
    assert set(at_rates(arms, "plain").values()).isdisjoint(
        at_rates(arms, "plain, scaled").values()
    )


def test_the_best_rate_is_the_others_choice() -> None:
    """Seed 1 is lucky at 2e-4; the others find 5e-4 better, and so its loss there counts."""
    some = table("plain", {2e-4: [1.2, 0.1, 1.2], 5e-4: [1.0, 0.9, 1.0]})
    assert at_best(some, "plain", number(LOSS)) == {0: 1.2, 1: 0.9, 2: 1.2}
    assert best(some, list(some), without=1) == "plain @ 0.0005"


def test_a_rate_at_which_a_seed_diverged_is_the_best_of_none() -> None:
    some = table("plain", {2e-4: [1.9, 1.9, 1.9], 5e-4: [0.1, 0.1, None]})
    assert best(some, list(some)) == "plain @ 0.0002"
    # Left out, the diverged seed does not decide; its value is then that of an arm that diverged.
    assert at_best(some, "plain", number(LOSS))[2] is None


def test_one_seed_alone_chooses_for_itself() -> None:
    some = table("plain", {2e-4: [1.0], 5e-4: [0.5]})
    assert at_best(some, "plain", number(LOSS)) == {0: 0.5}


def test_a_curve_by_steps_has_each_seed_and_their_mean() -> None:
    arm = at("quick", 0, "plain")
    results = [made(arm), made(arm)]
    for result, level in zip(results, (1.0, 3.0)):
        object.__setattr__(result, "losses", [level] * 20)
    object.__setattr__(results[1], "losses", [3.0] * 10 + [None] * 10)
    lines = by_step({"plain": dict(enumerate(results))}, "plain", Said("a", "b"), "losses", 5)
    assert [line.faint for line in lines] == [True, True, False]
    tokens = arm.tokens_per_step
    assert list(lines[2].xs) == [2.5 * tokens, 7.5 * tokens, 12.5 * tokens, 17.5 * tokens]
    assert list(lines[2].ys) == [2.0, 2.0, None, None], "there is no mean of the survivors"
    assert not any(math.isnan(y) for y in lines[0].ys if y is not None)
