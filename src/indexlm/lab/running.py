"""Arms through the one training loop, so that what a study measures is the product.

A finished arm is one JSON behind a fingerprint of its settings, its trunk's and the code; the same
arm is never run twice. A killed one goes on from its newest checkpoint.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from indexlm.config import HardwareConfig
from indexlm.errors import DamagedError, shown
from indexlm.lab.arms import Arm, ChatData, PreferenceData, Result, TextData
from indexlm.lab.corpus import WorldSource
from indexlm.lab.dialogues import Dialogues, perplexities
from indexlm.lab.feeds import HELD_OUT_TEXT, RESPONSES, objective_and_feed
from indexlm.lab.heads import detach_norms, set_row_norms
from indexlm.lab.items import evaluation, items
from indexlm.lab.texts import scored_by
from indexlm.lab.world import World
from indexlm.model.transformer import Transformer
from indexlm.records import read_metrics, write_json
from indexlm.train import checkpoint
from indexlm.train.loop import Feed, Stage, train
from indexlm.train.objectives.preference import PairFeed
from indexlm.train.schedules import lr_share

TAIL = 0.1
"""Share of the steps, at the end, whose mean loss says whether an arm diverged."""

BATCH_NOISE = 1.25
"""By how much the loss of a batch may be above that of another."""

UNSAID = ("sources", "units", "tokens", "seconds", "activations", "documents")
"""Of a step's log, what a result leaves out."""


def result_of(arm: Arm, folder: Path) -> Result | None:
    """What `run` has written, None where it has not. Raises DamagedError where it was changed."""
    path = _result_path(arm, folder)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(
            f"{path} cannot be read: {shown(str(error))}; delete it, and the arm is run again"
        ) from error
    assert content.pop("format") == 1, path
    return Result(**content)


def run(arm: Arm, folder: Path, hardware: HardwareConfig) -> Result:
    """Train and measure an arm whose trunk has its checkpoints; goes on where a killed run stopped.

    Its own checkpoints stay in `folder`, for forks, until `forget`. Raises StoppedError where a
    stop was asked for.
    """
    started, place, further = time.process_time(), _place(arm, folder), dict[str, float]()
    if hardware.device == "cuda":
        # TF32: float32 products on the tensor cores, at several times the rate.
        torch.set_float32_matmul_precision("high")
    diverged = _of_trunk(arm, folder)
    if not diverged:
        model = _new_model(arm)
        stage = _stage(arm, model, folder, hardware)
        try:
            train(model, stage, place)
        except FloatingPointError as error:
            diverged = str(error)
        further = _of_data(arm, stage.feed, place)
    lines = read_metrics(place / "metrics.jsonl")
    seconds = round(time.process_time() - started, 2)
    result = _result(arm, lines, diverged)
    scores = {**result.scores, **{name: _number(value) for name, value in further.items()}}
    result = replace(result, scores=scores, cpu_seconds=seconds)
    path = _result_path(arm, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result.as_json())
    return result


def _of_data(arm: Arm, feed: Feed, place: Path) -> dict[str, float]:
    """What is measured of the data of SFT and DPO: the share of the loss tokens that are answers,
    and the perplexity of both sides of the pairs under the model that training starts from."""
    lines = read_metrics(place / "metrics.jsonl")
    match arm.data:
        case ChatData() if lines:
            # Every token of a replayed row counts.
            of_line = [line["tokens"] - line["sources"][RESPONSES] for line in lines]
            return {"response_share": 1 - sum(of_line) / sum(line["units"] for line in lines)}
        case PreferenceData(groups=groups, pairs=count):
            assert isinstance(feed, PairFeed)
            found = dict[str, float]()
            for number, group in enumerate(groups):
                part = slice(number * count, (number + 1) * count)
                sides = perplexities(feed.pairs[part], feed.reference[part])
                found |= {f"perplexity/{group}/{side}": value for side, value in sides.items()}
            return found
        case _:
            return {}


def can_fork(arm: Arm, folder: Path) -> bool:
    """Whether the checkpoint that a fork starts from is there, or never will be."""
    if arm.trunk is None or _of_trunk(arm, folder):
        return True
    step = arm.from_step or arm.trunk.train.steps
    return (_place(arm.trunk, folder) / "checkpoints" / f"step-{step:08d}").exists()


def forget(arm: Arm, folder: Path) -> None:
    """Remove the checkpoints of a finished arm that no fork needs any more."""
    shutil.rmtree(_place(arm, folder), ignore_errors=True)


def _result(arm: Arm, lines: Sequence[Mapping[str, Any]], diverged: str) -> Result:
    losses = [line["loss"] for line in lines]
    scores = lines[-1].get("scores", {}) if lines else {}
    return Result(
        arm=arm.model_dump(mode="json"),
        made_from=arm.fingerprint(),
        scores={name: _number(value) for name, value in scores.items()},
        curve=[_point(line) for line in lines if "scores" in line or "layers" in line],
        losses=[_number(loss) for loss in losses],
        gradients=[_number(line["grad_norm"]) for line in lines],
        first_step=arm.first_step,
        clipped=sum(line["clipped"] for line in lines) / max(len(lines), 1),
        diverged=diverged or divergence(losses, scores, _ceiling(arm, losses)),
        parameters=arm.model.parameters,
        non_embedding=arm.model.non_embedding_parameters,
        cpu_seconds=0.0,
    )


