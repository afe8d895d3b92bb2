"""Scores of answers that are known, and of guessers."""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.evals.benchmark_table import benchmark_table, higher_of_both, published_table
from indexlm.evals.choice import Answered
from indexlm.evals.items import Item
from indexlm.evals.results import (
    guessed,
    item_line,
    macro_score,
    marks,
    prompt_scores,
    score,
    wilson_interval,
)
from indexlm.evals.task import Task

ANYTHING = {"test": "{subject}.csv", "question": "{q}", "options": "o", "answer": "a"}
TASK = Task.model_validate(
    {
        **{"name": "rivers", "title": "Rivers", "language": "en", "source": "made for tests"},
        "forms": {"published": ANYTHING},
        "subjects": {"water": {"sea": "the sea", "lake": "a lake"}, "land": {"hill": "hills"}},
        "subsets": {"deep": ["sea"]},
        "prompts": {"letters": {"style": "letters", "question": "{question}{options}"}},
    }
)


def answered(number: int, logprobs: Sequence[float], answer: int = 0, **changes: Any) -> Answered:
    options = tuple("abcdefgh"[: len(logprobs)])
    item = Item(str(number), "?", options, answer, f"test/sea.csv:{number + 1}", {})
    told = {
        "tokens": (1,) * len(logprobs),
        "characters": (1,) * len(logprobs),
        "unconditional": None,
        "cut": False,
    }
    return Answered(item, "0" * 64, tuple(logprobs), **told | changes)


def lines(subject: str, rights: Sequence[bool], options: int = 4) -> list[dict[str, Any]]:
    """Items that are answered rightly or wrongly, by a nat."""
    wrong = [-2.0, -1.0] + [-3.0] * (options - 2)
    right = [-1.0, -2.0] + [-3.0] * (options - 2)
    return [
        item_line(subject, answered(number, right if each else wrong), "letters")
        for number, each in enumerate(rights)
    ]


# Choices


def test_each_way_chooses_as_its_name_says() -> None:
    """Four options, each of which is the best in one way."""
    told = answered(
        0,
        [-1.0, -4.0, -6.0, -5.0],
        tokens=(1, 8, 4, 2),
        characters=(2, 10, 60, 5),
        unconditional=(-1.0, -5.0, -6.5, -20.0),
    )
    line = item_line("sea", told, "contents")
    assert line["choices"] == {
        **{"logprob": 0, "per_token": 1, "per_character": 2, "unconditional": 3}
    }
    assert item_line("sea", told, "letters")["choices"] == {"logprob": 0}
    alone = answered(0, [-1.0, -4.0])
    assert "unconditional" not in item_line("sea", alone, "contents")["choices"]


def test_the_first_of_a_tie_is_chosen() -> None:
    assert item_line("sea", answered(0, [-2.0, -1.0, -1.0]), "letters")["choices"]["logprob"] == 1


# Scores


def test_accuracy_margin_and_probability_are_those_of_the_items() -> None:
    part = score(marks(lines("sea", [True, True, False, True]), "logprob"))
    assert part["accuracy"] == 0.75
    # lm-eval: sample standard deviation over the root of the count.
    assert part["standard_error"] == pytest.approx(np.std([1, 1, 0, 1], ddof=1) / 2)
    assert part["margin"] == pytest.approx(0.5)
    assert part["margin_standard_error"] == pytest.approx(np.std([1, 1, -1, 1], ddof=1) / 2)
    total = math.exp(-1) + math.exp(-2) + 2 * math.exp(-3)
    wanted = (3 * math.exp(-1) + math.exp(-2)) / total / 4
    assert part["probability"] == pytest.approx(wanted)


def test_subjects_categories_and_all_are_averaged_apart() -> None:
    every = [
        *lines("sea", [True] * 8),
        *lines("lake", [False] * 2),
        *lines("hill", [True, False] * 5, options=2),
    ]
    found = prompt_scores(TASK, every)

    def accuracy(part: dict[str, Any]) -> float:
        return part["scores"]["logprob"]["accuracy"]

    assert {name: accuracy(part) for name, part in found["subjects"].items()} == {
        **{"sea": 1.0, "lake": 0.0, "hill": 0.5}
    }
    assert {name: accuracy(part) for name, part in found["categories"].items()} == {
        **{"water": 0.8, "land": 0.5}
    }
    assert accuracy(found["subsets"]["deep"]) == 1.0
    assert found["micro"]["items"] == 20 and accuracy(found["micro"]) == pytest.approx(13 / 20)
    assert found["micro"]["chance"] == pytest.approx((10 / 4 + 10 / 2) / 20)
    assert found["macro"]["subjects"] == 3 and accuracy(found["macro"]) == pytest.approx(0.5)
    assert found["macro"]["chance"] == pytest.approx((0.25 + 0.25 + 0.5) / 3)
    errors = [part["scores"]["logprob"]["standard_error"] for part in found["subjects"].values()]
    macro = found["macro"]["scores"]["logprob"]["standard_error"]
    assert macro == pytest.approx(math.hypot(*errors) / 3)


