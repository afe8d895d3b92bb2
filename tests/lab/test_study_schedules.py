"""Schedules end alike where they are said to, and decays share one trunk."""

import math

import pytest
from short_studies import check_arms, check_said, check_shown, made, results

from indexlm.lab.arms import Arm
from indexlm.lab.studies.schedules import (
    CLAIMS,
    DECAYS,
    ENDS,
    FINAL,
    LOSS,
    STABLE,
    STUDY,
    TAIL,
    while_stable,
)
from indexlm.lab.study import Figure, PresetName, Results
from indexlm.train.schedules import lr_share


def of(preset: PresetName = "quick") -> dict[str, Arm]:
    return {arm.name: arm for arm in STUDY.arms(preset, 0)}


def share(arm: Arm, step: int) -> float:
    return lr_share(arm.train.schedule, step, arm.train.steps, arm.decay_steps)


@pytest.mark.parametrize("preset", STUDY.seeds)
def test_all_end_at_the_same_learning_rate_and_length_but_the_constant_one(
    preset: PresetName,
) -> None:
    arms = of(preset)
    lengths = {arms[name].train.steps for name in ENDS}
    assert len(lengths) == 1
    (length,) = lengths
    for name in ENDS:
        last = share(arms[name], length - 1)
        assert last == pytest.approx(1.0 if name == TAIL else FINAL), name
    assert len({arm.train.optimiser.lr for arm in arms.values()}) == 1


def test_decays_start_from_one_trunk_at_80_percent() -> None:
    arms = of()
    trunks = {arms[name].trunk.fingerprint() for name in (*DECAYS, TAIL)}  # type: ignore[union-attr]
    assert trunks == {arms[STABLE].fingerprint()}
    for name in DECAYS:
        arm = arms[name]
        assert arm.first_step == 0.8 * arm.train.steps == arm.train.steps - arm.decay_steps
        assert share(arm, arm.first_step - 1) == 1


def test_all_read_the_same_rows_from_the_same_weights() -> None:
    arms = of().values()
    assert len({arm.data.model_dump_json() for arm in arms}) == 1
    assert len({arm.model.model_dump_json() for arm in arms}) == 1
    assert {arm.seed for arm in arms} == {0}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(STUDY, tmp_path_factory.mktemp("arms"), 0.05, 1)


def test_the_cosine_is_looked_at_where_the_stable_phase_ends(real: Results) -> None:
    stable, cosine = while_stable(real)
    assert stable == {seed: result.value(LOSS) for seed, result in real[STABLE].items()}
    last = real[STABLE][0].arm["train"]["steps"] - 1
    for seed, value in cosine.items():
        (at,) = [p for p in real["cosine"][seed].curve if "scores" in p and p["step"] == last]
        assert value == at["scores"][LOSS]


def test_a_line_of_a_decay_begins_with_its_trunk(real: Results) -> None:
    shown = STUDY.shown(real)
    check_shown(shown, 1)
    losses = shown[1]
    assert isinstance(losses, Figure)
    begin = real[STABLE][0].arm["train"]["steps"]
    for line in losses.panels[0].lines:
        assert min(line.xs) < begin < max(line.xs)
    assert all(min(line.xs) == begin for line in losses.panels[1].lines), "enlarged from there on"


@pytest.mark.parametrize(
    ("apart", "word"), [(0.0, "reproduced"), (0.1, "opposite"), (-0.1, "opposite")]
)
def test_likeness_has_a_margin_on_both_sides(apart: float, word: str) -> None:
    arms = of()
    some = {
        name: {
            seed: made(arms[name], loss__web=2.0 + 0.001 * seed + (apart if name == "WSD" else 0))
            for seed in range(3)
        }
        for name in ("WSD", "cosine")
    }
    verdict = CLAIMS[0].verdict(some)
    assert verdict.word == word
    assert verdict.interval is not None and math.isfinite(verdict.interval.low)


def test_words_and_arms() -> None:
    check_said(STUDY)
    check_arms(STUDY.arms, STUDY.seeds)
