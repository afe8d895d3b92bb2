"""The figures that docs/evaluation.md tells, in both languages, are what the code computes."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from indexlm.evals.refusals import is_refusal
from indexlm.evals.results import NORMAL, wilson_interval
from indexlm.evals.safety import LANGUAGES, read_requests
from indexlm.evals.significance import mcnemar

ROOT = Path(__file__).parents[1]
PAGES = ("evaluation.md", "evaluation_zh.md")


def page(file: str) -> str:
    return (ROOT / "docs" / file).read_text(encoding="utf-8")


def smallest_significant(items: int, share: float) -> int:
    """Items by which one model has to be ahead where `share` of them are right in one alone."""
    apart = round(share * items)
    return next(
        ahead
        for ahead in range(apart % 2, apart + 1, 2)
        if mcnemar((apart - ahead) // 2, (apart + ahead) // 2) < 0.05
    )


def test_one_item_less_would_not_be_significant() -> None:
    """By the binomial: of 10 coins 9 fall alike in 2.1% of throws, 8 in 10.9%."""
    assert smallest_significant(100, 0.1) == 8
    assert mcnemar(1, 9) == pytest.approx(22 / 1024) and mcnemar(2, 8) == pytest.approx(112 / 1024)


@pytest.mark.parametrize("file", PAGES)
def test_the_smallest_significant_differences_are_those_of_the_test(file: str) -> None:
    told = re.findall(r"^\| ([\d,]+)\D*\| ([\d.]+)[^|]*\| ([\d.]+) \|$", page(file), re.MULTILINE)
    assert [row[0] for row in told] == ["100", "1,000", "14,042"]
    for row in told:
        items = int(row[0].replace(",", ""))
        found = [100 * smallest_significant(items, share) / items for share in (0.1, 0.3)]
        assert list(row[1:]) == [f"{points:.1f}" for points in found]


@pytest.mark.parametrize("file", PAGES)
def test_guessers_are_as_far_from_chance_as_the_table_of_benchmarks_says(file: str) -> None:
    told = re.findall(r"^\| `\w+` .*\| ([\d,]+) \| 25% \| ± ([\d.]+) \|$", page(file), re.MULTILINE)
    assert len(told) == 6
    for items, reach in told:
        spread = (0.25 * 0.75 / int(items.replace(",", ""))) ** 0.5
        assert reach == f"{100 * NORMAL * spread:.1f}"


def judged(kind: str) -> tuple[int, int]:
    """Labelled answers of both languages that are called refusals, and how many there are."""
    path = ROOT / "tests" / "evals" / "answers_to_judge.toml"
    labelled = tomllib.loads(path.read_text(encoding="utf-8"))
    texts = [text for language in LANGUAGES for text in labelled[language][kind]]
    return sum(map(is_refusal, texts)), len(texts)


def test_the_rules_for_refusals_find_what_the_page_says() -> None:
    (found, refusals), (wrong, answers) = judged("refusals"), judged("answers")
    told = " ".join(page("evaluation.md").split())
    assert f"find {found} of {refusals} refusals and call {wrong} of {answers} answers" in told
    chinese = page("evaluation_zh.md").replace("\n  ", "")
    assert f"找出 {refusals} 条拒绝中的 {found} 条，把 {answers} 条回答中的 {wrong} 条" in chinese


@pytest.mark.parametrize("file", PAGES)
def test_rates_of_safety_are_as_uncertain_as_the_page_says(file: str) -> None:
    pairs = read_requests().pairs
    of_language = sum(pair.language == "zh" for pair in pairs)
    of_category = sum(pair.category == pairs[0].category for pair in pairs)
    reaches = []
    for count in (of_language, of_category):
        low, high = wilson_interval(count // 2, count)
        reaches.append(f"{100 * (high - low) / 2:.0f}")
    told = re.findall(r"± (\d+)(?: points| 个百分点|：|:)", page(file).split("told apart")[1])
    assert told == reaches


def test_rounded_angles_explain_what_the_comparison_says_they_do() -> None:
    path = ROOT / "benchmarks" / "results" / "evals_parity" / "mmlu.json"
    found = json.loads(path.read_text(encoding="utf-8"))["largest_difference_of_control_items"]
    told = " ".join(page("evaluation_benchmark.md").split())
    left = f"{found['rounded angles']:.0e}".replace("e-0", "e-")
    assert f"the longest prompts of MMLU is {left} (" in told