def divergence(losses: Sequence[float], scores: Mapping[str, float], ceiling: float) -> str:
    """Why an arm that came to its end counts as diverged all the same; empty where it does not.

    Its mean loss over the last tenth of the steps is no number or above `ceiling`, or one of its
    scores is no number.
    """
    tail = losses[-max(1, round(TAIL * len(losses))) :]
    mean = math.fsum(tail) / len(tail)
    if not mean <= ceiling:
        return f"loss {mean:.3g} over the last {len(tail)} steps, above {ceiling:.3g}"
    broken = [name for name, value in scores.items() if not math.isfinite(value)]
    return f"{', '.join(broken)}: no number" if broken else ""


def _ceiling(arm: Arm, losses: Sequence[float]) -> float:
    """Well above the loss of knowing nothing, and above that of the first step."""
    if arm.data.kind == "preference":
        # It starts at log 2, and stays near it where the learning rate is small.
        return 10 * math.log(2)
    # A head of large scale starts above a uniform guess, and stays there while it has learned
    # nothing: that is no divergence. Batches differ by some percent.
    return BATCH_NOISE * max(math.log(arm.model.vocab_size), losses[0])


def _of_trunk(arm: Arm, folder: Path) -> str:
    """Why a fork cannot start; empty where it can."""
    if arm.trunk is None:
        return ""
    trunk = result_of(arm.trunk, folder)
    return f"its trunk diverged: {trunk.diverged}" if trunk and trunk.diverged else ""


def _new_model(arm: Arm) -> Transformer:
    model = Transformer(arm.model)
    model.initialise(arm.seed)
    if arm.detached_head:
        detach_norms(model)
    if arm.head_rows is not None:
        set_row_norms(model, arm.head_rows)
    return model


def _stage(arm: Arm, model: Transformer, folder: Path, hardware: HardwareConfig) -> Stage:
    world = World(arm.world)
    parent = _parent(arm, folder)
    objective, feed = objective_and_feed(arm, world, model, parent, hardware)
    return Stage(
        arm.name,
        arm.train.model_copy(
            update={"evaluate_every_tokens": arm.watch.every * arm.tokens_per_step}
        ),
        objective,
        feed,
        _learning_rate(arm),
        arm.first_step,
        arm.train.steps,
        arm.fingerprint(),
        parent=parent,
        keep_optimiser=arm.keep_optimiser,
        evaluate=_evaluation(arm, world),
        tokens_per_step=arm.tokens_per_step,
        seed=arm.seed,
        hardware=hardware,
    )


def _learning_rate(arm: Arm) -> Callable[[int], float]:
    def share(step: int) -> float:
        if arm.held_lr is not None:
            assert isinstance(arm.data, TextData)
            if step >= arm.data.phases[-1].first_step:
                return arm.held_lr
        return lr_share(arm.train.schedule, step, arm.train.steps, arm.decay_steps)

    return share


def _evaluation(arm: Arm, world: World) -> Callable[[Transformer], Mapping[str, float]]:
    watch, length = arm.watch, arm.model.context
    if arm.corpus is not None:
        return scored_by(arm.corpus, watch.rows)
    # The same questions in every arm.
    sets = [items(world, kind, half, watch.items) for kind, half in watch.sets]
    texts = {kind: WorldSource(world, kind, HELD_OUT_TEXT, length) for kind in watch.texts}

    def measured(model: Transformer) -> Mapping[str, float]:
        found = evaluation(model, sets, texts, watch.rows, length)
        if watch.refusals:
            found |= Dialogues(world, HELD_OUT_TEXT).refusals(model, watch.refusals)
        return found

    return measured


def _parent(arm: Arm, folder: Path) -> Path | None:
    if arm.trunk is None:
        return None
    checkpoints = _place(arm.trunk, folder) / "checkpoints"
    return checkpoint.at_step(checkpoints, arm.from_step or arm.trunk.train.steps)


def _point(line: Mapping[str, Any]) -> dict[str, Any]:
    point = {name: value for name, value in line.items() if name not in UNSAID}
    for name, value in point.items():
        if isinstance(value, float):
            point[name] = _number(value)
        elif name == "scores":
            point[name] = {score: _number(each) for score, each in value.items()}
    return point


def _number(value: float) -> float | None:
    """Five digits; None for what JSON has no number for."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _place(arm: Arm, folder: Path) -> Path:
    return folder / "work" / arm.fingerprint()[:16]


def _result_path(arm: Arm, folder: Path) -> Path:
    return folder / "arms" / f"{arm.fingerprint()[:16]}.json"
