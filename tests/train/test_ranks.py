"""Several processes do what one does: gradients, resuming, skipping, watching, refusing."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked_run import Job, digest, model_of, reports, run_jobs, stage_of
from torch import Tensor
from workshop import Workshop

from indexlm.records import verify
from indexlm.tokens.chat_format import IGNORED
from indexlm.train import checkpoint
from indexlm.train.optim import adamw, named_state

# No number of processes but one divides this vocabulary, and nothing is clipped: a gradient of
# another size would be made the same by it.
UNCLIPPED = {"optimiser": {"lr": 5e-3, "clip": 1e9}}
STEP = {"steps": 1, "data": "talk", "vocab": 161, "config": UNCLIPPED, "keeps": True}

ONE = Job("one process", **STEP)
SPREAD = [
    Job("two", 2, **STEP),
    Job("four", 4, **STEP),
    Job("two share the head", 2, hardware={"head_parallel": 2}, **STEP),
    Job("two of four share the head", 4, hardware={"head_parallel": 2}, **STEP),
]
WRONG = [
    Job("averaged", 2, wrong="mean over processes", **STEP),
    Job("own units", 2, wrong="each process divides by its own units", **STEP),
    Job("groups", 4, wrong="head not summed", hardware={"head_parallel": 2}, **STEP),
]
SEQUENCE = (1, 2, 4, 2, 1)
"""Processes of the five starts of a run, ten steps each."""
UNCHANGED = {kind: Job(f"{kind} by one", data=kind) for kind in ("text", "pairs")}
CHANGED = {
    kind: [
        Job(
            f"{kind} by many",
            ranks,
            start,
            data=kind,
            stop_after=10 * start if start < 5 else 0,
            hardware={"head_parallel": 2 if (kind, ranks) == ("pairs", 4) else 1},
        )
        for start, ranks in enumerate(SEQUENCE, start=1)
    ]
    for kind in UNCHANGED
}
TROUBLE = {"16": "spike", "18": "nan loss", "20": "nan gradient", "22": "inf gradient"}
EVERY_STEP = {"save_every": 1, "keep_every": 1}
SKIPPING = Job("skipping", 2, steps=24, trouble=TROUBLE, config=EVERY_STEP)
GIVING_UP = Job("giving up", 2, steps=24, trouble={str(s): "nan loss" for s in range(10, 24)})
OFTEN = {"evaluate_every_tokens": 2 * 8 * 24}
EVALUATED = {
    (ranks, evaluates): Job(
        f"{ranks} evaluating {evaluates}",
        ranks,
        steps=10,
        lora=True,
        evaluates=evaluates,
        config=OFTEN,
    )
    for ranks in (1, 2)
    for evaluates in (False, True)
}
FULL_DISK = [
    Job(f"full disk, async_save {behind}", 2, hardware={"async_save": behind}, full_disk=True)
    for behind in (False, True)
]
REFUSED = {
    "no second": Job("no second", 2, steps=1, absent=1),
    "no first": Job("no first", 2, steps=1, absent=0),
    "three micro-batches": Job("three", 2, steps=1, config={"batch": 6}),
    "head": Job("head", 1, steps=1, hardware={"head_parallel": 2}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what all jobs have left."""
    folder = tmp_path_factory.mktemp("ranks")
    changed = [job for jobs in CHANGED.values() for job in jobs]
    jobs = [ONE, *SPREAD, *WRONG, *UNCHANGED.values(), *changed, SKIPPING, GIVING_UP]
    run_jobs(folder, [*jobs, *EVALUATED.values(), *FULL_DISK, *REFUSED.values()])
    return folder


def kept(folder: Path, job: Job) -> dict[str, dict[str, Tensor]]:
    return torch.load(folder / f"{job.name}.kept.pt")


def entries(folder: Path, job: Job) -> list[dict[str, Any]]:
    return Workshop(folder).entries(job.name)


def losses(folder: Path, job: Job) -> list[float]:
    return [entry["loss"] for entry in entries(folder, job)]


def state_at(folder: Path, job: Job, step: int) -> dict[str, Tensor]:
    """Weights and moments of a checkpoint, read by one process."""
    model = model_of(job)
    state = named_state(model, adamw(model, Workshop(folder).stage(4).config.optimiser))
    for value in state.values():
        value.fill_(torch.nan)
    path = folder / job.name / "checkpoints" / f"step-{step:08d}"
    assert checkpoint.load(path, state) == step
    return state


