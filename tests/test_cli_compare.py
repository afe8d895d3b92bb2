"""Two models are evaluated and compared by the commands that a user types."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from command import refused, run_here, succeeded, with_corpus, write_model
from indexlm.records import verify
from indexlm.tokens.tokenizer import Tokenizer

# One thread: the networks here are too small to share out.
torch.set_num_threads(1)

TASKS = ("--tasks", "mmlu,bits_per_byte,starter", "--prompts", "letters")


def write_mmlu(folder: Path) -> None:
    """Questions on arithmetic, in the files that are published."""
    draw = random.Random(5)
    for part, count in (("dev", 5), ("test", 30)):
        (folder / "mmlu" / part).mkdir(parents=True)
        lines = []
        for _ in range(count):
            a, b = draw.randrange(50), draw.randrange(50)
            options = draw.sample([a + b, a + b + 1, a + b + 10, a + b - 2], 4)
            answer = "ABCD"[options.index(a + b)]
            lines.append(f"What is {a} + {b}?,{','.join(map(str, options))},{answer}\n")
        path = folder / "mmlu" / part / f"elementary_mathematics_{part}.csv"
        path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """Results of two models in `small` and `deeper`, and of `small` on fewer items in `part`."""
    place = with_corpus(tmp_path_factory.mktemp("compare"), 300)
    succeeded(place, "data", "refine", "corpus", "--out", "clean", how=run_here)
    write_mmlu(place / "data")
    for name, changes in (("small", {}), ("deeper", {"layers": 3})):
        write_model(place / f"model-{name}", tokenizer, context=1024, **changes)
    data = ["--data", "data", "--data", "clean"]
    for name in ("small", "deeper"):
        succeeded(place, "eval", f"model-{name}", *TASKS, *data, "--out", name, how=run_here)
    few = ["--tasks", "mmlu", "--prompts", "letters", "--data", "data", "--limit", "20"]
    succeeded(place, "eval", "model-small", *few, "--out", "part", how=run_here)
    return place


def comparison(folder: Path) -> Any:
    verify(folder)
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


def test_two_models_are_compared_on_all_that_both_have(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = succeeded(place, "compare", "small", "deeper", "--out", str(out))
    assert [line.split()[1] for line in told.splitlines()[:2]] == ["model-small", "model-deeper"]
    found = comparison(out)
    rows = {(row["task"], row["way"]): row for row in found["rows"]}
    row = rows["mmlu", "logprob"]
    assert row["items"] == row["both"] + row["only_a"] + row["only_b"] + row["neither"] == 30
    results = json.loads((place / "small" / "results.json").read_text(encoding="utf-8"))
    score = results["tasks"]["mmlu"]["prompts"]["letters"]["micro"]["scores"]["logprob"]
    assert row["accuracy"]["a"] == pytest.approx(score["accuracy"])
    assert row["margin"]["a"] == pytest.approx(score["margin"])
    bits = {line["name"]: line for line in found["text"]}
    for name, part in results["text"]["bits_per_byte"].items():
        assert bits[name]["a"] == pytest.approx(part["value"])
        assert bits[name]["documents"] == part["documents"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<td" in page and "mmlu letters logprob" in page and "zh_curated" in page
    assert f"{100 * row['accuracy']['a']:.1f}" in page and "http" not in page
    # Random weights tell nothing apart.
    assert "mmlu letters logprob" in told and "<0.0001*" not in told.split("bits per byte")[0]


def test_a_model_compared_with_itself_has_no_difference(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeeded(place, "compare", "small", "small", "--out", str(out), how=run_here)
    found = comparison(out)
    measures = [row["accuracy"] for row in found["rows"]] + found["text"]
    assert measures and all(each["difference"] == 0 and each["p"] == 1 for each in measures)


def test_other_items_are_refused_and_the_common_ones_compared(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = refused(place, "compare", "part", "deeper", "--out", str(out), how=run_here)
    assert "mmlu.letters: item " in told and "is only in deeper" in told
    assert "the 20 items that are the same with --common" in told
    assert not out.exists()
    shown = succeeded(place, "compare", "part", "deeper", "--common", "--out", str(out))
    (row,) = comparison(out)["rows"]
    assert row["items"] == 20
    assert "mmlu.letters: 10 items not in both" in shown and "only in B: bits_per_byte" in shown


def test_rows_can_be_chosen_beforehand(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    chosen = ["--tasks", "mmlu", "--ways", "logprob"]
    succeeded(place, "compare", "small", "deeper", *chosen, "--out", str(out), how=run_here)
    (row,) = comparison(out)["rows"]
    assert row["accuracy"]["p"] == row["accuracy"]["p_holm"]
    told = refused(place, "compare", "small", "deeper", "--tasks", "arc", how=run_here)
    assert "no task 'arc' in both; there is bits_per_byte, mmlu" in told


def test_what_are_no_results_is_told(place: Path) -> None:
    assert "holds no results.json" in refused(
        place, "compare", "small", "model-small", how=run_here
    )
    told = refused(place, "compare", "small", "deeper", "--out", "part", how=run_here)
    assert "part exists; name another --out" in told
    told = refused(place, "compare", "small", "deeper", "--out", "/proc/new", how=run_here)
    assert "nothing can be written to /proc" in told and "name another --out" in told
