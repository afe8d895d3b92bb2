"""The optimum has neighbours, and of each seed it is the others'."""

from collections.abc import Sequence

import pytest
from short_studies import check_arms, check_said, check_shown, made, results

from indexlm.lab.drawing import number
from indexlm.lab.studies.learning_rate import (
    CLAIMS,
    LARGE,
    SMALL,
    STUDY,
    beside_optimum,
    optimum,
)
from indexlm.lab.study import Results
from indexlm.lab.sweep import LOSS, SEEDS, at, rate_of, rates


def u_curve(losses: Sequence[Sequence[float]]) -> Results:
    """Losses of the Norm-Head by rate and seed."""
    middle = rates("quick")[3]
    found = {}
    for rate, of_seeds in zip(rates("quick"), losses):
        arm = at("quick", 0, "norm-head", None if rate == middle else rate)
        found[arm.name] = {
            seed: made(arm, loss__hq=loss, cloze__held_0_out__accuracy=0.5)
            for seed, loss in enumerate(of_seeds)
        }
    return found


def curve(*losses: float) -> list[list[float]]:
    return [[loss, loss + 0.01, loss + 0.02] for loss in losses]


def test_the_reports_pair_is_named() -> None:
    some = u_curve(curve(3, 2, 1, 1, 1, 2))
    assert (rate_of(some, SMALL), rate_of(some, LARGE)) == (2e-4, 5e-4)


def test_an_optimum_at_the_end_is_not_one_that_a_pair_can_stand_around() -> None:
    assert optimum(u_curve(curve(3, 2, 1, 0.9, 1, 2)), "norm-head") == 3
    assert optimum(u_curve(curve(6, 5, 4, 3, 2, 1)), "norm-head") == 4
    assert optimum(u_curve(curve(1, 2, 3, 4, 5, 6)), "norm-head") == 1


def test_a_pair_at_the_optimum_is_not_chosen_by_the_seed_that_it_judges() -> None:
    """Two seeds have their lowest at place 3, the last one at place 2."""
    some = u_curve([[3, 3, 3], [2, 2, 2], [1.5, 1.5, 0.1], [1, 1, 1.2], [1.4, 1.4, 1.4], [2, 2, 2]])
    larger, smaller = beside_optimum("norm-head", 0, number(LOSS))(some)
    # Of seed 2 the optimum of the others is place 3: 1.2 against 0.1 below it.
    assert (larger[2], smaller[2]) == (1.2, 0.1)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ((3, 2, 1.5, 1, 1.3, 2), ["reproduced", "reproduced", "opposite"]),
        ((2, 3, 1.5, 1, 1.3, 2), ["opposite", "reproduced", "opposite"]),
        ((2, 2, 1.01, 1, 1.01, 2), ["no difference", "no difference", "no difference"]),
    ],
)
def test_verdicts_of_the_pair_and_of_the_optimum(
    losses: tuple[float, ...], words: list[str]
) -> None:
    some = u_curve(curve(*losses))
    assert [CLAIMS[at].verdict(some).word for at in (0, 2, 3)] == words


def test_the_page_shows_every_seed(tmp_path_factory: pytest.TempPathFactory) -> None:
    real = results(STUDY, tmp_path_factory.mktemp("arms"), 0.04, 2)
    check_shown(STUDY.shown(real), 2)
    check_said(STUDY)


def test_arms_of_seeds_differ_in_the_seed_alone() -> None:
    check_arms(STUDY.arms, SEEDS)
