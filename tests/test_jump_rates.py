"""The rates at which curves are said to jump: what is committed, what the pages tell of it."""

import json
import math
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import jumps
from benchmarks.jumps import SETTINGS, Cell, cells, exact_interval, judgement, noise, smooth, table

ROOT = Path(__file__).parents[1]
PAGES = {"en": "evaluation.md", "zh": "evaluation_zh.md"}
RUN = np.arange(1, 41) / 40


def page(language: str) -> str:
    return (ROOT / "docs" / PAGES[language]).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results() -> Any:
    path = ROOT / "benchmarks" / "results" / "jumps.json"
    return json.loads(path.read_text(encoding="utf-8"))


def percent(cell: Any) -> float:
    return 100 * cell["found"].count("1") / len(cell["found"])


# What is committed


def test_every_cell_was_measured_with_the_settings_that_hold_now(results: Any) -> None:
    stated = [{key: cell[key] for key in asdict(cells()[0])} for cell in results["cells"]]
    assert stated == [asdict(cell) for cell in cells()]
    setting = dict(results["setting"])
    assert setting == jumps._setting(setting["curves"]) | {"numpy": setting["numpy"]}
    for cell in results["cells"]:
        assert len(cell["found"]) == setting["curves"] >= 200
        # A jump has a small p; what is at its place was found.
        assert cell["found"].count("1") <= cell["small_p"]
        assert cell.get("at_place", 0) <= cell["found"].count("1")


def test_the_code_still_judges_the_same_curves_in_the_same_way(results: Any) -> None:
    """Some of each kind; a library that rounds otherwise may change one that is near the level."""
    differ = 0
    for number in random.Random(0).sample(range(len(cells())), 20):
        told = results["cells"][number]["found"]
        for curve in range(3):
            found = judgement(cells()[number], number, curve)[1].found
            differ += int(found) != int(told[curve])
    assert differ <= 1


# What the pages tell


@pytest.mark.parametrize("language", PAGES)
def test_the_page_has_the_table_of_the_results(language: str, results: Any) -> None:
    assert f"\n\n{table(results, language)}\n\n" in page(language)


def figures(cells: Sequence[Any]) -> list[float]:
    """Percent, in the order in which the pages tell them below the table."""

    def those(
        autocorrelation: float, shapes: Sequence[str], shares: Sequence[Any] = (None,)
    ) -> Any:
        return [
            cell
            for cell in cells
            if cell["autocorrelation"] == autocorrelation
            and cell["shape"] in shapes
            and cell["share"] in shares
        ]

    def most(chosen: Sequence[Any]) -> float:
        return max(map(percent, chosen))

    whole = those(0, ["power law"], [1])
    planted = those(0, ["power law"], [0.75, 1])
    held = [100 * cell["held"] / len(cell["found"]) for cell in planted]
    lasting = those(0.8, ["power law"], [0.75, 1])
    return [
        most(those(0, ["flat", "straight", "power law"])),
        most(those(0, ["logistic"])),
        most(those(0.8, ["flat"])),
        most(those(0.8, ["logistic"])),
        min(percent(cell) for cell in whole if cell["noise"] == 0.2),
        min(percent(cell) for cell in whole if cell["noise"] == 0.5),
        min(
            100 * cell["at_place"] / cell["found"].count("1")
            for cell in planted
            if cell["noise"] <= 0.2
        ),
        min(held),
        max(held),
        min(100 * cell["held"] / len(cell["found"]) for cell in lasting),
    ]


TOLD = {
    "en": re.compile(r"(?:(\d+) to )?(\d+) of 100"),
    "zh": re.compile(r"100 条[^\d，。；]*?(?:(\d+) 至 )?(\d+) 条"),
}


