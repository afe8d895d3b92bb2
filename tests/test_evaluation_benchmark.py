"""The comparison with lm-eval: it sees what differs, and its page tells what was measured."""

import copy
import csv
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.evals import controls, harness, models, official, ours
from benchmarks.evals.compare import KINDS, agrees, compare
from benchmarks.evals.points import POINTS
from benchmarks.evals.summary import ratio, row_summary, tables

from indexlm.evals.items import read_subjects
from indexlm.evals.prompts import ask
from indexlm.evals.task import read_task
from indexlm.export import forms
from indexlm.model.config import ModelConfig

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SIX = ("mmlu", "ceval", "cmmlu", "arc_easy", "arc_challenge", "hellaswag")

Item = dict[str, Any]


def committed(point: str) -> Any:
    return json.loads((RESULTS / "evals_parity" / f"{point}.json").read_text(encoding="utf-8"))


# What is committed


def test_the_page_ends_with_the_tables_of_the_results() -> None:
    page = (ROOT / "docs" / "evaluation_benchmark.md").read_text(encoding="utf-8")
    assert page.endswith("\n\n" + tables(RESULTS) + "\n")


@pytest.mark.parametrize("point", POINTS)
def test_every_item_was_answered_as_lm_eval_answers_it(point: str) -> None:
    found = committed(point)
    assert found["agrees"]
    assert not any(found["mismatches"].values())
    assert found["prompts_sha256"]["ours"] == found["prompts_sha256"]["lm_eval"]
    assert all(found["caught"].values())
    # What is left over is lm-eval's sum in float32, of which hardly an item is long enough to show.
    largest = found.get("largest_difference_with_exact_sums", found["largest_difference"])
    assert largest <= 1e-4
    assert found["as_lm_eval_sums"] <= found["items"] / 100


@pytest.mark.parametrize("point", SIX)
def test_all_items_of_the_files_were_asked_or_the_first_of_every_subject(point: str) -> None:
    found = committed(point)
    whole = found["limit"] is None
    assert whole or found["items"] >= 0.9 * found["limit"] * found["subjects"] >= 700
    told = (ROOT / "docs" / "evaluation_benchmark.md").read_text(encoding="utf-8")
    (row,) = [
        line
        for line in told.splitlines()
        if line.startswith(f"| {point} | {found['harness'].split()[-1]}")
    ]
    assert (f"(first {found['limit']} a subject)" in row) == (not whole)


def test_the_prompts_are_those_of_the_tasks_as_they_are_now() -> None:
    for name, point in POINTS.items():
        assert (
            committed(name)["harness"] == read_task(point.benchmark).prompts[point.prompt].harness
        )


def test_the_speed_that_is_asked_for_was_measured() -> None:
    points = json.loads((RESULTS / "evals.json").read_text(encoding="utf-8"))["points"]
    assert points["mmlu"]["ratios"]["indexlm"]["items_per_second"] >= 6
    assert points["hellaswag"]["ratios"]["indexlm"]["items_per_second"] >= 2


# The comparison


def said(number: int) -> Item:
    return {
        "subject": "rivers",
        "number": number,
        "context": f"Which river is number {number}?\nAnswer:",
        "continuations": [" A", " B"],
        "answer": 1,
        "logprobs": [-2.0 - number, -1.5],
        "choices": {"acc": 1, "acc_norm": 1},
    }


def test_equal_accounts_agree() -> None:
    both = [said(number) for number in range(3)]
    found = compare(both, copy.deepcopy(both))
    assert agrees(found)
    assert found["largest_difference"] == 0
    assert found["prompts_sha256"]["ours"] == found["prompts_sha256"]["lm_eval"]
    assert found["accuracy"]["acc"] == {"ours": 1.0, "lm_eval": 1.0}


