"""What is laid around the network changes how a step is computed, not what it gives."""

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked_run import Job, digest, model_of, reports, run_jobs
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from workshop import Workshop

from indexlm.config import HardwareConfig
from indexlm.model.transformer import Transformer
from indexlm.records import verify
from indexlm.runtime import processes
from indexlm.train import checkpoint
from indexlm.train.checkpoint import Checkpoints
from indexlm.train.optim import adamw, named_state

STEPS = 8
PLAIN = Job("plain", steps=STEPS)
COMPILED, RECOMPUTED = {"compile": True}, {"recompute": True}
SHARED_HEAD = {"head_parallel": 2}
EXACT = [
    Job("recomputed", steps=STEPS, hardware=RECOMPUTED),
    Job("compiled and recomputed", steps=STEPS, hardware=COMPILED | RECOMPUTED),
    Job("two share the head", 2, steps=STEPS, hardware=SHARED_HEAD),
    Job("two recompute", 2, steps=STEPS, hardware=RECOMPUTED | SHARED_HEAD),
]
HALF = Job("bfloat16", steps=STEPS, hardware={"dtype": "bfloat16"})
BEHIND = Job("saved behind", steps=STEPS, hardware={"async_save": True})
TWO = Job("two", 2, steps=STEPS)
TWO_BEHIND = Job("two saved behind", 2, steps=STEPS, hardware={"async_save": True})
ADAPTER = Job("adapter", steps=STEPS, lora=True)
ADAPTERS = [
    Job("adapter by two", 2, steps=STEPS, lora=True),
    Job("adapter by two that share the head", 2, steps=STEPS, lora=True, hardware=SHARED_HEAD),
]
STARTS: list[tuple[int, int, dict[str, Any]]] = [
    (4, 2, COMPILED),
    (5, 1, {}),
    (6, 2, SHARED_HEAD | {"async_save": True}),
    (8, 1, RECOMPUTED),
]
"""Where each start of a run ends, its processes and their arrangement."""
CHANGING = [
    Job("changing", ranks, start, STEPS, hardware=hardware, stop_after=end if end < STEPS else 0)
    for start, (end, ranks, hardware) in enumerate(STARTS, start=1)
]
JOBS = [PLAIN, *EXACT, HALF, BEHIND, TWO, TWO_BEHIND, ADAPTER, *ADAPTERS, *CHANGING]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what all jobs have left."""
    folder = tmp_path_factory.mktemp("arrangements")
    run_jobs(folder, JOBS)
    return folder


def checkpoint_of(folder: Path, job: Job) -> Path:
    return checkpoint.last(folder / job.name / "checkpoints")


def last_state(folder: Path, job: Job) -> dict[str, Tensor]:
    model = model_of(job)
    state = named_state(model, adamw(model, Workshop(folder).stage(4).config.optimiser))
    assert checkpoint.load(checkpoint_of(folder, job), state) == STEPS
    return state


def losses(folder: Path, job: Job) -> list[float]:
    return Workshop(folder).losses(job.name)


def assert_same_run(folder: Path, expected: Job, found: Job) -> None:
    """Losses and state within 1e-5."""
    assert losses(folder, found) == pytest.approx(losses(folder, expected), abs=1e-5)
    states = last_state(folder, expected), last_state(folder, found)
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-5)


def same_content(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same bytes of numbers."""
    hashes = [
        {name: entry["sha256"] for name, entry in verify(path).files.items() if "distcp" in name}
        for path in (one, other)
    ]
    return hashes[0] == hashes[1] and bool(hashes[0])


@pytest.mark.parametrize("job", EXACT, ids=lambda job: job.name)
def test_an_arrangement_trains_like_the_plain_loop(folder: Path, job: Job) -> None:
    assert_same_run(folder, PLAIN, job)


@pytest.mark.parametrize("job", ADAPTERS, ids=lambda job: job.name)
def test_an_adapter_trains_alike_under_any_arrangement(folder: Path, job: Job) -> None:
    """With dropout, whose masks are those of the micro-batch, whoever computes it."""
    assert_same_run(folder, ADAPTER, job)


def test_all_blocks_are_one_graph_where_they_are_compiled(folder: Path) -> None:
    for job in (*EXACT, PLAIN):
        for report in reports(folder, job):
            assert report["graphs"] == ("compile" in job.hardware), job.name


def test_bfloat16_is_near_and_its_weights_and_moments_are_float32(folder: Path) -> None:
    found, expected = losses(folder, HALF), losses(folder, PLAIN)
    assert found == pytest.approx(expected, abs=0.02) and found != pytest.approx(expected, abs=1e-5)
    state, plain = last_state(folder, HALF), last_state(folder, PLAIN)
    held = FileSystemReader(checkpoint_of(folder, HALF)).read_metadata().state_dict_metadata
    assert {entry.properties.dtype for entry in held.values()} == {torch.float32}
    for name, value in plain.items():
        if name.startswith("weight."):
            assert float((state[name] - value).norm() / value.norm()) < 0.05
            assert not torch.equal(state[name], state[name].bfloat16().float())


