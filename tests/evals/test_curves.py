"""A point of a curve: the same part of everything each time, whoever computes it."""

import copy
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import benchmark_files
from command import PATIENCE, write_model
from indexlm.errors import UserError
from indexlm.evals import curves
from indexlm.evals.benchmark import Settings, run_benchmarks
from indexlm.evals.choice import Overflow
from indexlm.evals.curves import Curve, Questions, read_questions
from indexlm.evals.kept import Kept
from indexlm.evals.runner import evaluate
from indexlm.evals.starter import STYLES, HeldOutEntry
from indexlm.evals.task import read_task
from indexlm.export import forms
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

ENTRIES: list[HeldOutEntry] = [
    {"id": f"idiom/{n}", "kind": "idiom", "word": f"甲乙丙{sign}", "explanation": text}
    for n, (sign, text) in enumerate(
        zip(
            "子丑寅卯辰巳午未",
            (
                *("形容山路很远。", "比喻人有耐心。", "春天的柳树。", "河边的小草。"),
                *("孩子看青山。", "老人读书声。", "鸟鸣水清澈。", "待人有礼貌。"),
            ),
        )
    )
]
TASKS = ("mmlu", "arc_easy", "hellaswag")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return benchmark_files.hellaswag(benchmark_files.arc_easy(benchmark_files.mmlu(folder)))


def questions_of(
    data: Path,
    tokenizer: Tokenizer,
    tasks: tuple[str, ...] = TASKS,
    *,
    context: int = 700,
    limit: int = 10,
    overflow: Overflow = "cut",
) -> list[Questions]:
    placed = [(read_task(name), data) for name in tasks]
    return read_questions(placed, tokenizer, context, limit, overflow)


@pytest.fixture
def wide(model: Transformer) -> Transformer:
    """The model with a window in which every prompt fits."""
    network = Transformer(model.config.model_copy(update={"context": 700}))
    network.load_state_dict(model.state_dict())
    return network


# What it is made of


