"""The one training loop: pre-training, decay, SFT and DPO pass in objective, feed and schedule.

A step's data is a pure function of its number and its numbers depend on nothing else that is
remembered, so a killed run that starts again from its newest checkpoint ends bit for bit like one
that was not. Dropout, which only LoRA has, keeps to this: its masks are a function of the seed, the
step and the micro-batch. With it alone, how a batch is split does change the numbers: one micro-
batch's masks are drawn together, not row by row.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from indexlm.config import TrainConfig
from indexlm.errors import StoppedError
from indexlm.model.transformer import Transformer
from indexlm.records import Metrics, clock, seal
from indexlm.train import checkpoint
from indexlm.train.optim import adamw, named_state
from indexlm.train.watch import SkipGuard, gradient_norms, summary

log = logging.getLogger("indexlm")

Objective = Callable[[Transformer, Any], tuple[Tensor, int, Mapping[str, float]]]
"""(model, batch) -> (summed loss, number of units, further sums). The loop divides by the units
of the whole step, so splitting a batch cannot change the result."""


SHOWN = ("margin", "accuracy", "bits_per_byte/zh", "bits_per_byte/en")
"""What a progress line says beside loss and speed, where a step has it."""


class Feed(Protocol):
    def micro_batches(self, step: int) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Stage:
    """One run of the loop, from `first_step` to `last_step` (counted over the whole family)."""

    name: str
    config: TrainConfig
    objective: Objective
    feed: Feed
    lr_share: Callable[[int], float]
    first_step: int
    last_step: int
    made_from: str
    """Fingerprint of everything that its numbers depend on."""
    parent: Path | None = None
    """Checkpoint to branch from."""
    keep_optimiser: bool = True
    """Whether a branch goes on with its parent's moments."""
    evaluate: Callable[[Transformer], Mapping[str, float]] | None = None
    seed: int = 0
    """Of dropout masks."""


def train(model: Transformer, stage: Stage, folder: Path) -> None:
    """Run `stage` in `folder`, from its newest good checkpoint if it has one.

    Leaves `metrics.jsonl` and `checkpoints/`, sealed by a manifest, and the model at the last step.
    Raises StoppedError, with the state saved, when a stop was asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = adamw(model, stage.config.optimiser)
    state = named_state(model, optimiser)
    step = _starting_step(stage, folder / "checkpoints", state)
    metrics = Metrics(folder / "metrics.jsonl", step)
    guard, pace = SkipGuard(), _Pace(stage, step)
    model.train()
    with _stop_requests() as stop_asked:
        while step < stage.last_step:
            share = stage.lr_share(step)
            for group in optimiser.param_groups:
                group["lr"] = stage.config.optimiser.lr * share
            entry = _train_step(model, optimiser, stage, step, guard)
            step += 1
            if stage.evaluate and _due(stage, step, stage.config.evaluate_every):
                entry["scores"] = dict(stage.evaluate(model))
            metrics.write(entry | pace.measure(entry))
            pace.show(entry, step)
            if _due(stage, step, stage.config.save_every) or stop_asked():
                checkpoint.save(folder / "checkpoints", step, state, stage.made_from)
            if stop_asked() and step < stage.last_step:
                metrics.close()
                raise StoppedError(f"{stage.name}: stopped after step {step}, state saved")
    metrics.close()
    seal(folder, stage.made_from, {"steps": step, "seconds": round(pace.elapsed(), 1)})


def _train_step(
    model: Transformer,
    optimiser: torch.optim.AdamW,
    stage: Stage,
    step: int,
    guard: SkipGuard,
) -> dict[str, Any]:
    optimiser.zero_grad(set_to_none=True)
    loss_sum, units, tokens = 0.0, 0, 0
    sums: dict[str, float] = {}
    for number, batch in enumerate(stage.feed.micro_batches(step)):
        _seed_dropout(stage.seed, step, number)
        loss, count, further = stage.objective(model, batch)
        loss.backward()
        loss_sum, units = loss_sum + float(loss.detach()), units + count
        tokens += _size(batch)
        for name, value in further.items():
            sums[name] = sums.get(name, 0.0) + value
        # Else its small blocks lie between those of the next micro-batch: up to 35% more memory.
        del loss, batch
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:
        assert parameter.grad is not None
        parameter.grad.div_(units)
    norm, by_layer = gradient_norms(model)
    entry: dict[str, Any] = {
        "step": step,
        "loss": loss_sum / units,
        "lr": optimiser.param_groups[0]["lr"],
        "grad_norm": float(norm),
        "units": units,
        "tokens": tokens,
    } | {name: value / units for name, value in sums.items()}
    if step % 10 == 0:
        entry["layers"] = {name: float(f"{value:.4g}") for name, value in by_layer.items()}
    if guard.allows(entry["loss"], entry["grad_norm"], step):
        torch.nn.utils.clip_grads_with_norm_(
            trainable, stage.config.optimiser.clip, norm, foreach=True
        )
        optimiser.step()
    else:
        entry["skipped"] = True
        log.warning(f"{stage.name}: step {step} skipped, loss {entry['loss']}, gradient {norm}")
    return entry


def _seed_dropout(seed: int, step: int, micro_batch: int) -> None:
    """Set torch's own generator, the only one that dropout can draw from."""
    state = np.random.SeedSequence((seed, step, micro_batch)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))


def _starting_step(stage: Stage, checkpoints: Path, state: dict[str, Tensor]) -> int:
    found = checkpoint.newest(checkpoints, stage.made_from)
    if found is not None:
        step = checkpoint.load(found, state)
        log.info(f"{stage.name}: going on from step {step}")
        return step
    if stage.parent is not None:
        inherited = {
            name: value
            for name, value in state.items()
            if stage.keep_optimiser or name.startswith("weight.")
        }
        checkpoint.load(stage.parent, inherited)
    return stage.first_step


def _due(stage: Stage, step: int, every: int) -> bool:
    return step == stage.last_step or (every > 0 and step % every == 0)


def _size(batch: Any) -> int:
    rows = batch.rows if "rows" in batch.__dataclass_fields__ else batch
    return int((rows.documents_BT >= 0).sum())


class _Pace:
    """Tokens per second and time left, from the steps of this process."""

    def __init__(self, stage: Stage, step: int) -> None:
        self.stage, self.first, self.tokens = stage, step, 0
        self.started = self.before = time.monotonic()
        self.shown = self.started - 60

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def measure(self, entry: Mapping[str, Any]) -> dict[str, float]:
        now = time.monotonic()
        seconds, self.before = now - self.before, now
        self.tokens += entry["tokens"]
        return {"seconds": round(seconds, 4)}

    def show(self, entry: Mapping[str, Any], step: int) -> None:
        now = time.monotonic()
        if now - self.shown < 5 and step != self.stage.last_step:
            return
        self.shown = now
        left = self.elapsed() / (step - self.first) * (self.stage.last_step - step)
        known = entry | entry.get("scores", {})
        further = {name: known[name] for name in SHOWN if name in known}
        log.info(
            f"{self.stage.name} {step}/{self.stage.last_step}  loss {entry['loss']:.3f}  "
            f"lr {entry['lr']:.2e}  |g| {entry['grad_norm']:.2f}  "
            f"{self.tokens / self.elapsed():,.0f} tok/s  {clock(left)} left"
            + (f"  {summary(further)}" if further else "")
        )


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Within it, the first Ctrl-C or SIGTERM is remembered and the second acts at once."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number: int, frame: Any) -> None:
        asked.append(number)
        log.info("stopping after this step; once more to stop at once")
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
