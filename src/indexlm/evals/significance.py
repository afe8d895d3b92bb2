"""Is a difference more than luck? Tests of two models on the same items, without a statistics
package.

All p-values are two-sided. The items are taken to be drawn independently.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexlm.evals.results import NORMAL

HOLDS = 0.95
"""Share of samples whose intervals hold the true value."""


class Difference(NamedTuple):
    """A paired mean difference, its 95% interval and p-value; no p-value from one item alone."""

    value: float
    interval: tuple[float, float] | None
    p: float | None


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact p-value of the items that only one of two models has right (McNemar 1947).

    If neither is better, each of them fell to either model as a fair coin falls. This is the
    conditional test, whose level is never above the nominal one; the mid-p variant is a little more
    powerful and does not promise that (Fagerland, Lydersen and Laake 2013).
    """
    count, fewer = only_a + only_b, min(only_a, only_b)
    ways, tail = 1, 0
    for hits in range(fewer + 1):
        tail += ways
        ways = ways * (count - hits) // (hits + 1)
    # Whole numbers: thousands of items underflow any float on the way.
    return min(1.0, 2 * tail / 2**count)


def share_interval(only_a: int, only_b: int, count: int) -> tuple[float, float]:
    """95% interval of the difference of two paired shares, b - a, of `count` items (Bonett and
    Price 2012): Wald's with an item added to either kind of disagreement.

    Plain Wald has no width where the two agree on all items.
    """
    b, a = (only_b + 1) / (count + 2), (only_a + 1) / (count + 2)
    reach = NORMAL * math.sqrt((a + b - (b - a) ** 2) / (count + 2))
    return max(-1.0, b - a - reach), min(1.0, b - a + reach)


def paired_difference(a_N: np.ndarray, b_N: np.ndarray) -> Difference:
    """Of means, b - a, by the paired t-test (Student 1908); [N] values of the same items."""
    return ratio_difference(a_N, b_N, np.ones(len(a_N)))


def ratio_difference(a_N: np.ndarray, b_N: np.ndarray, size_N: np.ndarray) -> Difference:
    """Of sum(b) / sum(size) - sum(a) / sum(size), as bits per byte over documents.

    The error is that of a ratio whose units are drawn (Cochran 1977, 6.3); of equal sizes it is
    that of the paired t-test. Differences of nothing at all have p = 1.
    """
    count, total = len(a_N), float(size_N.sum())
    difference_N = b_N - a_N
    value = float(difference_N.sum()) / total
    if count < 2:
        return Difference(value, None, None)
    residual_N = difference_N - value * size_N
    error = math.sqrt(float((residual_N**2).sum()) * count / (count - 1)) / total
    if error == 0:
        return Difference(value, (value, value), 0.0 if value else 1.0)
    reach = t_quantile(HOLDS, count - 1) * error
    return Difference(value, (value - reach, value + reach), t_p_value(value / error, count - 1))


def t_p_value(t: float, freedom: int) -> float:
    """Probability that Student's t is as far from 0 as `t`, to either side."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def t_quantile(inside: float, freedom: int) -> float:
    """The t that `inside` of the distribution is nearer to 0 than."""
    low, high = 0.0, 1.0
    while t_p_value(high, freedom) > 1 - inside:
        low, high = high, 2 * high
    for _ in range(48):
        middle = (low + high) / 2
        if t_p_value(middle, freedom) > 1 - inside:
            low = middle
        else:
            high = middle
    return high


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted so that below 0.05 one row in twenty *tables* is there by luck, not one row in
    twenty (Holm 1979). None stays, and counts as no test."""
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = highest
    return adjusted


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function, by its continued fraction (DLMF 8.17.22).

    To about 1e-10, also where the result is tiny.
    """
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        # The fraction converges on the other side only.
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / _beta_fraction(a, b, x)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)), forwards by Lentz's method (Thompson and Barnett 1986)."""
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, 100_000):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            return value
    raise AssertionError(f"no value of the incomplete beta function at {a}, {b}, {x}")
