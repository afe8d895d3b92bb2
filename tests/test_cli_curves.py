"""Curves of a real run: made inside it, made afterwards, made while it goes on."""

import json
import re
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch

import benchmark_files
from command import (
    PATIENCE,
    SMALL,
    refused,
    run_here,
    start,
    succeeded,
    with_corpus,
    write_model,
)
from indexlm.config import Recipe
from indexlm.model.transformer import Transformer
from indexlm.pipeline import branch_run
from indexlm.records import read_metrics
from indexlm.settings import load_recipe, with_overrides
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.train import checkpoint

SETTINGS = [
    *SMALL,
    *("model.context=64", "base.mixture.instruction=0", "pretrain.schedule.warmup=2"),
    *("pretrain.steps=24", "pretrain.batch=4", "pretrain.micro_batch=4"),
    *("pretrain.save_every=4", "pretrain.keep_every=4", "pretrain.evaluate_every_tokens=2048"),
    *("base.steps=8", "base.from_step=16", "pure.steps=8", "evals.curve_items=4"),
    *("evals.benchmarks=bench", 'evals.curve_tasks=["mmlu","hellaswag"]', "evals.curve_limit=6"),
]
FEWEST = ["--tasks", "hellaswag", "--limit", "3"]
"""Options of a curve that is quickly made."""
SLOW = ["--tasks", "mmlu", "--limit", "300", "--data", "more"]
"""Of one whose points take long enough to be stopped between two of them."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, whose pre-training is finished, `bench`, and `more` of the same."""
    folder = with_corpus(tmp_path_factory.mktemp("curves"), 300)
    benchmark_files.hellaswag(benchmark_files.mmlu(folder / "bench"))
    benchmark_files.mmlu(folder / "more", items=70)
    for stage in ("text", "tokenizer", "tokens", "trunk", "base", "pure"):
        asked = ["run", "tiny", *SETTINGS, "--only", stage, "--out", "run"]
        succeeded(folder, *asked, how=run_here)
    return folder


@pytest.fixture(scope="module")
def points(place: Path) -> list[dict[str, Any]]:
    """Those of the whole run, with nothing said but its name."""
    succeeded(place, "curve", "run", how=run_here)
    return read_points(place / "run" / "curves")


