"""Budgets are equal where they are said to be; gaps are of the best rates that others chose."""

import pytest
from short_studies import check_arms, check_said, check_shown, made, results

from indexlm.lab.arms import Arm
from indexlm.lab.studies.shape import CLAIMS, DEPTH_RATIO, PLANS, STUDY, pair
from indexlm.lab.studies.shape_page import MIDDLE, chosen, widths
from indexlm.lab.study import PresetName, Results
from indexlm.model import costs

PRESETS = list(STUDY.seeds)


def of(preset: PresetName) -> dict[str, Arm]:
    return {arm.name: arm for arm in STUDY.arms(preset, 0)}


def at_rate(arms: dict[str, Arm], shape: str) -> Arm:
    return next(arm for name, arm in arms.items() if name.startswith(f"{shape} @ "))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_pair_has_equal_weights_at_four_times_the_depth(preset: PresetName) -> None:
    plan = PLANS[preset]
    assert len(plan.widths) >= 4
    for width in plan.widths:
        deep, shallow = pair(preset, width).values()
        assert deep.layers == DEPTH_RATIO * shallow.layers
        assert shallow.hidden == 2 * deep.hidden
        equal = pytest.approx(shallow.non_embedding_parameters, rel=0.006)
        assert deep.non_embedding_parameters == equal


@pytest.mark.parametrize("preset", PRESETS)
def test_further_budgets_are_equal(preset: PresetName) -> None:
    arms = of(preset)
    shallow = at_rate(arms, f"shallow {PLANS[preset].widths[MIDDLE]}")
    more_steps, wider = (at_rate(arms, f"deep, equal {each}") for each in ("FLOPs", "total"))
    assert flops(more_steps) == pytest.approx(flops(shallow), rel=0.005)
    assert wider.model.parameters == pytest.approx(shallow.model.parameters, rel=0.02)
    assert wider.model.layers == more_steps.model.layers == DEPTH_RATIO * shallow.model.layers


def flops(arm: Arm) -> float:
    each = costs.training_flops_per_token(arm.model, arm.model.context)
    return arm.train.steps * arm.tokens_per_step * each


def test_chains_are_learned_by_both_shapes_alike() -> None:
    deep, shallow = (of("quick")[f"{name}, chains"] for name in ("deep", "shallow"))
    assert (deep.data, deep.train, deep.watch) == (shallow.data, shallow.train, shallow.watch)
    assert ("hops-2", "held-out") in deep.watch.sets


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(STUDY, tmp_path_factory.mktemp("arms"), 0.03, 1)


def test_the_page_shows_all_sizes(real: Results) -> None:
    assert widths(real) == list(PLANS["quick"].widths)
    check_shown(STUDY.shown(real), 1)
    check_said(STUDY)


def test_every_claim_is_made_of_what_arms_leave(real: Results) -> None:
    for declared in CLAIMS:
        treatment, control = declared.values(real)
        assert treatment.keys() == control.keys() == {0}
        assert None not in [*treatment.values(), *control.values()]


@pytest.mark.parametrize(("deep", "word"), [(1.0, "reproduced"), (1.4, "opposite")])
def test_the_first_claim_is_of_the_largest_size_at_the_best_rates(deep: float, word: str) -> None:
    """At the smaller sizes, and at another rate, it is the other way round."""
    some: dict[str, dict[int, object]] = {}
    for name, arm in of("quick").items():
        loss = 1.2
        if name.startswith("deep 48"):
            loss = deep if name.endswith("0.00313") else 3.0
        elif name.startswith("deep"):
            loss = 2.4 - deep
        some[name] = {
            seed: made(arm, loss__hq=loss + 0.001 * seed, cloze__held_0_out__accuracy=0.5)
            for seed in range(3)
        }
    assert CLAIMS[0].verdict(some).word == word  # type: ignore[arg-type]
    (rate,) = {r.arm["train"]["optimiser"]["lr"] for r in chosen(some, "deep 48").values()}  # type: ignore[arg-type]
    assert rate == PLANS["quick"].rates[0]


def test_arms_of_seeds_differ_in_the_seed_alone() -> None:
    check_arms(STUDY.arms, STUDY.seeds)
