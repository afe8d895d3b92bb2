"""Shares, climb and jitter are what they say, on norms that are made to be so."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from short_studies import check_arms, check_said, check_shown, made, planted, results

from indexlm.lab.arms import Result
from indexlm.lab.studies.head_gradient import (
    CLAIMS,
    STUDY,
    climb,
    head_share,
    jitter,
    largest_other,
    log_norm,
    over_training,
)
from indexlm.lab.study import Results
from indexlm.lab.sweep import SEEDS, at

LAYERS = {"embedding": 2.0, "layer 0": 1.0, "final norm": 0.0, "head": 2.0}


def norms(head: Sequence[float], rest: float = 1.0) -> list[dict[str, object]]:
    """Points of a curve with these norms of the head, every tenth step."""
    return [
        {"step": 10 * at, "layers": {"embedding": rest, "layer 0": rest / 2, "head": norm}}
        for at, norm in enumerate(head)
    ]


def result(head: Sequence[float] = (), gradients: Sequence[float] = ()) -> Result:
    some = made(at("quick", 0, "plain"))
    object.__setattr__(some, "curve", norms(head))
    object.__setattr__(some, "gradients", list(gradients))
    return some


def test_shares_are_of_the_squared_norm() -> None:
    assert head_share(LAYERS) == pytest.approx(4 / 9)
    assert largest_other(LAYERS) == pytest.approx(4 / 9)


def test_a_mean_over_training_may_be_of_a_part_of_it() -> None:
    some = result([0.0] * 10 + [1e9] * 10)
    assert over_training(head_share)(some) == pytest.approx(0.5)
    assert over_training(head_share, 0, 0.5)(some) == pytest.approx(0)
    assert over_training(head_share, 0.5, 1)(some) == pytest.approx(1)


def test_a_climb_is_from_after_the_warm_up_to_the_end() -> None:
    gradients = [9.0] * 10 + [1.0] * 10 + [5.0] * 70 + [2.0] * 10
    assert climb(result(gradients=gradients)) == pytest.approx(math.log(2))
    assert log_norm(0, 0.1)(result(gradients=gradients)) == pytest.approx(math.log(9))


def test_jitter_is_the_noise_and_not_the_trend() -> None:
    trend = np.exp(np.linspace(0, 1, 400))
    assert jitter(result(trend.tolist())) == pytest.approx(0, abs=1e-9)
    noise = np.random.default_rng(0).normal(0, 0.1, 400)
    assert jitter(result((trend * np.exp(noise)).tolist())) == pytest.approx(0.1, rel=0.1)


def test_an_arm_that_diverged_has_no_value() -> None:
    some = made(at("quick", 0, "plain"), diverged="spike")
    assert [f(some) for f in (climb, jitter, over_training(head_share))] == [None] * 3


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Results:
    wanted = lambda name: "@" not in name or name.endswith("@ 0.0002")  # noqa: E731
    return results(STUDY, tmp_path_factory.mktemp("arms"), 0.24, 1, wanted)


@pytest.mark.parametrize(("head", "word"), [(3.0, "reproduced"), (0.5, "opposite")])
def test_the_claim_of_most_is_of_the_head_against_all_else(
    real: Results, head: float, word: str
) -> None:
    """Squares of 9 or 0.25 beside 1.25 of the others."""
    three = {**real, "plain": dict.fromkeys(range(3), real["plain"][0])}
    some = planted(three, "plain", curve=norms([head] * 10))
    assert CLAIMS[0].verdict(some).word == word


def test_every_claim_is_made_of_what_arms_leave(real: Results) -> None:
    for declared in CLAIMS:
        treatment, control = declared.values(real)
        assert treatment.keys() == control.keys() == {0}
        assert all(value is not None and math.isfinite(value) for value in treatment.values())


def test_the_page_shows_every_seed(real: Results) -> None:
    check_shown(STUDY.shown(real), 1)
    check_said(STUDY)


def test_arms_of_seeds_differ_in_the_seed_alone(tmp_path: Path) -> None:
    check_arms(STUDY.arms, SEEDS)
