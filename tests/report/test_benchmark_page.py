"""The page of an evaluation: its numbers are those of the results, and it stands alone."""

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import answered, task, write_results

from indexlm.errors import DamagedError, UserError
from indexlm.evals.benchmark_table import WAY_NAMES, higher_of_both
from indexlm.recipes import tiny
from indexlm.report.benchmarks import benchmarks, write_benchmark_page
from indexlm.report.result_files import read_answers, read_results
from indexlm.report.run_files import RunFiles


class Tables(HTMLParser):
    """Every table of a page as rows of cells, their texts one after the other."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True
        elif self.inside and tag == "small":
            self.tables[-1][-1][-1] += "|"

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data


def table_of(page: str, first_column: str) -> list[list[str]]:
    """The body of the first table whose first column is called so."""
    for rows in Tables(page).tables:
        if rows[0][0].startswith(first_column):
            return rows[1:]
    raise LookupError(first_column)


def told(score: Mapping[str, Any]) -> str:
    """An accuracy as the page has it."""
    mark = "≈ " if score["within_chance"] else ""
    return f"{mark}{100 * score['accuracy']:.2f} ± {100 * score['standard_error']:.2f}"


SUBJECTS = {"sea": ["tides", "waves"], "land": ["hills"]}


def made(folder: Path, seed: int = 1, name: str = "base", **more: Any) -> dict[str, Any]:
    """Results of a benchmark of three subjects in two categories, asked in both styles."""
    quiz = task("quiz", "Quiz", SUBJECTS)
    counts = {"tides": 40, "waves": 90, "hills": 60}
    answers = {
        "letters": answered(counts, 0.3, 0.8, [4], seed),
        "contents": answered(counts, 1.2, 0.0, [4], seed + 1),
    }
    return write_results(folder, {"quiz": (quiz, answers)}, name, **more)


def page_of(*folders: Path) -> str:
    out = folders[0].parent / "page.html"
    write_benchmark_page(folders, out)
    return out.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Shown:
    folder: Path
    quiz: dict[str, Any]
    page: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The page of one model."""
    folder = tmp_path_factory.mktemp("page") / "a"
    quiz = made(folder)["tasks"]["quiz"]
    return Shown(folder, quiz, page_of(folder))


def test_the_numbers_of_the_summary_are_those_of_the_results(shown: Shown) -> None:
    prompts = shown.quiz["prompts"]
    rows = table_of(shown.page, "Benchmark")
    assert rows[0][0] == "Quiz"
    expected = [
        (prompt, WAY_NAMES[way], part["micro"], told(score), told(part["macro"]["scores"][way]))
        for prompt, part in prompts.items()
        for way, score in part["micro"]["scores"].items()
    ]
    assert len(rows) == len(expected) + 1
    for row, (prompt, way, micro, over_all, mean) in zip(rows, expected):
        assert row[1] == prompt and row[2].startswith(way)
        assert row[3:] == [str(micro["items"]), f"{100 * micro['chance']:.2f}", over_all, mean]


def test_the_numbers_of_groups_and_subjects_are_those_of_the_results(shown: Shown) -> None:
    part = shown.quiz["prompts"]["letters"]
    for label, level in (("Group of subjects", "categories"), ("Subject", "subjects")):
        rows = table_of(shown.page, label)
        assert [row[0] for row in rows] == list(part[level])
        for row, found in zip(rows, part[level].values()):
            score = found["scores"]["logprob"]
            margin = f"{score['margin']:+.3f} ± {score['margin_standard_error']:.3f}"
            chance = f"{100 * found['chance']:.2f}"
            assert row[1:] == [str(found["items"]), chance, f"{told(score)}|{margin}"]


def test_the_higher_of_both_styles_is_said_to_be_it(shown: Shown) -> None:
    prompt, way = higher_of_both(shown.quiz) or ("", "")
    label, manner, *_, over_all, mean = table_of(shown.page, "Benchmark")[-1][1:]
    assert label.startswith("higher of both") and manner.startswith("as in the report")
    part = shown.quiz["prompts"][prompt]
    assert over_all == f"{told(part['micro']['scores'][way])}|{prompt}, {WAY_NAMES[way]}"
    assert mean == told(part["macro"]["scores"][way])


def test_one_style_alone_has_no_higher_one(tmp_path: Path) -> None:
    quiz = task("quiz", "Quiz", SUBJECTS)
    lines = answered({"tides": 20, "hills": 20}, 0.5, 0, [4], 1)
    write_results(tmp_path / "a", {"quiz": (quiz, {"letters": lines})})
    assert "higher of both" not in "".join(map(str, table_of(page_of(tmp_path / "a"), "Benchmark")))