def test_names_and_shapes_in_a_checkpoint_are_those_of_the_plain_loop(folder: Path) -> None:
    def described(job: Job) -> dict[str, Any]:
        held = FileSystemReader(checkpoint_of(folder, job)).read_metadata().state_dict_metadata
        return {name: (entry.size, entry.properties.dtype) for name, entry in held.items()}

    for job in [*EXACT, HALF, BEHIND, TWO_BEHIND]:
        assert described(job) == described(PLAIN), job.name


def test_the_plain_model_ends_with_the_trained_weights(folder: Path) -> None:
    for job in JOBS:
        if job.stop_after:
            continue
        model = model_of(job)
        state = last_state(folder, job)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(state[f"weight.{name}"])
        for report in reports(folder, job):
            assert report["weights"] == digest(list(model.parameters())), job.name


def test_a_run_goes_on_under_another_arrangement(folder: Path) -> None:
    """Compiled by two, plain by one, by two that share the head and save behind, recomputing."""
    for start in CHANGING[:-1]:
        assert {report["error"][0] for report in reports(folder, start)} == {"StoppedError"}
    assert_same_run(folder, PLAIN, CHANGING[-1])


# Saving while training goes on.


@pytest.mark.parametrize(("job", "expected"), [(BEHIND, PLAIN), (TWO_BEHIND, TWO)])
def test_what_is_saved_behind_training_is_what_is_saved_before_it_goes_on(
    folder: Path, job: Job, expected: Job
) -> None:
    steps = [path.name for path in sorted((folder / job.name / "checkpoints").iterdir())]
    assert steps == ["step-00000004", "step-00000008"]
    for step in steps:
        one, other = (folder / each.name / "checkpoints" / step for each in (job, expected))
        assert same_content(one, other)
    assert Workshop(folder).entries(job.name) == Workshop(folder).entries(expected.name)


def test_weights_that_change_after_the_call_are_not_in_the_file(workshop: Workshop) -> None:
    model = workshop.model()
    state = named_state(model, adamw(model, workshop.stage(4).config.optimiser))
    saves = Checkpoints(workshop.folder / "checkpoints", "inputs", background=True)
    for number in range(1, 21):
        before = {name: value.clone() for name, value in state.items()}
        saves.save(number, state)
        for value in state.values():
            value.add_(1.0)
        saves.wait()
        loaded = {name: torch.zeros_like(value) for name, value in state.items()}
        assert checkpoint.load(checkpoint.last(saves.folder), loaded) == number
        assert all(torch.equal(loaded[name], value) for name, value in before.items())
    saves.close()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file grows beyond 100 kB: a checkpoint of the workshop does not fit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_fails_behind_training_fails_the_run(
    workshop: Workshop, small_files: None
) -> None:
    """At the next step or the next save, with the bytes that are needed; the run is not sealed."""
    stage = workshop.stage(40)
    hardware = stage.hardware.model_copy(update={"async_save": True})
    with pytest.raises(OSError, match=r"step-00000004 could not be written.*takes about"):
        workshop.run("run", replace(stage, hardware=hardware))
    assert len(workshop.entries("run")) <= 8
    assert not (workshop.folder / "run" / "manifest.json").exists()
    assert not list((workshop.folder / "run" / "checkpoints").iterdir())


def test_what_comes_back_of_bfloat16_is_float32_whatever_was_evaluated_last(
    workshop: Workshop,
) -> None:
    """A forward pass without a backward one leaves weights gathered, in bfloat16."""

    @torch.no_grad()
    def evaluate(model: Transformer) -> dict[str, float]:
        batch = next(iter(workshop.feed().micro_batches(0)))
        return {"sum": float(model(batch.ids_BT, documents_BT=batch.documents_BT).sum())}

    hardware = HardwareConfig(device="cpu", dtype="bfloat16")
    with processes(group=True):
        model = workshop.run("run", workshop.stage(4, hardware=hardware, evaluate=evaluate))
    kept = {f"weight.{name}": torch.zeros_like(p) for name, p in model.named_parameters()}
    checkpoint.load(checkpoint.last(workshop.folder / "run" / "checkpoints"), kept)
    for name, parameter in model.named_parameters():
        assert torch.equal(kept[f"weight.{name}"], parameter.detach()), name
        assert not torch.equal(parameter.detach(), parameter.detach().bfloat16().float()), name
