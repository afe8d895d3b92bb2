"""A page says what its result says: every number, every verdict, in both languages."""

import json
import math
import re
from copy import deepcopy
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from small_arms import CPU
from small_studies import RATES

from indexlm.errors import UserError
from indexlm.lab.arm_tables import MOST_SCORES, arm_tables
from indexlm.lab.figures import differences, drawn
from indexlm.lab.index import index_page
from indexlm.lab.outcome import MOST_POINTS, Outcome, outcome, read_outcome, same_but_date
from indexlm.lab.page import study_page
from indexlm.lab.pieces import MEANINGS, claimed_by
from indexlm.lab.study import Line, Panel, Results, Study
from indexlm.lab.suite import Asked, named_arms
from indexlm.lab.verdict import REPORT, WORDS, Said
from indexlm.lab.workers import run_all


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    arms = named_arms(RATES, Asked("quick", Path()))
    flat = [arm for by_seed in arms.values() for arm in by_seed.values()]
    found = iter(run_all("test", flat, tmp_path_factory.mktemp("work"), 1, CPU))
    return {name: {seed: next(found) for seed in by_seed} for name, by_seed in arms.items()}


@pytest.fixture(scope="module")
def found(results: Results) -> Outcome:
    """As it is read from a file."""
    made = outcome(RATES, "quick", results, 12.0)
    plain: Outcome = json.loads(json.dumps(made, allow_nan=False))
    return plain


def words_of(page: str) -> str:
    """What a reader sees, without tags and drawings."""
    page = re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", " ", page))


