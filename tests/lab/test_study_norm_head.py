"""The sensitivity to the learning rate by hand, and the page on arms that really ran."""

import math

import pytest
from short_studies import check_arms, check_said, check_shown, made, results

from indexlm.lab.studies.norm_head import CLAIMS, STUDY, sensitivity
from indexlm.lab.study import Results
from indexlm.lab.sweep import MORE, SEEDS, SWEPT, at, rates


def losses(head: str, by_rate: list[float | None]) -> Results:
    found = {}
    middle = rates("quick")[3]
    for rate, loss in zip(rates("quick"), by_rate):
        arm = at("quick", 0, head, None if rate == middle else rate)
        found[arm.name] = {
            seed: made(
                arm,
                diverged="" if loss is not None else "spike",
                loss__hq=(loss or 0.0) + 0.001 * seed,
                cloze__held_0_out__accuracy=0.5,
            )
            for seed in range(3)
        }
    return found


def test_sensitivity_is_the_mean_loss_above_the_lowest() -> None:
    some = losses("norm-head", [4.0, 3.0, 2.0, 1.0, 2.0, 3.0])
    assert sensitivity(some, "norm-head")[0] == pytest.approx(15 / 6 - 1)


def test_a_diverged_arm_counts_as_a_uniform_guess() -> None:
    some = losses("norm-head", [4.0, 3.0, 2.0, 1.0, 2.0, None])
    most = math.log(at("quick", 0, "norm-head").model.vocab_size)
    assert sensitivity(some, "norm-head")[0] == pytest.approx((12 + most) / 6 - 1)
    worse = losses("norm-head", [4.0, 3.0, 2.0, 1.0, 2.0, 900.0])
    assert sensitivity(worse, "norm-head")[0] == pytest.approx((12 + most) / 6 - 1)


@pytest.mark.parametrize(
    ("moved", "word"), [(-0.5, "reproduced"), (0.5, "opposite"), (0.0, "no difference")]
)
def test_the_first_claim_compares_best_with_best(moved: float, word: str) -> None:
    """The Norm-Head is at its best elsewhere, and better or worse there alone."""
    some = {
        **losses("plain", [3.0, 3.0, 1.5, 3.0, 3.0, 3.0]),
        **losses("norm-head", [3.0, 3.0, 3.0, 1.5 + moved, 3.0, 3.0]),
    }
    assert CLAIMS[0].verdict(some).word == word


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(
        STUDY, tmp_path_factory.mktemp("arms"), 0.04, 1, lambda n: "@" not in n or "@ 0.000" in n
    )


def test_the_page_shows_every_arm(real: Results) -> None:
    assert {*SWEPT, *MORE} <= real.keys()
    check_shown(STUDY.shown(real), 1)
    check_said(STUDY)


def test_every_claim_is_made_of_what_arms_leave(real: Results) -> None:
    for declared in CLAIMS:
        treatment, control = declared.values(real)
        assert treatment.keys() == control.keys() == {0}


def test_arms_of_seeds_differ_in_the_seed_alone() -> None:
    check_arms(STUDY.arms, SEEDS)
