"""The one training loop: pre-training, decay, SFT and DPO pass in objective, feed and schedule.

A step's data is a pure function of its number and its numbers depend on nothing else that is
remembered, so a killed run that starts again from its newest checkpoint ends bit for bit like one
that was not. Dropout, which only LoRA has, keeps to this: its masks are a function of the seed, the
step and the micro-batch. With it alone, how a batch is split does change the numbers: one micro-
batch's masks are drawn together, not row by row.

Any number of processes may work on a stage, another one after every start: each takes its share of
a step's micro-batches, and losses, units and gradients are summed over all of them before anything
is divided, decided or logged.
"""

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from indexlm.config import HardwareConfig, TrainConfig
from indexlm.errors import StoppedError, UserError
from indexlm.model.shard import arrange, bring_back, local, sum_head_gradient
from indexlm.model.transformer import Transformer
from indexlm.records import Metrics, seal
from indexlm.runtime import device_of, from_first, rank, ranks, summed
from indexlm.train import checkpoint
from indexlm.train.checkpoint import Checkpoints
from indexlm.train.console import Console
from indexlm.train.lanes import Lanes, Objective, fitting_lanes
from indexlm.train.optim import adamw, named_state
from indexlm.train.watch import (
    WATCH_EVERY,
    Activations,
    SkipGuard,
    by_layer,
    gradient_squares,
    head_row_norms,
    update_squares,
    watching,
)

log = logging.getLogger("indexlm")

SHOWN = 20
"""Documents of a skipped step that a message names; the log of the steps names all."""


