"""Processes of one run that die, fail and are stopped under torchrun."""

import json
import re
import shutil
from pathlib import Path

import pytest
from ranked_run import Job, launch, reports, run_jobs
from workshop import Workshop

from indexlm.records import verify

STEPS = 28
UNBROKEN = Job("unbroken", 2, steps=STEPS)
FALLING = Job("falling", 2, steps=STEPS, falls=True)
GOING_ON = Job("falling", 2, start=4, steps=STEPS)
SMALLER = Job("by one", 1, steps=STEPS)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the runs and what torchrun has said. One run falls three times and then goes
    on; a copy of it goes on with one process."""
    folder = tmp_path_factory.mktemp("torchrun")
    said = launch(folder, FALLING)
    shutil.copytree(folder / FALLING.name, folder / SMALLER.name)
    run_jobs(folder, [UNBROKEN, GOING_ON, SMALLER])
    return folder, said


def test_the_run_fell_as_it_was_asked_to(told: tuple[Path, str]) -> None:
    """Killed in step 7, failed in step 12, and torchrun was stopped in step 18."""
    folder, said = told
    # torchrun names one of those it finds dead: who was killed, or who lost its partner by that.
    assert re.search(r"exitcode: -[69]\b", said) and "Received 15 death signal" in said, said
    assert not (folder / "falling.1.1.json").exists()
    first = json.loads((folder / "falling.2.0.json").read_text())
    assert first["error"] == ["RuntimeError", "a start that fails"]
    assert "going on from step 4" in said and "going on from step 12" in said


def test_a_signal_to_torchrun_stops_all_processes_after_the_same_step(
    told: tuple[Path, str],
) -> None:
    folder, _ = told
    for rank in range(2):
        report = json.loads((folder / f"falling.3.{rank}.json").read_text())
        assert report["error"] == ["StoppedError", "falling: stopped after step 19, state saved"]
    assert "going on from step 19" in (folder / "falling.4.0.log").read_text()


def test_a_run_that_was_restarted_ends_like_an_unbroken_one(told: tuple[Path, str]) -> None:
    """Weights, moments and logged numbers, bit for bit."""
    folder, _ = told
    workshop = Workshop(folder)
    assert workshop.entries(FALLING.name) == workshop.entries(UNBROKEN.name)
    assert len(workshop.entries(FALLING.name)) == STEPS
    whole, broken = (verify(folder / each.name).files for each in (UNBROKEN, GOING_ON))
    assert whole.keys() == broken.keys()
    data = [name for name in whole if name.endswith(".distcp")]
    # Of two checkpoints and two processes.
    assert len(data) == 4
    assert all(whole[name]["sha256"] == broken[name]["sha256"] for name in data)
    weights = {r["weights"] for job in (UNBROKEN, GOING_ON) for r in reports(folder, job)}
    assert len(weights) == 1


def test_what_two_have_begun_one_ends(told: tuple[Path, str]) -> None:
    """Where a machine is lost and none takes its place."""
    folder, _ = told
    workshop = Workshop(folder)
    (report,) = reports(folder, SMALLER)
    assert report["error"] is None
    assert workshop.entries(SMALLER.name)[:19] == workshop.entries(UNBROKEN.name)[:19]
    assert workshop.losses(SMALLER.name) == pytest.approx(workshop.losses(UNBROKEN.name), abs=1e-5)
