"""Arms run through the one loop: forks go on exactly, results are kept, divergence is counted."""

import math
from pathlib import Path

import pytest
import torch
from small_arms import CPU, SMALL, arm, exploding, wsd

from indexlm.config import OptimiserConfig, ScheduleConfig
from indexlm.errors import DamagedError
from indexlm.lab.arms import ChatData, PreferenceData, Result, TextData, TextPhase, Watch
from indexlm.lab.corpus import WorldSource
from indexlm.lab.dialogues import Group
from indexlm.lab.feeds import objective_and_feed
from indexlm.lab.reference import shape, text, training
from indexlm.lab.running import can_fork, divergence, forget, result_of, run
from indexlm.lab.world import World
from indexlm.model.transformer import Transformer
from indexlm.records import read_metrics
from indexlm.train.optim import adamw
from indexlm.train.schedules import lr_share


def test_an_arm_is_the_ordinary_training_step_by_step(tmp_path: Path) -> None:
    """Written out here without the loop: twenty steps, losses and gradient norms to 1e-5."""
    asked = arm(train=training(20, schedule=ScheduleConfig(shape="cosine", warmup=3, final=0.1)))
    run(asked, tmp_path, CPU)
    (log,) = tmp_path.glob("work/*/metrics.jsonl")
    lines = read_metrics(log)
    model = Transformer(asked.model)
    model.initialise(asked.seed)
    objective, feed = objective_and_feed(asked, World(SMALL), model, None, CPU)
    optimiser = adamw(model, asked.train.optimiser)
    for step in range(20):
        (batch,) = feed.micro_batches(step, 0, 1)
        for group in optimiser.param_groups:
            group["lr"] = asked.train.optimiser.lr * lr_share(asked.train.schedule, step, 20)
        optimiser.zero_grad()
        loss, units, _ = objective(model, batch)
        (loss / units).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), asked.train.optimiser.clip)
        optimiser.step()
        assert lines[step]["loss"] == pytest.approx(float(loss.detach()) / units, rel=1e-5)
        assert lines[step]["grad_norm"] == pytest.approx(float(norm), rel=1e-5)


def test_a_fork_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    """Weights, moments and rows: the decay of a fork is that of one long run."""
    whole = arm(train=wsd(12), decay_steps=4)
    trunk = arm(train=wsd(8))
    fork = arm(train=wsd(12), decay_steps=4, trunk=trunk)
    straight = run(whole, tmp_path, CPU)
    run(trunk, tmp_path, CPU)
    branched = run(fork, tmp_path, CPU)
    assert branched.first_step == 8
    assert branched.losses == straight.losses[8:]
    assert branched.scores == straight.scores
    fresh = run(fork.model_copy(update={"keep_optimiser": False}), tmp_path, CPU)
    assert fresh.losses != branched.losses


def test_forks_leave_a_trunk_at_the_steps_it_kept(tmp_path: Path) -> None:
    trunk = arm(train=wsd(8, keep_every=4))
    early = arm(train=wsd(6), decay_steps=2, trunk=trunk, from_step=4)
    assert not can_fork(early, tmp_path)
    long = run(trunk, tmp_path, CPU)
    assert can_fork(early, tmp_path)
    assert run(early, tmp_path, CPU).losses[:1] == long.losses[4:5]
    forget(trunk, tmp_path)
    assert not can_fork(early, tmp_path)
    assert result_of(trunk, tmp_path) == long


def test_a_phase_changes_what_is_read_and_nothing_before_it(tmp_path: Path) -> None:
    phases = (TextPhase(shares={"web": 1.0}), TextPhase(first_step=6, shares={"hq": 1.0}))
    plain = run(arm(data=text(web=1.0)), tmp_path, CPU)
    mixed = run(arm(data=TextData(phases=phases)), tmp_path, CPU)
    assert mixed.losses[:6] == plain.losses[:6]
    assert mixed.losses[6] != plain.losses[6]


def test_a_held_learning_rate_holds_from_the_last_phase_on(tmp_path: Path) -> None:
    phases = (TextPhase(shares={"web": 1.0}), TextPhase(first_step=6, shares={"hq": 1.0}))
    held = arm(train=training(20), data=TextData(phases=phases), held_lr=0.5)
    rates = {point["step"]: point["lr"] for point in run(held, tmp_path, CPU).curve}
    assert rates[10] == rates[19] == pytest.approx(0.5 * held.train.optimiser.lr)
    assert rates[0] == pytest.approx(held.train.optimiser.lr / 40)


def test_heads_begin_as_asked(tmp_path: Path) -> None:
    long = run(arm(head_rows=3.0), tmp_path, CPU).curve[0]["head_rows"]
    assert long["mean"] == pytest.approx(3.0, rel=0.01)
    detached = run(arm(detached_head=True), tmp_path, CPU)
    plain = run(arm(), tmp_path, CPU)
    assert detached.losses[0] == plain.losses[0], "forward they are the same"
    assert detached.gradients[0] > plain.gradients[0], "along a row there is a gradient too"


