"""Intervals against closed forms, printed tables and simulation."""

import math
from random import Random
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.lab.intervals import (
    Interval,
    incomplete_beta,
    sign_interval,
    t_interval,
    t_probability,
    t_quantile,
)

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262, 29: 2.045}
"""Two-sided 5% points of Student's t by degrees of freedom, as printed in any table."""


@pytest.mark.parametrize(("freedom", "point"), TABLE.items())
def test_quantiles_are_those_of_the_printed_table(freedom: int, point: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(point, abs=5.1e-4)


@given(st.floats(0, 50))
def test_one_two_and_four_degrees_of_freedom_have_closed_forms(value: float) -> None:
    """Cauchy; and the algebraic ones of 2 and 4."""
    two = 0.5 + value / (2 * math.sqrt(2 + value**2))
    x = value / math.sqrt(4 + value**2)
    four = 0.5 + 3 / 4 * (x - x**3 / 3)
    assert t_probability(value, 1) == pytest.approx(0.5 + math.atan(value) / math.pi, abs=1e-12)
    assert t_probability(value, 2) == pytest.approx(two, abs=1e-12)
    assert t_probability(value, 4) == pytest.approx(four, abs=1e-12)


def test_many_degrees_of_freedom_are_normal() -> None:
    assert t_quantile(0.975, 1e7) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-6)


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_the_incomplete_beta_function_is_a_binomial_tail(a: int, b: int, x: float) -> None:
    """I_x(a, b) is the probability of a or more successes in a + b - 1 trials."""
    trials = a + b - 1
    tail = sum(math.comb(trials, k) * x**k * (1 - x) ** (trials - k) for k in range(a, trials + 1))
    assert incomplete_beta(a, b, x) == pytest.approx(tail, abs=1e-10)


@given(st.floats(0.51, 0.999), st.integers(1, 200))
def test_a_quantile_is_where_the_probability_is_reached(probability: float, freedom: int) -> None:
    assert t_probability(t_quantile(probability, freedom), freedom) == pytest.approx(probability)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_the_t_interval_covers_the_mean_in_95_of_100_cases(seeds: int) -> None:
    draws = np.random.default_rng(seeds).normal(0.7, 2.0, (4000, seeds))
    intervals = [t_interval(row.tolist()) for row in draws]
    share = np.mean([interval.low <= 0.7 <= interval.high for interval in intervals])
    assert share == pytest.approx(0.95, abs=0.014)  # four standard errors of 4000 draws


@pytest.mark.parametrize("seeds", [6, 8, 9, 15])
def test_the_sign_interval_covers_the_median_of_a_skewed_distribution(seeds: int) -> None:
    draws = np.random.default_rng(seeds).lognormal(0.0, 2.0, (4000, seeds))
    intervals = [sign_interval(row.tolist()) for row in draws]
    share = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    assert share > 0.95 - 0.014


def test_a_normal_quantile_would_cover_too_little() -> None:
    """With three seeds 1.96 standard errors are no 95% interval: the test above can fail."""
    draws = np.random.default_rng(0).normal(0.0, 1.0, (4000, 3))
    half = 1.96 * draws.std(axis=1, ddof=1) / math.sqrt(3)
    assert np.mean(np.abs(draws.mean(axis=1)) <= half) < 0.85


def test_the_sign_interval_needs_six_values() -> None:
    assert sign_interval([1, 2, 3, 4, 5]) == Interval(3, -math.inf, math.inf)
    assert sign_interval([1, 2, 3, 4, 5, 6]) == Interval(3.5, 1, 6)


def test_the_sign_interval_takes_infinite_values() -> None:
    values = [-math.inf, 1, 2, 3, 4, 5, 6, 7, math.inf]
    assert sign_interval(values) == Interval(4, 1, 7)
    assert sign_interval([-math.inf, math.inf]).centre == 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12), st.randoms())
def test_no_interval_depends_on_the_order(values: list[float], random: Random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert sign_interval(shuffled) == sign_interval(values)
    assert t_interval(shuffled) == t_interval(values)