def test_published_scores_stand_beside_only_where_asked(shown: Shown, tmp_path: Path) -> None:
    beside = {"Model of a paper": {"quiz": 52.53, "other": 1.0}, "Another": {"other": 2.0}}
    quiz = made(tmp_path / "a", beside=beside, beside_source="a paper")["tasks"]["quiz"]
    page = page_of(tmp_path / "a")
    ours, *published = table_of(page.split("Beside published scores")[1], "Model")
    prompt, way = higher_of_both(quiz) or ("", "")
    score = quiz["prompts"][prompt]["macro"]["scores"][way]
    assert ours == ["base", f"{told(score)}|{prompt}, {WAY_NAMES[way]}"]
    assert published == [["Model of a paper", "52.53"], ["Another", "–"]] and "a paper" in page
    assert "Beside published scores" not in shown.page


def test_a_guesser_is_shown_as_one_everywhere(tmp_path: Path) -> None:
    quiz = task("quiz", "Quiz", {})
    for folder, skill in (("guesses", 0.0), ("knows", 3.0)):
        answers = {"letters": answered({"quiz": 400}, skill, 0.0, [4], 5)}
        write_results(tmp_path / folder, {"quiz": (quiz, answers)})
        rows = table_of(page_of(tmp_path / folder), "Benchmark")
        assert all(row[5].startswith("≈") == (skill == 0) for row in rows)


def test_one_subject_without_categories_and_of_three_to_five_options(tmp_path: Path) -> None:
    quiz = task("quiz", "Quiz", {})
    answers = {"contents": answered({"quiz": 80}, 0.8, 0.0, [3, 4, 5], 2)}
    results = write_results(tmp_path / "a", {"quiz": (quiz, answers)})
    page = page_of(tmp_path / "a")
    micro = results["tasks"]["quiz"]["prompts"]["contents"]["micro"]
    row = table_of(page, "Benchmark")[0]
    assert row[4] == f"{100 * micro['chance']:.2f}" != "25.00"
    assert row[6] == "–" and "E " in table_of(page, "Model")[0][1]
    assert "Group of subjects" not in page and "Accuracy by subject" not in page


@pytest.mark.parametrize(("skill", "seed"), [(9.0, 1), (-9.0, 2)])
def test_all_right_and_all_wrong_are_drawn(tmp_path: Path, skill: float, seed: int) -> None:
    quiz = task("quiz", "Quiz", SUBJECTS)
    answers = {"letters": answered({"tides": 1, "hills": 2}, skill, 0.0, [4], seed)}
    write_results(tmp_path / "a", {"quiz": (quiz, answers)})
    assert ("Most surely wrong" in page_of(tmp_path / "a")) == (skill < 0)


def test_the_page_needs_no_other_file_and_is_the_same_each_time(shown: Shown) -> None:
    outside = r"""(?:src|href)=["'](?!#)|url\((?!#)|@import|<script|<link|https?:"""
    assert not re.findall(outside, shown.page)
    assert shown.page == page_of(shown.folder)
    anchors = re.findall(r'href="#([^"]+)"', shown.page)
    assert anchors and all(f'id="{anchor}"' in shown.page for anchor in anchors)


def test_hostile_and_chinese_names_are_text(tmp_path: Path) -> None:
    bad = '"><img src=x onerror=alert(1)>$x$'
    quiz = task("quiz", bad, {f"{bad}s": [bad, "高等数学与线性代数" * 4]})
    lines = answered({bad: 20, "高等数学与线性代数" * 4: 20}, 0.3, 0, [4], 3)
    for line in lines:
        line["id"] = line["place"] = "<script>x</script>"
    write_results(tmp_path / "a", {"quiz": (quiz, {"letters": lines})}, name=f"<b>{bad}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = page_of(tmp_path / "a")
    assert "<img" not in page and "<script" not in page and "<b>" not in page
    assert "高等数学" in page and "onerror" in page


def test_a_subjects_name_stands_in_the_figure_of_seventy(tmp_path: Path) -> None:
    names = [f"subject_number_{number}" for number in range(70)]
    quiz = task("quiz", "Quiz", {"first": names[:50], "second": names[50:]})
    answers = {"letters": answered(dict.fromkeys(names, 3), 0.5, 0, [4], 1)}
    write_results(tmp_path / "a", {"quiz": (quiz, answers)})
    drawing = next(d for d in page_of(tmp_path / "a").split("<svg")[1:] if names[0] in d)
    drawn = re.findall(r">([^<>]*)</text>", drawing.split("</svg>")[0])
    assert set(names) <= set(drawn) and "first, continued" in drawn


def test_models_stand_side_by_side(tmp_path: Path) -> None:
    results = [made(tmp_path / name, seed, name) for seed, name in enumerate(("one", "two"))]
    page = page_of(tmp_path / "one", tmp_path / "two")
    parts = [each["tasks"]["quiz"]["prompts"]["letters"] for each in results]
    cells = [
        f"{told(p['micro']['scores']['logprob'])}|{told(p['macro']['scores']['logprob'])}"
        for p in parts
    ]
    assert table_of(page, "Benchmark")[0][5:] == cells and cells[0] != cells[1]
    hills = next(row for row in table_of(page, "Subject") if row[0] == "hills")
    assert [cell.split("|")[0] for cell in hills[3:]] == [
        told(part["subjects"]["hills"]["scores"]["logprob"]) for part in parts
    ]


def test_two_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(folders):
        made(folder, seed)
    assert [each.name for each in read_results(folders)] == [f"base ({f})" for f in folders]
    assert [each.name for each in read_results(folders[:1])] == ["base"]


def changed(folder: Path, change: Any) -> None:
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    change(results)
    path.write_text(json.dumps(results), encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value"), [("version", 2), ("data_sha256", "cd" * 32), ("prompts", {})]
)
def test_scores_on_other_items_are_not_put_side_by_side(
    tmp_path: Path, key: str, value: Any
) -> None:
    made(tmp_path / "one", 1, "one")
    made(tmp_path / "two", 2, "two")
    changed(tmp_path / "two", lambda results: results["tasks"]["quiz"].update({key: value}))
    with pytest.raises(UserError, match="quiz"):
        page_of(tmp_path / "one", tmp_path / "two")
    assert not (tmp_path / "page.html").exists()


def test_what_is_no_folder_of_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape("results.json")):
        write_benchmark_page([tmp_path], tmp_path / "page.html")
    made(tmp_path / "a")
    changed(tmp_path / "a", lambda results: results.update(tasks={}))
    with pytest.raises(UserError, match="no benchmark"):
        page_of(tmp_path / "a")