def read_points(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "points.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def without_times(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def changed_run(place: Path, name: str, *changes: str) -> None:
    """A run folder that shares the stages of `run` which the changes do not touch."""
    with chdir(place):
        recipe = with_overrides(load_recipe(Path("run/config.json")), changes)
        branch_run(recipe, Path("run"), Path(name))


def weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    recipe = load_recipe(run / "config.json")
    assert isinstance(recipe, Recipe)
    model = Transformer(recipe.model)
    state = {f"weight.{name}": p.detach() for name, p in model.named_parameters()}
    checkpoint.load(checkpoint.last(run / stage / "checkpoints"), state)
    return state


def wait_for_points(folder: Path, count: int, process: Popen[str]) -> None:
    late = time.monotonic() + PATIENCE
    while len(read_metrics(folder / "points.jsonl")) < count:
        assert time.monotonic() < late and process.poll() is None, process.communicate()
        time.sleep(0.02)


# Inside the run and afterwards


def test_points_inside_the_run_are_those_made_of_its_checkpoints(
    place: Path, points: list[dict[str, Any]]
) -> None:
    afterwards = {(line["stage"], line["step"]): line for line in points}
    compared = 0
    for stage in ("trunk", "base", "pure"):
        for entry in read_metrics(place / "run" / stage / "metrics.jsonl"):
            if "scores" in entry:
                other = afterwards[stage, entry["step"] + 1]["scores"]
                assert other.keys() == entry["scores"].keys()
                for key, value in entry["scores"].items():
                    assert other[key] == pytest.approx(value, abs=1e-6), key
                compared += 1
    assert compared == 5
    for way in ("letters/logprob", "contents/per_character"):
        for measure in ("accuracy", "margin", "probability"):
            assert f"mmlu/{way}/{measure}" in points[0]["scores"]
    assert {"bits_per_byte/zh", "bits_per_byte/en"} <= points[0]["scores"].keys()
    assert points[0]["scores"]["mmlu/letters/items"] == 6


def test_a_point_says_where_in_the_training_it_is(points: list[dict[str, Any]]) -> None:
    found = {(line["stage"], line["step"]): line for line in points}
    assert list(found) == [
        *(("trunk", step) for step in (4, 8, 12, 16, 20, 24)),
        *(("base", step) for step in (20, 24)),
        *(("pure", step) for step in (28, 32)),
    ]
    # Rows of 4 x 64; a branch has read what its trunk had when it left it.
    assert [found["trunk", step]["tokens"] for step in (4, 24)] == [1024, 6144]
    assert [found["base", step]["tokens"] for step in (20, 24)] == [5120, 6144]
    assert found["pure", 32]["tokens"] == 8192
    assert {line["phase"] for line in points if line["stage"] == "trunk"} == {"stable"}
    assert {line["phase"] for line in points if line["stage"] != "trunk"} == {"decay"}


def test_scores_are_means_of_the_items_that_are_kept(points: list[dict[str, Any]]) -> None:
    for line in points:
        for name, items in line["items"].items():
            right = [letter == "1" for letter in items["right"]]
            assert line["scores"][f"{name}/accuracy"] == sum(right) / len(right)
            for measure in ("margin", "probability"):
                kept = items[measure]
                assert len(kept) == len(right)
                if f"{name}/{measure}" in line["scores"]:
                    mean = line["scores"][f"{name}/{measure}"]
                    assert sum(kept) / len(kept) == pytest.approx(mean, rel=1e-4, abs=1e-6)


def test_weights_are_the_same_with_and_without_benchmarks(place: Path) -> None:
    changes = ["evals.benchmarks=null", "evals.curve_tasks=[]", "pretrain.evaluate_every_tokens=0"]
    changed_run(place, "without", *changes)
    asked = ["run", "without/config.json", "--only", "trunk", "--out", "without"]
    succeeded(place, *asked, how=run_here)
    entries = {}
    for run in ("run", "without"):
        read = read_metrics(place / run / "trunk" / "metrics.jsonl")
        entries[run] = [(line["loss"], line["grad_norm"]) for line in read]
    assert entries["run"] == entries["without"]
    with_them, without = (weights(place / run, "trunk") for run in ("run", "without"))
    assert all(torch.equal(with_them[name], without[name]) for name in with_them)


def test_the_page_needs_no_other_file_and_shows_every_benchmark(
    place: Path, points: list[dict[str, Any]]
) -> None:
    page = (place / "run" / "curves" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']+""", page)
    for word in ("mmlu, letters", "hellaswag, contents", "Bits per byte, zh", "stable", "decay"):
        assert word in page, word
    assert page.count("<svg") == 1 + 4


# Going on


def test_what_is_there_is_not_made_again(place: Path, points: list[dict[str, Any]]) -> None:
    file = place / "run" / "curves" / "points.jsonl"
    before = file.read_bytes()
    said = succeeded(place, "curve", "run", how=run_here)
    assert file.read_bytes() == before and "10 points" in said


def test_killed_or_stopped_it_goes_on_to_the_same_points(place: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    succeeded(place, "curve", "run", *SLOW, "--out", str(whole), how=run_here)
    asked = ["curve", "run", *SLOW, "--out", str(broken)]
    process = start(place, *asked)
    wait_for_points(broken, 2, process)
    process.kill()
    process.communicate()
    kept = read_metrics(broken / "points.jsonl")
    assert len(kept) < 9
    # What a kill in the middle of a line would leave.
    with (broken / "points.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"stage": "trunk", "st')
    process = start(place, *asked)
    wait_for_points(broken, len(kept) + 1, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    stopped = read_points(broken)
    assert process.returncode == 130 and "the same command goes on" in said, said
    assert stopped[: len(kept)] == kept and len(stopped) > len(kept)
    assert "<svg" in (broken / "index.html").read_text(encoding="utf-8")
    succeeded(place, *asked, how=run_here)
    assert read_points(broken)[: len(stopped)] == stopped
    assert without_times(read_points(broken)) == without_times(read_points(whole))


def test_a_run_that_goes_on_is_watched_to_its_end(place: Path) -> None:
    """Two real processes: one trains a trunk, the other waits for its checkpoints."""
    changed_run(place, "again", "pretrain.optimiser.lr=0.002", "pretrain.steps=40")
    watching = start(place, "curve", "again", *FEWEST, "--stages", "trunk", "--watch")
    asked = ["run", "again/config.json", "--only", "trunk", "--out", "again"]
    training = start(place, *asked)
    _, said = training.communicate(timeout=PATIENCE)
    assert training.returncode == 0, said
    told, said = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 0, said
    found = read_points(place / "again" / "curves")
    assert {line["step"] for line in found} == set(range(4, 41, 4))
    assert "10 points" in told and (place / "again" / "curves" / "index.html").is_file()


def test_waiting_ends_with_ctrl_c(place: Path, tmp_path: Path) -> None:
    """Of the finished run only the trunk; a manifest less, it looks unfinished."""
    manifest = place / "run" / "base" / "manifest.json"
    hidden = manifest.rename(manifest.with_name("hidden"))
    try:
        out = tmp_path / "out"
        asked = [*FEWEST, "--stages", "base", "--watch", "--out", str(out)]
        process = start(place, "curve", "run", *asked)
        wait_for_points(out, 2, process)
        # It waits, and its page is there already.
        late = time.monotonic() + PATIENCE
        while not (out / "index.html").is_file():
            assert time.monotonic() < late and process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, said
        assert len(read_points(out)) == 2
    finally:
        hidden.rename(manifest)


# Models side by side


def test_models_of_a_folder_are_scored_in_the_order_of_their_numbers(
    place: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(place / "run" / "tokenizer")
    for number, size in ((2, 0.1), (10, 0.05), (1, 0.2)):
        write_model(tmp_path / "models" / f"step-{number}", tokenizer, init_std=size)
    data = ["--data", str(place / "bench"), "--data", str(place / "run" / "text")]
    tasks = "bits_per_byte,hellaswag"
    succeeded(tmp_path, "curve", "models", "--tasks", tasks, *data, how=run_here)
    found = read_points(tmp_path / "models" / "curves")
    assert [line["step"] for line in found] == [1, 2, 10]
    assert {line["tokens"] for line in found} == {None}
    # The same scores as `eval` has of the same items.
    asked = ["eval", "models/step-10", "--tasks", "hellaswag", "--overflow", "cut"]
    succeeded(tmp_path, *asked, *data[:2], "--out", "results", how=run_here)
    results = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    part = results["tasks"]["hellaswag"]["prompts"]["contents"]["micro"]["scores"]
    for way, score in part.items():
        here = found[2]["scores"][f"hellaswag/contents/{way}/margin"]
        assert here == pytest.approx(score["margin"], abs=1e-4)
    # Another model under an old name is not taken for the old one.
    shutil.rmtree(tmp_path / "models" / "step-2")
    write_model(tmp_path / "models" / "step-2", tokenizer, init_std=0.3)
    message = refused(
        tmp_path, "curve", "models", "--tasks", tasks, *data, how=run_here, changes=True
    )
    assert "step 2" in message and "of other weights" in message


# What cannot be done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere is no folder"]),
        (["bench"], ["bench is neither a run folder nor a folder of model folders"]),
        (["run", "--tasks", "mmmlu"], ["'mmmlu'", "did you mean mmlu"]),
        (["run", "--stages", "trunk,sft"], ["--stages sft", "trunk, base, pure"]),
        (["run", "--data", "corpus", "--tasks", "mmlu"], ["corpus has no files of mmlu"]),
        (["run", "--overflow", "refuse"], ["--overflow"]),
        (["run", "--limit", "0"], ["--limit"]),
        (["run", "--out", "run/config.json"], ["run/config.json is a file"]),
        (["run", "--out", "/proc/new"], ["nothing can be written to /proc", "another --out"]),
        (["run", "--data", "run/text", "--data", "run/text"], ["are both refined text"]),
        (["run", "--data", "bench", "--data", "corpus"], ["--data corpus holds nothing for these"]),
        (["run", *FEWEST, "--data", "run/text"], ["--data run/text holds nothing for these"]),
        (["run", "--tasks", "starter", "--data", "bench"], ["--data bench holds nothing"]),
        (["run", "--device", "tpu"], ["--device", "'tpu'"]),
    ],
)
def test_what_makes_no_sense_is_refused(
    place: Path, points: list[dict[str, Any]], arguments: Sequence[str], words: Sequence[str]
) -> None:
    message = refused(place, "curve", *arguments, how=run_here)
    assert [word for word in words if word not in message] == [], message


def test_points_of_other_settings_are_not_mixed(place: Path, points: list[dict[str, Any]]) -> None:
    message = refused(place, "curve", "run", "--limit", "5", how=run_here, changes=True)
    assert "points of other benchmarks" in message and "--out" in message
    assert read_points(place / "run" / "curves") == points


def test_a_task_that_is_none_is_refused_before_any_work(tmp_path: Path) -> None:
    with_corpus(tmp_path, 3)
    asked = ["run", "tiny", *SETTINGS, 'evals.tasks=["mmmlu"]']
    assert "'mmmlu'" in refused(tmp_path, *asked, how=run_here)
    message = refused(tmp_path, "run", "tiny", *SETTINGS, how=run_here)
    assert "bench is no folder" in message
    message = refused(tmp_path, "run", "tiny", *SMALL, 'evals.tasks=["mmlu"]', how=run_here)
    assert "benchmarks and tasks (or curve_tasks) go together" in message
