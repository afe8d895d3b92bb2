"""Each of the four verdicts comes out of data made to be so, and of no other."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.lab.intervals import sign_interval, t_interval
from indexlm.lab.verdict import WORDS, Claim, Said, amount, judge, sentence, signed

CLAIM = Claim(
    metric=Said("accuracy", "准确率"),
    treatment=Said("Norm-Head", "Norm-Head"),
    control=Said("the plain head", "普通头"),
    direction="higher",
    margin=0.02,
    diverged_is="low",
    resolves=(0.25, 1.0),
)
CONTROL = dict(enumerate([0.50, 0.61, 0.43, 0.57, 0.52, 0.66, 0.48, 0.55]))
NOISE = [0.004, -0.003, 0.001, 0.002, -0.004, 0.003, -0.002, -0.001]


def moved(by: float, spread: float = 1.0) -> dict[int, float | None]:
    """The control's values, moved by `by` and a little noise."""
    return {seed: CONTROL[seed] + by + spread * NOISE[seed] for seed in CONTROL}


@pytest.mark.parametrize(
    ("direction", "by", "spread", "word"),
    [
        ("higher", 0.1, 1, "reproduced"),
        ("higher", -0.1, 1, "opposite"),
        ("higher", 0.0, 1, "no difference"),
        ("higher", 0.01, 1, "no difference"),  # real, but not worth the name
        ("higher", 0.015, 3, "inconclusive"),  # there, but it may well be too small to count
        ("higher", -0.015, 3, "inconclusive"),
        ("higher", 0.05, 30, "inconclusive"),
        ("lower", -0.1, 1, "reproduced"),
        ("lower", 0.1, 1, "opposite"),
        ("lower", 0.0, 1, "no difference"),
        ("lower", 0.0, 30, "inconclusive"),
        ("same", 0.0, 1, "reproduced"),
        ("same", 0.1, 1, "opposite"),
        ("same", -0.1, 1, "opposite"),
        ("same", 0.02, 1, "inconclusive"),
        ("same", 0.0, 30, "inconclusive"),
    ],
)
def test_each_verdict_is_reached(direction: Any, by: float, spread: float, word: str) -> None:
    verdict = judge(replace(CLAIM, direction=direction), moved(by, spread), CONTROL)
    assert verdict.word == word


@pytest.mark.parametrize(("truth", "most"), [(0.0, 0.025), (-0.01, 0.025)])
def test_a_direction_that_is_not_there_is_seldom_reproduced(truth: float, most: float) -> None:
    """Over 4000 studies of five seeds: at most 2.5%, and the simulation's own error."""
    claim = replace(CLAIM, margin=0.001)
    draws = np.random.default_rng(1).normal(truth, 0.02, (4000, 5))
    zeros = dict.fromkeys(range(5), 0.5)
    words = [judge(claim, {s: 0.5 + d for s, d in enumerate(row)}, zeros).word for row in draws]
    assert words.count("reproduced") / len(words) <= most + 0.01


def test_sameness_is_seldom_said_of_a_difference_as_large_as_the_margin() -> None:
    draws = np.random.default_rng(2).normal(CLAIM.margin, 0.01, (4000, 8))
    zeros = dict.fromkeys(range(8), 0.5)
    words = [judge(CLAIM, {s: 0.5 + d for s, d in enumerate(row)}, zeros).word for row in draws]
    assert words.count("no difference") / len(words) <= 0.025 + 0.01


def test_one_seed_says_nothing() -> None:
    verdict = judge(CLAIM, {0: 0.9}, {0: 0.5})
    assert (verdict.word, verdict.interval) == ("inconclusive", None)
    assert "fewer than three seeds decide nothing" in sentence(verdict, "en")


def test_two_seeds_that_agree_to_the_last_digit_decide_nothing() -> None:
    """Accuracies of 256 items often do; their interval is a point."""
    zeros = {0: 0.5, 1: 0.5}
    for by in (0.0, 0.125, -0.125):
        verdict = judge(CLAIM, {0: 0.5 + by, 1: 0.5 + by}, zeros)
        assert verdict.interval == (by, by, by)
        assert verdict.word == "inconclusive"


def test_three_seeds_can_decide() -> None:
    three = {seed: value for seed, value in moved(0.1).items() if seed < 3}
    assert judge(CLAIM, three, {seed: CONTROL[seed] for seed in three}).word == "reproduced"