def without_the_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[:-1]))


def with_a_changed_line(**change: Any) -> Any:
    def spoil(path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        lines[2] = json.dumps(json.loads(lines[2]) | change)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (Path.unlink, "quiz.letters.jsonl is missing"),
        (without_the_last_line, "quiz.letters.jsonl has 189 items"),
        (lambda path: path.write_text("{\n" * 190), "quiz.letters.jsonl:1 "),
        (with_a_changed_line(answer=4), "quiz.letters.jsonl:3 "),
        (with_a_changed_line(choices={"logprob": -1}), "quiz.letters.jsonl:3 "),
        (with_a_changed_line(choices={}), "quiz.letters.jsonl:3 "),
        (with_a_changed_line(logprobs=[float("nan")] * 4), "quiz.letters.jsonl:3 "),
        (with_a_changed_line(logprobs="x"), "quiz.letters.jsonl:3 "),
    ],
)
def test_damaged_answers_are_named(shown: Shown, tmp_path: Path, spoil: Any, place: str) -> None:
    folder, micro = tmp_path / "a", shown.quiz["prompts"]["letters"]["micro"]
    shutil.copytree(shown.folder, folder)
    read_answers(folder, "quiz", "letters", micro)
    spoil(folder / "items" / "quiz.letters.jsonl")
    with pytest.raises(DamagedError, match=place):
        read_answers(folder, "quiz", "letters", micro)
    with pytest.raises(DamagedError, match=place):
        page_of(folder)
    assert not (tmp_path / "page.html").exists()


def test_the_surely_wrong_are_told_by_place_and_probability(tmp_path: Path) -> None:
    lines = answered({"quiz": 30}, 0.3, 0.5, [3, 4], 4)
    write_results(tmp_path / "a", {"quiz": (task("quiz", "Quiz", {}), {"letters": lines})})
    rows = Tables(page_of(tmp_path / "a").split("Most surely wrong")[1]).tables[0][1:]
    assert len(rows) == 10
    by_place = {line["place"]: line for line in lines}
    for _, subject, number, place, chosen, right, probability, margin in rows:
        line = by_place[place]
        weights = np.exp(line["logprobs"])
        assert (subject, number) == (line["subject"], line["id"])
        assert "ABCD".index(chosen) == line["choices"]["logprob"] == weights.argmax()
        assert "ABCD".index(right) == line["answer"] and chosen != right
        assert probability == f"{100 * weights.max() / weights.sum():.2f}"
        assert margin == f"{np.log(weights[line['answer']] / weights.max()):+.2f}"


def run_files(results: dict[str, Any]) -> RunFiles:
    empty: dict[str, Any] = {name: {} for name in RunFiles.__dataclass_fields__}
    return RunFiles(**(empty | {"recipe": tiny.recipe(), "results": results}))


def test_the_page_of_a_run_shows_benchmarks_where_there_are_some(tmp_path: Path) -> None:
    nothing = {"bits_per_byte": {}, "starter": {}}
    assert benchmarks(run_files({"base": nothing})) == "" == benchmarks(run_files({}))
    tasks = made(tmp_path / "a")["tasks"]
    shown = benchmarks(run_files({"base": nothing | {"tasks": tasks}, "bigram": nothing}))
    score = tasks["quiz"]["prompts"]["letters"]["micro"]["scores"]["logprob"]
    assert table_of(shown, "Benchmark")[0][5] == told(score)
