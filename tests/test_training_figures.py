"""The figures of docs/training.md, in both languages, are those of the committed results."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
POINTS = ("tiny", "small", "bigvocab")
PAGES = ["training.md", "training_zh.md"]


def results(name: str) -> Any:
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def page(file: str) -> str:
    return (ROOT / "docs" / file).read_text(encoding="utf-8")


def rows_of(point: str) -> list[str]:
    """One line of the table for each row that trains."""
    measured = results(f"training_{point}")["points"][point]["rows"]
    return [
        f"| {point} | {name} | {row['tokens_per_second']:,.0f} | {row['mfu']:.2f} | "
        f"{row['step_memory_mb']:,.0f} |"
        for name, row in measured.items()
        if name != "loader"
    ]


@pytest.mark.parametrize("file", PAGES)
def test_the_table_of_speeds_holds_every_row_of_the_results(file: str) -> None:
    beginnings = tuple(f"| {point} |" for point in POINTS)
    told = [line for line in page(file).splitlines() if line.startswith(beginnings)]
    assert told == [line for point in POINTS for line in rows_of(point)]


@pytest.mark.parametrize("file", PAGES)
def test_the_ratios_that_are_told_are_those_of_the_results(file: str) -> None:
    text = page(file)
    for point in POINTS:
        ratios = results(f"training_{point}")["points"][point]["ratios"]
        cells = [
            f"{ratios[f'tokens_per_second, {kind}']['ratio']:.2f}"
            for kind in ("eager to best eager peer", "compiled to best compiled peer")
        ]
        memory = ratios["step memory, indexlm to hf_bare"]["ratio"]
        assert f"| {point}: {' | '.join(cells)} | {memory:.2f} |" in text


@pytest.mark.parametrize("file", PAGES)
def test_what_watching_costs_is_what_was_measured(file: str) -> None:
    shares = [results("watching")[point]["share"] for point in ("recipe", "tiny")]
    assert f"{max(shares):.2%}" in page(file)


@pytest.mark.parametrize("file", PAGES)
def test_what_lanes_and_short_documents_are_worth_is_what_was_measured(file: str) -> None:
    text = page(file)
    for point in ("tiny", "small"):
        rows = results("training_controls")["points"][point]["rows"]
        speed = {name: row["tokens_per_second"] for name, row in rows.items()}
        assert f"{speed['indexlm'] / speed['indexlm_one_lane']:.2f}" in text
        assert f"{speed['indexlm_whole_rows'] / speed['indexlm']:.2f}" in text
