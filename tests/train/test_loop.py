"""The loop: what a step's numbers depend on, what it logs, how it branches, skips and stops."""

import json
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from workshop import Workshop, same_weights

from indexlm.errors import StoppedError, UserError
from indexlm.feed.loader import Feed
from indexlm.feed.packing import Batch
from indexlm.model.transformer import Transformer
from indexlm.records import verify
from indexlm.train import checkpoint
from indexlm.train.loop import Stage
from indexlm.train.objectives.language import language_loss
from indexlm.train.optim import adamw, named_state

GOLDEN = Path(__file__).with_name("golden_losses.json")


def state_at(workshop: Workshop, run: str, step: int) -> dict[str, Tensor]:
    """Weights and moments of a checkpoint."""
    model = workshop.model(seed=9)
    state = named_state(model, adamw(model, workshop.stage(4).config.optimiser))
    path = workshop.folder / run / "checkpoints" / f"step-{step:08d}"
    assert checkpoint.load(path, state) == step
    return state


def equal_states(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_losses_are_the_committed_ones(workshop: Workshop) -> None:
    """Of 20 steps; they change with initial weights, order of the data, schedule, loss or AdamW.

    Where such a change is meant, write the new list into golden_losses.json.
    """
    workshop.run("golden", workshop.stage(20))
    losses = workshop.losses("golden")
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert losses == pytest.approx(expected, abs=1e-4)
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize(("micro_batch"), [1, 2, 4])
def test_how_a_batch_is_split_does_not_change_the_numbers(
    workshop: Workshop, micro_batch: int
) -> None:
    whole = workshop.run("whole", workshop.stage(8, micro_batch=8))
    split = workshop.run("split", workshop.stage(8, micro_batch=micro_batch))
    # One step of float32 at a loss of 11 is 1e-6.
    assert workshop.losses("whole") == pytest.approx(workshop.losses("split"), abs=2e-6)
    for one, other in zip(whole.parameters(), split.parameters()):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_units_are_counted_over_the_whole_step(workshop: Workshop) -> None:
    """Rows of unequal numbers of labels weigh by their labels, not by their micro-batch."""

    def few_in_odd_rows(model: Transformer, batch: Batch) -> Any:
        batch.labels_BT[batch.ids_BT[:, 0] % 2 == 1, 2:] = -100
        return language_loss(model, batch)

    for micro_batch in (8, 1):
        stage = workshop.stage(3, micro_batch=micro_batch, objective=few_in_odd_rows)
        workshop.run(f"by {micro_batch}", stage)
    assert workshop.losses("by 8") == pytest.approx(workshop.losses("by 1"), abs=1e-6)
    units = [entry["units"] for entry in workshop.entries("by 1")]
    assert units == [entry["units"] for entry in workshop.entries("by 8")]
    assert all(0 < count < 8 * 24 for count in units)


def test_a_run_logs_every_step_with_its_learning_rate_and_gradients(workshop: Workshop) -> None:
    workshop.run("run", workshop.stage(12))
    entries = workshop.entries("run")
    assert [entry["step"] for entry in entries] == list(range(12))
    assert [entry["lr"] for entry in entries][:4] == pytest.approx(
        [5e-3 / 3, 5e-3 * 2 / 3, 5e-3, 5e-3]
    )
    assert entries[-1]["lr"] == pytest.approx(5e-4)
    assert all(entry["units"] == entry["tokens"] == 8 * 24 for entry in entries)
    assert [entry["step"] for entry in entries if "layers" in entry] == [0, 10]
    layers = entries[0]["layers"]
    assert set(layers) == {"embedding", "layer 0", "layer 1", "final norm", "head"}
    whole = math.sqrt(sum(norm**2 for norm in layers.values()))
    assert whole == pytest.approx(entries[0]["grad_norm"], rel=1e-3)


def test_a_finished_run_is_sealed_and_not_done_again(workshop: Workshop) -> None:
    stage = workshop.stage(8)
    first = workshop.run("run", stage)
    manifest = verify(workshop.folder / "run")
    assert manifest.fingerprint == stage.made_from and manifest.notes["steps"] == 8
    logged = (workshop.folder / "run" / "metrics.jsonl").read_bytes()
    again = workshop.run("run", stage, seed=5)
    assert same_weights(first, again)
    assert (workshop.folder / "run" / "metrics.jsonl").read_bytes() == logged


def test_scores_are_asked_for_at_their_steps_and_at_the_end(workshop: Workshop) -> None:
    asked: list[float] = []

    def evaluate(model: Transformer) -> dict[str, float]:
        asked.append(float(model.lm_head.weight.detach().sum()))
        return {"sum": asked[-1]}

    stage = workshop.stage(8, evaluate=evaluate)
    stage = replace(stage, config=stage.config.model_copy(update={"evaluate_every_tokens": 576}))
    model = workshop.run("run", stage)
    scored = {e["step"]: e["scores"]["sum"] for e in workshop.entries("run") if "scores" in e}
    assert scored == dict(zip([2, 5, 7], asked, strict=True))
    assert scored[7] == float(model.lm_head.weight.detach().sum())


# Branches.


def test_a_branch_goes_on_with_weights_and_moments_of_its_parent(workshop: Workshop) -> None:
    """Under an unchanged schedule, trunk and branch are one long run, bit for bit."""

    def constant(step: int) -> float:
        return 1.0

    whole = workshop.run("whole", workshop.stage(12, lr_share=constant))
    workshop.run("trunk", workshop.stage(8, lr_share=constant))
    parent = checkpoint.last(workshop.folder / "trunk" / "checkpoints")
    branch = workshop.stage(12, lr_share=constant, first_step=8, parent=parent)
    joined = workshop.run("branch", branch, seed=6)
    assert same_weights(whole, joined)
    assert workshop.entries("branch") == workshop.entries("whole")[8:]
    fresh = workshop.run("fresh", replace(branch, keep_optimiser=False), seed=6)
    assert workshop.losses("fresh")[0] == workshop.losses("branch")[0]
    assert not same_weights(fresh, joined)


def test_a_branch_without_the_moments_begins_with_none(workshop: Workshop) -> None:
    workshop.run("trunk", workshop.stage(4))
    parent = checkpoint.last(workshop.folder / "trunk" / "checkpoints")
    trunk = state_at(workshop, "trunk", 4)
    for keep in (True, False):
        # A learning rate of nothing leaves the inherited weights as they are.
        stage = workshop.stage(
            5, lr_share=lambda step: 0.0, first_step=4, parent=parent, keep_optimiser=keep
        )
        workshop.run(f"keep {keep}", stage, seed=6)
        state = state_at(workshop, f"keep {keep}", 5)
        weights = [name for name in state if name.startswith("weight.")]
        assert all(torch.equal(state[name], trunk[name]) for name in weights)
        assert float(state["step.lm_head.weight"]) == (5 if keep else 1)


def test_a_damaged_parent_is_not_branched_from(workshop: Workshop) -> None:
    workshop.run("trunk", workshop.stage(4))
    parent = checkpoint.last(workshop.folder / "trunk" / "checkpoints")
    data = next(parent.glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:-1])
    stage = workshop.stage(8, first_step=4, parent=parent)
    with pytest.raises(RuntimeError, match=data.name):
        workshop.run("branch", stage)