@pytest.mark.parametrize("language", PAGES)
def test_rates_in_sentences_are_those_of_the_results(language: str, results: Any) -> None:
    after = page(language).split(table(results, language))[1].split("\n## ")[0]
    told = [rate for pair in TOLD[language].findall(" ".join(after.split())) for rate in pair]
    assert list(filter(None, told)) == [f"{rate:.0f}" for rate in figures(results["cells"])]
    assert f" {results['setting']['curves']} " in page(language).split(table(results, language))[0]


def test_a_table_of_other_results_is_another(results: Any) -> None:
    changed = json.loads(json.dumps(results))
    changed["cells"][0]["found"] = "1" * len(changed["cells"][0]["found"])
    assert table(changed, "en") not in page("en")


# How it is measured


@pytest.mark.parametrize(("hits", "count"), [(0, 250), (1, 3), (12, 250), (249, 250), (250, 250)])
def test_intervals_leave_a_fortieth_in_each_tail(hits: int, count: int) -> None:
    def tail(share: float, numbers: range) -> float:
        return sum(math.comb(count, n) * share**n * (1 - share) ** (count - n) for n in numbers)

    low, high = exact_interval(hits, count)
    assert low <= hits / count <= high
    if hits > 0:
        assert tail(low, range(hits, count + 1)) == pytest.approx(0.025, rel=1e-4)
    if hits < count:
        assert tail(high, range(hits + 1)) == pytest.approx(0.025, rel=1e-4)


@pytest.mark.parametrize("autocorrelation", [0.0, 0.5, 0.8])
def test_noise_has_the_size_and_the_autocorrelation_that_are_told(autocorrelation: float) -> None:
    generator = np.random.default_rng(1)
    noise_SP = np.stack([noise(40, autocorrelation, generator) for _ in range(2000)])
    assert noise_SP.std(0) == pytest.approx(np.ones(40), abs=0.08)
    together = (noise_SP[:, :-1] * noise_SP[:, 1:]).mean()
    assert together == pytest.approx(autocorrelation, abs=0.03)


def test_curves_rise_by_one_and_the_logistic_in_four_tenths_of_the_run() -> None:
    for shape in ("straight", "power law", "logistic"):
        value_P = smooth(shape, RUN)
        assert (value_P[0], value_P[-1]) == (0, 1) and (np.diff(value_P) > 0).all()
    assert not smooth("flat", RUN).any()
    fine_P = np.linspace(0, 1, 10_001)
    inside_P = fine_P[(smooth("logistic", fine_P) > 0.1) & (smooth("logistic", fine_P) < 0.9)]
    # The curve is cut off at both ends of the run, where it has 1% left.
    assert inside_P[-1] - inside_P[0] == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(("share", "found"), [(0.25, False), (0.75, True), (1.0, True)])
def test_a_jump_without_noise_is_found_where_it_is_planted(share: float, found: bool) -> None:
    for curve in range(3):
        place, judged = judgement(Cell("power law", share, 40, 1e-6, 0.0), 0, curve)
        assert 0.1 < place < 0.9
        assert judged.start < place < judged.end and judged.size == pytest.approx(share, abs=0.02)
        assert judged.found == found


def test_the_command_measures_what_it_is_asked_for_and_prints_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "jumps.json"
    few = [cell for cell in cells() if cell.points == 20][:2]
    monkeypatch.setattr(jumps, "cells", lambda: few)

    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["jumps", "--out", str(out), *arguments])
        jumps.main()
        return capsys.readouterr().out

    assert f"2/2 {few[1].name}: a jump in" in command("--curves", "2")
    first = out.read_bytes()
    command("--curves", "2")
    assert out.read_bytes() == first
    printed = command("--table", "en")
    assert len(printed.splitlines()) == 2 + len({cell.autocorrelation for cell in few})
    assert printed.splitlines()[0].count("noise") == len(SETTINGS)


@pytest.mark.parametrize("arguments", [["--curves", "0"], ["--out", "none/here.json"]])
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["jumps", *arguments])
    with pytest.raises(SystemExit) as end:
        jumps.main()
    assert end.value.code == 2 and arguments[1] in capsys.readouterr().err
