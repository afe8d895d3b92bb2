"""Items are paired or refused, rows count what they say, and luck is not called a difference."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexlm.errors import DamagedError, UserError
from indexlm.evals.compare import compare, comparison_table, read_results
from indexlm.evals.significance import mcnemar
from indexlm.records import publish, write_json

Line = dict[str, Any]


def item(number: int, scores: Sequence[float], answer: int = 0, **changes: Any) -> Line:
    """A line as a benchmark leaves it, in the letters style."""
    return {
        "subject": "anatomy",
        "id": str(number),
        "place": f"test/anatomy_test.csv:{number + 1}",
        "prompt_sha256": f"{number:064x}",
        "answer": answer,
        "logprobs": list(scores),
        "tokens": [1] * len(scores),
        "characters": [1] * len(scores),
        "unconditional": None,
        "choices": {"logprob": int(np.argmax(scores))},
        **changes,
    }


def document(name: str, number: int, bits: float, size: int = 100) -> Line:
    about = {"subject": name, "id": str(number), "text_sha256": f"{name}{number}"}
    return about | {"bits": bits, "bytes": size, "tokens": 30}


def saved(folder: Path, items: dict[str, Sequence[Line]], **changes: Any) -> Path:
    model = {"name": folder.name, "fingerprint": "0123456789", "vocab_size": 640}
    settings = {"limit": None, "start": "none", "overflow": "refuse"}
    content = {"format": 1, "model": model, "settings": settings, "tasks": {}, **changes}
    with publish(folder, "test") as partial:
        write_json(partial / "results.json", content)
        (partial / "items").mkdir()
        for stem, lines in items.items():
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (partial / "items" / f"{stem}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Compare two sets of lines by way of their folders."""

    def run(a: dict[str, Sequence[Line]], b: dict[str, Sequence[Line]], **how: Any) -> Any:
        one, other = saved(tmp_path / "one", a), saved(tmp_path / "other", b)
        return compare(read_results(one), read_results(other), **how)

    return run


RIGHT, WRONG = [-1.0, -2.0, -3.0, -4.0], [-2.5, -2.0, -3.0, -4.0]


def test_a_row_counts_the_same_items(compared: Callable[..., dict[str, Any]]) -> None:
    """Of twenty, both have 4, A alone 3, B alone 9; in files of another order."""
    ours = [RIGHT] * 7 + [WRONG] * 13
    theirs = [RIGHT] * 4 + [WRONG] * 3 + [RIGHT] * 9 + [WRONG] * 4
    a = [item(number, scores) for number, scores in enumerate(ours)]
    b = [item(number, scores) for number, scores in enumerate(theirs)][::-1]
    found = compared({"mmlu.letters": a}, {"mmlu.letters": b})
    (row,) = found["rows"]
    assert (row["task"], row["prompt"], row["way"]) == ("mmlu", "letters", "logprob")
    assert [row[c] for c in ("items", "both", "only_a", "only_b", "neither")] == [20, 4, 3, 9, 4]
    accuracy, margin = row["accuracy"], row["margin"]
    assert (accuracy["a"], accuracy["b"]) == (7 / 20, 13 / 20)
    assert accuracy["difference"] == pytest.approx(0.3)
    assert accuracy["interval"][0] < 0.3 < accuracy["interval"][1]
    assert accuracy["p"] == accuracy["p_holm"] == mcnemar(3, 9)
    # A right item has a margin of 1, a wrong one of -0.5.
    assert margin["a"] == pytest.approx((7 - 13 / 2) / 20)
    assert margin["difference"] == pytest.approx(6 * 1.5 / 20)


