"""Heads over learning rates: the arms of three studies, which are trained once for all of them.

The learning rates begin with the report's pair, 2e-4 and 5e-4, and go on by its ratio, 2.5: so the
pair has its like at every place of the curve.

| head | logits at the first step | rows turn by |
|---|---|---|
| plain | as drawn, small | lr / short rows |
| plain, long rows | those of the Norm-Head | lr / long rows |
| plain, scaled | those of the Norm-Head | lr / short rows |
| norm-head | | lr / short rows |

The third differs from the Norm-Head in nothing but that rows are not normalised as they change.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexlm.config import ScheduleConfig, TrainConfig
from indexlm.lab import reference
from indexlm.lab.arms import Arm, Result, Watch
from indexlm.lab.drawing import Value
from indexlm.lab.family import Size, size
from indexlm.lab.intervals import mean
from indexlm.lab.study import Line, PresetName, Results, Values
from indexlm.lab.verdict import Said
from indexlm.model.config import ModelConfig

FIRST_RATE, RATIO = 2e-4, 2.5
COUNTS: Mapping[PresetName, int] = {"quick": 6, "full": 7, "gpu": 5}
"""Of learning rates: up to 0.02, 0.05 and 0.008."""
MIDDLE: Mapping[PresetName, int] = {"quick": 3, "full": 3, "gpu": 2}
"""Place of the rate at which all heads are compared: 3.1e-3; 1.25e-3 at twelve times the width."""
STEPS: Mapping[PresetName, int] = {"quick": 250, "full": 400, "gpu": 1000}
SEEDS: Mapping[PresetName, int] = {"quick": 3, "full": 6, "gpu": 3}

LOSS, CLOZE = "loss/hq", "cloze/held-out/accuracy"

PLAIN, NORM_HEAD = Said("the plain head", "普通输出头"), Said("the Norm-Head", "Norm-Head")
RATE = Said("peak learning rate", "峰值学习率")
LOSS_SAID = Said("loss on curated text, nats", "精选文本损失（奈特）")
RIGHT = Said("facts completed rightly, %", "事实补全正确率（%）")


@dataclass(frozen=True)
class Head:
    said: Said
    model: Mapping[str, Any] = field(default_factory=dict)
    rows: float | None = None
    """Length of the raw rows at the start; None leaves them as drawn."""
    detached: bool = False


SWEPT = ("plain", "plain, long rows", "plain, scaled", "norm-head")
"""Heads that are trained at every learning rate."""
MORE = (
    "norm-head, scale 1",
    "norm-head, larger scale",
    "norm-head, long rows",
    "norm-head, detached",
)
"""Heads that are trained at the middle one."""


def heads(model: ModelConfig) -> dict[str, Head]:
    """By name; `model.head_scale` is that of the Norm-Head."""
    scale, drawn = model.head_scale, model.init_std * math.sqrt(model.hidden)
    plain = {"norm_head": False, "head_scale": 1.0}
    factor = {"norm_head": False, "head_scale": scale / drawn}
    return {
        "plain": Head(Said("plain head", "普通输出头"), plain),
        "plain, long rows": Head(Said("plain, long rows", "普通，长行"), plain, scale),
        "plain, scaled": Head(Said("plain, scaled", "普通，乘系数"), factor, drawn),
        "norm-head": Head(Said("Norm-Head", "Norm-Head")),
        "norm-head, scale 1": Head(
            Said("Norm-Head, scale 1", "Norm-Head，系数 1"), {"head_scale": 1.0}
        ),
        "norm-head, larger scale": Head(
            Said("Norm-Head, 8/3 of the scale", "Norm-Head，8/3 倍系数"),
            {"head_scale": 8 / 3 * scale},
        ),
        "norm-head, long rows": Head(Said("Norm-Head, long rows", "Norm-Head，长行"), rows=scale),
        "norm-head, detached": Head(
            Said("Norm-Head, norms detached", "Norm-Head，范数不传梯度"), detached=True
        ),
    }


SAID: Mapping[str, Said] = {name: head.said for name, head in heads(size("quick").model).items()}


def rates(preset: PresetName) -> list[float]:
    """To six digits, so that a rate is the same however it is computed."""
    return [float(f"{FIRST_RATE * RATIO**place:.6g}") for place in range(COUNTS[preset])]


def swept(preset: PresetName, seed: int, head: str) -> list[Arm]:
    """A head at every learning rate."""
    middle = rates(preset)[MIDDLE[preset]]
    return [at(preset, seed, head, None if rate == middle else rate) for rate in rates(preset)]


def at(preset: PresetName, seed: int, head: str, rate: float | None = None) -> Arm:
    """A head at a learning rate; without one at the middle one, and then it has the head's name."""
    each, steps = size(preset), STEPS[preset]
    kind = heads(each.model)[head]
    middle = rates(preset)[MIDDLE[preset]]
    return reference.reference(
        seed,
        head if rate is None else named(head, rate),
        world=each.world,
        model=ModelConfig(**(each.model.model_dump() | dict(kind.model))),
        train=training(each, steps, middle if rate is None else rate),
        detached_head=kind.detached,
        head_rows=kind.rows,
        watch=Watch(sets=(("cloze", "held-out"),), every=steps // 10),
    )


def training(each: Size, steps: int, rate: float) -> TrainConfig:
    """A cosine to a tenth, a tenth of the steps warm-up."""
    return reference.training(
        steps,
        rate,
        batch=each.batch,
        micro_batch=each.batch,
        schedule=ScheduleConfig(shape="cosine", warmup=steps // 10, final=0.1),
    )


def named(head: str, rate: float) -> str:
    return f"{head} @ {rate:.3g}"


def at_rates(results: Results, head: str) -> dict[float, str]:
    """Learning rate -> arm, from the smallest."""
    arms = [name for name in results if name == head or name.startswith(f"{head} @ ")]
    return dict(sorted((rate_of(results, name), name) for name in arms))


def rate_of(results: Results, arm: str) -> float:
    first: Result = next(iter(results[arm].values()))
    return float(first.arm["train"]["optimiser"]["lr"])


def best(results: Results, arms: Sequence[str], score: str = LOSS, without: int = -1) -> str:
    """The arm of the lowest mean score over the seeds, all but one of them; one of which more seeds
    diverged is worse than any other."""

    def standing(arm: str) -> tuple[int, float]:
        seeds = [seed for seed in results[arm] if seed != without] or list(results[arm])
        values = [results[arm][seed].value(score) for seed in seeds]
        known = [value for value in values if value is not None]
        return len(values) - len(known), math.fsum(known) / max(len(known), 1)

    return min(arms, key=standing)


def at_best(results: Results, head: str, value: Value) -> Values:
    """Of every seed, at the learning rate that the other seeds find best: chosen with its own value
    it would be the luckiest, not the best."""
    arms = list(at_rates(results, head).values())
    return {
        seed: value(results[best(results, arms, without=seed)][seed]) for seed in results[arms[0]]
    }


def by_step(results: Results, arm: str, name: Said, values: str, smooth: int = 10) -> list[Line]:
    """`losses` or `gradients` over tokens, each point the mean of `smooth` steps; each seed and
    the mean."""
    lines, found = [], []
    for result in results[arm].values():
        ys = [mean(part) for part in _parts(getattr(result, values), smooth)]
        found.append(ys)
        each = result.arm["train"]["batch"] * result.arm["model"]["context"] * smooth
        xs = [result.first_step * each / smooth + (place + 0.5) * each for place in range(len(ys))]
        lines.append(Line(name, xs, ys, faint=True))
    longest = max(lines, key=lambda line: len(line.xs))
    means = [
        mean([ys[place] if place < len(ys) else None for ys in found])
        for place in range(len(longest.xs))
    ]
    return [*lines, Line(name, longest.xs, means)]


def _parts(values: Sequence[float | None], size: int) -> list[Sequence[float | None]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
