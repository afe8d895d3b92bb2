"""Two studies of a dozen steps in a world of 16 entities, and how a process is given them.

`little-rates` compares two learning rates; `little-heads` shares an arm with it under another name.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from indexlm.config import OptimiserConfig, ScheduleConfig
from indexlm.lab.arms import Arm, Watch
from indexlm.lab.reference import reference, shape, training
from indexlm.lab.studies import STUDIES
from indexlm.lab.study import Declared, Figure, Line, Panel, PresetName, Results, Study, Table
from indexlm.lab.verdict import Claim, Said
from indexlm.lab.world import WorldConfig

SMALL = WorldConfig(entities=16, noise_words=16)
STEPS = {"quick": 12, "full": 24, "gpu": 24}
LOSS = Said("loss on curated text", "精选文本上的损失")
Direction = Literal["higher", "lower", "same"]

FEW_SEEDS: Mapping[PresetName, int] = {"quick": 3, "full": 4}


def arm(preset: PresetName, seed: int, name: str, lr: float, *, norm_head: bool = True) -> Arm:
    schedule = ScheduleConfig(shape="wsd", warmup=3, final=0.1)
    return reference(
        seed,
        name,
        world=SMALL,
        model=shape(SMALL, 16, 1, norm_head=norm_head, head_scale=3.0 if norm_head else 1.0),
        train=training(STEPS[preset], schedule=schedule, optimiser=OptimiserConfig(lr=lr)),
        watch=Watch(items=16, rows=4, every=4),
    )


def rates(preset: PresetName, seed: int) -> Sequence[Arm]:
    return [arm(preset, seed, "large", 1e-2), arm(preset, seed, "small", 1e-4)]


def heads(preset: PresetName, seed: int) -> Sequence[Arm]:
    plain = arm(preset, seed, "plain head", 1e-2, norm_head=False)
    return [arm(preset, seed, "Norm-Head", 1e-2), plain]


def claim(treatment: Said, control: Said, direction: Direction) -> Claim:
    return Claim(LOSS, treatment, control, direction, 0.01, "high", Said(" nats", " 奈特"))


def declared(name: Said, treatment: str, control: str, direction: Direction) -> Declared:
    sides = Said(treatment, treatment), Said(control, control)
    return Declared(
        name, claim(*sides, direction), treatment, control, lambda result: result.value("loss/hq")
    )


def shown(results: Results) -> Sequence[Figure | Table]:
    lines, bars, dots = [], [], []
    for place, (name, seeds) in enumerate(results.items()):
        said = Said(name, name)
        for result in seeds.values():
            steps = range(result.first_step, result.first_step + len(result.losses))
            lines.append(Line(said, [*steps], result.losses, faint=True))
        values = [result.scores["loss/hq"] for result in seeds.values()]
        known = [value for value in values if value is not None]
        bars.append(Line(said, [place], [sum(known) / len(known)], "bars"))
        dots.append(Line(said, [place] * len(values), values, "dots"))
    step, loss = Said("step", "步数"), Said("loss, nats", "损失（奈特）")
    marks = {6.0: Said("half", "一半")}
    curves = Panel(Said("Loss", "训练损失"), step, loss, lines, log_y=True, marks=marks)
    ends = Panel(Said("At the end", "结束时"), Said("arm", "运行"), loss, [*bars, *dots])
    ends = Panel(ends.title, ends.x, ends.y, ends.lines, ticks=list(results))
    caption = Said("Loss of every seed.", "每个种子的损失。")
    rows = [[name, f"{len(seeds)}"] for name, seeds in results.items()]
    head = [Said("Arm", "运行"), Said("Seeds", "种子数")]
    return [Figure(caption, [curves, ends]), Table(Said("Seeds.", "种子数。"), head, rows)]


def small(
    name: str,
    title: Said,
    arms: Callable[[PresetName, int], Sequence[Arm]],
    claims: Sequence[Declared],
) -> Study:
    return Study(
        name=name,
        title=title,
        question=Said("Does the larger rate end lower?", "较大的学习率是否损失更低？"),
        report=Said("It does: 5e-4 beats 2e-4 <markedly>.", "是的：5e-4 明显优于 2e-4。"),
        design=Said("Twelve steps of both.", "各十二步。"),
        limits=Said("Twelve steps are few.", "步数很少。"),
        arms=arms,
        claims=claims,
        shown=shown,
        seeds=FEW_SEEDS,
    )


RATES = small(
    "little-rates",
    Said("Two rates", "两种学习率"),
    rates,
    [
        declared(Said("the report's pair", "报告的一对学习率"), "large", "small", "lower"),
        declared(Said("planted", "反设"), "large", "small", "higher"),
    ],
)
HEADS = small(
    "little-heads",
    Said("Two heads", "两种输出头"),
    heads,
    [declared(Said("planted", "反设"), "Norm-Head", "plain head", "higher")],
)


class _Rates:
    STUDY = RATES


class _Heads:
    STUDY = HEADS


def install() -> None:
    """In this process, in the place of the studies of the report."""
    STUDIES.clear()
    for name, module in (("little-rates", _Rates), ("little-heads", _Heads)):
        STUDIES[name] = f"small_studies_{name.replace('-', '_')}"
        sys.modules[STUDIES[name]] = module  # type: ignore[assignment]


if __name__ == "__main__":
    install()
    from indexlm.cli import main

    assert Path(__file__).exists()
    main()
