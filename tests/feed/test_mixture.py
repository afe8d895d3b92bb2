"""The mixture: exact shares, no row twice or left out, the same answer from any process."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.feed.mixture import BLOCK, Mixture, Phase

SHARES = {"zh": 0.5, "en": 0.3, "instruction": 0.2}

shares = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]), st.floats(0.01, 10), min_size=1, max_size=5
)


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[list[Phase], int]:
    starts = draw(st.lists(st.integers(1, 700), max_size=2, unique=True))
    phases = [Phase(first, draw(shares)) for first in [0, *sorted(starts)]]
    return phases, draw(st.integers(0, 2**31))


@given(shares, st.integers(0, 2**31), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None, database=None)
def test_every_block_meets_the_shares(asked: dict[str, float], seed: int, block: int) -> None:
    mixture = Mixture([Phase(0, asked)], seed)
    places = [mixture.locate(block * BLOCK + place)[0] for place in range(BLOCK)]
    counts, total = Counter(places), sum(asked.values())
    for name, share in asked.items():
        assert abs(counts[name] - share / total * BLOCK) < 1
    # The same whole number in every block, not only about the same.
    assert counts == Counter(mixture.locate(place)[0] for place in range(BLOCK))


def test_shares_that_divide_a_block_are_met_exactly() -> None:
    mixture = Mixture([Phase(0, {"zh": 0.5, "en": 0.25, "instruction": 0.25})], 1)
    counts = Counter(mixture.locate(place)[0] for place in range(10 * BLOCK))
    assert counts == {"zh": 1280, "en": 640, "instruction": 640}


@given(mixtures())
@settings(max_examples=40, deadline=None, database=None)
def test_no_row_is_skipped_or_taken_twice(made: tuple[list[Phase], int]) -> None:
    """Rows of each source come as 0, 1, 2 ... through every change of phase."""
    mixture = Mixture(*made)
    following: dict[str, int] = defaultdict(int)
    for sample in range(1200):
        assert mixture.rows_used(sample) == {name: following[name] for name in mixture.names}
        name, row = mixture.locate(sample)
        assert row == following[name]
        following[name] += 1


@given(mixtures(), st.lists(st.integers(0, 10**7), min_size=1, max_size=10))
@settings(max_examples=40, deadline=None, database=None)
def test_a_place_depends_on_nothing_but_its_number(
    made: tuple[list[Phase], int], samples: list[int]
) -> None:
    in_order, backwards = Mixture(*made), Mixture(*made)
    found = [in_order.locate(sample) for sample in samples]
    assert found == [backwards.locate(sample) for sample in reversed(samples)][::-1]


def test_a_branch_goes_on_where_its_trunk_stopped() -> None:
    """With its own shares; the trunk's rows up to there are the same in both."""
    at = 3 * BLOCK + 40
    trunk = Mixture([Phase(0, SHARES)], 9)
    branch = Mixture([Phase(0, SHARES), Phase(at, {"zh": 0.1, "code": 0.9})], 9)
    assert [trunk.locate(i) for i in range(at)] == [branch.locate(i) for i in range(at)]
    rows = [branch.locate(i) for i in range(at, at + BLOCK)]
    assert min(row for name, row in rows if name == "zh") == trunk.rows_used(at)["zh"]
    assert min(row for name, row in rows if name == "code") == 0
    assert Counter(name for name, _ in rows) == {"zh": 26, "code": 230}


def test_another_seed_is_another_order() -> None:
    one, other = (Mixture([Phase(0, SHARES)], seed) for seed in (1, 2))
    assert [one.locate(i) for i in range(BLOCK)] != [other.locate(i) for i in range(BLOCK)]


def test_neighbouring_blocks_are_in_different_orders() -> None:
    mixture = Mixture([Phase(0, SHARES)], 1)
    first, second = ([mixture.locate(b * BLOCK + i)[0] for i in range(BLOCK)] for b in (0, 1))
    assert first != second


@pytest.mark.parametrize("asked", [{}, {"zh": 0.0}, {"zh": 1.0, "en": -0.1}])
def test_shares_that_mean_nothing_are_refused(asked: dict[str, float]) -> None:
    with pytest.raises(AssertionError):
        Mixture([Phase(0, asked)], 1)
