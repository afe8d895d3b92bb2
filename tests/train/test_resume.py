"""A run that is killed at any place ends bit for bit like one that is not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_run import KILLS, PROGRESS, workshop_of
from torch import Tensor
from workshop import Workshop

from indexlm.config import OptimiserConfig
from indexlm.records import verify
from indexlm.train import checkpoint
from indexlm.train.optim import adamw, named_state

PROGRAM = Path(__file__).with_name("killed_run.py")

Kills = list[dict[str, Any]]


@pytest.fixture(scope="module")
def killed_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Kills]:
    """The folder of all runs, and where kills came."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, str(PROGRAM), str(folder), "2024"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


def last_state(workshop: Workshop, name: str) -> dict[str, Tensor]:
    model = workshop.model(seed=9)
    state = named_state(model, adamw(model, OptimiserConfig()))
    checkpoint.load(checkpoint.last(workshop.folder / name / "checkpoints"), state)
    return state


def test_fifty_kills_came_in_steps_and_in_saves_of_both_kinds(
    killed_runs: tuple[Path, Kills],
) -> None:
    _, kills = killed_runs
    assert len(kills) == 50 and all(kill["killed"] for kill in kills)
    for background in (True, False):
        half_written = [k for k in kills if k["half_written"] and k["background"] == background]
        assert len(half_written) >= 10
    assert {kill["trained"] for kill in kills if kill["half_written"]} == set(KILLS)
    assert sum(not kill["half_written"] for kill in kills) >= 10


@pytest.mark.parametrize("trained", KILLS)
def test_weights_moments_and_logged_numbers_are_those_of_an_unbroken_run(
    killed_runs: tuple[Path, Kills], trained: str
) -> None:
    workshop = workshop_of(killed_runs[0], trained)
    whole, killed = (last_state(workshop, name) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert workshop.entries("whole") == workshop.entries("killed")
    assert len(workshop.entries("killed")) == PROGRESS * KILLS[trained]


@pytest.mark.parametrize("trained", KILLS)
def test_both_runs_leave_the_same_files(killed_runs: tuple[Path, Kills], trained: str) -> None:
    """Sealed and whole; nothing half-written stays behind."""
    folder = killed_runs[0] / trained
    whole, killed = (verify(folder / name).files for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    data = [name for name in whole if name.endswith(".distcp")]
    assert len(data) == 2
    assert all(whole[name]["sha256"] == killed[name]["sha256"] for name in data)


def test_other_data_gives_another_end(killed_runs: tuple[Path, Kills]) -> None:
    """What the comparisons above would find."""
    folder, _ = killed_runs
    one = last_state(workshop_of(folder, "pretrain"), "whole")
    other = last_state(workshop_of(folder, "sft"), "whole")
    assert not any(torch.equal(one[name], other[name]) for name in one if "weight" in name)
