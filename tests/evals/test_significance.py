"""The tests are held to tables, to enumeration of every outcome, and to integrals of densities."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.evals.significance import (
    holm,
    mcnemar,
    paired_difference,
    ratio_difference,
    share_interval,
    t_p_value,
    t_quantile,
)


@given(st.integers(0, 7), st.integers(0, 7))
def test_mcnemar_counts_every_way_in_which_coins_can_fall(only_a: int, only_b: int) -> None:
    count = only_a + only_b
    as_far = sum(
        abs(2 * sum(coins) - count) >= abs(only_a - only_b)
        for coins in product((0, 1), repeat=count)
    )
    assert mcnemar(only_a, only_b) == pytest.approx(as_far / 2**count)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 0.0625),
        (1, 9, 22 / 1024),
        # As scipy's binomtest has it.
        (3400, 3600, 0.017376785909842),
    ],
)
def test_mcnemar_has_known_values(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p, rel=1e-10)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


def test_mcnemar_is_not_the_test_of_unpaired_shares() -> None:
    """60% against 64% of 500 items: nothing for two samples, much where 20 items decide it."""
    assert mcnemar(0, 20) < 1e-5
    assert mcnemar(90, 110) > 0.15


@pytest.mark.parametrize(
    ("t", "freedom"),
    [(12.706205, 1), (4.302653, 2), (2.228139, 10), (2.042272, 30), (1.983972, 100)],
)
def test_t_has_the_values_of_the_tables(t: float, freedom: int) -> None:
    assert t_p_value(t, freedom) == pytest.approx(0.05, abs=1e-6)
    assert t_p_value(-t, freedom) == t_p_value(t, freedom)
    assert t_quantile(0.95, freedom) == pytest.approx(t, abs=1e-5)


@given(st.floats(0, 30), st.integers(1, 3000))
def test_t_is_the_integral_of_its_density(t: float, freedom: int) -> None:
    x = np.linspace(0, t, 20_001)
    log_front = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    log_front -= 0.5 * math.log(freedom * math.pi)
    density = np.exp(log_front - (freedom + 1) / 2 * np.log1p(x * x / freedom))
    # Simpson's rule.
    inside = (density[0] + density[-1] + 4 * density[1:-1:2].sum() + 2 * density[2:-1:2].sum()) / 3
    assert t_p_value(t, freedom) == pytest.approx(1 - 2 * inside * (x[1] - x[0]), abs=1e-7)


def test_small_tails_keep_their_digits() -> None:
    """By scipy: 2 * t.sf(5, 14041)."""
    assert t_p_value(5, 14041) == pytest.approx(5.80218978352e-07, rel=1e-8)


@pytest.mark.parametrize(("only_a", "only_b"), [(0.1, 0.1), (0.05, 0.2), (0.02, 0.0), (0.3, 0.25)])
def test_the_interval_of_a_difference_holds_it_as_often_as_it_says(
    only_a: float, only_b: float
) -> None:
    """Over all outcomes of 40 items; Wald's interval would hold 0.02 in 55% of samples."""
    count, held, total = 40, 0.0, 0.0
    for a in range(count + 1):
        for b in range(count + 1 - a):
            same = count - a - b
            ways = math.comb(count, a) * math.comb(count - a, b)
            likely = ways * only_a**a * only_b**b * (1 - only_a - only_b) ** same
            low, high = share_interval(a, b, count)
            assert -1 <= low < high <= 1
            held += likely * (low <= only_b - only_a <= high)
            total += likely
    assert total == pytest.approx(1)
    assert held >= 0.945


def test_a_paired_difference_is_seen_where_an_unpaired_one_is_not() -> None:
    rng = np.random.default_rng(1)
    a_N = rng.normal(0, 10, 200)
    b_N = a_N + rng.normal(0.5, 1, 200)
    found = paired_difference(a_N, b_N)
    assert found.value == pytest.approx((b_N - a_N).mean())
    assert found.p is not None and found.p < 1e-6
    assert found.interval is not None and found.interval[0] > 0
    shuffled = paired_difference(a_N, rng.permutation(b_N))
    assert shuffled.value == pytest.approx(found.value)
    assert shuffled.p is not None and shuffled.p > 0.3


def test_the_t_test_is_near_a_permutation_of_all_signs() -> None:
    d_N = np.array([0.9, -0.3, 0.4, 1.2, 0.1, -0.2, 0.7, 0.3, -0.6, 0.8, 0.5, 0.2, -0.1, 0.6])
    signs = np.array(list(product((-1, 1), repeat=len(d_N))))
    as_far = (np.abs(signs @ d_N) >= abs(d_N.sum()) - 1e-12).mean()
    found = paired_difference(np.zeros(len(d_N)), d_N)
    assert found.p == pytest.approx(as_far, abs=0.01)


def test_luck_alone_is_called_a_difference_once_in_twenty() -> None:
    rng = np.random.default_rng(2)
    runs = [paired_difference(np.zeros(20), rng.normal(size=20)).p for _ in range(1000)]
    assert sum(p is not None and p < 0.05 for p in runs) / 1000 == pytest.approx(0.05, abs=0.02)


def test_a_ratio_weighs_units_by_their_size() -> None:
    """Two bits per byte lost on every byte: the same on each, so without any error."""
    size_N = np.array([10.0, 200.0, 3000.0])
    found = ratio_difference(size_N, 3 * size_N, size_N)
    assert found == (2.0, (2.0, 2.0), 0.0)
    mixed = ratio_difference(np.zeros(3), np.array([10.0, 0.0, 3000.0]), size_N)
    assert mixed.value == pytest.approx(3010 / 3210)


def test_nothing_and_one_item_have_no_evidence() -> None:
    assert paired_difference(np.ones(5), np.ones(5)) == (0.0, (0.0, 0.0), 1.0)
    assert paired_difference(np.zeros(1), np.ones(1)) == (1.0, None, None)


def test_holm_corrects_for_what_was_looked_at() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_is_not_stricter_than_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, p_holm in zip(p_values, adjusted):
        assert p_holm is not None and p <= p_holm <= min(1.0, len(p_values) * p)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    ordered = [adjusted[place] for place in order]
    assert ordered == sorted(each for each in ordered if each is not None)


def test_ten_rows_of_luck_are_seldom_starred() -> None:
    """At most one table in twenty, where plain p-values star two in five."""
    rng = np.random.default_rng(3)
    tables = rng.random((2000, 10))
    starred = [any(p is not None and p < 0.05 for p in holm(table.tolist())) for table in tables]
    assert sum(starred) / 2000 < 0.065
    assert (tables < 0.05).any(1).mean() > 0.35