def test_two_arms_that_guess_are_not_called_equal() -> None:
    guessing = dict.fromkeys(range(5), 0.25)
    verdict = judge(CLAIM, guessing, guessing)
    assert verdict.word == "inconclusive"
    assert "same end" in sentence(verdict, "en")
    knowing = dict.fromkeys(range(5), 1.0)
    assert judge(CLAIM, knowing, knowing).word == "inconclusive"
    assert judge(CLAIM, knowing, guessing).word == "reproduced"


def test_a_seed_without_its_partner_is_refused() -> None:
    with pytest.raises(AssertionError):
        judge(CLAIM, moved(0.1), {seed: CONTROL[seed] for seed in range(4)})


def test_a_value_that_is_no_number_is_refused() -> None:
    """A diverged arm is None: a NaN that slipped through must not count as anything."""
    with pytest.raises(AssertionError, match="None"):
        judge(CLAIM, moved(0.1) | {3: math.nan}, CONTROL)


@given(st.permutations(range(8)), st.sampled_from([0.1, 0.0, -0.1, 0.03]))
def test_the_order_of_the_seeds_changes_nothing(order: list[int], by: float) -> None:
    treatment = moved(by, 5)
    before = judge(CLAIM, treatment, CONTROL)
    after = judge(CLAIM, {s: treatment[s] for s in order}, {s: CONTROL[s] for s in reversed(order)})
    assert after == before


@given(st.permutations(range(8)))
def test_breaking_the_pairs_keeps_the_mean_and_not_the_interval(order: list[int]) -> None:
    """What is paired is what the seeds share: the spread between seeds is not in the interval."""
    treatment = moved(0.1)
    paired = judge(CLAIM, treatment, CONTROL).interval
    broken = judge(CLAIM, {s: treatment[o] for s, o in enumerate(order)}, CONTROL).interval
    assert paired is not None and broken is not None
    assert broken.centre == pytest.approx(paired.centre)
    assert broken.high - broken.low >= paired.high - paired.low - 1e-12


@given(st.sampled_from([0.1, 0.01, -0.1]), st.sampled_from([1.0, 10.0, 30.0]))
def test_swapping_the_arms_turns_the_claim_round(by: float, spread: float) -> None:
    treatment = {seed: float(value or 0) for seed, value in moved(by, spread).items()}
    forth = judge(CLAIM, treatment, CONTROL)
    back = judge(replace(CLAIM, direction="lower"), CONTROL, treatment)
    assert forth.word == back.word


# Diverged arms.


def test_a_diverged_arm_is_counted_and_not_dropped() -> None:
    """Were it dropped, the seven that are left would be a clear gain."""
    treatment = moved(0.1) | dict.fromkeys([3, 5], None)
    verdict = judge(CLAIM, treatment, CONTROL)
    assert verdict.word == "inconclusive"
    assert verdict.diverged == (2, 0)
    assert "of 8 seeds, Norm-Head diverged at 2 and the plain head at 0;" in sentence(verdict, "en")
    left = {seed: value for seed, value in treatment.items() if value is not None}
    assert judge(CLAIM, left, {seed: CONTROL[seed] for seed in left}).word == "reproduced"


def test_a_control_that_diverges_is_for_the_treatment() -> None:
    control = dict(CONTROL) | dict.fromkeys([0, 1, 2, 3], None)
    verdict = judge(CLAIM, moved(0.1), control)
    assert (verdict.word, verdict.diverged) == ("reproduced", (0, 4))
    assert judge(CLAIM, control, moved(0.1)).word == "opposite"


def test_a_loss_that_diverges_is_at_the_other_end() -> None:
    claim = replace(CLAIM, direction="lower", diverged_is="high", resolves=(-math.inf, math.inf))
    treatment = moved(-0.1) | dict.fromkeys(range(4, 8), None)
    assert judge(claim, treatment, CONTROL).word == "inconclusive"
    assert judge(claim, CONTROL, treatment).word == "inconclusive"
    assert judge(claim, dict.fromkeys(range(8), None), CONTROL).word == "opposite"


def test_both_of_a_pair_diverged_is_a_tie() -> None:
    nothing = dict.fromkeys(range(8), None)
    verdict = judge(CLAIM, nothing, nothing)
    assert set(verdict.differences.values()) == {0.0}
    assert verdict.word == "inconclusive"