def test_the_curve_takes_the_same_part_each_time(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # All of the text is less than what a point takes.
    all_of_it = Curve(tokenizer, texts, ENTRIES, 4, 1).point(model).scores
    monkeypatch.setattr(curves, "CURVE_BYTES", 150)
    part = Curve(tokenizer, texts, ENTRIES, 4, 1)
    first = part.point(model).scores
    assert part.point(model).scores == first
    assert Curve(tokenizer, texts, ENTRIES, 4, 1).point(model).scores == first
    assert set(first) == {
        "bits_per_byte/zh",
        "bits_per_byte/en",
        *(f"starter/idiom/{s}/{m}" for s in STYLES for m in ("accuracy", "margin")),
    }
    whole = evaluate(model, tokenizer, texts, ENTRIES, 4, seed=1)
    assert all_of_it["bits_per_byte/zh"] == pytest.approx(whole["bits_per_byte"]["zh"]["value"])
    assert first["bits_per_byte/zh"] != all_of_it["bits_per_byte/zh"]
    for style in STYLES:
        key = f"starter/idiom/{style}/margin"
        assert first[key] == pytest.approx(whole["starter"]["idiom"][style]["margin"])


def test_benchmarks_of_a_point_are_those_of_an_evaluation(
    wide: Transformer, tokenizer: Tokenizer, data: Path, tmp_path: Path
) -> None:
    asked = questions_of(data, tokenizer, ("arc_easy", "hellaswag"), limit=8)
    point = Curve(tokenizer, {}, [], 4, 1, asked).point(wide)
    tasks = [(read_task(name), data) for name in ("arc_easy", "hellaswag")]
    (tmp_path / "work").mkdir()
    whole = run_benchmarks(wide, tokenizer, tasks, Settings(limit=8), Kept(tmp_path / "work", ""))
    for task, prompt in whole.lines:
        part = whole.tasks[task]["prompts"][prompt]["micro"]
        assert point.scores[f"{task}/{prompt}/items"] == part["items"] == 8
        assert point.scores[f"{task}/{prompt}/chance"] == part["chance"]
        for way, score in part["scores"].items():
            for measure in ("accuracy", "standard_error", "margin", "probability"):
                key = f"{task}/{prompt}/{way}/{measure}"
                assert point.scores[key] == pytest.approx(score[measure], abs=1e-4), key
            marks = point.items[f"{task}/{prompt}/{way}"]
            assert marks.right.mean() == point.scores[f"{task}/{prompt}/{way}/accuracy"]
            assert len(marks.margin) == 8


def test_every_subject_gives_as_many_items_as_there_are(data: Path, tokenizer: Tokenizer) -> None:
    def counts(limit: int) -> list[int]:
        asked = questions_of(data, tokenizer, ("mmlu",), limit=limit)[0]
        return [asked.subjects.count(name) for name in benchmark_files.SUBJECTS]

    # There are 12, 13, 14 and 15.
    assert counts(4) == [1, 1, 1, 1]
    assert counts(10) == [3, 3, 2, 2]
    # In the order of the task's file, not of their names.
    assert counts(3) == [1, 1, 0, 1]
    assert counts(53) == [12, 13, 14, 14]
    assert counts(1000) == [12, 13, 14, 15]


def test_set_ups_of_the_report_are_left_out(data: Path, tokenizer: Tokenizer) -> None:
    asked = questions_of(data, tokenizer)
    assert {each.prompt for each in asked} == {"letters", "contents"}


def test_long_prompts_are_cut_or_asked_with_fewer_examples(
    data: Path, tokenizer: Tokenizer
) -> None:
    whole = {e.name: e for e in questions_of(data, tokenizer, ("mmlu",))}
    for overflow in ("cut", "fewer"):
        some: Overflow = "cut" if overflow == "cut" else "fewer"
        asked = questions_of(data, tokenizer, ("mmlu",), context=150, overflow=some)
        for each in asked:
            assert any(item.cut for item in each.encoded)
            for item, uncut in zip(each.encoded, whole[each.name].encoded):
                assert max(len(row.ids) for row in item.rows) <= 151
                ends = [len(row.ids) - row.first for row in item.rows]
                assert ends == [len(row.ids) - row.first for row in uncut.rows]
                if overflow == "fewer":
                    assert item.rows[0].ids[:3] == uncut.rows[0].ids[:3]


def test_what_cannot_be_asked_is_refused_when_it_is_read(
    data: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"mmlu, asked with letters: .*test/anatomy_test\.csv:1"):
        questions_of(data, tokenizer, ("mmlu",), context=8, overflow="fewer")
    with pytest.raises(UserError, match="has no files of mmlu"):
        questions_of(tmp_path, tokenizer, ("mmlu",))
    file = benchmark_files.mmlu(tmp_path) / "mmlu/test/anatomy_test.csv"
    file.write_text("a question?,one,two,three,four,F\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"anatomy_test\.csv:1.*F"):
        questions_of(tmp_path, tokenizer, ("mmlu",))


# Who computes it


def test_training_does_not_notice_a_point_of_the_curve(
    wide: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]], data: Path
) -> None:
    """Two runs end in the same bits, with and without points in between."""
    curve = Curve(tokenizer, texts, ENTRIES, 4, 1, questions_of(data, tokenizer, limit=4))

    def train(network: Transformer, with_points: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        network.train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
        for _ in range(4):
            ids_BT = torch.randint(5, network.config.vocab_size, (2, 9))
            logits_BTV = network.logits(network(ids_BT[:, :-1]))
            torch.nn.functional.cross_entropy(logits_BTV.mT, ids_BT[:, 1:]).backward()
            # Between the backward pass and the step, where gradients are waiting.
            if with_points:
                curve.point(network)
                assert network.training
            optimiser.step()
            optimiser.zero_grad()
        assert random.random() == random.Random(11).random()
        return {name: value.clone() for name, value in network.state_dict().items()}

    other = copy.deepcopy(wide)
    random.seed(11)
    plain = train(wide, with_points=False)
    random.seed(11)
    disturbed = train(other, with_points=True)
    for name, value in plain.items():
        assert torch.equal(disturbed[name], value), name


def test_processes_share_the_items_of_a_network_that_is_sharded(
    tokenizer: Tokenizer, texts: dict[str, list[str]], tmp_path: Path
) -> None:
    """Two real processes over gloo; rows of the head shared out among all of them, too. The
    point of each is that of one process alone, and none does more than its part."""
    data = benchmark_files.arc_easy(benchmark_files.mmlu(tmp_path))
    asked: dict[str, Any] = {"texts": texts, "entries": ENTRIES, "limit": 12}
    asked |= {"tasks": ["mmlu", "arc_easy"], "layouts": [{}, {"head_parallel": 2}]}
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    write_model(tmp_path / "model", tokenizer, context=400)
    program = Path(__file__).with_name("ranked_curve.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(program), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr

    model, _ = forms.open_folder(tmp_path / "model")
    questions = questions_of(data, tokenizer, ("mmlu", "arc_easy"), context=400, limit=12)
    alone = Curve(tokenizer, texts, ENTRIES, 4, 1, questions).point(model)
    told = [json.loads((tmp_path / f"point.{each}.json").read_text()) for each in range(2)]
    for layout in range(2):
        each_one = [points[layout] for points in told]
        assert each_one[0]["scores"] == each_one[1]["scores"]
        assert each_one[0]["scores"].keys() == alone.scores.keys()
        for key, value in alone.scores.items():
            assert each_one[0]["scores"][key] == pytest.approx(value, abs=1e-5), key
        positions = np.array([each["positions"] for each in each_one])
        assert positions.min() > 0.35 * positions.sum()
        # What the worker trains with lies as it lay.
        assert all(each["same"] for each in each_one)
