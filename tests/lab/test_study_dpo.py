"""Own and written refusals from one SFT model, over learning rates; what is compared at which."""

import pytest
from lab_results import Score, plain, results_of, texts_of, verdicts

from indexlm.lab import family
from indexlm.lab.arms import PreferenceData
from indexlm.lab.intervals import mean
from indexlm.lab.preferring import (
    MIDDLE_RATE,
    OWN,
    QUICK_RATES,
    RATES,
    REPORT_RATE,
    SFT,
    WRITTEN,
    arms,
    at,
    at_best_rate,
    moved,
    moved_over_steps,
    told_apart,
)
from indexlm.lab.studies.dpo import MAIN, STUDY
from indexlm.lab.verdict import Said


def test_all_start_from_one_sft_model_and_see_each_pair_once() -> None:
    first, *others = arms("quick", 0)
    assert first.fingerprint() == family.chat("quick", 0).fingerprint()
    for arm in others:
        assert arm.trunk is not None and arm.trunk.fingerprint() == first.fingerprint()
        assert isinstance(arm.data, PreferenceData)
        pairs = arm.data.pairs * len(arm.data.groups)
        assert pairs == arm.train.steps * arm.train.batch
        assert not arm.keep_optimiser


def test_authors_are_compared_at_every_rate_and_nothing_else_differs() -> None:
    for preset, rates in (("quick", QUICK_RATES), ("full", RATES)):
        found = {arm.name: arm for arm in arms(preset, 0)}
        for rate in rates:
            own, written = found[at(OWN, rate)], found[at(WRITTEN, rate)]
            assert written.model_copy(update={"data": own.data}).fingerprint() == own.fingerprint()
            assert own.train.optimiser.lr == pytest.approx(rate * found[SFT].train.optimiser.lr)


def apart(good: str) -> Score:
    """A score in which one author's arms tell purposes apart, and the other's refuse everything."""

    def score(arm: str, seed: int, name: str) -> float:
        if name == "refused/harmful":
            return 0.9
        if name == "refused/harmless":
            return 0.1 if arm == at(good, MIDDLE_RATE) else 0.9
        return plain(arm, seed, name)

    return score


@pytest.mark.parametrize(("good", "word"), [(OWN, "reproduced"), (WRITTEN, "opposite")])
def test_an_author_is_judged_at_its_best_rate(good: str, word: str) -> None:
    found = verdicts(STUDY, results_of(STUDY, apart(good)))
    assert found["telling apart"] == word


def test_refusing_everything_is_not_telling_apart() -> None:
    """Its cost is over-refusal, in which the claim of the report can fail too."""

    def score(arm: str, seed: int, name: str) -> float:
        refused = name.startswith("refused/") and arm.startswith(OWN)
        return 0.99 if refused else plain(arm, seed, name)

    found = verdicts(STUDY, results_of(STUDY, score))
    assert found["telling apart"] == "no difference"
    assert found["over-refusal"] == "opposite"


def test_a_diverged_rate_spoils_a_mean_and_counts_where_the_others_chose_it() -> None:
    assert (mean([1.0, 3.0]), mean([1.0, None])) == (2.0, None)
    results = results_of(STUDY, diverged=(at(OWN, REPORT_RATE), 1))
    claims = {each.name.en: each for each in STUDY.claims}
    assert STUDY.claims[0] is claims["over-refusal"], "the report's own is the verdict"
    assert claims["telling apart"].verdict(results).diverged == (1, 0)
    assert claims["over-refusal"].verdict(results).diverged == (1, 0)
    assert "1 of 3 diverged" in set(texts_of(STUDY.shown(results)))


def test_the_best_rate_of_a_seed_is_that_of_the_others() -> None:
    """Each seed is luckiest at a rate of its own: what it has there is not what is compared."""

    def score(arm: str, seed: int, name: str) -> float:
        lucky = arm == at(OWN, QUICK_RATES[seed])
        return 0.9 if lucky and name == "refused/harmful" else 0.5

    own, written = at_best_rate(told_apart)(results_of(STUDY, score))
    assert [*own.values()] == [0.0, 0.0, 0.0] == [*written.values()]


def test_the_log_probability_of_chosen_answers_is_against_the_sft_model() -> None:
    """Made results have it half a nat lower after DPO."""
    found = verdicts(STUDY, results_of(STUDY))
    assert found["chosen answers get less likely"] == "reproduced"


def test_log_probabilities_are_of_one_group_at_a_time_and_against_the_sft_model() -> None:
    replies = {"own refusal": 2.0, "right": -3.0}

    def score(arm: str, seed: int, name: str) -> float:
        purpose, _, reply = name.removeprefix("logprob/").partition("/")
        moves = arm == MAIN and name.startswith("logprob/") and purpose == "harmful"
        return plain(arm, seed, name) + (replies.get(reply, 0.0) if moves else 0.0)

    results = results_of(STUDY, score)
    result = results[MAIN][0]
    found = [moved(results, 0, side)(result) for side in ("chosen", "rejected", "margin")]
    assert found == pytest.approx([2.0, -3.0, 5.0])
    assert moved(results, 1, "margin")(result) == 0, "harmless questions are apart"
    *seeds, mean_line = moved_over_steps(results, MAIN, Said("own", "自身"), 0, "margin")
    assert len(seeds) == 3
    assert (mean_line.xs[0], mean_line.ys[0]) == (0, 0), "the SFT model itself"
    assert mean_line.ys[-1] == pytest.approx(5.0)


def test_where_nothing_is_refused_authors_are_not_called_alike() -> None:
    """No refusal at all, harmless or harmful: over-refusal is at its end and says nothing."""

    def score(arm: str, seed: int, name: str) -> float:
        return 0.0 if name.startswith("refused/") else plain(arm, seed, name)

    assert verdicts(STUDY, results_of(STUDY, score))["over-refusal"] == "inconclusive"