def test_every_way_has_its_own_choice_and_margin(compared: Callable[..., dict[str, Any]]) -> None:
    ways = {"logprob": 1, "per_token": 0, "per_character": 1, "unconditional": 0}
    about = {
        "tokens": [4, 1],
        "characters": [2, 8],
        "unconditional": [-6.0, -1.0],
        "choices": ways,
    }
    lines = [item(number, [-3.0, -2.0], **about) for number in range(3)]
    found = compared({"arc_easy.contents": lines}, {"arc_easy.contents": lines})
    right = {row["way"]: row["accuracy"]["a"] for row in found["rows"]}
    assert right == {"logprob": 0, "per_token": 1, "per_character": 0, "unconditional": 1}
    margins = {row["way"]: row["margin"]["a"] for row in found["rows"]}
    assert margins == pytest.approx(
        {"logprob": -1, "per_token": 1.25, "per_character": -1.25, "unconditional": 4}
    )
    chosen = compared({"arc_easy.contents": lines}, {"arc_easy.contents": lines}, ways=["logprob"])
    assert [row["way"] for row in chosen["rows"]] == ["logprob"]


def test_scores_of_other_tests_are_compared_too(compared: Callable[..., dict[str, Any]]) -> None:
    """Of the starter test, where a tie is no right answer, and of safety, where one of the ways
    only says what was chosen."""
    scores = {"per_token": [1.0, 0.5], "pmi": [2.0, 2.0]}
    about = {"id": "1", "subject": "idiom", "prompt_sha256": "f", "answer": 0}
    starter = [{**about, "scores": scores, "choices": {"per_token": 0, "pmi": None}}]
    safety = [
        {**about, "scores": {"likelihood": [-2, -1]}, "choices": {"likelihood": 1, "generation": 0}}
    ]
    folder = {"starter": starter, "safety.safe": safety}
    rows = {(row["task"], row["way"]): row for row in compared(folder, folder)["rows"]}
    right = {key: row["accuracy"]["a"] for key, row in rows.items()}
    margins = {key: row["margin"] and row["margin"]["a"] for key, row in rows.items()}
    assert right == {
        ("starter", "per_token"): 1,
        ("starter", "pmi"): 0,
        ("safety", "likelihood"): 0,
        ("safety", "generation"): 1,
    }
    assert margins["starter", "per_token"] == 0.5 and margins["starter", "pmi"] == 0
    assert margins["safety", "likelihood"] == -1 and margins["safety", "generation"] is None


def test_a_model_against_itself_is_no_better(compared: Callable[..., dict[str, Any]]) -> None:
    lines = [item(number, RIGHT if number % 3 else WRONG) for number in range(30)]
    text = [document("zh_curated", number, 100 + number) for number in range(5)]
    folder = {"mmlu.letters": lines, "bits_per_byte": text}
    found = compared(folder, folder)
    for measure in (found["rows"][0]["accuracy"], found["rows"][0]["margin"], *found["text"]):
        assert measure["difference"] == 0
        assert measure["p"] == measure["p_holm"] == 1
    assert found["notes"] == [] and found["left_out"] == {}
    assert "*" not in comparison_table(found).replace("* below", "")


def test_luck_is_not_starred_and_a_better_model_is(
    compared: Callable[..., dict[str, Any]],
) -> None:
    rng = np.random.default_rng(4)
    a = [item(number, rng.normal(size=4)) for number in range(400)]
    luck = [item(number, rng.normal(size=4)) for number in range(400)]
    better = [
        item(number, np.add(line["logprobs"], [0.7, 0, 0, 0])) for number, line in enumerate(a)
    ]
    table = comparison_table(compared({"mmlu.letters": a}, {"mmlu.letters": luck}))
    assert "*" not in table.replace("* below", "")
    found = compared({"mmlu.letters": a}, {"mmlu.letters": better})
    assert found["rows"][0]["accuracy"]["p_holm"] < 0.001
    assert found["rows"][0]["margin"]["interval"][0] > 0.4
    lines = [line for line in comparison_table(found).splitlines() if "mmlu letters" in line]
    assert len(lines) == 2 and all("<0.0001*" in line for line in lines)