def equal_states(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# Gradients.


def largest_difference(folder: Path, job: Job) -> float:
    """Of the gradients of a job from those of one process, relative, over all parameters."""
    expected, found = (kept(folder, each)["gradients"] for each in (ONE, job))
    assert expected.keys() == found.keys() and len(found) == 2 * 9 + 3
    return max(float((found[n] - g).norm() / g.norm()) for n, g in expected.items())


@pytest.mark.parametrize("job", SPREAD, ids=lambda job: job.name)
def test_gradients_of_a_step_are_those_of_one_process(folder: Path, job: Job) -> None:
    assert largest_difference(folder, job) < 1e-5
    assert entries(folder, job)[0]["loss"] == pytest.approx(losses(folder, ONE)[0], rel=1e-6)
    assert entries(folder, job)[0]["units"] == entries(folder, ONE)[0]["units"]


@pytest.mark.parametrize("job", WRONG, ids=lambda job: job.name)
def test_a_wrong_reduction_would_be_noticed(folder: Path, job: Job) -> None:
    assert largest_difference(folder, job) > 0.1


def test_the_processes_of_that_step_had_unequal_numbers_of_labels() -> None:
    """One micro-batch has none at all."""
    feed = stage_of(ONE, model_of(ONE)).feed
    counts = [int((b.labels_BT != IGNORED).sum()) for b in feed.micro_batches(0, 0, 1)]
    assert len(set(counts)) == len(counts) == 4 and counts[1] == 0


@pytest.mark.parametrize("job", SPREAD, ids=lambda job: job.name)
def test_what_is_watched_is_that_of_one_process(folder: Path, job: Job) -> None:
    """Norms of gradients and updates by layer, the head's rows, activations: before rounding."""
    expected = reports(folder, ONE)[0]["seen"]
    assert [len(values) for values in expected.values()] == [2, 1, 1]
    for report in reports(folder, job):
        for kind, values in expected.items():
            for one, found in zip(values, report["seen"][kind], strict=True):
                assert found == pytest.approx(one, rel=1e-5), kind
    logged = entries(folder, job)[0]
    assert logged["updates"] == pytest.approx(expected["norms"][1], rel=1e-3)


@pytest.mark.parametrize("job", SPREAD, ids=lambda job: job.name)
def test_a_checkpoint_of_many_read_by_one_holds_their_state_bit_for_bit(
    folder: Path, job: Job
) -> None:
    gathered = kept(folder, job)
    loaded = state_at(folder, job, 1)
    assert equal_states(loaded, gathered["state"])
    for name, value in gathered["model"].items():
        assert torch.equal(value, loaded[f"weight.{name}"])


@pytest.mark.parametrize("job", SPREAD, ids=lambda job: job.name)
def test_every_process_ends_with_the_whole_trained_model(folder: Path, job: Job) -> None:
    (expected,) = {report["weights"] for report in reports(folder, job)}
    model = model_of(job)
    assert digest(list(model.parameters())) != expected
    model.load_state_dict(kept(folder, job)["model"])
    assert digest(list(model.parameters())) == expected


# Another number of processes.


@pytest.mark.parametrize("kind", UNCHANGED)
def test_a_run_goes_on_with_another_number_of_processes(folder: Path, kind: str) -> None:
    """One, two, four, two and again one, each stopped by a signal to the last process alone."""
    for start in CHANGED[kind][:-1]:
        for report in reports(folder, start):
            stopped = f"{start.name}: stopped after step {start.stop_after}, state saved"
            assert report["error"] == ["StoppedError", stopped]
    found, expected = losses(folder, CHANGED[kind][-1]), losses(folder, UNCHANGED[kind])
    assert len(found) == 50 and expected[-1] < expected[0] * 0.8
    assert found == pytest.approx(expected, abs=1e-5)


# Broken steps.


def test_what_breaks_on_one_process_is_skipped_by_all(folder: Path) -> None:
    logged = entries(folder, SKIPPING)
    assert {e["step"] for e in logged if "skipped" in e} == {int(step) for step in TROUBLE}
    assert "times its median" in logged[16]["skipped"]
    assert math.isnan(logged[18]["loss"])
    assert all(math.isfinite(logged[step]["loss"]) for step in (20, 22))
    states = {step: state_at(folder, SKIPPING, step) for step in range(15, 25)}
    for step in range(15, 24):
        assert equal_states(states[step], states[step + 1]) == (str(step) in TROUBLE), step


def test_every_process_names_the_documents_of_a_skipped_step(folder: Path) -> None:
    feed = stage_of(SKIPPING, model_of(SKIPPING)).feed
    said = []
    for rank in range(2):
        log = SKIPPING.left(folder, rank, "log").read_text()
        said.append([line for line in log.splitlines() if "skipped (" in line])
    assert said[0] == said[1] and len(said[0]) == 4
    logged = entries(folder, SKIPPING)
    for line, step in zip(said[0], map(int, TROUBLE), strict=True):
        assert f"step {step} " in line and feed.documents(step)[0] in line
        assert logged[step]["documents"] == feed.documents(step)


def test_too_many_in_a_row_end_the_run_on_all_with_the_last_state_intact(folder: Path) -> None:
    for report in reports(folder, GIVING_UP):
        kind, message = report["error"]
        assert kind == "FloatingPointError" and "6 updates in a row" in message
    newest = checkpoint.newest(folder / GIVING_UP.name / "checkpoints", "test inputs")
    assert newest is not None and newest.name == "step-00000012"
    verify(newest)
    # Steps 10 and 11 were skipped, and 10 steps are those of the other run.
    assert equal_states(state_at(folder, GIVING_UP, 12), state_at(folder, SKIPPING, 10))


@pytest.mark.parametrize("job", FULL_DISK, ids=lambda job: job.name)
def test_a_disk_that_is_full_under_one_process_ends_the_run_on_all(folder: Path, job: Job) -> None:
    for report in reports(folder, job):
        kind, message = report["error"]
        assert kind == "OSError" and "step-00000004 could not be written" in message
    assert not list((folder / job.name / "checkpoints").iterdir())
    assert not (folder / job.name / "manifest.json").exists()


# Evaluation in the run.


@pytest.mark.parametrize("ranks", [1, 2])
def test_evaluating_changes_nothing(folder: Path, ranks: int) -> None:
    """With dropout, whose masks come from the generator that the evaluation draws from too."""
    without, with_it = EVALUATED[ranks, False], EVALUATED[ranks, True]
    logged = entries(folder, with_it)
    scores = {entry["step"]: entry.pop("scores")["score"] for entry in logged if "scores" in entry}
    assert list(scores) == [1, 3, 5, 7, 9] and len(set(scores.values())) == 5
    assert logged == entries(folder, without)
    for one, other in zip(reports(folder, without), reports(folder, with_it), strict=True):
        assert one["error"] is None and one["weights"] == other["weights"]


def test_dropout_of_an_adapter_is_that_of_one_process(folder: Path) -> None:
    one, two = (losses(folder, EVALUATED[ranks, False]) for ranks in (1, 2))
    assert two == pytest.approx(one, abs=1e-5)
    scores = [
        [e["scores"]["score"] for e in entries(folder, EVALUATED[ranks, True]) if "scores" in e]
        for ranks in (1, 2)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


# What cannot work.


def refusals(folder: Path, name: str) -> list[str]:
    found = []
    for report in reports(folder, REFUSED[name]):
        kind, message = report["error"]
        assert kind == "UserError"
        found.append(message)
    return found


@pytest.mark.parametrize("name", ["no second", "no first"])
def test_a_process_that_does_not_come_is_missed(folder: Path, name: str) -> None:
    (message,) = refusals(folder, name)
    assert "not all of WORLD_SIZE=2 processes came together within 2 s" in message
    assert "torchrun" in message and "--rdzv-endpoint" in message


def test_what_does_not_divide_is_refused_with_a_remedy(folder: Path) -> None:
    for message in refusals(folder, "three micro-batches"):
        assert "2 processes cannot share the 3 micro-batches" in message
        assert "lower three.micro_batch to 1" in message
    (message,) = refusals(folder, "head")
    assert "head_parallel=2 does not divide the 1 processes" in message
