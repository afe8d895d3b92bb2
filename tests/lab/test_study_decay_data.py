"""The four arms of the report differ in schedule and data alone; verdicts follow the numbers."""

import pytest
from lab_results import plain, results_of, texts_of, verdicts

from indexlm.lab.arms import TextData
from indexlm.lab.studies import schedules
from indexlm.lab.studies.decay_data import COSINE, CURATED, HELD, HIGH, STUDY, WSD, arms


def test_what_is_added_is_the_only_difference_of_a_pair() -> None:
    found = {arm.name: arm for arm in arms("quick", 0)}
    for name in (WSD, COSINE, HIGH):
        bare, added = found[name], found[name + CURATED]
        assert (added.train, added.decay_steps, added.seed) == (
            bare.train,
            bare.decay_steps,
            bare.seed,
        )
        assert isinstance(added.data, TextData) and isinstance(bare.data, TextData)
        assert added.data.phases[0] == bare.data.phases[0]
        assert added.first_step == added.data.phases[1].first_step == 800
        assert added.trunk is not None
        assert added.trunk.train.keep_every == 800, "the step that it is forked from is kept"
    assert found[HELD].held_lr == pytest.approx(0.55)
    assert found[HELD].trunk == found[COSINE]


def test_the_schedules_are_those_of_the_other_study() -> None:
    """So that runs of both studies train them once."""
    ours = {arm.fingerprint() for arm in arms("quick", 1)}
    theirs = {arm.name: arm.fingerprint() for arm in schedules.arms("quick", 1)}
    assert {theirs["WSD"], theirs["cosine"]} <= ours


@pytest.mark.parametrize(
    ("better", "word"),
    [(WSD + CURATED, "reproduced"), (COSINE + CURATED, "opposite"), ("", "no difference")],
)
def test_the_verdict_follows_the_numbers(better: str, word: str) -> None:
    def score(arm: str, seed: int, name: str) -> float:
        return plain(arm, seed, name) + (0.1 if arm == better and "accuracy" in name else 0)

    assert verdicts(STUDY, results_of(STUDY, score))["also in facts"] == word


def test_the_page_counts_an_arm_that_diverged() -> None:
    shown = STUDY.shown(results_of(STUDY, diverged=(HELD, 1)))
    assert "1 of 3 diverged" in set(texts_of(shown))