def test_p_values_are_corrected_over_the_rows_shown(
    compared: Callable[..., dict[str, Any]],
) -> None:
    """Twelve items that B alone has right: alone p = 0.0005, among three tests 0.0015."""
    a = [item(n, WRONG) for n in range(12)] + [item(n, RIGHT) for n in range(12, 20)]
    b = [item(n, RIGHT) for n in range(20)]
    ours = {"mmlu.letters": a, "ceval.letters": b, "cmmlu.letters": b}
    theirs = {"mmlu.letters": b, "ceval.letters": b, "cmmlu.letters": b}
    rows = {row["task"]: row for row in compared(ours, theirs)["rows"]}
    assert rows["mmlu"]["accuracy"]["p"] == pytest.approx(2 / 2**12)
    assert rows["mmlu"]["accuracy"]["p_holm"] == pytest.approx(6 / 2**12)
    (row,) = compared(ours, theirs, tasks=["mmlu"])["rows"]
    assert row["accuracy"]["p_holm"] == pytest.approx(2 / 2**12)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"prompt_sha256": "f" * 64}, "was asked with another text"),
        ({"answer": 2}, "has the answer 0 in A and 2 in B"),
        ({"id": "other"}, "is only in .*one"),
    ],
)
def test_items_that_differ_are_refused_by_name_or_left_out(
    compared: Callable[..., dict[str, Any]], changed: Line, told: str
) -> None:
    a = [item(number, RIGHT) for number in range(6)]
    b = [item(number, WRONG, **(changed if number == 4 else {})) for number in range(6)]
    where = r"mmlu.letters: item 4 of anatomy \(test/anatomy_test.csv:5\) "
    with pytest.raises(UserError, match=f"{where}{told}.*the 5 items that are the same.*--common"):
        compared({"mmlu.letters": a}, {"mmlu.letters": b})
    found = compared({"mmlu.letters": a}, {"mmlu.letters": b}, common=True)
    assert found["rows"][0]["items"] == 5
    assert found["left_out"] == {"mmlu.letters": 2 if "id" in changed else 1}
    assert "items not in both" in comparison_table(found)


def test_more_items_of_one_model_are_not_passed_over(
    compared: Callable[..., dict[str, Any]],
) -> None:
    a, b = ([item(number, RIGHT) for number in range(count)] for count in (3, 5))
    with pytest.raises(UserError, match=r"item 3 of anatomy .* is only in .*other"):
        compared({"mmlu.letters": a}, {"mmlu.letters": b})
    other = [item(number, RIGHT, prompt_sha256="x") for number in range(3)]
    with pytest.raises(UserError, match="no item in common"):
        compared({"mmlu.letters": a}, {"mmlu.letters": other}, common=True)


def test_text_is_compared_by_document(compared: Callable[..., dict[str, Any]]) -> None:
    """B saves a tenth of a bit per byte on each document, which differ among themselves by far
    more; on the other language it changes nothing."""
    rng = np.random.default_rng(5)
    bits_N = rng.normal(200, 40, 30)
    a = [document("zh_curated", number, bits) for number, bits in enumerate(bits_N)]
    b = [
        document("zh_curated", number, bits - 10 + rng.normal())
        for number, bits in enumerate(bits_N)
    ]
    english = [document("en_noisy", number, 150 + number) for number in range(9)]
    found = compared({"bits_per_byte": [*a, *english]}, {"bits_per_byte": [*b, *english]})
    rows = {row["name"]: row for row in found["text"]}
    assert set(rows) == {"zh", "zh_curated", "en", "en_noisy"}
    assert rows["zh"]["difference"] == pytest.approx(-0.1, abs=0.005)
    assert rows["zh"]["interval"][1] < -0.09 and rows["zh"]["p_holm"] < 1e-6
    assert (rows["en"]["difference"], rows["en"]["p"]) == (0, 1)
    assert rows["zh"]["a"] == pytest.approx(bits_N.sum() / 3000)
    assert found["rows"] == []
    assert "bits per byte, lower is better" in comparison_table(found)