class Feed(Protocol):
    @property
    def names(self) -> Sequence[str]:
        """Of the sources that its tokens come from."""
        ...

    def micro_batches(self, step: int, rank: int, ranks: int) -> Iterator[Any]:
        """Process `rank` of `ranks` is given its share of the micro-batches of `step`."""
        ...

    def documents(self, step: int) -> list[str]:
        """Names of the documents of `step`."""
        ...


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
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The parts of `made_from` by name, for the message where one has changed."""
    parent: Path | None = None
    """Checkpoint to branch from."""
    keep_optimiser: bool = True
    """Whether a branch goes on with its parent's moments."""
    evaluate: Callable[[Transformer], Mapping[str, float]] | None = None
    tokens_per_step: int = 0
    """Tokens of a step where every row is full, which evaluations are counted in."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Tokens by source that the mixture asks for."""
    seed: int = 0
    """Of dropout masks."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tensorboard: Path | None = None
    """Folder of the curves for TensorBoard."""


def train(model: Transformer, stage: Stage, folder: Path) -> None:
    """Run `stage` in `folder`, from its newest good checkpoint if it has one.

    Leaves `metrics.jsonl` and `checkpoints/`, sealed by a manifest, and the model at the last step,
    whole on every process. Raises StoppedError, with the state saved, when a stop was asked for,
    and UserError for what cannot work before the first step.
    """
    config = stage.config
    check_split(stage.name, config.batch, config.micro_batch, stage.hardware.head_parallel)
    device, hardware = device_of(stage.hardware.device), stage.hardware
    lay_out = partial(
        arrange,
        model,
        device,
        bfloat16=hardware.dtype == "bfloat16",
        compile_blocks=hardware.compile,
        recompute=hardware.recompute,
        head_parallel=hardware.head_parallel,
    )
    worker = lay_out()
    beside = fitting_lanes(worker, device, config.micro_batch) - 1
    lanes = Lanes([worker, *(lay_out(beside=True) for _ in range(beside))], stage.objective)
    optimiser = adamw(worker, stage.config.optimiser)
    state = named_state(worker, optimiser)
    saves = Checkpoints(
        folder / "checkpoints",
        stage.made_from,
        stage.inputs,
        stage.config.keep_every,
        hardware.async_save,
    )
    step = _starting_step(stage, saves.folder, state)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = Metrics(folder / "metrics.jsonl", step, writes=rank() == 0)
    # What is decided from it is decided alike.
    kept = from_first(lambda: metrics.kept)
    guard = SkipGuard(stage.config.skip_above, kept)
    console = Console(stage, worker.config, device, step, kept)
    # No thread of it still writes when this ends, in whatever way.
    with _stop_requests() as stop_asked, closing(saves), closing(lanes):
        while step < stage.last_step:
            share = stage.lr_share(step)
            for group in optimiser.param_groups:
                group["lr"] = stage.config.optimiser.lr * share
            entry = _train_step(lanes, optimiser, stage, step, guard, device, stop_asked)
            stopping = entry.pop("stop")
            step += 1
            if stage.evaluate and _evaluation_due(stage, step):
                with _uncompiled(hardware):
                    entry["scores"] = dict(stage.evaluate(worker))
            metrics.write(entry | console.measure(entry))
            console.show(entry, step)
            saves.check()
            if step == stage.last_step or _save_due(stage.config, step) or stopping:
                metrics.sync()
                saves.save(step, state)
            if stopping and step < stage.last_step:
                saves.wait()
                # The others' parts are written; the first process has to put its name on them.
                from_first(lambda: None)
                metrics.close()
                raise StoppedError(f"{stage.name}: stopped after step {step}, state saved")
        saves.wait()
        metrics.close()
        console.close()
        bring_back(worker, model)
        from_first(lambda: seal(folder, stage.made_from, console.account(step)))
        if summed(torch.tensor(float(stop_asked()))) > 0:
            raise StoppedError(f"{stage.name}: stopped after its last step, state saved")


def _uncompiled(hardware: HardwareConfig) -> AbstractContextManager[Any]:
    """An evaluation has batches of many shapes, each of which would be compiled."""
    if hardware.compile:
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def check_split(name: str, batch: int, micro_batch: int, head_parallel: int) -> None:
    """Raises UserError where the processes cannot share a step or the head evenly."""
    count, parts = ranks(), batch // micro_batch
    if parts % count:
        fitting = [rows for rows in range(1, micro_batch + 1) if batch % (rows * count) == 0]
        remedy = (
            f"lower {name}.micro_batch to {max(fitting)}"
            if fitting
            else f"make {name}.batch a multiple of {count}"
        )
        raise UserError(
            f"{name}: {count} processes cannot share the {parts} micro-batches of a step "
            f"(batch={batch}, micro_batch={micro_batch}); {remedy}, or start another number of "
            "processes"
        )
    if count % head_parallel:
        raise UserError(
            f"hardware.head_parallel={head_parallel} does not divide the {count} processes; use a "
            "divisor of their number, or 1"
        )


def _train_step(
    lanes: Lanes,
    optimiser: torch.optim.AdamW,
    stage: Stage,
    step: int,
    guard: SkipGuard,
    device: str,
    stop_asked: Callable[[], bool],
) -> dict[str, Any]:
    optimiser.zero_grad(set_to_none=True)
    model = lanes.models[0]
    watched = step % WATCH_EVERY == 0
    with watching(lanes.models, watched) as seen:
        sums = _forward_and_backward(lanes, stage, step, device, stop_asked)
    # A step without a label has no loss, and is skipped as one that is not finite.
    units, names = sums["units"] or math.nan, list(stage.feed.names)
    sum_head_gradient(model)
    squares = {name: s / units**2 for name, s in gradient_squares(model).items()}
    norm = math.sqrt(math.fsum(squares.values()))
    clip = stage.config.optimiser.clip
    entry: dict[str, Any] = {
        "step": step,
        "loss": sums["loss"] / units,
        "lr": optimiser.param_groups[0]["lr"],
        "grad_norm": norm,
        "clipped": norm > clip,
        "units": int(sums["units"]),
        "tokens": int(sum(sums[f"tokens {name}"] for name in names)),
        "sources": {name: int(sums[f"tokens {name}"]) for name in names},
        "stop": bool(sums["stop"]),
    }
    if sums["bytes"]:
        entry["bits_per_byte"] = sums["loss"] / math.log(2) / sums["bytes"]
    further = [name for name in sums if name.startswith("further ")]
    entry |= {name.removeprefix("further "): sums[name] / units for name in further}
    reason = guard.reason(entry["loss"], norm)
    if guard.allows(entry["loss"], norm, step):
        gradients = [local(p.grad) for p in model.parameters() if p.grad is not None]
        # The mean over units and the clipping in one pass; 1e-6 as torch's own clipping has it.
        torch._foreach_mul_(gradients, min(1.0, clip / (norm + 1e-6)) / units)
        optimiser.step()
    else:
        documents = stage.feed.documents(step)
        entry |= {"skipped": reason, "documents": documents}
        named = ", ".join(documents[:SHOWN]) + (", ..." if len(documents) > SHOWN else "")
        log.warning(
            f"{stage.name}: step {step} skipped ({reason}), loss {entry['loss']}, gradient {norm}; "
            f"its documents: {named}"
        )
    if watched:
        entry |= _watched(model, optimiser, squares, seen, "skipped" not in entry)
    return entry


def _forward_and_backward(
    lanes: Lanes, stage: Stage, step: int, device: str, stop_asked: Callable[[], bool]
) -> dict[str, float]:
    """Gradients of this process's micro-batches, summed; the returned sums are of all processes."""
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    units, read = 0, 0
    tokens = dict.fromkeys(stage.feed.names, 0)
    further: dict[str, float] = {}
    for number, batch in enumerate(stage.feed.micro_batches(step, rank(), ranks())):
        _seed_dropout(stage.seed, step, rank() + number * ranks())
        loss, count, more = lanes.run(batch.to(device))
        loss_sum += loss
        units += count
        read += batch.label_bytes
        for name, of_source in batch.tokens.items():
            tokens[name] += of_source
        for name, value in more.items():
            further[name] = further.get(name, 0.0) + value
        # Else its small blocks lie between those of the next micro-batch: up to 35% more memory.
        del loss, batch
    lanes.collect()
    sums = {"loss": float(loss_sum), "units": units, "bytes": read, "stop": stop_asked()}
    sums |= {f"tokens {name}": count for name, count in tokens.items()}
    sums |= {f"further {name}": value for name, value in sorted(further.items())}
    values = summed(torch.tensor(list(sums.values()), dtype=torch.float64))
    return dict(zip(sums, values.tolist()))


