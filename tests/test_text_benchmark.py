"""The benchmark of text preparation: its text is what it says, its scores tell good from bad."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.text import scoring
from benchmarks.text.corpus import Pool, read_pools
from benchmarks.text.making import Row, compose
from benchmarks.text.planted import PASSAGE, jaccard, shingles
from benchmarks.text.summary import fit, ratios, row_summary

ROOT = Path(__file__).parents[1]
SIZE = 1_000_000
QUESTIONS = 100

Composed = tuple[list[Row], list[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> list[Pool]:
    """A folder of made-up words in two languages, as a user has one."""
    folder = tmp_path_factory.mktemp("source")
    generator = np.random.default_rng(0)
    letters, han = list("abcdefghijklmnoprstuvwyz"), [chr(code) for code in range(0x4E00, 0x5400)]
    english = [
        " ".join("".join(generator.choice(letters, size=5)) for _ in range(400)) for _ in range(40)
    ]
    chinese = [
        "，".join("".join(generator.choice(han, size=9)) for _ in range(120)) + "。"
        for _ in range(40)
    ]
    for name, texts in (("english", english), ("chinese", chinese)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return read_pools(folder, folder)


@pytest.fixture(scope="module")
def composed(pools: list[Pool]) -> Composed:
    return compose(pools, SIZE, 0.1, 1, QUESTIONS)


def truth_of(rows: list[Row]) -> dict[str, dict[str, Any]]:
    return {row[0]: row[4] if row[4] is not None else {"kind": row[3]} for row in rows}


def texts_of(rows: list[Row]) -> dict[str, str]:
    return {row[0]: row[1] for row in rows}


def test_the_same_source_gives_the_same_text_of_the_size_that_was_asked(
    pools: list[Pool], composed: Composed
) -> None:
    assert compose(pools, SIZE, 0.1, 1, QUESTIONS)[0] == composed[0]
    assert compose(pools, SIZE, 0.1, 2, QUESTIONS)[0] != composed[0]
    assert sum(row[2] for row in composed[0]) == pytest.approx(SIZE, rel=0.05)


def test_copies_are_as_near_as_their_truth_says(composed: Composed) -> None:
    texts = texts_of(composed[0])
    seen = set()
    for name, row in truth_of(composed[0]).items():
        if row["kind"] == "exact_copy":
            assert texts[name] == texts[row["of"]]
        if row["kind"] == "near_copy":
            found = jaccard(shingles(texts[name]), shingles(texts[row["of"]]))
            assert found == pytest.approx(row["jaccard"], abs=1e-4)
            assert found == pytest.approx(row["level"], abs=0.08)
            seen.add((row["level"] >= scoring.BOUND, row["style"]))
    assert len(seen) == 4


def test_made_documents_are_no_copies_of_each_other(composed: Composed) -> None:
    sets = [shingles(row[1]) for row in composed[0] if row[3] == "made"][:60]
    assert max(jaccard(one, other) for n, one in enumerate(sets) for other in sets[:n]) < 0.3


def test_numbers_of_persons_and_cards_have_their_check_digits(composed: Composed) -> None:
    kinds = set()
    for row in truth_of(composed[0]).values():
        if row.get("of_kind") == "card number":
            digits = [int(digit) for digit in reversed(row["secret"])]
            doubled = [2 * digit - 9 * (digit > 4) for digit in digits[1::2]]
            assert (sum(digits[::2]) + sum(doubled)) % 10 == 0
            kinds.add("card")
        if row.get("of_kind") == "identity number":
            values = [10 if digit == "X" else int(digit) for digit in row["secret"]]
            assert sum(v * pow(2, 17 - n, 11) for n, v in enumerate(values)) % 11 == 1
            kinds.add("identity")
    assert kinds == {"card", "identity"}


def perfect(rows: list[Row]) -> tuple[dict[str, str], dict[str, str]]:
    """What a pipeline without a fault keeps and drops."""
    kept: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for name, text, _, _, truth in rows:
        row = truth or {"kind": "made"}
        near = row["kind"] == "near_copy" and row["jaccard"] >= scoring.BOUND
        if near or row["kind"] in ("exact_copy", "junk", "instruction", "benchmark"):
            dropped[name] = row["kind"]
        else:
            kept[name] = text.replace(PASSAGE, "").replace(row.get("secret", "\0"), "<masked>")
    return kept, dropped


def shares(score: Any) -> Iterator[float]:
    if isinstance(score, dict):
        if "share" in score:
            yield score["share"]
        else:
            for value in score.values():
                yield from shares(value)


def test_a_pipeline_without_a_fault_has_all_points(composed: Composed) -> None:
    score = scoring.everything(truth_of(composed[0]), *perfect(composed[0]))
    copies = score.pop("copies")
    assert copies["false_drops"]["share"] == copies["both_dropped"]["share"] == 0
    assert copies["pairs"]["exact_copy"]["share"] == copies["pairs"]["near_copy"]["share"] == 1
    assert copies["pairs"]["not so near, dropped"]["share"] == 0
    assert set(shares(score)) == {1.0}
    assert score["unaccounted"] == score["passage"]["left"] == 0


def test_a_pipeline_that_does_nothing_has_none(composed: Composed) -> None:
    texts = texts_of(composed[0])
    score = scoring.everything(truth_of(composed[0]), texts, {})
    assert set(shares(score["copies"])) == set(shares(score["dropped"])) == {0.0}
    assert set(shares(score["personal"]["hidden"])) == {0.0}
    assert score["passage"]["left"] == score["passage"]["hosts"] > 1


def test_a_pipeline_that_drops_everything_is_told_so(composed: Composed) -> None:
    texts = texts_of(composed[0])
    copies = scoring.everything(truth_of(composed[0]), {}, dict.fromkeys(texts, "all"))["copies"]
    assert copies["false_drops"]["share"] == copies["both_dropped"]["share"] == 1


def test_text_that_is_cut_beside_the_passage_is_noticed(composed: Composed) -> None:
    kept, dropped = perfect(composed[0])
    truth = truth_of(composed[0])
    cut = {
        n: re.sub(r".{30}\n\n", "", t) if "passage" in truth[n]["kind"] else t
        for n, t in kept.items()
    }
    assert scoring.everything(truth, cut, dropped)["passage"]["text_around_whole"]["share"] < 1


def test_a_line_is_found_and_a_curve_is_not_called_one() -> None:
    line = fit((size, 2 + 0.5 * size) for size in (100, 200, 400, 1000))
    assert line["slope"] == pytest.approx(0.5)
    assert line["intercept"] == pytest.approx(2)
    assert max(map(abs, line["residuals"])) < 1e-6
    curve = fit((size, size**1.5) for size in (100, 200, 400, 1000))
    assert curve["exponent"] == pytest.approx(1.5)
    assert max(map(abs, curve["residuals"])) > 0.1


def test_several_peers_that_run_one_after_the_other_cost_their_sum() -> None:
    def row(rate: float) -> dict[str, Any]:
        return row_summary([{"mb": 10.0, "wall_seconds": 10 / rate, "cpu_seconds": 10 / rate}])

    found = ratios(
        {
            "indexlm_without_passages": row(6.0),
            "datatrove_filters": row(1.0),
            "datatrove_minhash": row(2.0),
        }
    )
    (wall, cpu) = found.values()
    # 1 s a megabyte and 0.5 s make 2/3 MB/s.
    assert wall["ratio"] == cpu["ratio"] == pytest.approx(9)


ORPHAN = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        held = bytearray(b"a") * 100_000_000
        while time.process_time() < 0.5:
            pass
    os._exit(0)
"""


def metered(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the meter says of a program. It adopts processes, so it is given one of its own."""
    (folder / "program.py").write_text(code, encoding="utf-8")
    call = (
        "import json, sys, pathlib; from benchmarks.text import meter; p = pathlib.Path.cwd(); "
        "found = meter.run([sys.executable, 'program.py'], cwd=p, log=p / 'log', folder=p); "
        "print(json.dumps(found))"
    )
    return subprocess.run(
        [sys.executable, "-c", call],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_processes_whose_parent_has_gone_are_counted(tmp_path: Path) -> None:
    found = json.loads(metered(ORPHAN, tmp_path).stdout)
    assert found["cpu_seconds"] >= 0.5
    assert found["peak_anonymous_mb"] > 100


def test_a_command_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    done = metered("raise SystemExit('no such luck')", tmp_path)
    assert done.returncode != 0
    assert "no such luck" in done.stderr
    assert "program.py" in done.stderr