CHANGES: dict[str, Callable[[Item], None]] = {
    "contexts": lambda item: item.update(context=item["context"].replace("\n", " ")),
    "continuations": lambda item: item.update(continuations=["A", " B"]),
    "answers": lambda item: item.update(answer=0),
    "logprobs": lambda item: item.update(logprobs=[item["logprobs"][0] + 1.1e-4, -1.5]),
    "choices": lambda item: item["choices"].update(acc_norm=0),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_one_change_of_one_item_is_seen_as_what_it_is(kind: str) -> None:
    both = [said(number) for number in range(3)]
    changed = copy.deepcopy(both)
    CHANGES[kind](changed[1])
    found = compare(changed, both)
    assert not agrees(found)
    assert found["mismatches"] == dict.fromkeys(KINDS, 0) | {kind: 1}
    assert found["cases"][kind][0]["item"] == "rivers/1"


def test_a_log_likelihood_that_is_no_number_agrees_with_none() -> None:
    both, broken = [said(0)], [said(0)]
    broken[0]["logprobs"] = [float("nan"), -1.5]
    assert compare(broken, both)["mismatches"]["logprobs"] == 1


def test_items_of_one_side_alone_and_no_items_at_all_do_not_agree() -> None:
    both = [said(number) for number in range(3)]
    assert compare(both[:2], both)["mismatches"]["items"] == 1
    assert not agrees(compare([], []))


# lm-eval's side


def sample(acc: float) -> Item:
    return {
        "doc_id": 0,
        "arguments": [("Q:", " one"), ("Q:", " twelve")],
        "filtered_resps": [(-4.0, False), (-5.0, False)],
        "target": 0,
        "acc": acc,
        "acc_norm": 0.0,
    }


def test_what_lm_eval_chose_is_found_by_its_own_rule() -> None:
    (row,) = harness._rows({"task": [sample(1.0)]}, {"task": "numbers"})
    # -4 / 3 is less than -5 / 6.
    assert row["choices"] == {"acc": 0, "acc_norm": 1}
    assert row["subject"] == "numbers"


def test_a_choice_that_does_not_make_lm_evals_score_is_refused() -> None:
    with pytest.raises(AssertionError, match="acc"):
        list(harness._rows({"task": [sample(0.0)]}, {"task": "numbers"}))


# The official files


def test_official_files_become_the_fields_of_the_hub(tmp_path: Path) -> None:
    write_mmlu(tmp_path, 2)
    arc = {"stem": "Why, is that?", "choices": [{"text": "So.", "label": "1"}]}
    line = json.dumps({"id": "x", "question": arc, "answerKey": "1"})
    (tmp_path / "arc").mkdir()
    (tmp_path / "arc" / "ARC-Easy-Test.jsonl").write_text(line + "\n", encoding="utf-8")
    assert official.subjects_of("mmlu", tmp_path) == ["astronomy"]
    first = official.items_of("mmlu", tmp_path, "astronomy", "test")[0]
    assert list(first) == ["question", "choices", "answer"]
    assert (len(first["choices"]), first["answer"]) == (4, 0)
    (item,) = official.items_of("arc_easy", tmp_path, "arc_easy", "test")
    assert item["choices"] == {"text": ["So."], "label": ["1"]}


def test_halves_of_a_context_are_what_it_was_made_of(tmp_path: Path) -> None:
    whole = {"activity_label": "x", "endings": ["a", "b", "c", "d"], "label": 0}
    contexts = ["One. Two. then three", "One sentence only"]
    folder = tmp_path / "data" / "hellaswag"
    folder.mkdir(parents=True)
    lines = [json.dumps(whole | {"ctx": context}) + "\n" for context in contexts]
    (folder / "hellaswag_val.jsonl").write_text("".join(lines), encoding="utf-8")
    assert official.write_halves(tmp_path / "data", tmp_path / "halves")
    found = official.items_of("hellaswag", tmp_path / "halves", "hellaswag", "validation")
    assert [f"{item['ctx_a']} {item['ctx_b']}".strip() for item in found] == contexts
    assert found[0]["ctx_b"] == "then three"
    assert not official.write_halves(tmp_path / "halves", tmp_path / "again")


# Faults


@dataclass(frozen=True)
class Small:
    data: Path
    model: Path


def write_mmlu(data: Path, count: int) -> None:
    generator = random.Random(0)
    words = [
        f"{a}{b}" for a in ("mar", "tel", "so", "ben", "li") for b in ("ra", "no", "dis", "ke")
    ]
    for split, rows in (("test", count), ("dev", 5)):
        (data / "mmlu" / split).mkdir(parents=True)
        path = data / "mmlu" / split / f"astronomy_{split}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            for number in range(rows):
                drawn = generator.sample(words, 10)
                question = " ".join(drawn[:6]) + ", where is it?"
                csv.writer(file).writerow([question, *drawn[6:], "ABCD"[number % 4]])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    data = tmp_path_factory.mktemp("data")
    write_mmlu(data, 6)
    shape = ModelConfig(
        vocab_size=600, hidden=32, layers=2, heads=2, kv_heads=1, ffn=64, context=1024, init_std=0.3
    )
    text = {"en": [path.read_text(encoding="utf-8") for path in data.rglob("*.csv")] * 5}
    return Small(data, models.make(data / "made", shape, text).published)


def test_every_fault_that_is_made_is_seen_and_none_where_none_is(small: Small) -> None:
    point = POINTS["mmlu"]
    model, tokenizer = forms.open_folder(small.model)
    task = read_task(point.benchmark)
    (subject,) = read_subjects(task, small.data)
    asked = ask(task, task.prompts[point.prompt], subject)
    right = ours.asked_anew(point, model, tokenizer, subject, asked)
    found = controls.run(point, small.model, small.data, right)
    for kind in KINDS[1:]:
        assert found["none"][kind] == 0
    assert found.keys() == {"none", controls.FLOAT32_ANGLES, *controls.FAULTS} - {
        "second half in lower case"
    }
    for fault in found.keys() & controls.FAULTS.keys():
        assert sum(found[fault][kind] for kind in KINDS[1:]) > 0, fault


# Speed


def test_ratios_are_of_medians_and_of_rounds_that_stood_side_by_side() -> None:
    def rows(seconds: list[float]) -> dict[str, Any]:
        one = {"items": 12, "positions": 24, "process_seconds": 20.0}
        return row_summary([one | {"scoring_seconds": value} for value in seconds])

    found = ratio(rows([1.0, 2.0, 3.0]), rows([8.0, 8.0, 12.0]))
    assert found["items_per_second"] == pytest.approx(4)
    assert found["rounds"] == [pytest.approx(4), pytest.approx(8)]
    assert found["process_seconds"] == found["positions"] == 1