# Updates that are skipped.


@dataclass
class Poison:
    """An objective that breaks in the given steps, of two micro-batches each."""

    steps: set[int]
    kind: str
    calls: int = 0

    def __call__(self, model: Transformer, batch: Batch) -> Any:
        loss, count, further = language_loss(model, batch)
        step, self.calls = self.calls // 2, self.calls + 1
        if step in self.steps:
            if self.kind == "loss":
                loss = loss * math.nan
            else:  # a finite loss with a gradient of 0 / 0
                loss = loss + (model.lm_head.weight * 0).sum().sqrt()
        return loss, count, further


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_broken_step_leaves_weights_and_moments_untouched(workshop: Workshop, kind: str) -> None:
    stage = workshop.stage(6, objective=Poison({5}, kind))
    stage = replace(stage, config=stage.config.model_copy(update={"save_every": 1}))
    workshop.run("run", stage)
    assert equal_states(state_at(workshop, "run", 5), state_at(workshop, "run", 6))
    entries = workshop.entries("run")
    assert [entry["step"] for entry in entries if "skipped" in entry] == [5]
    assert math.isfinite(entries[5]["loss"]) == (kind == "gradient")


def test_training_goes_on_after_skipped_steps(workshop: Workshop) -> None:
    """The limit is on skips in a row: eight of them, never six together, do not end the run."""
    broken = {2, 3, 4, 5, 7, 8, 9, 10}
    model = workshop.run("run", workshop.stage(16, objective=Poison(broken, "loss")))
    entries = workshop.entries("run")
    assert {entry["step"] for entry in entries if "skipped" in entry} == broken
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_too_many_broken_steps_in_a_row_end_the_run_with_the_last_good_state(
    workshop: Workshop,
) -> None:
    stage = workshop.stage(40, objective=Poison(set(range(5, 40)), "loss"))
    with pytest.raises(FloatingPointError, match=r"step 10: loss nan.*6 updates in a row"):
        workshop.run("run", stage)
    saved = checkpoint.last(workshop.folder / "run" / "checkpoints")
    assert saved.name == "step-00000008"
    assert all(bool(v.isfinite().all()) for v in state_at(workshop, "run", 8).values())