def test_scores_are_of_rows_and_seeds_that_no_arm_trains_on() -> None:
    held_out = WorldSource(World(SMALL), "hq", 0, 32)
    for seed in range(3):
        asked = arm(seed)
        _, feed = objective_and_feed(asked, World(SMALL), Transformer(asked.model), None, CPU)
        rows = feed.sources["hq"]  # type: ignore[attr-defined]
        assert rows.row(0)[0].labels.tolist() != held_out.row(0)[0].labels.tolist()


# Divergence.


def test_an_arm_that_diverges_is_a_result(tmp_path: Path) -> None:
    result = run(exploding(), tmp_path, CPU)
    assert result.diverged
    assert result.value("cloze/held-out/accuracy") is None
    assert result_of(exploding(), tmp_path) == result
    good = run(arm(), tmp_path, CPU)
    assert good.diverged == ""
    assert good.value("cloze/held-out/accuracy") == good.scores["cloze/held-out/accuracy"]


def test_a_fork_of_a_trunk_that_diverged_diverged_too(tmp_path: Path) -> None:
    fork = arm(train=wsd(16), trunk=exploding())
    run(exploding(), tmp_path, CPU)
    result = run(fork, tmp_path, CPU)
    assert result.diverged.startswith("its trunk diverged")
    assert (result.losses, result.value("loss/hq")) == ([], None)


@pytest.mark.parametrize(
    ("losses", "scores", "said"),
    [
        ([6.0] * 20, {"a": 1.0}, ""),
        ([6.0] * 18 + [7.0, 7.2], {"a": 1.0}, "loss 7.1 over the last 2 steps"),
        ([9.0] + [3.0] * 19, {"a": 1.0}, ""),
        ([3.0] * 19 + [math.nan], {"a": 1.0}, "loss nan"),
        ([3.0] * 20, {"a": math.nan}, "a: no number"),
    ],
)
def test_what_counts_as_diverged(losses: list[float], scores: dict[str, float], said: str) -> None:
    found = divergence(losses, scores, ceiling=6.2)
    assert found.startswith(said) and bool(found) == bool(said)


def test_an_arm_that_learns_nothing_has_not_diverged(tmp_path: Path) -> None:
    """Norm-Head at a large scale starts far above a uniform guess and stays there at a low rate."""
    model = shape(SMALL, 16, 1, head_scale=12.0)
    result = run(arm(model=model, train=wsd(12, optimiser=OptimiserConfig(lr=1e-7))), tmp_path, CPU)
    assert (result.losses[-1] or 0) > math.log(model.vocab_size)
    assert result.diverged == ""


# Fine-tuning.


def test_answers_and_pairs_are_trained_on_a_base(tmp_path: Path) -> None:
    base = arm(train=wsd(12))
    watch = Watch(sets=(("chat", "held-out"),), items=16, rows=4, refusals=8)
    chat = arm(name="chat", trunk=base, data=ChatData(answers=64, response_share=0.6), watch=watch)
    groups: tuple[Group, ...] = ("fact", "own refusal")
    pairs = PreferenceData(groups=groups, pairs=16)
    better = arm(name="dpo", trunk=chat, keep_optimiser=False, data=pairs, watch=watch)
    run(base, tmp_path, CPU)
    answered = run(chat, tmp_path, CPU)
    assert answered.first_step == 0
    assert answered.scores["response_share"] == pytest.approx(0.6, abs=0.06)
    assert {"chat/held-out/exact", "refused/harmful", "loss/hq"} <= answered.scores.keys()
    preferred = run(better, tmp_path, CPU)
    # Reference and model are the same before the first step.
    assert preferred.losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert {"margin", "accuracy", "chosen", "rejected"} <= preferred.curve[0].keys()
    assert preferred.curve[0]["margin"] == pytest.approx(0, abs=1e-3)
    of_pairs = {name for name in preferred.scores if name.startswith("perplexity/")}
    assert of_pairs == {f"perplexity/{g}/{side}" for g in groups for side in ("chosen", "rejected")}
    assert result_of(better, tmp_path) == preferred


@pytest.mark.parametrize("share", [0.4, 0.6, 1.0])
def test_the_share_of_loss_tokens_is_measured_as_it_was_asked_for(share: float) -> None:
    chat = arm(trunk=arm(), data=ChatData(response_share=share))
    _, feed = objective_and_feed(chat, World(SMALL), Transformer(chat.model), None, CPU)
    labels = {True: 0, False: 0}
    for step in range(64):
        for batch in feed.micro_batches(step, 0, 1):
            for labels_T in batch.labels_BT:
                labels[bool((labels_T == -100).any())] += int((labels_T != -100).sum())
    assert labels[True] / sum(labels.values()) == pytest.approx(share, abs=0.03)


def test_a_result_is_read_back_as_it_was_written_or_refused(tmp_path: Path) -> None:
    written = run(arm(), tmp_path, CPU)
    read = result_of(arm(), tmp_path)
    assert isinstance(read, Result)
    assert read == written
    (path,) = tmp_path.glob("arms/*.json")
    path.write_text(path.read_text()[:-100])
    with pytest.raises(DamagedError, match="delete it, and the arm is run again"):
        result_of(arm(), tmp_path)
