"""The report's three rows and the fourth that tells its two changes apart."""

import pytest
from lab_results import plain, results_of, texts_of, verdicts

from indexlm.lab import family
from indexlm.lab.arms import ChatData
from indexlm.lab.studies.pure_boost import PURE
from indexlm.lab.studies.pure_boost import arms as pure_boost_arms
from indexlm.lab.studies.sft import (
    BASE,
    BOTH,
    HIGH_RATE,
    KEPT,
    PLAIN,
    QUICK_RATES,
    REPORT_RATE,
    STUDY,
    WAYS,
    arms,
    at,
)


def test_the_ways_are_two_changes_by_two_from_one_base() -> None:
    base, *tuned = arms("quick", 0)
    assert base.name == BASE
    assert {arm.name for arm in tuned} == {at(way, rate) for way in WAYS for rate in QUICK_RATES}
    changes = set()
    for arm in tuned:
        assert isinstance(arm.data, ChatData) and arm.trunk is not None
        assert arm.trunk.fingerprint() == base.fingerprint()
        changes.add((arm.keep_optimiser, arm.data.response_share))
    assert changes == {(False, 1.0), (True, 1.0), (True, 0.6), (False, 0.6)}


def test_the_rate_is_the_report_s_share_of_the_peak() -> None:
    arm = next(arm for arm in arms("quick", 0) if arm.name == at(PLAIN, REPORT_RATE))
    assert arm.trunk is not None
    share = arm.train.optimiser.lr / arm.trunk.train.optimiser.lr
    assert share == pytest.approx(1e-5 / 5e-4)


def test_trunks_and_chat_model_are_shared_with_the_other_studies() -> None:
    base, *tuned = arms("quick", 2)
    pure = next(arm for arm in pure_boost_arms("quick", 2) if arm.name == PURE)
    assert base.fingerprint() == pure.fingerprint()
    both = next(arm for arm in tuned if arm.name == at(BOTH, HIGH_RATE))
    assert both.fingerprint() == family.chat("quick", 2).fingerprint()


@pytest.mark.parametrize(
    ("gain", "total", "answers"),
    [(0.1, "reproduced", "opposite"), (-0.1, "opposite", "reproduced")],
)
def test_verdicts_follow_the_numbers(gain: float, total: str, answers: str) -> None:
    """Of the three scores that are averaged, and of the answers alone, where a loss is claimed."""

    def score(arm: str, seed: int, name: str) -> float:
        better = arm == at(BOTH, REPORT_RATE) and name == "chat/held-out/exact"
        return plain(arm, seed, name) + (gain if better else 0)

    found = verdicts(STUDY, results_of(STUDY, score))
    report, high = (f"(at {rate:g} of the peak rate)" for rate in (REPORT_RATE, HIGH_RATE))
    assert found[f"both against plain {report}"] == total
    assert found[f"replay costs answers {report}"] == answers
    assert found[f"both against plain {high}"] == "no difference"


def test_the_page_has_the_measured_share_and_the_arms_that_diverged() -> None:
    def score(arm: str, seed: int, name: str) -> float:
        return 0.6 if name == "response_share" else plain(arm, seed, name)

    cells = [*texts_of(STUDY.shown(results_of(STUDY, score, diverged=(at(KEPT, HIGH_RATE), 2))))]
    assert "60.0 [60.0, 60.0]" in cells
    assert "1 of 3 diverged" in cells
