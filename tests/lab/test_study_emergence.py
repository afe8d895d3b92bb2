"""A surge is told from a smooth rise and from an even one, and a jump of either score found."""

from dataclasses import replace

import numpy as np
import pytest
from lab_results import results_of, verdicts

from indexlm.lab.arms import Result
from indexlm.lab.jumps import (
    REPORT_CURVE,
    jump_in,
    jump_of,
    logarithmic,
    share_that_jumps,
    steepest,
    steepest_of_logarithm,
)
from indexlm.lab.studies.emergence import STUDY, arms
from indexlm.lab.studies.emergence_page import CONSTANT, QUESTIONS
from indexlm.lab.study import Results

STEP = [0.25] * 16 + [0.5, 0.8] + [0.95] * 22
LINE = list(np.linspace(0.25, 0.95, 40))
AT = range(20, 801, 20)
SMOOTH = logarithmic(AT, 0.25, 0.95)
FLAT = [0.25] * 40


def drawn(accuracy: list[float], margin: list[float], seeds: int = 3) -> Results:
    """Results whose curves on questions are these, with noise of their own in each seed."""
    found = results_of(STUDY, seeds=seeds)
    return {
        arm: {seed: _with(result, accuracy, margin, seed) for seed, result in by_seed.items()}
        for arm, by_seed in found.items()
    }


def _with(result: Result, accuracy: list[float], margin: list[float], seed: int) -> Result:
    noise = np.random.default_rng(seed).normal(0, 0.01, (len(result.curve), 2))
    curve = [
        point
        | {
            "scores": point["scores"]
            | {f"{QUESTIONS}/accuracy": y + apart[0], f"{QUESTIONS}/margin": other + apart[1]}
        }
        for point, y, other, apart in zip(result.curve, accuracy, margin, noise)
    ]
    return replace(result, curve=curve)


def test_nothing_changes_during_a_run() -> None:
    for preset in ("quick", "full", "gpu"):
        for arm in arms(preset, 0):
            assert arm.data.kind == "text" and len(arm.data.phases) == 1
            assert (arm.train.schedule.shape, arm.decay_steps) == ("wsd", 0)
            assert arm.train.steps // arm.watch.every == 40


@pytest.mark.parametrize(
    ("accuracy", "margin", "surges", "smoother"),
    [
        (STEP, LINE, "reproduced", "reproduced"),
        (STEP, STEP, "reproduced", "no difference"),
        # Where neither jumps there is nothing to compare, and where nothing rises no surge.
        (SMOOTH, SMOOTH, "no difference", "inconclusive"),
        (FLAT, FLAT, "inconclusive", "inconclusive"),
        (LINE, LINE, "opposite", "inconclusive"),
        (LINE, STEP, "opposite", "opposite"),
    ],
)
def test_verdicts_follow_the_curves(
    accuracy: list[float], margin: list[float], surges: str, smoother: str
) -> None:
    found = verdicts(STUDY, drawn(accuracy, margin))
    assert list(found.values())[:2] == [surges, smoother]


def test_the_steepest_tenth_is_of_tokens_and_not_of_points() -> None:
    assert steepest([10, 20, 30, 100], [0.0, 0.1, 0.3, 0.9]) == pytest.approx(0.2)
    assert steepest(AT, LINE) == pytest.approx(0.7 * 4 / 39)
    assert steepest(AT, SMOOTH) == pytest.approx(0.7 * np.log(5) / np.log(40))


def test_the_noise_of_a_curve_is_in_the_smooth_rise_beside_it() -> None:
    """Where nothing rises, the steepest tenth of a measured curve is noise all the same."""
    assert steepest_of_logarithm(AT, SMOOTH) == pytest.approx(steepest(AT, SMOOTH), abs=0.01)
    pairs = []
    for seed in range(50):
        curve = list(0.25 + np.random.default_rng(seed).normal(0, 0.03, 40))
        pairs.append((steepest(AT, curve), steepest_of_logarithm(AT, curve)))
    measured, smooth = np.mean(pairs, axis=0)
    assert 0.1 < measured < 0.15
    assert smooth == pytest.approx(measured, abs=0.015)


def test_a_jump_is_found_where_it_is() -> None:
    (result,) = drawn(STEP, LINE, seeds=1)[CONSTANT].values()
    found = jump_of(result, f"{QUESTIONS}/accuracy")
    assert found.found and 320 < found.at / (16 * 32) < 380
    assert share_that_jumps(result, f"{QUESTIONS}/margin") == 0
    assert share_that_jumps(replace(result, diverged="loss nan"), f"{QUESTIONS}/margin") is None


def test_the_page_has_every_seed_and_those_that_diverged() -> None:
    results = drawn(STEP, LINE)
    results = {**results, CONSTANT: {**results[CONSTANT]}}
    results[CONSTANT][1] = replace(results[CONSTANT][1], diverged="loss nan")
    table = next(each for each in STUDY.shown(results) if "For each seed" in each.caption.en)
    rows = [[cell if isinstance(cell, str) else cell.en for cell in row] for row in table.rows]  # type: ignore[union-attr]
    assert len(rows) == 6
    assert "accuracy only" in rows[0] and rows[1][2] == "diverged"


def test_the_report_s_own_curve_jumps_after_a_trillion_tokens() -> None:
    found = jump_in(tuple(REPORT_CURVE), tuple(REPORT_CURVE.values()))
    assert found.found and 1000 < found.at < 1400
