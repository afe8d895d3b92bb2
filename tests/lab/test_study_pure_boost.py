"""Forks of one trunk that differ in the share of instruction data alone."""

import pytest
from lab_results import plain, results_of, texts_of, verdicts

from indexlm.lab.arms import TextData
from indexlm.lab.studies.pure_boost import BOOST, PURE, SHARES, STUDY, aged, arms


def test_forks_of_a_seed_differ_in_the_share_of_instruction_data_alone() -> None:
    trunk, *forks = arms("quick", 0)
    assert {fork.trunk.fingerprint() for fork in forks if fork.trunk} == {trunk.fingerprint()}
    assert isinstance(trunk.data, TextData)
    assert "instr" not in trunk.data.phases[0].shares
    late = {fork.name: fork for fork in forks if fork.from_step == 400}
    assert list(late) == list(SHARES)
    alike = {
        fork.model_copy(update={"name": "", "data": late[PURE].data}).fingerprint()
        for fork in late.values()
    }
    assert len(alike) == 1
    for name, share in SHARES.items():
        data = late[name].data
        assert isinstance(data, TextData)
        # What the trunk has read comes first, so that no fork reads it again.
        phase = data.phases[-1]
        assert data.phases[0] == trunk.data.phases[0]
        assert phase.first_step == (400 if share else 0)
        assert phase.shares.get("instr", 0) == share
        assert sum(phase.shares.values()) == pytest.approx(1)
        assert phase.shares["hq"] == phase.shares["web"]


def test_forks_are_of_steps_that_the_trunk_keeps() -> None:
    for preset in ("quick", "gpu"):
        trunk, *forks = arms(preset, 0)
        for fork in forks:
            assert fork.from_step and fork.from_step % trunk.train.keep_every == 0
            assert fork.train.steps - fork.from_step == fork.decay_steps
            assert fork.decay_steps % fork.watch.every == 0, "a decay is measured as often"


@pytest.mark.parametrize(("gain", "word"), [(0.2, "reproduced"), (-0.2, "opposite")])
def test_trained_and_held_out_entities_are_judged_apart(gain: float, word: str) -> None:
    def score(arm: str, seed: int, name: str) -> float:
        boosted = arm == BOOST and name == "qa/held-out/accuracy"
        return plain(arm, seed, name) + (gain if boosted else 0)

    found = verdicts(STUDY, results_of(STUDY, score))
    assert (found["held-out"], found["trained"]) == (word, "no difference")


def test_a_fork_that_diverged_is_said_and_not_left_out() -> None:
    results = results_of(STUDY, diverged=(aged(PURE, 2), 0))
    assert "1 of 3 diverged" in set(texts_of(STUDY.shown(results)))
    (claim, *_) = STUDY.claims
    assert claim.verdict(results_of(STUDY, diverged=(BOOST, 0))).diverged == (1, 0)
