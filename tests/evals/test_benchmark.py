"""A run over benchmarks: what it asks, what it keeps, and what one bad file leaves of the rest."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import benchmark_files
from evals.conftest import small_network
from indexlm.errors import UserError
from indexlm.evals import benchmark, kept
from indexlm.evals.benchmark import Outcome, Settings, run_benchmarks
from indexlm.evals.kept import Kept
from indexlm.evals.task import read_task
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def network(tokenizer: Tokenizer) -> Transformer:
    return small_network(tokenizer, context=700)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    return benchmark_files.hellaswag(benchmark_files.arc_easy(benchmark_files.mmlu(folder)))


class Place:
    """A model, its data and a folder for what is kept."""

    def __init__(self, network: Transformer, tokenizer: Tokenizer, data: Path, work: Path) -> None:
        self.network, self.tokenizer, self.data, self.work = network, tokenizer, data, work
        work.mkdir()

    def run(
        self, names: Sequence[str] = ("mmlu",), made_from: Any = "a model", **settings: Any
    ) -> Outcome:
        tasks = [(read_task(name), self.data) for name in names]
        pieces = Kept(self.work, made_from)
        return run_benchmarks(self.network, self.tokenizer, tasks, Settings(**settings), pieces)

    def pieces(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.work.glob("*.json")}


@pytest.fixture
def place(network: Transformer, tokenizer: Tokenizer, data: Path, tmp_path: Path) -> Place:
    return Place(network, tokenizer, data, tmp_path / "work")


def without_times(outcome: Outcome) -> Any:
    plain = json.loads(json.dumps(outcome.tasks))
    for task in plain.values():
        for prompt in task["prompts"].values():
            del prompt["seconds"]
    return plain, outcome.lines


# What is asked


def test_every_task_prompt_subject_and_item_is_there(place: Place) -> None:
    outcome = place.run(["mmlu", "arc_easy", "hellaswag"])
    assert outcome.failed == {}
    assert outcome.lines.keys() == {
        (task, prompt)
        for task in ("mmlu", "arc_easy", "hellaswag")
        for prompt in ("letters", "contents")
    }
    sizes = dict(zip(benchmark_files.SUBJECTS, (12, 13, 14, 15)))
    for prompt in ("letters", "contents"):
        found = outcome.tasks["mmlu"]["prompts"][prompt]
        assert {name: part["items"] for name, part in found["subjects"].items()} == sizes
        assert found["shots"] == 5 and found["harness"].startswith("lm-eval 0.4.13 mmlu")
        assert found["micro"]["items"] == 54 and found["macro"]["subjects"] == 4
        assert found["categories"]["stem"]["items"] == 25
        ids = [(line["subject"], line["id"]) for line in outcome.lines["mmlu", prompt]]
        assert len(set(ids)) == len(ids) == 54
        assert found["computed"] < found["naive"] / 3
    arc = outcome.tasks["arc_easy"]["prompts"]["letters"]
    # One item of 20 has three options.
    assert arc["micro"]["chance"] == pytest.approx((19 / 4 + 1 / 3) / 20)


def test_scores_are_those_of_the_lines(place: Place) -> None:
    outcome = place.run()
    for prompt, way in (("letters", "logprob"), ("contents", "per_character")):
        lines = outcome.lines["mmlu", prompt]
        right = sum(line["choices"][way] == line["answer"] for line in lines)
        score = outcome.tasks["mmlu"]["prompts"][prompt]["micro"]["scores"][way]
        assert score["accuracy"] == right / len(lines)
        for line in lines:
            told = line["logprobs"]
            if way == "per_character":
                told = [value / count for value, count in zip(told, line["characters"])]
            assert told[line["choices"][way]] == max(told)


def test_parts_of_a_subject_give_what_the_whole_gives(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = place.run()
    monkeypatch.setattr(benchmark, "PART_ITEMS", 5)
    parts = place.run()
    assert len(place.pieces()) == 2 * (4 + 3 + 3 + 3 + 3)
    for key, lines in whole.lines.items():
        for one, other in zip(lines, parts.lines[key], strict=True):
            assert other["choices"] == one["choices"] and other["place"] == one["place"]
            assert other["logprobs"] == pytest.approx(one["logprobs"], abs=1e-4)


def test_subjects_categories_prompts_shots_and_first_items_are_chosen(place: Place) -> None:
    outcome = place.run(
        ["mmlu", "arc_easy"],
        **{"subjects": ("stem", "arc_easy"), "prompts": ("letters",), "shots": 0, "limit": 4},
    )
    assert outcome.lines.keys() == {("mmlu", "letters"), ("arc_easy", "letters")}
    found = outcome.tasks["mmlu"]["prompts"]["letters"]
    assert {name: part["items"] for name, part in found["subjects"].items()} == {
        **{"anatomy": 4, "astronomy": 4}
    }
    assert found["shots"] == 0
    whole = place.run(shots=0).lines["mmlu", "letters"]
    wanted = [line for line in whole if line["subject"] in found["subjects"]]
    wanted = [line for line in wanted if int(line["id"]) < 4]
    for one, other in zip(outcome.lines["mmlu", "letters"], wanted, strict=True):
        assert one["prompt_sha256"] == other["prompt_sha256"]
        assert one["logprobs"] == pytest.approx(other["logprobs"], abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"subjects": ("anatomi",)}, "mmlu has no subject 'anatomi'; did you mean 'anatomy'"),
        ({"subjects": ("law",)}, "mmlu has no subject 'law'"),
        ({"prompts": ("cloze",)}, "mmlu has no prompt 'cloze'; it has letters, contents"),
        ({"prompts": ("letters", "cloze")}, "none of the tasks has a prompt 'cloze'"),
        ({"subjects": ("virology",)}, "no file of the subject 'virology'"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_scored(
    place: Place, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        place.run(**settings)
    assert place.pieces() == {}


# What is kept


def test_a_finished_part_is_not_done_again(place: Place) -> None:
    first = place.run()
    pieces = place.pieces()
    assert len(pieces) == 8
    assert without_times(place.run()) == without_times(first)
    assert place.pieces() == pieces
    # Fewer subjects and other batches are parts of the same.
    place.run(subjects=("anatomy",), prompts=("letters",), batch_tokens=256)
    assert place.pieces() == pieces


@pytest.mark.parametrize(
    "changes",
    [
        {"made_from": "another model"},
        {"start": "end-mark"},
        {"overflow": "cut"},
        {"shots": 2},
        {"limit": 3},
    ],
    ids=str,
)
def test_what_would_give_other_answers_is_done(place: Place, changes: dict[str, Any]) -> None:
    place.run()
    pieces = place.pieces()
    place.run(**changes)
    assert len(place.pieces()) == 2 * len(pieces)


def test_parts_of_other_code_are_made_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run()
    pieces = place.pieces()
    place.run()
    assert place.pieces() == pieces
    monkeypatch.setattr(kept, "code_fingerprint", lambda: "a file of the package was changed")
    place.run()
    assert len(place.pieces()) == 2 * len(pieces)


def test_only_what_is_lost_or_changed_is_done_again(place: Place) -> None:
    first = place.run()
    pieces = place.pieces()
    lost = sorted(pieces)[:3]
    for name in lost:
        (place.work / name).unlink()
    assert without_times(place.run()) == without_times(first)
    assert {n for n, at in place.pieces().items() if pieces[n] != at} == set(lost)
    # Another example: both prompts of this subject.
    path = place.data / "mmlu/dev/anatomy_dev.csv"
    path.write_text("river?,a,b,c,d,A\n" * 5, encoding="utf-8")
    place.run()
    assert len(place.pieces()) == len(pieces) + 2


def test_what_a_kill_leaves_half_written_is_no_part(place: Place) -> None:
    first = place.run()
    name = sorted(place.pieces())[0]
    text = (place.work / name).read_bytes()
    (place.work / name).unlink()
    (place.work / f".{name}.partial").write_bytes(text[: len(text) // 2])
    assert without_times(place.run()) == without_times(first)


# What is wrong

WRONG = {
    "letter": ("river,a,b,c,d,E", "anatomy_test.csv:13: the answer 'E'"),
    "columns": ("river,a,b,A", "anatomy_test.csv:13"),
    "option": ("river,a,,c,d,A", "anatomy_test.csv:13: option B is empty"),
    "long": (f"{'evening ' * 900},a,b,c,d,A", "anatomy_test.csv:13: a prompt of"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_one_bad_file_leaves_the_others_scored_and_kept(place: Place, kind: str) -> None:
    whole = place.run()
    for name in place.pieces():
        (place.work / name).unlink()
    path = place.data / "mmlu/test/anatomy_test.csv"
    good = path.read_text(encoding="utf-8")
    row, words = WRONG[kind]
    path.write_text(f"{good}{row}\n", encoding="utf-8")
    outcome = place.run()
    assert outcome.failed.keys() == {"mmlu/anatomy"}
    assert words in outcome.failed["mmlu/anatomy"]
    others = outcome.tasks["mmlu"]["prompts"]["letters"]
    assert others["subjects"].keys() == {"astronomy", "marketing", "philosophy"}
    assert others["micro"]["items"] == 42
    pieces = place.pieces()
    path.write_text(good, encoding="utf-8")
    assert without_times(place.run()) == without_times(whole)
    # Only the mended subject is done.
    done = {name for name, at in place.pieces().items() if pieces.get(name) != at}
    assert len(done) == 2


def test_nothing_is_left_of_a_task_whose_every_subject_is_wrong(place: Place) -> None:
    for subject in benchmark_files.SUBJECTS:
        (place.data / f"mmlu/test/{subject}_test.csv").write_bytes(b"\xff\xfe")
    outcome = place.run(["mmlu", "arc_easy"])
    assert len(outcome.failed) == 4 and outcome.tasks.keys() == {"arc_easy"}


def test_too_few_examples_are_said_of_their_subject(place: Place) -> None:
    path = place.data / "mmlu/dev/marketing_dev.csv"
    path.write_text("river?,a,b,c,d,A\n" * 3, encoding="utf-8")
    outcome = place.run()
    assert outcome.failed.keys() == {"mmlu/marketing"}
    assert "marketing_dev.csv has 3" in outcome.failed["mmlu/marketing"]


def test_text_that_is_no_text_is_said_with_its_line(place: Place) -> None:
    path = place.data / "arc/ARC-Easy-Test.jsonl"
    first, *others = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([first, others[0].replace("?", "\\ud83d?", 1), *others[1:]]))
    outcome = place.run(["arc_easy", "mmlu"])
    assert outcome.failed.keys() == {"arc_easy/arc_easy"}
    assert "ARC-Easy-Test.jsonl:2" in outcome.failed["arc_easy/arc_easy"]
    assert outcome.tasks.keys() == {"mmlu"}


@pytest.mark.parametrize("overflow", ["cut", "fewer"])
def test_prompts_longer_than_the_window_are_counted(
    place: Place, tokenizer: Tokenizer, overflow: str
) -> None:
    config = place.network.config.model_copy(update={"context": 200})
    place.network = Transformer(config)
    place.network.initialise(5)
    assert len(place.run(prompts=("letters",)).failed) == 4
    found = place.run(prompts=("letters",), overflow=overflow).tasks["mmlu"]["prompts"]["letters"]
    assert 0 < found["cut"] <= 54
    # lm-eval cuts; it never asks with fewer.
    assert bool(found["harness"]) == (overflow == "cut")