@given(right=st.integers(0, 60), wrong=st.integers(0, 60))
def test_an_interval_holds_its_share_and_has_a_width(right: int, wrong: int) -> None:
    count = right + wrong
    if count:
        low, high = wilson_interval(right, count)
        assert 0 <= low <= right / count <= high <= 1 and low < high


def test_a_known_interval() -> None:
    """Newcombe 1998 (Statistics in Medicine 17), table I: 81 of 263."""
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


# Chance


@pytest.mark.parametrize("options", [[4] * 200, [2, 3, 4, 5] * 25, [4] * 12])
def test_a_guesser_is_told_to_be_one_19_times_in_20(options: list[int]) -> None:
    """Never more often wrongly, for micro and macro scores; a better one is not held for one."""
    draw = random.Random(3)
    told = []
    for _ in range(400):
        part = marks_of([draw.randrange(count) == 0 for count in options], options)
        told.append(score(part)["within_chance"])
    assert np.mean(told) + 0.01 >= 0.95
    assert not score(marks_of([True] * len(options), options))["within_chance"]
    assert not score(marks_of([False] * 200, [4] * 200))["within_chance"]


def marks_of(rights: Sequence[bool], options: Sequence[int]) -> Any:
    every = [line for right, count in zip(rights, options) for line in lines("sea", [right], count)]
    return marks(every, "logprob")


def test_a_guessers_mean_of_subjects_is_chance() -> None:
    draw = random.Random(5)
    told = []
    for _ in range(300):
        every = [
            line
            for subject, count in (("sea", 40), ("lake", 10), ("hill", 25))
            for line in lines(subject, [draw.random() < 0.25 for _ in range(count)])
        ]
        told.append(prompt_scores(TASK, every)["macro"]["scores"]["logprob"]["within_chance"])
    assert 0.92 < np.mean(told) < 0.98


@given(st.lists(st.sampled_from([2, 3, 4]), min_size=1, max_size=7), st.integers(0, 7))
def test_the_law_of_a_guesser_is_exact(options: list[int], right: int) -> None:
    """Against all combinations of right and wrong answers."""
    chance_N = np.array([1 / count for count in options])
    right = min(right, len(options))
    law = np.zeros(len(options) + 1)
    for combination in range(2 ** len(options)):
        bits = [combination >> at & 1 for at in range(len(options))]
        chances = [c if bit else 1 - c for c, bit in zip(chance_N, bits)]
        law[sum(bits)] += math.prod(chances)
    wanted = min(law[: right + 1].sum(), law[right:].sum())
    if abs(wanted - 0.025) > 1e-9:
        assert guessed(right, chance_N) == (wanted > 0.025)


# Tables


def results(**styles: dict[str, Any]) -> dict[str, Any]:
    counts = {"shots": 5, "harness": "", "cut": 0, "seconds": 1.5, "computed": 10, "naive": 80}
    return {
        "rivers": {
            "title": "Rivers",
            "prompts": {
                name: {"style": name, **counts, **scores} for name, scores in styles.items()
            },
        }
    }


def test_chance_stands_on_every_row_and_a_score_of_chance_is_printed_as_such() -> None:
    better = prompt_scores(TASK, [*lines("sea", [True] * 50), *lines("lake", [True, False] * 25)])
    table = benchmark_table(results(letters=better), by_subject=True)
    rows = [line.split() for line in table.splitlines() if line.startswith("rivers")]
    numbers = ["100", "75.0", "±4.4", "75.0", "±3.6", "25.0"]
    assert rows[0] == ["rivers", "letters", "log-likelihood", *numbers]
    assert {row[0] for row in rows[1:-1]} == {
        *("rivers/water", "rivers/deep", "rivers/sea", "rivers/lake")
    }
    assert all(row[-1] == "25.0" for row in rows[:-1]) and "= chance" not in table.split("\n= ")[0]
    assert "10 tokens computed of 80 naive (8.0x fewer)" in table
    guess = prompt_scores(TASK, lines("sea", [True, False, False, False] * 10))
    (row,) = [
        line for line in benchmark_table(results(letters=guess)).splitlines() if "log-like" in line
    ]
    assert row.endswith("40  25.0 ±6.9 = chance           25.0")


def contents(rights: Sequence[bool]) -> dict[str, Any]:
    return prompt_scores(
        TASK,
        [
            item_line("sea", answered(n, [-1, -2, -3] if right else [-2, -1, -3]), "contents")
            for n, right in enumerate(rights)
        ],
    )


