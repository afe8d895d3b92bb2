"""Processes deal out work among themselves: all of it, and none has far more than another."""

from hypothesis import given
from hypothesis import strategies as st

from indexlm.runtime import shared_out


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 9))
def test_every_piece_falls_to_one_process_and_none_has_far_more(
    sizes: list[int], processes: int
) -> None:
    lists = shared_out(sizes, processes)
    assert sorted(number for numbers in lists for number in numbers) == list(range(len(sizes)))
    loads = [sum(sizes[number] for number in numbers) for numbers in lists]
    best = max([sum(sizes) / processes, *sizes])
    assert max(loads) <= 2 * best
    if len(sizes) >= processes:
        assert all(lists)
