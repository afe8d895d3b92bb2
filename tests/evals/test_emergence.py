"""Made curves: a jump is found where it is; what rises smoothly or only wobbles is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.evals.emergence import LEVEL, Jump, compare_jumps, jump

TOKENS = np.arange(1, 41) * 1e6
RUN = TOKENS / TOKENS[-1]
SMOOTH = {
    "straight": RUN,
    "logarithmic": np.log(RUN / RUN[0]) / np.log(1 / RUN[0]),
    "levelling off": (1 - RUN[0] / RUN) / (1 - RUN[0]),
    "gaining speed": RUN**2,
    "flat": 0 * RUN,
}
CURVES = 50


def noise(seed: int, size: float) -> np.ndarray:
    return size * np.random.default_rng(seed).normal(size=len(TOKENS))


# Where a jump is


@pytest.mark.parametrize("place", [0.1, 0.4, 0.8, 0.97])
def test_a_step_is_found_at_its_place_with_its_size(place: float) -> None:
    # Between two points: nothing more can be known.
    points = int(place * len(TOKENS))
    found = jump(TOKENS, (RUN[points - 1] < RUN) * 0.6 + noise(1, 0.03))
    assert found.found and found.p_value <= 0.01
    assert (found.start, found.end) == (TOKENS[points - 1], TOKENS[points])
    assert found.at == (found.start + found.end) / 2
    assert found.place[0] <= found.at <= found.place[1]
    assert found.size == pytest.approx(0.6, abs=0.06)
    assert found.interval[0] <= 0.6 <= found.interval[1]
    assert found.share_of_total_rise > 0.8


def test_a_rise_over_several_points_is_found_if_they_are_within_the_window() -> None:
    ramp = np.clip((RUN - 0.5) / 0.08, 0, 1) + noise(2, 0.02)
    found = jump(TOKENS, ramp)
    assert found.found and 0.5e6 * 40 <= found.at <= 0.58e6 * 40
    wide = jump(TOKENS, np.clip((RUN - 0.3) / 0.4, 0, 1) + noise(2, 0.02))
    assert not wide.found and wide.share_of_total_rise < 0.5
    # With a window as wide as it is, it is one.
    assert jump(TOKENS, np.clip((RUN - 0.3) / 0.4, 0, 1) + noise(2, 0.02), window=0.45).found


def test_a_step_on_top_of_a_smooth_rise_counts_by_its_share() -> None:
    def curve(step: float) -> np.ndarray:
        return (1 - step) * SMOOTH["logarithmic"] + step * (RUN > 0.5) + noise(3, 0.02)

    large, small = jump(TOKENS, curve(0.7)), jump(TOKENS, curve(0.25))
    assert large.found and large.share_of_total_rise == pytest.approx(0.7, abs=0.07)
    # It stands out, and is not what the run is about.
    assert small.p_value <= LEVEL and not small.found
    assert small.share_of_total_rise == pytest.approx(0.25, abs=0.07)


def test_a_fall_is_no_jump() -> None:
    assert not jump(TOKENS, (RUN < 0.5) * 1.0 + noise(4, 0.02)).found


def test_uneven_points_are_judged_by_their_tokens() -> None:
    """The last quarter of the run has half of the points, as a decay has."""
    tokens = np.concatenate([np.linspace(1, 75, 20), np.linspace(76, 100, 20)]) * 1e6
    found = jump(tokens, (tokens > 60e6) * 1.0 + noise(5, 0.05))
    assert found.found and found.start <= 60e6 <= found.end


# What is none


@pytest.mark.parametrize("shape", sorted(SMOOTH))
@pytest.mark.parametrize("size", [0.02, 0.2])
def test_false_alarms_are_as_rare_as_the_level_says(shape: str, size: float) -> None:
    """Of 50 curves at 5%, ten and more have too small a p once in a thousand times."""
    judged = [
        jump(TOKENS, SMOOTH[shape] + noise(seed, size), draws=100, seed=seed)
        for seed in range(CURVES)
    ]
    assert sum(each.p_value <= LEVEL for each in judged) <= 9
    assert sum(each.found for each in judged) <= (9 if shape == "flat" else 4)


def test_smooth_rises_without_noise_are_none() -> None:
    for values in SMOOTH.values():
        found = jump(TOKENS, values, draws=100)
        assert not found.found and found.p_value > LEVEL


def test_a_check_that_forgot_the_shape_of_the_rise_would_call_the_logarithm_a_jump() -> None:
    """Four tenths of a logarithm are in its first tenth: its size alone says nothing."""
    values = SMOOTH["logarithmic"]
    assert values[4] - values[0] > 0.4 and not jump(TOKENS, values + noise(6, 0.02)).found


# Intervals


def item_curves(seed: int, step: float, items: int = 150) -> np.ndarray:
    """[P, I] of 0 and 1: items of their own difficulty, `step` more of them right after 60%."""
    generator = np.random.default_rng(seed)
    chance_I = 0.15 + 0.2 * generator.beta(2, 2, size=items)
    right_PI = generator.random((len(TOKENS), items)) < chance_I + step * (RUN > 0.6)[:, None]
    return right_PI.astype(float)


def test_the_interval_over_items_holds_the_true_size() -> None:
    """95% of them; in 40, less than 34 is the chance of one in a hundred."""
    held = 0
    for seed in range(40):
        item_PI = item_curves(seed, 0.3)
        found = jump(TOKENS, item_PI.mean(1), items=item_PI, draws=150, seed=seed)
        assert found.found and found.at == pytest.approx(24.5e6, abs=1e6)
        held += found.interval[0] <= 0.3 <= found.interval[1]
    assert held >= 34


def test_more_items_and_smaller_errors_make_a_narrower_interval() -> None:
    def width(found: Jump) -> float:
        return found.interval[1] - found.interval[0]

    few, many = item_curves(1, 0.3, 60), item_curves(1, 0.3, 1500)
    by_items = [jump(TOKENS, each.mean(1), items=each) for each in (few, many)]
    assert width(by_items[1]) < width(by_items[0]) / 2
    values = many.mean(1)
    by_errors = [jump(TOKENS, values, errors=np.full(40, size)) for size in (0.05, 0.01)]
    assert width(by_errors[1]) < width(by_errors[0]) / 2


def test_the_same_arguments_give_the_same_answer_and_units_do_not_matter() -> None:
    values = (RUN > 0.4) * 1.0 + noise(8, 0.1)
    found = jump(TOKENS, values, seed=3)
    assert jump(TOKENS, values, seed=3) == found
    scaled = jump(TOKENS / 1000, 5 + 100 * values, seed=3)
    assert scaled.p_value == found.p_value and scaled.found == found.found
    assert scaled.at == pytest.approx(found.at / 1000)
    assert scaled.size == pytest.approx(100 * found.size)
    assert scaled.interval == pytest.approx([100 * end for end in found.interval])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=11, max_size=30), st.integers(0, 5))
def test_any_curve_has_an_answer_within_bounds(values: list[float], seed: int) -> None:
    tokens = np.arange(len(values)) * 7.0  # the first one has read nothing
    found = jump(tokens, values, draws=20, seed=seed)
    assert 0 < found.p_value <= 1 and 0 <= found.share_of_total_rise <= 1
    assert 0 <= found.start < found.end <= tokens[-1] and found.size >= 0
    assert found.end - found.start <= 0.1 * tokens[-1] * (1 + 1e-6)
    assert found.interval[0] <= found.interval[1]


# Two scores of the same items


def test_an_accuracy_that_jumps_over_a_margin_that_rises_is_told_apart() -> None:
    """Margins of all items rise in a straight line and pass zero within a few points."""
    margin_PI = (4 * RUN - 2)[:, None] + np.random.default_rng(1).normal(0, 0.05, (40, 200))
    accuracy_PI = (margin_PI > 0).astype(float)
    accuracy, margin = (jump(TOKENS, each.mean(1), items=each) for each in (accuracy_PI, margin_PI))
    assert accuracy.found and not margin.found
    told = compare_jumps(accuracy, margin)
    assert told.kind == "accuracy only" and "improves gradually" in told.text
    assert compare_jumps(margin, accuracy).kind == "continuous only"
    assert compare_jumps(margin, margin).kind == "neither"


def test_what_jumps_in_both_says_which_comes_first() -> None:
    def step(place: float) -> Jump:
        return jump(TOKENS, (place < RUN) * 1.0 + noise(9, 0.05))

    together = compare_jumps(step(0.5), step(0.5))
    assert together.kind == "both" and "together" in together.text
    assert "the margin first" in compare_jumps(step(0.7), step(0.4)).text
    assert "accuracy first" in compare_jumps(step(0.4), step(0.7), "probability").text


# What cannot be judged


@pytest.mark.parametrize(
    ("tokens", "values", "words"),
    [
        (range(1, 11), range(10), ["10 points", "11"]),
        ([*range(12), 11], range(13), ["ascend", "11"]),
        ([-1, *range(12)], range(13), ["ascend from 0", "-1"]),
        (range(12), [*range(11), float("nan")], ["at 11 tokens is nan"]),
        ([2**n for n in range(12)], range(12), []),
    ],
)
def test_what_is_no_curve_is_refused(
    tokens: list[int], values: list[float], words: list[str]
) -> None:
    if not words:
        # Doubling points are near each other at the beginning.
        jump(tokens, values, draws=10)
        return
    with pytest.raises(UserError) as error:
        jump(tokens, values)
    assert [word for word in words if word not in str(error.value)] == []


def test_points_further_apart_than_the_window_are_refused() -> None:
    with pytest.raises(UserError, match=r"2,000,000 tokens and more apart.*evaluate more often"):
        jump(np.arange(1, 13) * 2e6, range(12), window=0.05)
