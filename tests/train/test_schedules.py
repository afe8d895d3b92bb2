"""Learning rates at the joints: warm-up, stable part, decay, last step."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.config import ScheduleConfig
from indexlm.train.schedules import lr_share


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


@pytest.mark.parametrize("decay_shape", ["linear", "exponential", "sqrt"])
def test_the_decay_begins_below_the_peak_and_ends_at_the_final_share(decay_shape: str) -> None:
    config = wsd(decay_shape)
    assert lr_share(config, 79, 100, 20) == 1.0
    shares = [lr_share(config, step, 100, 20) for step in range(80, 100)]
    assert shares[0] < 1.0
    assert all(before > after for before, after in pairwise(shares))
    assert shares[-1] == pytest.approx(0.01)


def test_the_middle_of_each_decay() -> None:
    assert lr_share(wsd("linear"), 89, 100, 20) == pytest.approx(0.505)
    assert lr_share(wsd("exponential"), 89, 100, 20) == pytest.approx(0.1)
    assert lr_share(wsd("sqrt"), 89, 100, 20) == pytest.approx(1 - 0.99 * math.sqrt(0.5))


def test_an_exponential_decay_to_nothing_stays_finite() -> None:
    shares = [lr_share(wsd("exponential", 0.0), step, 100, 20) for step in range(80, 100)]
    assert 0 < shares[-1] < 1e-7


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


@given(schedules, st.integers(1, 200), st.floats(0, 1))
@settings(max_examples=100, deadline=None, database=None)
def test_a_share_lies_between_nothing_and_the_peak(
    config: ScheduleConfig, steps: int, decayed: float
) -> None:
    decay_steps = int(decayed * max(steps - config.warmup, 0))
    shares = [lr_share(config, step, steps, decay_steps) for step in range(steps)]
    assert all(-1e-12 <= share <= 1 + 1e-12 for share in shares)
    after = shares[config.warmup :]
    assert all(before >= later - 1e-12 for before, later in pairwise(after))