def test_arms_of_which_one_diverged_are_never_the_same() -> None:
    """Nine pairs of which one diverged: the sign interval leaves it out, the verdict does not."""
    control = dict.fromkeys(range(9), 0.5)
    treatment: dict[int, float | None] = dict.fromkeys(range(8), 0.5) | {8: None}
    verdict = judge(CLAIM, treatment, control)
    assert verdict.interval is not None and verdict.interval.within(CLAIM.margin)
    assert verdict.word == "inconclusive"
    assert judge(replace(CLAIM, direction="same"), treatment, control).word == "inconclusive"


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_the_interval_is_of_the_paired_differences(values: list[float]) -> None:
    treatment = dict(enumerate(values))
    zero = dict.fromkeys(treatment, 0.0)
    claim = replace(CLAIM, resolves=(-math.inf, math.inf))
    assert judge(claim, treatment, zero).interval == t_interval(values)
    worse: dict[int, float | None] = treatment | {99: None}
    expected = sign_interval([*values, -math.inf])
    assert judge(claim, worse, zero | {99: 0.0}).interval == expected


# What is said.


@pytest.mark.parametrize(
    ("by", "en", "zh"),
    [
        (0.1, "Reproduced at 8 seeds: ", "已复现"),
        (-0.1, "The opposite was found at 8 seeds: ", "结果相反"),
        (0.0, "No difference at 8 seeds: ", "没有差别"),
    ],
)
def test_the_sentence_begins_with_the_verdict(by: float, en: str, zh: str) -> None:
    verdict = judge(CLAIM, moved(by), CONTROL)
    assert sentence(verdict, "en").startswith(en)
    assert sentence(verdict, "zh").startswith(zh)


def test_a_sentence_is_whole_in_both_languages() -> None:
    verdict = judge(replace(CLAIM, unit=Said(" points", " 分")), moved(0.1), CONTROL)
    assert sentence(verdict, "en") == (
        "Reproduced at 8 seeds: accuracy of Norm-Head minus that of the plain head is +0.1 points "
        "(mean; 95% interval +0.0976 to +0.102, all on the claimed side of zero); the report "
        "claims a higher one; less than 0.02 points counts as none."
    )
    assert sentence(verdict, "zh") == (
        "已复现（8 个种子）：“Norm-Head”减去“普通头”的准确率为 +0.1 分（均值；95% 区间 +0.0976 至 "
        "+0.102，全在零点的所称一侧）；报告称前者更高；不足 0.02 分视为没有差别。"
    )


@pytest.mark.parametrize(
    ("direction", "by", "spread", "where"),
    [
        ("higher", 0.1, 1, ", all on the claimed side of zero)"),
        ("higher", -0.1, 1, ", all on the other side of zero)"),
        ("higher", 0.0, 1, ", all inside the margin)"),
        ("higher", 0.015, 3, ", all on one side of zero, but its middle is inside the margin)"),
        ("higher", 0.05, 30, ", which leaves more than one answer open)"),
        ("same", 0.0, 1, ", all inside the margin)"),
        ("same", 0.1, 1, ", all beyond the margin)"),
    ],
)
def test_the_sentence_says_where_the_interval_lies(
    direction: Any, by: float, spread: float, where: str
) -> None:
    assert where in sentence(
        judge(replace(CLAIM, direction=direction), moved(by, spread), CONTROL), "en"
    )


def test_a_number_has_three_digits_and_no_exponent() -> None:
    values = (-3.84e-05, 1234.5, 0.0, 12.0, math.inf)
    assert [*map(signed, values)] == ["-0.0000384", "+1230", "+0", "+12", "+∞"]


def test_one_of_a_unit_is_one() -> None:
    assert (amount(1, " points"), amount(2, " points")) == ("1 point", "2 points")
    assert (amount(0.02, " nats"), amount(1, " 个百分点")) == ("0.02 nats", "1 个百分点")


def test_a_single_seed_is_one_seed() -> None:
    assert sentence(judge(CLAIM, {0: 0.9}, {0: 0.5}), "en").startswith("Inconclusive at 1 seed: ")
    diverged = sentence(judge(CLAIM, {0: None}, {0: 0.5}), "en")
    assert "of 1 seed, Norm-Head diverged at 1" in diverged


@given(
    st.dictionaries(
        st.integers(0, 20),
        st.tuples(*[st.none() | st.floats(0, 1)] * 2),
        min_size=1,
        max_size=10,
    )
)
def test_every_verdict_can_be_said_and_stored(
    pairs: dict[int, tuple[float | None, float | None]],
) -> None:
    verdict = judge(CLAIM, {s: p[0] for s, p in pairs.items()}, {s: p[1] for s, p in pairs.items()})
    stored = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
    assert stored["verdict"] in WORDS
    for language in ("en", "zh"):
        assert not set("{}") & set(stored["sentence"][language])
    assert stored["diverged"]["treatment"] == sum(p[0] is None for p in pairs.values())
