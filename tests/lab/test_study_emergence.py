"""A jump is told from a smooth rise, of both scores of the same questions, in each seed."""

from dataclasses import replace

import numpy as np
import pytest
from made_results import results_of, verdicts

from indexlm.lab.arms import Result
from indexlm.lab.jumps import REPORT_CURVE, jump_in, jump_of, share_that_jumps
from indexlm.lab.studies.emergence import CONSTANT, QUESTIONS, STUDY, arms
from indexlm.lab.study import Results

STEP = [0.25] * 16 + [0.5, 0.8] + [0.95] * 22
LINE = list(np.linspace(0.25, 0.95, 40))


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
    ("accuracy", "margin", "jumps", "smoother"),
    [
        (STEP, LINE, "reproduced", "reproduced"),
        (STEP, STEP, "reproduced", "no difference"),
        (LINE, LINE, "no difference", "no difference"),
        (LINE, STEP, "no difference", "opposite"),
    ],
)
def test_verdicts_follow_the_curves(
    accuracy: list[float], margin: list[float], jumps: str, smoother: str
) -> None:
    found = verdicts(STUDY, drawn(accuracy, margin))
    assert (found["accuracy jumps"], found["margin is smoother"]) == (jumps, smoother)


def test_a_jump_is_found_where_it_is() -> None:
    (result,) = drawn(STEP, LINE, seeds=1)[CONSTANT].values()
    found = jump_of(result, f"{QUESTIONS}/accuracy")
    assert found.found and 320 < found.at < 380
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
