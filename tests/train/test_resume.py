"""A run that is killed at any place ends bit for bit like one that is not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from workshop import LORA, Workshop

from indexlm.records import verify
from indexlm.train import checkpoint
from indexlm.train.optim import adamw, named_state

PROGRAM = Path(__file__).with_name("killed_run.py")


Kills = list[dict[str, Any]]


@pytest.fixture(scope="module", params=["full", "lora"])
def killed_run(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Workshop, Kills]:
    """The workshop of both runs, of all weights or of LoRA with dropout, and where kills came."""
    folder = tmp_path_factory.mktemp(f"killed-{request.param}")
    command = [sys.executable, str(PROGRAM), str(folder), "2024", request.param]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    workshop = Workshop(folder, LORA if request.param == "lora" else None)
    return workshop, [json.loads(line) for line in done.stdout.splitlines()]


def last_state(workshop: Workshop, name: str) -> dict[str, Tensor]:
    model = workshop.model(seed=9)
    state = named_state(model, adamw(model, workshop.stage(4).config.optimiser))
    checkpoint.load(checkpoint.last(workshop.folder / name / "checkpoints"), state)
    return state


def test_the_kills_came_in_steps_and_in_saves(killed_run: tuple[Workshop, Kills]) -> None:
    _, kills = killed_run
    assert all(kill["killed"] for kill in kills)
    kinds = [kill["kind"] for kill in kills]
    assert kinds.count("save") >= 4 and kinds.count("step") >= 2


def test_weights_moments_and_logged_numbers_are_those_of_an_unbroken_run(
    killed_run: tuple[Workshop, Kills],
) -> None:
    workshop, _ = killed_run
    whole, killed = (last_state(workshop, name) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert workshop.entries("whole") == workshop.entries("killed")
    assert len(workshop.entries("killed")) == 48


def test_both_runs_leave_the_same_files(killed_run: tuple[Workshop, Kills]) -> None:
    """Sealed and whole; nothing half-written stays behind."""
    workshop, _ = killed_run
    whole, killed = (verify(workshop.folder / name).files for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    data = [name for name in whole if name.endswith(".distcp")]
    assert len(data) == 2
    assert all(whole[name]["sha256"] == killed[name]["sha256"] for name in data)