# Stops.


@dataclass
class Interrupting:
    """A feed that sends this process signals in the middle of a step."""

    feed: Feed
    at: int
    signals: tuple[signal.Signals, ...]

    @property
    def names(self) -> list[str]:
        return self.feed.names

    def documents(self, step: int) -> list[str]:
        return self.feed.documents(step)

    def micro_batches(self, step: int, rank: int, ranks: int) -> Iterator[Batch]:
        for number, batch in enumerate(self.feed.micro_batches(step, rank, ranks)):
            if step == self.at and number == 1:
                for each in self.signals:
                    os.kill(os.getpid(), each)
            yield batch


def interrupted(stage: Stage, at: int, *signals: signal.Signals) -> Stage:
    assert isinstance(stage.feed, Feed)
    return replace(stage, feed=Interrupting(stage.feed, at, signals))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_at_the_next_step_and_the_rest_is_the_same(
    workshop: Workshop, kind: signal.Signals
) -> None:
    whole = workshop.run("whole", workshop.stage(12))
    before = signal.getsignal(kind)
    with pytest.raises(StoppedError, match="stopped after step 6, state saved"):
        workshop.run("stopped", interrupted(workshop.stage(12), 5, kind))
    assert signal.getsignal(kind) is before
    newest = checkpoint.last(workshop.folder / "stopped" / "checkpoints")
    assert newest.name == "step-00000006"
    assert len(workshop.entries("stopped")) == 6
    assert not (workshop.folder / "stopped" / "manifest.json").exists()
    resumed = workshop.run("stopped", workshop.stage(12), seed=8)
    assert same_weights(whole, resumed)
    assert workshop.entries("stopped") == workshop.entries("whole")
    assert equal_states(state_at(workshop, "whole", 12), state_at(workshop, "stopped", 12))


def test_a_stop_in_the_last_step_finishes_the_run(workshop: Workshop) -> None:
    """And nothing after it: what asked for the stop does not wait for the next stage."""
    with pytest.raises(StoppedError, match="stopped after its last step"):
        workshop.run("run", interrupted(workshop.stage(6), 5, signal.SIGTERM))
    assert verify(workshop.folder / "run").notes["steps"] == 6
    assert same_weights(
        workshop.run("run", workshop.stage(6), seed=8), workshop.run("whole", workshop.stage(6))
    )


def test_a_second_stop_acts_at_once(workshop: Workshop) -> None:
    stage = interrupted(workshop.stage(12), 5, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        workshop.run("run", stage)
    assert len(workshop.entries("run")) == 5
    assert same_weights(
        workshop.run("run", workshop.stage(12)), workshop.run("whole", workshop.stage(12))
    )


def test_unfinished_work_under_other_settings_is_refused(workshop: Workshop) -> None:
    """Until it is put back or taken away; nothing of it is touched."""
    old = workshop.stage(12, made_from="old", inputs={"settings pretrain": "1" * 64})
    with pytest.raises(StoppedError):
        workshop.run("run", interrupted(old, 6, signal.SIGTERM))
    new = workshop.stage(12, made_from="new", inputs={"settings pretrain": "2" * 64})
    before = sorted(p.stat().st_mtime_ns for p in (workshop.folder / "run").rglob("*"))
    with pytest.raises(UserError, match=r"settings pretrain was 1{12}, is 2{12}.*undo the change"):
        workshop.run("run", new)
    assert sorted(p.stat().st_mtime_ns for p in (workshop.folder / "run").rglob("*")) == before
    assert same_weights(workshop.run("run", old), workshop.run("whole", workshop.stage(12)))
