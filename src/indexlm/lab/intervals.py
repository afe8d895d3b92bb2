"""Intervals for paired differences of a few seeds: Student's t, and order statistics without it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95

_TINY = 1e-300


class Interval(NamedTuple):
    centre: float
    low: float
    high: float

    def within(self, margin: float) -> bool:
        """Whether it lies inside (-margin, margin)."""
        return -margin < self.low and self.high < margin


def mean(values: Sequence[float | None]) -> float | None:
    """None where one of them is, a run that diverged, and of nothing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean and the interval of Student's t; for at least two finite values."""
    count = len(values)
    assert count > 1 and all(map(math.isfinite, values)), values
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = t_quantile((1 + confidence) / 2, count - 1) * deviation / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def sign_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Median and the interval that inverts the sign test: two order statistics.

    Nothing is assumed of the distribution, so that values may be infinite. Fewer than six values
    have no such interval at 95%; it is then the whole line.
    """
    ordered, count = sorted(values), len(values)
    assert count and not any(map(math.isnan, values)), values
    middle = (
        ordered[count // 2] if count % 2 else _between(*ordered[count // 2 - 1 : count // 2 + 1])
    )
    # The largest rank k for which fewer than k of the values lie on one side of the median in at
    # most half of the cases that the interval may miss.
    below, rank = 0.0, 0
    for successes in range(count):
        below += math.comb(count, successes) / 2**count
        if below > (1 - confidence) / 2:
            break
        rank = successes + 1
    if not rank:
        return Interval(middle, -math.inf, math.inf)
    return Interval(middle, ordered[rank - 1], ordered[count - rank])


def t_quantile(probability: float, freedom: float) -> float:
    """Inverse of the distribution of Student's t, for a probability of at least a half."""
    assert 0.5 <= probability < 1 and freedom > 0, (probability, freedom)
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < probability:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if t_probability(middle, freedom) < probability else (low, middle)
        )
    return (low + high) / 2


def t_probability(value: float, freedom: float) -> float:
    """P(T <= value) for a value of at least 0, by the incomplete beta function (Abramowitz and
    Stegun 26.7.1), from whichever side of it loses no digits."""
    assert value >= 0, value
    square = value * value
    if square < freedom:
        return 0.5 + incomplete_beta(0.5, freedom / 2, square / (freedom + square)) / 2
    return 1 - incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square)) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and
    Stegun 26.5.8) evaluated from the front (Lentz 1976)."""
    assert a > 0 and b > 0 and 0 <= x <= 1, (a, b, x)
    if x in (0, 1):
        return x
    if x > (a + 1) / (a + b + 2):  # where it converges slowly
        return 1 - incomplete_beta(b, a, 1 - x)
    logarithm = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    logarithm += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    upper, lower = 1.0, 1 / _off_zero(1 - (a + b) * x / (a + 1))
    fraction = lower
    for term in range(1, 10_000):
        even = term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1))
        for part in (even, odd):
            lower = 1 / _off_zero(1 + part * lower)
            upper = _off_zero(1 + part / upper)
            fraction *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            return math.exp(logarithm) * fraction
    raise AssertionError(f"no convergence at {(a, b, x)}")


def _off_zero(number: float) -> float:
    return number if abs(number) > _TINY else _TINY


def _between(low: float, high: float) -> float:
    """The mean; of -inf and inf, 0."""
    return 0.0 if low == -high else (low + high) / 2
