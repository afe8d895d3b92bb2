"""Stops by signals, of the real command in forks: what is saved, the exit code, how it goes on."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from killed_run import WatchedFeed, fork
from workshop import Workshop, same_weights

from command import lines, run_here, succeeded, write_model
from indexlm.records import read_manifest, read_metrics, verify
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.train import checkpoint

STOPS = 20
SUMS = [{"query": f"{n} 加一等于几？", "response": f"{n + 1}。"} for n in range(60)]
# About 30 rows: 600 steps of a few milliseconds. A stop takes as many steps as are made before the
# signal comes, on a loaded machine more than the four that are waited for.
TUNE = [
    *("finetune", "model", "--data", "sums.jsonl", "threads=1", "lora.rank=4"),
    *("sft.batch=4", "sft.micro_batch=2", "sft.epochs=81", "sft.save_every=20"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A model, conversations, and `whole`, a fine-tuning that was not stopped."""
    place = tmp_path_factory.mktemp("stops")
    write_model(place / "model", tokenizer)
    (place / "sums.jsonl").write_bytes(lines(SUMS))
    succeeded(place, *TUNE, "--out", "whole", how=run_here)
    return place


def begun(place: Path, *arguments: str) -> int:
    """The process of a command; what it says is in the file `said`."""

    def work() -> None:
        code, _, err = run_here(place, *arguments)
        (place / "said").write_text(err, encoding="utf-8")
        os._exit(code)

    return fork(work)


def wait_for(process: int, happened: Callable[[], bool]) -> None:
    """Until something has happened. Raises where the process ends before."""
    while not happened():
        assert os.waitpid(process, os.WNOHANG) == (0, 0)
        time.sleep(0.001)


def test_twenty_stops_are_130_with_the_state_saved_and_the_run_ends_as_one_that_was_not(
    place: Path,
) -> None:
    generator = random.Random(STOPS)
    stage = place / "stopped" / "sft"
    log = stage / "metrics.jsonl"
    for number in range(STOPS):
        background = ["hardware.async_save=true"] if number % 2 else []
        process = begun(place, *TUNE, *background, "--out", "stopped")
        enough = len(read_metrics(log)) + generator.randint(1, 4)
        wait_for(process, lambda n=enough: len(read_metrics(log)) >= n)
        time.sleep(generator.uniform(0, 0.005))
        os.kill(process, signal.SIGTERM)
        _, status = os.waitpid(process, 0)
        said = (place / "said").read_text(encoding="utf-8")
        assert os.waitstatus_to_exitcode(status) == 130, said
        told = re.search(r"indexlm: sft: stopped after step (\d+), state saved$", said.strip())
        assert told is not None and "Traceback" not in said, said
        step = int(told[1])
        assert step == len(read_metrics(log)) >= enough
        newest = checkpoint.last(stage / "checkpoints")
        assert verify(newest).notes["step"] == step
        assert read_manifest(stage) is None
    assert "going on from step" in succeeded(place, *TUNE, "--out", "stopped", how=run_here)
    for name in ("models/tuned", "models/adapter"):
        assert verify(place / "stopped" / name).files == verify(place / "whole" / name).files
    logged = [read_metrics(place / run / "sft" / "metrics.jsonl") for run in ("whole", "stopped")]
    one, other = ([entry | {"seconds": 0} for entry in entries] for entries in logged)
    assert one == other


def test_a_second_sigterm_ends_the_process_at_once(workshop: Workshop) -> None:
    """In the middle of the step; the same command goes on from the checkpoint before."""
    stage = workshop.stage(12)

    def stop_twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    watched = replace(stage, feed=WatchedFeed(stage.feed, 11, stop_twice))
    _, status = os.waitpid(fork(lambda: workshop.run("run", watched)), 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
    assert len(workshop.entries("run")) == 5
    assert checkpoint.last(workshop.folder / "run" / "checkpoints").name == "step-00000004"
    one, other = workshop.run("run", stage), workshop.run("whole", stage)
    assert same_weights(one, other)
    assert workshop.entries("run") == workshop.entries("whole")
