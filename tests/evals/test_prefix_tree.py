"""What a plan would compute, followed id by id without a network."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexlm.evals.prefix_tree import Pass, Plan, cut_windows, make_plan

Rows = list[tuple[list[int], int]]


def contexts(one: Pass, past: list[int]) -> list[list[int]]:
    """Ids that each position of a pass sees, itself the last."""
    found: list[list[int]] = []
    for segment in one.segments:
        above = past[: one.seen]
        for other in one.segments:
            if other.start < segment.start < other.end:
                above = above + one.ids[other.start : other.stop].tolist()
        assert len(above) == one.seen + segment.depth
        for position in range(segment.start, segment.stop):
            above = [*above, int(one.ids[position])]
            found.append(above)
    return found


def answers(plan: Plan) -> dict[int, tuple[list[int], int]]:
    """Slot -> what the network would be given there, and which id it would be asked for.

    The past is one list that is written over, as the network's keys and values are.
    """
    past = [-1] * plan.past
    found = {}
    for one in plan.passes:
        seen = contexts(one, past)
        targets = one.targets
        assert (np.diff(targets.positions) > 0).all() and (np.diff(targets.of) >= 0).all()
        for of, target, slot in zip(targets.of, targets.ids, targets.slots):
            assert slot not in found
            found[int(slot)] = (seen[targets.positions[of]], int(target))
        if one.kept:
            assert len(one.segments) == 1
            past[one.seen : one.seen + len(one.ids)] = one.ids.tolist()
    return found


def expected_answers(rows: Rows, context: int) -> dict[int, tuple[list[int], int]]:
    found: dict[int, tuple[list[int], int]] = {}
    for number, (ids, first) in enumerate(rows):
        for window in cut_windows(number, len(ids) - 1, first - 1, context):
            for place in range(window.scored, window.end):
                found[len(found)] = (ids[window.start : place + 1], ids[place + 1])
    return found


def few_shot(questions: int, options: int) -> Rows:
    """A beginning of 40 ids, questions of 10, options of 1."""
    return [
        ([*range(40), *range(100 * q, 100 * q + 10), option], 50)
        for q in range(1, questions + 1)
        for option in range(options)
    ]


def test_a_few_shot_prompt_is_computed_once_and_a_question_once_for_its_options() -> None:
    plan = make_plan(few_shot(3, 4), 100, 64, share=True)
    assert plan.naive == 3 * 4 * 50
    assert plan.computed == 40 + 3 * 10
    # 70 positions are more than 64: the beginning goes first, and is kept.
    assert [(len(one.ids), one.seen, one.kept) for one in plan.passes] == [
        (40, 0, True),
        (30, 40, False),
    ]
    assert plan.past == 40
    assert len(plan.passes[1].targets.positions) == 3
    assert len(plan.passes[1].targets.ids) == 12
    (whole,) = make_plan(few_shot(3, 4), 100, 70, share=True).passes
    assert [(s.start, s.stop, s.end, s.depth) for s in whole.segments] == [
        (0, 40, 70, 0),
        (40, 50, 50, 40),
        (50, 60, 60, 40),
        (60, 70, 70, 40),
    ]
    apart = make_plan(few_shot(3, 4), 100, 64, share=False)
    assert apart.computed == apart.naive == plan.naive
    assert apart.past == 0


def test_beginnings_inside_beginnings_are_kept_one_chain_at_a_time() -> None:
    rows: Rows = [
        ([*range(30), *range(a, a + 20), *range(b, b + 10), 5], 60)
        for a in (1000, 2000)
        for b in (100, 200, 300)
    ]
    plan = make_plan(rows, 100, 25, share=True)
    assert [(len(one.ids), one.seen, one.kept) for one in plan.passes] == [
        (30, 0, True),
        (20, 30, True),
        (20, 50, False),
        (10, 50, False),
        (20, 30, True),
        (20, 50, False),
        (10, 50, False),
    ]
    assert plan.past == 50 and plan.computed == 30 + 2 * (20 + 30)
    assert answers(plan) == expected_answers(rows, 100)


def test_a_row_that_another_one_begins_with_costs_nothing() -> None:
    rows: Rows = [(list(range(n)), n - 3) for n in range(4, 20)]
    plan = make_plan(rows, 100, 64, share=True)
    assert plan.computed == 18 and len(plan.passes[0].segments) == 1
    assert answers(plan) == expected_answers(rows, 100)


def test_identical_rows_are_one_with_and_without_sharing() -> None:
    row = (list(range(30)), 20)
    for share in (True, False):
        plan = make_plan([row] * 5, 100, 64, share=share)
        assert (plan.computed, plan.naive) == (29, 5 * 29)
        assert answers(plan) == expected_answers([row] * 5, 100)
    # The same ids with another first one to score are another row.
    plan = make_plan([row, (row[0], 5)], 100, 64, share=False)
    assert plan.computed == plan.naive == 58


def test_a_short_common_beginning_is_no_segment() -> None:
    """Every document begins with the end mark of the one before."""
    rng = random.Random(1)
    rows: Rows = [([2, *rng.sample(range(1000), 20)], 1) for _ in range(9)]
    plan = make_plan(rows, 100, 1000, share=True)
    assert plan.computed == plan.naive
    assert [segment.depth for segment in plan.passes[0].segments] == [0] * 9


def test_packs_are_full() -> None:
    rows: Rows = [([n, *range(n + 1, n + 11)], 1) for n in range(0, 1000, 10)]
    plan = make_plan(rows, 100, 95, share=True)
    assert [len(one.ids) for one in plan.passes] == [90] * 11 + [10]


@st.composite
def similar_rows(draw: st.DrawFn) -> Rows:
    """Rows that begin with parts of rows before them."""
    rows: Rows = []
    for _ in range(draw(st.integers(1, 12))):
        base = draw(st.sampled_from(rows))[0] if rows else []
        kept = draw(st.integers(0, len(base)))
        new = draw(st.lists(st.integers(0, 2), min_size=0 if kept > 1 else 2, max_size=25))
        ids = base[:kept] + new
        rows.append((ids, draw(st.integers(1, len(ids) - 1))))
    return rows


@settings(max_examples=300, deadline=None)
@given(
    rows=similar_rows(),
    context=st.sampled_from([8, 20, 100]),
    batch_tokens=st.sampled_from([1, 10, 40, 1000]),
    share=st.booleans(),
)
@example(rows=[([1, 2], 1)], context=8, batch_tokens=1, share=True)
def test_every_id_is_asked_for_once_after_exactly_what_stands_before_it(
    rows: Rows, context: int, batch_tokens: int, share: bool
) -> None:
    plan = make_plan(rows, context, batch_tokens, share=share)
    found = answers(plan)
    assert found == expected_answers(rows, context)
    assert plan.slots == len(found) == sum(len(ids) - first for ids, first in rows)
    assert plan.computed == sum(len(one.ids) for one in plan.passes) <= plan.naive
    assert plan.past <= context
    for one in plan.passes:
        assert len(one.ids) <= batch_tokens or len(one.segments) == 1
        assert one.seen + max(s.depth + s.stop - s.start for s in one.segments) <= context
    if not share:
        windows = [
            (tuple(ids[w.start : w.end + 1]), w.scored - w.start)
            for ids, first in rows
            for w in cut_windows(0, len(ids) - 1, first - 1, context)
        ]
        assert plan.computed == sum(len(ids) - 1 for ids, _ in set(windows))


@settings(max_examples=100, deadline=None)
@given(rows=similar_rows(), seed=st.integers(0, 9))
def test_the_order_of_rows_changes_nothing(rows: Rows, seed: int) -> None:
    mixed = random.Random(seed).sample(rows, len(rows))
    one, other = (make_plan(order, 20, 40, share=True) for order in (rows, mixed))
    assert one.computed == other.computed
    assert [p.ids.tolist() for p in one.passes] == [p.ids.tolist() for p in other.passes]
    asked = [
        Counter((tuple(seen), target) for seen, target in answers(plan).values())
        for plan in (one, other)
    ]
    assert asked[0] == asked[1]


def test_many_nested_beginnings() -> None:
    """Each row leaves the longest one at another place: deeper than Python's stack goes."""
    rows: Rows = [([*range(n), 5000, 6000], n) for n in range(10, 4000, 3)]
    plan = make_plan(rows, 5000, 10**6, share=True)
    assert plan.computed < 3 * 4000
    assert sum(len(one.targets.ids) for one in plan.passes) == plan.slots == 2 * len(rows)


def test_nothing_to_score() -> None:
    plan = make_plan([], 100, 64, share=True)
    assert (plan.passes, plan.slots, plan.computed, plan.naive) == ([], 0, 0, 0)


@given(
    inputs=st.integers(1, 200),
    first=st.integers(0, 200),
    context=st.integers(8, 64),
)
def test_windows_score_each_position_once_with_enough_context(
    inputs: int, first: int, context: int
) -> None:
    first = min(first, inputs - 1)
    windows = list(cut_windows(0, inputs, first, context))
    assert windows[0].scored == first and windows[-1].end == inputs
    assert all(one.end == two.scored for one, two in pairwise(windows))
    for window in windows:
        assert window.start <= window.scored < window.end <= window.start + context
        before = window.scored - window.start
        assert before == window.scored or before >= context - context // 2