def _watched(
    model: Transformer,
    optimiser: torch.optim.AdamW,
    squares: Mapping[str, float],
    seen: Activations,
    updated: bool,
) -> dict[str, Any]:
    """What is looked at every WATCH_EVERY steps: norms by layer, and the head."""
    layers = by_layer(squares)
    whole = math.fsum(squares.values())
    found: dict[str, Any] = {"layers": layers, "activations": seen.means()}
    if updated:
        found["updates"] = by_layer(update_squares(model, optimiser))
    found["head_rows"] = head_row_norms(model)
    rounded: dict[str, Any] = {
        name: {layer: float(f"{value:.4g}") for layer, value in values.items()}
        for name, values in found.items()
    }
    if "head" in layers and whole > 0:
        rounded["head_share"] = float(f"{layers['head'] ** 2 / whole:.4g}")
    return rounded


def _seed_dropout(seed: int, step: int, micro_batch: int) -> None:
    """Set torch's own generators, the only ones that dropout can draw from."""
    state = np.random.SeedSequence((seed, step, micro_batch)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))


def _starting_step(stage: Stage, checkpoints: Path, state: dict[str, Tensor]) -> int:
    found = from_first(lambda: checkpoint.newest(checkpoints, stage.made_from, stage.inputs))
    if found is not None:
        step = checkpoint.load(found, state)
        log.info(f"{stage.name}: going on from step {step}")
    else:
        step = stage.first_step
        if stage.parent is not None:
            inherited = {
                name: value
                for name, value in state.items()
                if stage.keep_optimiser or name.startswith("weight.")
            }
            checkpoint.load(stage.parent, inherited)
    _check_weights(stage, state)
    every = stage.config.keep_every
    kept = stage.last_step // every - stage.first_step // every if every else 0
    from_first(lambda: checkpoint.check_space(checkpoints.parent, state, kept))
    return step


def _check_weights(stage: Stage, state: Mapping[str, Tensor]) -> None:
    """Raises UserError where a weight to start from is no number: no step could be taken."""
    names = [name for name in state if name.startswith("weight.")]
    finite = [bool(local(state[name]).isfinite().all()) for name in names]
    broken = summed(torch.tensor([not each for each in finite], dtype=torch.float64))
    if broken.any():
        name = names[int(broken.nonzero()[0])].removeprefix("weight.")
        raise UserError(
            f"{stage.name}: {name} of the model to start from is not finite; start from another "
            "model or checkpoint"
        )


def _save_due(config: TrainConfig, step: int) -> bool:
    """Also at a step that is to be kept, whether or not `save_every` falls on it."""
    return any(every and step % every == 0 for every in (config.save_every, config.keep_every))


def _evaluation_due(stage: Stage, step: int) -> bool:
    every, each = stage.config.evaluate_every_tokens, stage.tokens_per_step
    if not every:
        return step == stage.last_step
    return step == stage.last_step or step * each // every > (step - 1) * each // every


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