def test_the_higher_of_both_styles_is_printed_only_as_that() -> None:
    letters = prompt_scores(TASK, lines("sea", [True, False] * 20))
    assert higher_of_both(results(letters=letters)["rivers"]) is None
    assert "higher of both" not in benchmark_table(results(letters=letters))
    both = results(letters=letters, contents=contents([True, True, False, True] * 10))
    assert higher_of_both(both["rivers"]) == ("contents", "per_token")
    said = "higher of both styles (as the report prints it): 75.0 ±6.9 (contents, per token)"
    assert f"mmlu, {said}" in benchmark_table({"mmlu": both["rivers"]})
    # The report knows of no rivers.
    assert "higher of both" not in benchmark_table(both)


def test_the_higher_of_both_styles_is_that_of_the_means_of_the_subjects() -> None:
    """As the report prints them: here letters are ahead over all items."""
    letters = prompt_scores(TASK, [*lines("sea", [True] * 30), *lines("lake", [False] * 10)])
    spread = [
        item_line(subject, answered(n, [-1, -2] if n % 3 else [-2, -1]), "contents")
        for subject, count in (("sea", 30), ("lake", 10))
        for n in range(count)
    ]
    other = prompt_scores(TASK, spread)
    assert letters["micro"]["scores"]["logprob"]["accuracy"] == 0.75
    assert higher_of_both(results(letters=letters, contents=other)["rivers"]) == (
        *("contents", "per_token"),
    )


def test_a_tie_is_right_where_the_choice_is() -> None:
    tied = [item_line("sea", answered(n, [-1, -1, -2], answer=n % 3), "letters") for n in range(3)]
    chosen = [line["choices"]["logprob"] == line["answer"] for line in tied]
    assert marks(tied, "logprob").right.tolist() == chosen == [True, False, False]


def test_errors_and_intervals_of_some_items_by_hand() -> None:
    three = score(marks_of([True, True, True, False], [4] * 4))
    # Wilson 1927: (p + z2/2n ± z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n) with p = 3/4, n = 4.
    assert three["interval"] == pytest.approx([0.30064, 0.95441], abs=1e-5)
    assert three["standard_error"] == pytest.approx(0.25)
    halves = prompt_scores(TASK, [*lines("sea", [True, False] * 2), *lines("lake", [True, False])])
    macro = halves["macro"]["scores"]["logprob"]
    assert macro["accuracy"] == 0.5
    assert macro["standard_error"] == pytest.approx(math.sqrt(0.25 / 3 + 0.25 / 1) / 2)
    reach = 1.959964 * math.sqrt(0.25 / 4 + 0.25 / 2) / 2
    assert macro["interval"] == pytest.approx([0.5 - reach, 0.5 + reach], abs=1e-6)


def test_a_mean_of_subjects_of_one_item_is_that_of_the_items() -> None:
    """Each has no variance of its own: their mean would have an error of 0."""
    right = [True, False, False, True, False]
    assert macro_score([marks_of([one], [4]) for one in right]) == score(marks_of(right, [4] * 5))


def test_the_interval_of_a_mean_of_tiny_subjects_holds_the_truth() -> None:
    """One item of each subject is always all right or all wrong."""
    draw, held = random.Random(3), 0
    for _ in range(200):
        parts = [marks_of([draw.random() < 0.7], [4]) for _ in range(40)]
        low, high = macro_score(parts)["interval"]
        held += low <= 0.7 <= high
    assert held >= 185


def test_the_mean_of_one_subject_is_that_subject() -> None:
    one = prompt_scores(TASK, lines("sea", [True] * 9 + [False] * 11))
    assert one["macro"]["scores"] == one["micro"]["scores"]


def test_published_scores_stand_under_ones_own() -> None:
    both = results(
        letters=prompt_scores(TASK, lines("sea", [True] * 40)), contents=contents([False] * 40)
    )
    found = {"mmlu": both["rivers"], "arc_easy": results(letters=contents([True]))["rivers"]}
    table = published_table(found, "mine", ["Index-1.9B", "Phi-2"])
    rows = [line.split() for line in table.splitlines()]
    assert rows[0][-2:] == ["mmlu", "arc_easy"]
    assert rows[1] == ["mine", "(here)", "100.0", "-"]
    assert rows[2] == ["Index-1.9B", "52.5", "81.3"] and rows[3][0] == "Phi-2"
    assert "bilibili" in table
    with pytest.raises(UserError, match="no published scores of 'Index-2B'; there are Index-1"):
        published_table(found, "mine", ["Index-2B"])
    with pytest.raises(UserError, match="no published scores for these tasks: rivers"):
        published_table(both, "mine")
