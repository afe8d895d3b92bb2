"""Refusals and written texts on the page of an evaluation: what results hold, and only as text."""

import json
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from test_benchmark_page import made, page_of, table_of

from indexlm.errors import UserError
from indexlm.evals.safety import read_requests, summarise
from indexlm.evals.samples import MEASURES, PROMPTS, Kind, generation_test
from indexlm.report.behaviour import MEASURE_LABELS
from indexlm.tokens.tokenizer import Tokenizer


def judged(refuses: int, over_refuses: int) -> dict[str, Any]:
    """Results of the safety test of a model that refuses the first so many of each kind."""

    def line(refused: bool, text: str) -> dict[str, Any]:
        return {
            "scores": {"likelihood": [-1.0, -0.5 if refused else -2.0]},
            "choices": dict.fromkeys(("likelihood", "generation"), int(refused)),
            "text": text,
        }

    pairs = read_requests().pairs
    groups = {}
    for name in dict.fromkeys(
        ["all", "zh", "en", *(pair.category for pair in pairs)],
    ):
        own = [p for p in pairs if name in ("all", p.language, p.category)]
        unsafe = [line(number < refuses, "no") for number in range(len(own))]
        safe = [line(number < over_refuses, "" if number else "yes") for number in range(len(own))]
        groups[name] = summarise(unsafe, safe)
    return {"version": 1, "pairs": len(pairs), "groups": groups, "device": "cpu"}


def written(tokenizer: Tokenizer, kind: Kind = "continuations", said: str = "春天来了。") -> Any:
    def write(prompts: Sequence[list[int]]) -> list[list[int]]:
        return [tokenizer.encode(said) for _ in prompts]

    return generation_test(tokenizer, write, kind) | {"device": "cpu"}


def page_without_benchmarks(folder: Path, name: str = "base", **text: Any) -> str:
    results = made(folder, name=name) | {"tasks": {}, "text": text}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return page_of(folder)


def test_rates_stand_with_their_intervals_and_counts(tmp_path: Path) -> None:
    results = judged(30, 8)
    rows = table_of(page_without_benchmarks(tmp_path / "a", safety=results), "Model")
    assert [(row[1].split()[0], row[2]) for row in rows] == [
        (way, group) for way in ("likelihood", "generation") for group in ("all", "zh", "en")
    ]
    for row in rows:
        part = results["groups"][row[2]]
        found = part[row[1].split()[0]]
        assert row[3] == str(part["pairs"])
        for cell, rate in ((row[4], "refused"), (row[5], "over_refused")):
            low, high = found[f"{rate}_interval"]
            count = 30 if rate == "refused" else 8
            assert cell == (
                f"{100 * found[rate]:.1f}|{100 * low:.1f} – {100 * high:.1f}; "
                f"{count} / {part['pairs']}"
            )
    gain = results["groups"]["all"]["likelihood"]
    assert rows[0][6:] == [
        f"{100 * gain['told_apart']:.1f}",
        f"{gain['margin']:+.3f} ± {gain['margin_standard_error']:.3f}",
        "–",
    ]
    empty = results["groups"]["all"]["generation"]["empty"]
    assert 0 < empty < 1 and rows[3][6:] == ["–", "–", f"{100 * empty:.1f}"]


def test_categories_are_folded_and_all_there(tmp_path: Path) -> None:
    page = page_without_benchmarks(tmp_path / "a", safety=judged(5, 1))
    (folded,) = re.findall(r"<details>.*?</details>", page, re.DOTALL)
    for pair in read_requests().pairs:
        assert folded.count(f">{pair.category}<") == 2


def test_every_measure_and_every_text_is_shown(tmp_path: Path, tokenizer: Tokenizer) -> None:
    results = written(tokenizer)
    assert MEASURE_LABELS.keys() == MEASURES.keys()
    page = page_without_benchmarks(tmp_path / "a", generation=results)
    rows = table_of(page, "Measure")
    assert rows[0][1:] == ["20", "20"] and len(rows) == 1 + len(MEASURES)
    for row, measure in zip(rows[1:], MEASURES):
        for cell, found in zip(row[1:], results["languages"].values()):
            factor = 1 if measure == "length" else 100
            told = found[measure]
            error = factor * told["standard_error"]
            assert cell == f"{factor * told['value']:.1f} ± {error:.1f}"
    (folded,) = map(unescape, re.findall(r"<details>.*?</details>", page, re.DOTALL))
    assert folded.count("春天来了。") >= 40
    assert all(prompt.text in folded for prompt in PROMPTS["continuations"])
    assert "temperature 0.6" in page


def test_a_measure_that_no_text_has_is_a_dash(tmp_path: Path, tokenizer: Tokenizer) -> None:
    page = page_without_benchmarks(tmp_path / "a", generation=written(tokenizer, said=""))
    rows = {row[0].split(",")[0]: row[1:] for row in table_of(page, "Measure")}
    assert rows["Loops"] == ["–", "–"] and rows["Empty"] == ["100.0 ± 0.0"] * 2


def test_what_a_model_writes_is_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    results = written(tokenizer)
    results["texts"][3]["text"] = "<script>alert(1)</script></details><b>"
    page = page_without_benchmarks(tmp_path / "a", generation=results)
    assert "<script" not in page and "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<details>") == page.count("</details>") == 1


def test_benchmarks_and_texts_stand_on_one_page(tmp_path: Path, tokenizer: Tokenizer) -> None:
    made(tmp_path / "a", text={"safety": judged(5, 1), "generation": written(tokenizer)})
    page = page_of(tmp_path / "a")
    for anchor in ("scores", "task-quiz", "safety", "generation", "settings"):
        assert f'href="#{anchor}"' in page and f'id="{anchor}"' in page
    made(tmp_path / "b")
    assert 'id="safety"' not in page_of(tmp_path / "b")
    assert "Multiple choice" not in page_without_benchmarks(tmp_path / "c", safety=judged(5, 1))


def test_models_stand_side_by_side_where_they_were_asked_alike(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    for name, said in (("one", "春天来了。"), ("two", "Hello there!")):
        text = {"generation": written(tokenizer, said=said), "safety": judged(9, 2)}
        page_without_benchmarks(tmp_path / name, name, **text)
    page = page_of(tmp_path / "one", tmp_path / "two")
    assert {row[0] for row in table_of(page, "Model")} == {"one", "two"}
    assert len(table_of(page, "Measure")[0]) == 5
    other = {"generation": written(tokenizer, "queries")}
    page_without_benchmarks(tmp_path / "chat", "chat", **other)
    with pytest.raises(UserError, match="forms of generation: kind continuations and queries"):
        page_of(tmp_path / "one", tmp_path / "chat")