class _Tags(HTMLParser):
    """Fails where tags do not nest."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.outside += [str(v) for k, v in attrs if k in ("src", "href") and "//" in str(v)]
        assert tag != "script"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def test_every_number_of_the_claims_is_on_the_page(found: Outcome) -> None:
    page = words_of(study_page(found))
    for claim in found["claims"]:
        assert claim["sentence"]["en"] in page and claim["sentence"]["zh"] in page
        centre, low, high = claim["interval"]
        assert f"{centre:+.3g}" in page and f"[{low:+.3g}, {high:+.3g}]" in page
        for mean in claim["means"].values():
            assert f"{mean:.4g}" in page
    for arm in found["arms"]:
        low, high = arm["scores"]["loss/hq"]["interval"]
        mean = arm["scores"]["loss/hq"]["mean"]
        assert f"{mean:.3f} ± {(high - low) / 2:.3f}" in page
        for seed in arm["seeds"].values():
            assert f"{seed['scores']['loss/hq']:.4g}" in page
            assert seed["fingerprint"][:16] in page


def test_stored_numbers_are_those_of_the_arms(found: Outcome, results: Results) -> None:
    losses = {
        name: [result.scores["loss/hq"] for result in by_seed.values()]
        for name, by_seed in results.items()
    }
    pairs = zip(losses["large"], losses["small"])
    expected = [large - small for large, small in pairs if large is not None and small is not None]
    for claim in found["claims"]:
        assert list(claim["differences"].values()) == pytest.approx(expected)
        assert claim["interval"][0] == pytest.approx(sum(expected) / 3)
        assert list(claim["values"]["treatment"].values()) == pytest.approx(losses["large"])


def test_the_page_is_whole_and_needs_nothing_beside_it(found: Outcome) -> None:
    for page in (study_page(found), index_page([found])):
        tags = _Tags()
        tags.feed(page)
        assert (tags.open, tags.outside) == ([], [])


def test_what_a_study_says_is_escaped_and_in_both_languages(found: Outcome) -> None:
    page = study_page(found)
    assert "<markedly>" not in page
    for name in ("title", "question", "report", "design", "limits"):
        assert found[name]["en"] in words_of(page) and found[name]["zh"] in words_of(page)


def test_the_command_and_the_fingerprints_are_there(found: Outcome) -> None:
    page = words_of(study_page(found))
    assert "indexlm lab run little-rates --preset quick" in page
    for name in ("code", "date", "torch", "python"):
        assert found["made"][name] in page


def with_word(found: Outcome, word: str) -> Outcome:
    changed = deepcopy(found)
    changed["verdict"] = changed["claims"][0]["verdict"] = word
    return changed


def test_a_planted_opposite_is_one_everywhere(results: Results) -> None:
    """The same runs under the reverse claim."""
    from dataclasses import replace

    planted: Study = replace(RATES, claims=RATES.claims[::-1])
    found = json.loads(json.dumps(outcome(planted, "quick", results, 1.0)))
    assert found["verdict"] == found["claims"][0]["verdict"] == "opposite"
    assert found["sentence"]["en"].startswith("The opposite was found at 3 seeds: ")
    for page in (study_page(found), index_page([found])):
        assert words_of(page).count("The opposite was found at 3 seeds: ") >= 1
        assert "结果相反（3 个种子）" in words_of(page)
    assert 'class="verdict lost"' in study_page(found)
    assert 'class="verdict won"' not in study_page(found)


def test_every_word_is_explained_and_no_claim_is_left_out(found: Outcome) -> None:
    for page in (study_page(found), index_page([found])):
        shown = words_of(page)
        for word in WORDS:
            assert MEANINGS[word].en in shown and MEANINGS[word].zh in shown
    assert "Further claims: 1 opposite" in words_of(index_page([found]))
    assert "其余论断：1 条结果相反" in words_of(index_page([found]))
    named = found["claims"][1]["said"]["en"]
    head = study_page(found).split("</header>")[0]
    assert named in head and head.count('class="opposite unbroken"') >= 1
    alone = found | {"claims": found["claims"][:1]}
    assert "Further claims" not in study_page(alone) + index_page([alone])


def test_every_label_of_a_page_is_in_both_languages(found: Outcome) -> None:
    page = study_page(found)
    for claim in found["claims"]:
        assert claim["said"]["en"] in words_of(page) and claim["said"]["zh"] in words_of(page)
    for heading in re.findall(r"<(?:h2|h3|summary|dt)>(.*?)</", page):
        assert 'lang="zh"' in heading, heading


@pytest.mark.parametrize("word", WORDS)
def test_the_index_counts_and_names_every_verdict(found: Outcome, word: str) -> None:
    page = index_page([found, with_word(found, word)])
    counted = re.findall(r"<dd>(\d)", page)
    expected = dict.fromkeys(WORDS, 0)
    for each in (found["verdict"], word):
        expected[each] += 1
    assert [*map(int, counted)] == list(expected.values())
    assert f'class="{word.replace(" ", "-")} unbroken"' in page


def test_results_that_differ_in_the_date_alone_are_the_same(found: Outcome) -> None:
    later = deepcopy(found)
    later["made"]["date"] = "2099-01-01"
    assert same_but_date(found, later)
    other = deepcopy(found)
    other["arms"][0]["seeds"]["101"]["scores"]["loss/hq"] += 1e-4
    assert not same_but_date(found, other)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "; remove it"),
        ("{}", "; remove it"),
        ('{"study": ', "Expecting value"),
        ('{"format": 2, "study": "x"}', "its format is 2, not 1"),
        ('{"format": 1, "study": "x", "claims": []}', "it lacks verdict, sentence"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json is no result of a study.*; remove it") as error:
        read_outcome(tmp_path / "x.json")
    assert why in str(error.value)


def test_a_result_that_is_cut_short_anywhere_is_refused(tmp_path: Path, found: Outcome) -> None:
    whole, path = json.dumps(found), tmp_path / "x.json"
    for share in (0.1, 0.5, 0.999):
        path.write_text(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match="is no result of a study"):
            read_outcome(path)
    path.write_text(whole)
    assert read_outcome(path) == found


# Diverged arms.


def test_an_arm_that_diverged_is_shown_and_not_averaged(results: Results) -> None:
    from dataclasses import replace

    broken = {
        seed: replace(result, diverged="loss inf") for seed, result in results["small"].items()
    }
    worse = {**results, "small": {**results["small"], 101: broken[101]}}
    found = json.loads(json.dumps(outcome(RATES, "quick", worse, 1.0), allow_nan=False))
    assert found["claims"][0]["means"]["control"] is None
    assert found["claims"][0]["differences"]["101"] == "-inf"
    small = found["arms"][1]
    assert small["scores"] == {} and small["seeds"]["101"]["diverged"] == "loss inf"
    page = words_of(study_page(found))
    assert "1 / 3" in page and "loss inf" in page and "1 diverged" in page
    assert "of 3 seeds, large diverged at 0 and small at 1;" in page


# Drawings.


def claim(**changed: Any) -> dict[str, Any]:
    said = {"en": "loss", "zh": "损失"}
    plain = {"metric": said, "treatment": said, "control": said, "unit": {"en": "", "zh": ""}}
    plain["claimant"] = REPORT._asdict()
    numbers = {"differences": {"0": 0.1, "1": 0.2}, "interval": [0.15, 0.1, 0.2], "margin": 0.01}
    return {**plain, **numbers, "verdict": "reproduced", "claimed": "higher", **changed}


def test_many_scores_stand_in_several_tables_and_none_is_left_out(found: Outcome) -> None:
    names = [f"loss/{place}" for place in range(2 * MOST_SCORES + 1)]
    wide = deepcopy(found)
    for arm in wide["arms"]:
        for seed in arm["seeds"].values():
            seed["scores"] = {name: 1000.0 + place for place, name in enumerate(names)}
    page = arm_tables(wide)
    heads = re.findall(r"<thead>(.*?)</thead>", page)
    shown = [re.findall(r"loss<br>(\d+)", head) for head in heads]
    assert max(map(len, shown)) == MOST_SCORES
    assert sorted(int(each) for head in shown for each in head) == sorted(2 * [*range(len(names))])
    assert "Fingerprint" in page and page.count("Fingerprint") == 1


def test_infinite_differences_and_no_interval_can_be_drawn() -> None:
    infinite = {"0": "inf", "1": "-inf"}
    for each in (
        claim(differences=infinite, interval=["inf", "-inf", "inf"]),
        claim(differences={"0": 0.0}, interval=None),
        claim(claimed="same", verdict="inconclusive"),
    ):
        assert "<svg" in differences([each], "test")


def test_whose_claim_it_is_is_named_where_it_is_not_the_report_s() -> None:
    paper = {"en": "the paper of Pal et al. (2024)", "zh": "Pal 等（2024）"}
    guess = {"en": "the report, as a guess,", "zh": "报告（作为推测）"}
    assert claimed_by(claim()) is None
    assert claimed_by(claim(claimant=guess)) == (
        "by the report, as a guess",
        "出处：报告（作为推测）",
    )
    strip = differences([claim(), claim(claimant=paper)], "test")
    assert strip.count("by the paper of Pal et al. (2024)") == 1


def test_a_long_title_of_a_strip_goes_on_in_a_second_line() -> None:
    long = {"en": 20 * "long words ", "zh": 30 * "长词"}
    one, two = differences([claim()], "test"), differences([claim(treatment=long)], "test")
    height = re.compile(r'viewBox="0 0 \S+ (\S+)"')
    heights = [float(found[1]) for each in (one, two) if (found := height.search(each))]
    assert heights[1] > heights[0]


def panel(*lines: Line, **changed: Any) -> dict[str, Any]:
    from indexlm.lab.outcome import _plain

    said = Said("a", "甲")
    plain = _plain(Panel(said, said, said, lines, **changed))
    assert isinstance(plain, dict)
    return plain


def figure(*panels: dict[str, Any]) -> dict[str, Any]:
    return {"panels": list(panels), "caption": {"en": "caption", "zh": "说明"}}


def test_kinds_of_lines_axes_and_gaps_can_be_drawn() -> None:
    a, b = Said("A", "甲"), Said("B", "乙")
    curves = [
        Line(a, [1e-4, 1e-3, 1e-2], [3.0, None, 1.0]),
        Line(b, [1e-4, 1e-3], [2.0, 2.5], faint=True),
        Line(b, [1e-3], [2.0], "dots"),
    ]
    bars = [Line(each, [0, 1], [1.0, None], "bars") for each in (a, b)]
    shown = drawn(
        figure(
            panel(
                *curves, log_x=True, log_y=True, marks={2e-4: Said("report", "报告")}, chance=2.2
            ),
            panel(*bars, ticks=["one", Said("two words", "两个词")]),
            panel(Line(a, [0, 20_000], [0.0, 1.0])),
            panel(Line(a, [], [])),
        ),
        "test",
    )
    assert shown.count("<li>") == 2, "every name once below all panels"
    for text in ("2e-4", "report 报告", "20 k", "两个词", "说明"):
        assert text in shown or text == "2e-4"


def test_a_long_line_is_thinned_to_means_and_gaps_stay_gaps() -> None:
    count = 10 * MOST_POINTS
    long = Line(Said("A", "甲"), range(count), [None if x < 20 else 1.0 * x for x in range(count)])
    (plain,) = panel(long)["lines"]
    assert len(plain["xs"]) == len(plain["ys"]) == MOST_POINTS
    assert plain["ys"][:2] == [None, None]
    assert plain["xs"][2:] == plain["ys"][2:]
    short = Line(Said("A", "甲"), range(MOST_POINTS), [0.0] * MOST_POINTS)
    assert panel(short)["lines"][0]["xs"] == list(range(MOST_POINTS))


def test_no_value_of_a_result_is_no_number(found: Outcome) -> None:
    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [each for part in value.values() for each in numbers(part)]
        if isinstance(value, list):
            return [each for part in value for each in numbers(part)]
        return [value] if isinstance(value, float) else []

    assert all(map(math.isfinite, numbers(found)))
