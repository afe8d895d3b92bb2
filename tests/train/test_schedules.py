"""Learning rates at the joints: warm-up, stable part, decay, last step; impossible schedules."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.config import ScheduleConfig
from indexlm.train.schedules import SMALLEST_FINAL, last_share, lr_share, shortcoming


def wsd(decay_shape: str = "linear", final: float = 0.01) -> ScheduleConfig:
    return ScheduleConfig.model_validate(
        {"shape": "wsd", "warmup": 10, "decay_shape": decay_shape, "final": final}
    )


@pytest.mark.parametrize("shape", ["wsd", "cosine", "linear"])
def test_warm_up_climbs_in_equal_steps_to_the_peak(shape: str) -> None:
    config = ScheduleConfig.model_validate({"shape": shape, "warmup": 4})
    assert [lr_share(config, step, 100) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("shape", ["wsd", "cosine", "linear"])
def test_without_warm_up_the_first_step_is_near_the_peak(shape: str) -> None:
    config = ScheduleConfig.model_validate({"shape": shape, "warmup": 0})
    assert lr_share(config, 0, 1000) == pytest.approx(1.0, abs=2e-3)


def test_a_trunk_stays_at_the_peak_to_its_end() -> None:
    assert {lr_share(wsd(), step, 100) for step in range(9, 100)} == {1.0}


@pytest.mark.parametrize(
    ("decay_shape", "first"),
    [
        ("linear", 1 - 0.99 / 20),
        ("exponential", 0.01 ** (1 / 20)),
        ("sqrt", 1 - 0.99 * math.sqrt(1 / 20)),
    ],
)
def test_the_joints_of_wsd(decay_shape: str, first: float) -> None:
    """Steps from 0: the warm-up's last is 9, the decay's first 80, the last one 99."""
    config = wsd(decay_shape)
    joints = [lr_share(config, step, 100, 20) for step in (8, 9, 10, 79, 80, 99)]
    assert joints == pytest.approx([0.9, 1.0, 1.0, 1.0, first, 0.01], rel=1e-12)
    shares = [lr_share(config, step, 100, 20) for step in range(79, 100)]
    assert all(before > after for before, after in pairwise(shares))


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ("cosine", 0.2 + 0.8 * (1 + math.cos(math.pi / 90)) / 2),
        ("linear", 1 - 0.8 / 90),
    ],
)
def test_the_joints_of_a_cosine_and_a_line(shape: str, first: float) -> None:
    config = ScheduleConfig.model_validate({"shape": shape, "warmup": 10, "final": 0.2})
    joints = [lr_share(config, step, 100) for step in (8, 9, 10, 99)]
    assert joints == pytest.approx([0.9, 1.0, first, 0.2], rel=1e-12)


@pytest.mark.parametrize("decay_shape", ["linear", "exponential", "sqrt"])
def test_a_decay_may_be_the_whole_branch_or_one_step(decay_shape: str) -> None:
    config = wsd(decay_shape).model_copy(update={"warmup": 0})
    whole = [lr_share(config, step, 20, 20) for step in range(20)]
    assert whole == [lr_share(config, step, 100, 20) for step in range(80, 100)]
    assert [lr_share(config, step, 20, 1) for step in (18, 19)] == pytest.approx([1.0, 0.01])


def test_the_middle_of_each_decay() -> None:
    assert lr_share(wsd("linear"), 89, 100, 20) == pytest.approx(0.505)
    assert lr_share(wsd("exponential"), 89, 100, 20) == pytest.approx(0.1)
    assert lr_share(wsd("sqrt"), 89, 100, 20) == pytest.approx(1 - 0.99 * math.sqrt(0.5))


def test_an_exponential_decay_to_nothing_ends_at_the_stated_smallest_share() -> None:
    config = wsd("exponential", 0.0)
    shares = [lr_share(config, step, 100, 20) for step in range(79, 100)]
    assert shares[-1] == pytest.approx(SMALLEST_FINAL) == last_share(config)
    ratios = [after / before for before, after in pairwise(shares)]
    assert ratios == pytest.approx([SMALLEST_FINAL ** (1 / 20)] * 20)
    assert last_share(wsd("linear", 0.0)) == lr_share(wsd("linear", 0.0), 99, 100, 20) == 0


def test_cosine_and_linear_pass_the_middle_and_end_at_the_final_share() -> None:
    cosine = ScheduleConfig(shape="cosine", warmup=10, final=0.2)
    linear = ScheduleConfig(shape="linear", warmup=10, final=0.2)
    for config in (cosine, linear):
        # 90 steps after the warm-up, of which number 45 is the middle one.
        assert lr_share(config, 54, 100) == pytest.approx(0.6)
        assert lr_share(config, 99, 100) == pytest.approx(0.2)
    assert lr_share(cosine, 20, 100) > lr_share(linear, 20, 100)
    assert lr_share(cosine, 90, 100) < lr_share(linear, 90, 100)


schedules = st.builds(
    ScheduleConfig,
    shape=st.sampled_from(["wsd", "cosine", "linear"]),
    warmup=st.integers(0, 30),
    decay_shape=st.sampled_from(["linear", "exponential", "sqrt"]),
    final=st.floats(0, 1),
)


def steepest(config: ScheduleConfig, steps: int, decay_steps: int) -> float:
    """The largest fall from one step to the next, from the slope of each shape."""
    fall = 1 - last_share(config)
    if config.shape == "linear":
        return fall / (steps - config.warmup)
    if config.shape == "cosine":
        return fall * min(math.pi / 2 / (steps - config.warmup), 1)
    if decay_steps == 0:
        return 0.0
    match config.decay_shape:
        case "linear":
            return fall / decay_steps
        case "exponential":
            return 1 - last_share(config) ** (1 / decay_steps)
        case "sqrt":
            return fall * math.sqrt(1 / decay_steps)


@given(schedules, st.integers(1, 200), st.floats(0, 1))
@settings(max_examples=300, deadline=None, database=None)
def test_shares_climb_in_the_warm_up_and_then_only_fall_without_a_jump(
    config: ScheduleConfig, more: int, decayed: float
) -> None:
    steps = config.warmup + more
    decay_steps = int(decayed * more)
    shares = [lr_share(config, step, steps, decay_steps) for step in range(steps)]
    assert all(-1e-12 <= share <= 1 for share in shares)
    rising, after = shares[: config.warmup], shares[max(config.warmup - 1, 0) :]
    assert rising == [(step + 1) / config.warmup for step in range(config.warmup)]
    falls = [before - later for before, later in pairwise(after)]
    assert all(-1e-12 <= fall <= steepest(config, steps, decay_steps) + 1e-9 for fall in falls)
    if config.shape != "wsd" or decay_steps:
        assert shares[-1] == pytest.approx(last_share(config), abs=1e-12)
    else:
        assert shares[-1] == 1.0


@given(schedules, st.integers(1, 60))
@settings(max_examples=200, deadline=None, database=None)
def test_what_is_let_through_reaches_its_peak_and_its_end(
    config: ScheduleConfig, steps: int
) -> None:
    shares = [lr_share(config, step, steps) for step in range(steps)]
    falls = config.shape != "wsd"
    if shortcoming("pretrain", config, steps):
        assert max(shares) < 1 or (falls and shares[-1] == 1)
    else:
        assert not config.warmup or max(shares) == 1
        assert not falls or shares[-1] == pytest.approx(config.final, abs=1e-12)


def test_what_a_schedule_lacks_is_said_with_the_steps_there_are() -> None:
    long = ScheduleConfig(shape="wsd", warmup=31)
    said = shortcoming("pretrain", long, 30)
    assert "pretrain.schedule.warmup=31: in 30 steps" in said and "at most 30" in said
    assert not shortcoming("pretrain", long, 31)
    for shape in ("cosine", "linear"):
        config = ScheduleConfig.model_validate({"shape": shape, "warmup": 30})
        assert f"of 30 steps none is left for the {shape}" in shortcoming("sft", config, 30)
        assert not shortcoming("sft", config, 31)
