"""EXPERIMENTS.md says what the committed results say, and pages are those of the results."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from indexlm.lab.index import index_page
from indexlm.lab.page import study_page
from indexlm.lab.pieces import WORD_ZH
from indexlm.lab.studies import STUDIES, study
from indexlm.lab.suite import read_outcomes

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "lab"
STORIES = ("EXPERIMENTS.md", "EXPERIMENTS_zh.md")
TEXT = {"EXPERIMENTS.md": "Real text", "EXPERIMENTS_zh.md": "真实文本"}
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-\d+)?(?![\w.]*\d)")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    return {found["study"]: found for found in read_outcomes(RESULTS)}


@pytest.mark.parametrize("name", STUDIES)
def test_results_are_of_all_seeds_of_the_full_preset(name: str, outcomes: dict[str, Any]) -> None:
    found = outcomes[name]
    assert found["preset"] == "full"
    assert found["seeds"] == [*range(100, 100 + study(name).seeds["full"])]


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_is_that_of_its_result(name: str, outcomes: dict[str, Any]) -> None:
    page = (RESULTS / f"{name}.html").read_text(encoding="utf-8")
    assert _words(page) == _words(study_page(outcomes[name]))


def test_the_index_is_that_of_the_results(outcomes: dict[str, Any]) -> None:
    page = (RESULTS / "index.html").read_text(encoding="utf-8")
    assert page == index_page(read_outcomes(RESULTS))


@pytest.mark.parametrize("story", STORIES)
def test_the_table_has_the_verdicts(story: str, outcomes: dict[str, Any]) -> None:
    text = (ROOT / story).read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`([a-z-]+)`\]\(#\1\) \| ([^|]+) \|", text, re.MULTILINE)
    words = {name: found["verdict"] for name, found in outcomes.items()}
    if story.endswith("_zh.md"):
        words = {name: WORD_ZH[word] for name, word in words.items()}
    assert dict(rows) == words
    assert [name for name, _ in rows] == [*STUDIES]


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("name", STUDIES)
def test_every_figure_of_a_section_stands_on_its_page(story: str, name: str) -> None:
    section = _sections(story)[f"`{name}`"]
    said = _numbers(section)
    assert len(said) >= 3
    assert said <= _numbers(_words((RESULTS / f"{name}.html").read_text(encoding="utf-8")))


@pytest.mark.parametrize("story", STORIES)
def test_every_figure_of_real_text_stands_on_a_page(story: str) -> None:
    pages = [RESULTS / f"{name}.html" for name in STUDIES]
    known = {n for page in pages for n in _numbers(_words(page.read_text(encoding="utf-8")))}
    assert len(_numbers(_sections(story)[TEXT[story]])) >= 10
    assert _numbers(_sections(story)[TEXT[story]]) <= known


def test_a_figure_that_no_page_has_is_seen() -> None:
    page = _numbers(_words((RESULTS / "shape.html").read_text(encoding="utf-8")))
    assert "0.288" in page
    assert "0.2881" not in page


@pytest.mark.parametrize("story", STORIES)
def test_sizes_and_the_number_of_intervals_are_those_of_the_results(
    story: str, outcomes: dict[str, Any]
) -> None:
    text = " ".join((ROOT / story).read_text(encoding="utf-8").split())
    claims = sum(len(found["claims"]) for found in outcomes.values())
    assert f"Of {claims} intervals" in text or f"{claims} 个 95% 区间" in text
    arms = [arm for found in outcomes.values() for arm in found["arms"]]
    of_text = [arm["parameters"] for arm in arms if arm["settings"]["corpus"] is not None]
    of_shape = [
        arm["parameters"] for arm in outcomes["shape"]["arms"] if arm["settings"]["corpus"] is None
    ]
    usual = {arm["parameters"] for arm in outcomes["sft"]["arms"]}
    for size in (min(of_shape), max(of_shape), max(of_text), *usual):
        assert f"{round(size, -3):,}" in text, size
    assert "none diverged" in text or "也没有一次发散" in text
    assert not any(seed["diverged"] for arm in arms for seed in arm["seeds"].values())


def test_both_languages_have_the_same_figures() -> None:
    english, chinese = (_sections(story) for story in STORIES)
    for name in STUDIES:
        assert _numbers(english[f"`{name}`"]) == _numbers(chinese[f"`{name}`"]), name


def test_results_name_no_place_of_the_machine(outcomes: dict[str, Any]) -> None:
    for name, found in outcomes.items():
        assert not re.search(r'"/[a-z]+/', json.dumps(found)), name


def _sections(story: str) -> dict[str, str]:
    text = (ROOT / story).read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def _words(page: str) -> str:
    """What a reader sees of a page, figures left out: their drawing is another library's."""
    seen = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", seen))


def _numbers(text: str) -> set[str]:
    """Without sign, and without commas of thousands: "minus" may be a word."""
    return {found.replace(",", "").strip(",") for found in NUMBER.findall(text)}