def test_what_cannot_be_compared_is_told(compared: Callable[..., dict[str, Any]]) -> None:
    lines = [item(number, RIGHT) for number in range(3)]
    with pytest.raises(UserError, match="no task in common: mmlu and ceval"):
        compared({"mmlu.letters": lines}, {"ceval.letters": lines})
    both = {"mmlu.letters": lines}
    with pytest.raises(UserError, match="no task 'arc' in both; there is mmlu"):
        compared(both, both, tasks=["arc"])
    with pytest.raises(UserError, match="no way per_token in both"):
        compared(both, both, ways=["per_token"])
    found = compared({**both, "ceval.letters": lines}, both)
    assert found["notes"][0] == "only in A: ceval.letters"
    assert len(found["notes"]) == 1
    one_has = compared({**both, "bits_per_byte": [document("en", 1, 80.0)]}, both)
    assert "no bits per byte" in one_has["notes"][-1]


def test_cut_prompts_and_other_vocabularies_are_told(tmp_path: Path) -> None:
    items = {"mmlu.letters": [item(number, RIGHT) for number in range(3)]}
    tasks = {"mmlu": {"prompts": {"letters": {"cut": 2}}}}
    model = {"name": "other", "fingerprint": "0123456789", "vocab_size": 1000}
    a, b = saved(tmp_path / "a", items), saved(tmp_path / "b", items, tasks=tasks, model=model)
    notes = compare(read_results(a), read_results(b))["notes"]
    assert "mmlu.letters: 2 prompts did not fit in the window of B" in notes
    assert any("vocabularies differ" in note for note in notes)


def test_folders_are_trusted_only_whole(tmp_path: Path) -> None:
    items = {"mmlu.letters": [item(number, RIGHT) for number in range(3)]}
    with pytest.raises(UserError, match=r"holds no results.json; make it with `indexlm eval"):
        read_results(tmp_path / "nothing")
    old = saved(tmp_path / "old", items, format=None)
    with pytest.raises(UserError, match="is of format None, this version reads format 1"):
        read_results(old)
    folder = saved(tmp_path / "changed", items)
    path = folder / "items" / "mmlu.letters.jsonl"
    path.write_text(path.read_text().replace('"answer": 0', '"answer": 1', 1))
    with pytest.raises(DamagedError, match="was changed after it was written"):
        read_results(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="has no manifest"):
        read_results(folder)


def test_the_table_shows_both_models(compared: Callable[..., dict[str, Any]]) -> None:
    a = [item(number, RIGHT if number < 8 else WRONG) for number in range(20)]
    b = [item(number, RIGHT if number < 11 else WRONG) for number in range(20)]
    table = comparison_table(compared({"mmlu.letters": a}, {"mmlu.letters": b}))
    lines = table.splitlines()
    assert lines[:2] == ["A: one (01234567)", "B: other (01234567)"]
    head = next(line for line in lines if line.startswith("accuracy"))
    row = next(line for line in lines if line.startswith("  mmlu letters logprob"))
    assert row.split()[3:7] == ["20", "40.0", "55.0", "+15.0"]
    # Three items that B alone has right: p = 2 / 8.
    assert row.split()[-6:] == ["0.2500", "0.2500", "8", "0", "3", "9"]
    for name, value in (("both", "8"), ("only B", "3"), ("neither", "9")):
        end = head.index(name) + len(name)
        assert row[:end].endswith(value)


def test_a_changed_setting_is_no_better_model(tmp_path: Path) -> None:
    lines = {"mmlu.letters": [item(n, [-1.0, -2.0]) for n in range(4)]}
    one = read_results(saved(tmp_path / "one", lines))
    asked = {"limit": None, "start": "end-mark", "overflow": "refuse"}
    other = read_results(saved(tmp_path / "other", lines, settings=asked))
    with pytest.raises(UserError, match=r"--start none.*--start end-mark"):
        compare(one, other)
    cut = read_results(
        saved(tmp_path / "cut", lines, settings={**asked, "start": "none"} | {"overflow": "cut"})
    )
    assert any(
        "--overflow refuse for A and cut for B" in note for note in compare(one, cut)["notes"]
    )
