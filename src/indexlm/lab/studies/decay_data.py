"""Curated data at the end of a run, under WSD and under cosine."""

from collections.abc import Sequence
from typing import Literal

from indexlm.config import ScheduleConfig, TrainConfig
from indexlm.lab.arms import Arm, Result, TextData, TextPhase
from indexlm.lab.drawing import (
    GUESSING,
    NATS,
    OF_CURATED,
    OF_FACTS,
    PERCENT_RIGHT,
    POINTS,
    RESOLVED,
    STEPS,
    Column,
    Value,
    bars,
    curve,
    differences,
    number,
    percent,
    scored,
    steps,
    table,
)
from indexlm.lab.studies import schedules
from indexlm.lab.study import (
    Declared,
    Figure,
    Line,
    Panel,
    PresetName,
    Results,
    Study,
    Table,
)
from indexlm.lab.verdict import REPORT, Claim, Said
from indexlm.train.schedules import lr_share

WSD, COSINE, HIGH = "WSD", "cosine", "cosine to 55%"
CURATED = " + curated"
HELD = "cosine held at 55%" + CURATED

HIGH_END = 0.55
"""Of the peak: the mean of a line from the peak to a tenth of it, as WSD's decay is."""

MIX = {"hq": 0.4, "web": 0.35, "noise": 0.25}
"""Of the last fifth where curated data are added; it is 3% before."""


def arms(preset: PresetName, seed: int) -> Sequence[Arm]:
    wsd, cosine = schedules.stable(preset, seed), schedules.falling(preset, seed, "cosine")
    begin = wsd.train.steps
    decayed = schedules.decayed(preset, seed, WSD, "linear")
    high = cosine.model_copy(
        update={"name": HIGH, "train": _ending_at(cosine, HIGH_END)},
    )
    return [
        cosine,
        _curated(cosine, cosine, begin),
        decayed,
        _curated(decayed, wsd, begin),
        _curated(cosine, cosine, begin).model_copy(update={"name": HELD, "held_lr": HIGH_END}),
        high,
        _curated(high, high, begin),
    ]


def _curated(plain: Arm, trunk: Arm, begin: int) -> Arm:
    """`plain` with curated data from step `begin` on, a fork of the trunk of both."""
    base = schedules.base_mix().phases[0]
    added = TextPhase(first_step=begin, shares=MIX)
    return plain.model_copy(
        update={
            "name": plain.name + CURATED,
            "data": TextData(phases=(base, added)),
            "trunk": trunk,
            "from_step": begin,
        }
    )


def _ending_at(arm: Arm, final: float) -> TrainConfig:
    schedule: ScheduleConfig = arm.train.schedule.model_copy(update={"final": final})
    return arm.train.model_copy(update={"schedule": schedule})


FACTS, CLEAN, ORDINARY = "cloze/held-out/accuracy", "loss/hq", "loss/web"

NAMES = {
    COSINE: Said("cosine", "余弦"),
    COSINE + CURATED: Said("cosine + curated", "余弦 + 精选"),
    WSD: Said("WSD", "WSD"),
    WSD + CURATED: Said("WSD + curated", "WSD + 精选"),
    HELD: Said("cosine, held at 55%, + curated", "余弦（末段保持 55%）+ 精选"),
    HIGH: Said("cosine to 55%", "余弦降至 55%"),
    HIGH + CURATED: Said("cosine to 55% + curated", "余弦降至 55% + 精选"),
}


def _claimed(
    name: Said,
    treatment: str,
    control: str,
    direction: Literal["higher", "lower"],
    claimant: Said = REPORT,
) -> Declared:
    claim = Claim(
        OF_FACTS,
        NAMES[treatment],
        NAMES[control],
        direction,
        2,
        "low",
        POINTS,
        RESOLVED,
        claimant,
    )
    return Declared(name, claim, treatment, control, percent(FACTS))


# The loss comes first: in prototypes a plain cosine guessed at the facts at this length, and a
# score at guessing tells nothing apart.
CLAIMS = (
    Declared(
        Said("WSD uses curated data better", "WSD 更能利用精选数据"),
        Claim(
            OF_CURATED,
            NAMES[WSD + CURATED],
            NAMES[COSINE + CURATED],
            "lower",
            0.02,
            "high",
            NATS,
        ),
        WSD + CURATED,
        COSINE + CURATED,
        number(CLEAN),
    ),
    _claimed(Said("also in facts", "事实亦然"), WSD + CURATED, COSINE + CURATED, "higher"),
    _claimed(Said("curated data help WSD", "精选数据有益于 WSD"), WSD + CURATED, WSD, "higher"),
    _claimed(
        Said("curated data harm a cosine", "精选数据有损于余弦"), COSINE + CURATED, COSINE, "lower"
    ),
    _claimed(
        Said("the low rate is why", "原因在于学习率低"),
        HELD,
        COSINE + CURATED,
        "higher",
        Said("the report, as a guess,", "报告（作为推测）"),
    ),
)

COLUMNS = (
    Column(Said("facts, %", "事实 %"), percent(FACTS)),
    Column(Said("loss, curated", "精选文本损失"), number(CLEAN), 3),
    Column(Said("loss, ordinary", "普通文本损失"), number(ORDINARY), 3),
)


def shown(results: Results) -> Sequence[Figure | Table]:
    return (*_bars(results), _over_steps(results), _rates(results), *_tables(results))


def _bars(results: Results) -> Sequence[Figure]:
    ticks, arm = list(NAMES.values()), Said("arm", "运行")
    facts, *losses = COLUMNS
    right = bars(results, list(NAMES), facts.head, facts.value)
    # A loss near 2 whose differences are hundredths: bars from 0 would be alike.
    apart = [
        line
        for column in losses
        for line in bars(results, list(NAMES), column.head, _beside_cosine(results, column.value))
    ]
    less = Said("loss minus the cosine's, nats", "损失减余弦的损失（奈特）")
    return (
        Figure(
            Said(
                "The four arms of the report and the three controls, at the end of the run. Bars "
                "are means, dots are seeds, the dashed line is guessing.",
                "报告的四组与三组对照，训练终点。柱为均值，点为各种子，虚线为随机猜测。",
            ),
            [Panel(OF_FACTS, arm, PERCENT_RIGHT, right, chance=GUESSING, ticks=ticks)],
        ),
        Figure(
            Said(
                "Loss on curated and on ordinary text, minus the cosine's: curated rows take the "
                "place of ordinary ones.",
                "精选文本与普通文本的损失，减去余弦的损失：精选文本挤占了普通文本的位置。",
            ),
            [Panel(less, arm, less, apart, ticks=ticks)],
        ),
    )


def _beside_cosine(results: Results, value: Value) -> Value:
    def less(result: Result) -> float | None:
        own, cosine = value(result), value(results[COSINE][result.arm["seed"]])
        return None if own is None or cosine is None else own - cosine

    return less


def _over_steps(results: Results) -> Figure:
    begin = _begin(results)

    def panel(title: Said, y: Said, score: str, times: float) -> Panel:
        lines = [
            Line(line.name, *_since(line, begin), faint=line.faint)
            for arm, name in NAMES.items()
            for line in curve(results, arm, name, scored(score, times), x=steps)
        ]
        return Panel(title, STEPS, y, lines)

    return Figure(
        Said(
            "The last part of the run, in which curated data are added. Thin lines are single "
            "seeds.",
            "加入精选数据的末段。细线为单个种子。",
        ),
        [
            panel(OF_FACTS, PERCENT_RIGHT, FACTS, 100),
            panel(OF_CURATED, Said("nats", "奈特"), CLEAN, 1),
        ],
    )


def _since(line: Line, begin: float) -> tuple[list[float], list[float | None]]:
    kept = [(x, y) for x, y in zip(line.xs, line.ys) if x >= begin]
    return [x for x, _ in kept], [y for _, y in kept]


def _begin(results: Results) -> int:
    return next(iter(results[WSD + CURATED].values())).first_step


def _rates(results: Results) -> Figure:
    lines = []
    for name, said in NAMES.items():
        if name in (COSINE + CURATED, WSD + CURATED, HIGH + CURATED):
            continue
        arm = Arm.model_validate(next(iter(results[name].values())).arm)
        lines.append(_rate(arm, said))
    return Figure(
        Said(
            "The learning rates. The dotted line is where curated data begin. Held at 55%, the "
            "mean of WSD's decay, a cosine has as much of it left for the new data.",
            "学习率。点线处起加入精选数据。保持在 55%（WSD 退火段的均值）时，余弦为新数据留出同样"
            "多的学习率。",
        ),
        [
            Panel(
                Said("learning rate", "学习率"),
                STEPS,
                Said("learning rate", "学习率"),
                lines,
                marks={float(_begin(results)): Said("curated data", "精选数据")},
            )
        ],
    )


def _rate(arm: Arm, said: Said) -> Line:
    peak, last = arm.train.optimiser.lr, arm.train.steps
    assert isinstance(arm.data, TextData)
    held_from = last if arm.held_lr is None else arm.data.phases[-1].first_step
    ys = [
        peak * (arm.held_lr or 0)
        if step >= held_from
        else peak * lr_share(arm.train.schedule, step, last, arm.decay_steps)
        for step in range(last)
    ]
    return Line(said, [float(step + 1) for step in range(last)], ys)


def _tables(results: Results) -> Sequence[Table]:
    def less(treatment: str, control: str) -> tuple[Said, str, str]:
        one, other = NAMES[treatment], NAMES[control]
        return Said(f"{one.en} minus {other.en}", f"{one.zh} 减 {other.zh}"), treatment, control

    pairs = [
        less(WSD + CURATED, COSINE + CURATED),
        less(WSD + CURATED, WSD),
        less(COSINE + CURATED, COSINE),
        less(HIGH + CURATED, HIGH),
        less(WSD, COSINE),
        less(HELD, COSINE + CURATED),
        less(HIGH + CURATED, COSINE + CURATED),
        less(WSD + CURATED, HELD),
        less(WSD + CURATED, HIGH + CURATED),
    ]
    return (
        table(Said("All arms.", "全部运行。"), results, NAMES, COLUMNS),
        differences(
            Said(
                "What the data do, what the schedule does, and what a higher rate alone does.",
                "数据的作用、调度的作用，以及仅提高学习率的作用。",
            ),
            results,
            pairs,
            COLUMNS,
        ),
    )


STUDY = Study(
    name="decay-data",
    title=Said("Curated data at the end", "末段加入精选数据"),
    question=Said(
        "Are curated data in the last part of a run worth more under WSD than under a cosine, and "
        "is the learning rate the reason?",
        "末段加入的精选数据，在 WSD 下是否比在余弦下更有价值？原因是否在于学习率？",
    ),
    report=Said(
        "Mean of six tasks: cosine 35.628, WSD 35.752, cosine with more curated data "
        "in the last tenth 34.648, WSD with them 38.096. Guess of its authors: the rate at the end "
        "of a cosine is too low to adapt to the new mix.",
        "六项任务均分：余弦 35.628，WSD 35.752，余弦末段 10% 增加精选数据 34.648，WSD "
        "同样处理 38.096。作者推测：余弦末段学习率过低，来不及适应新的配比。",
    ),
    design=Said(
        "Two schedules by two mixes: from 80% of the steps on, curated text is 3% of the rows or "
        "40% of them. Each pair is two forks of one run, with its optimiser's moments, and both "
        "schedules end at a tenth of one peak. Controls for the report's guess: the cosine whose "
        "rate is raised, when curated data begin, to the mean rate of WSD's decay and held there; "
        "and a cosine that ends at that rate all along, with and without curated data.",
        "两种调度乘两种配比：自 80% 步数起，精选文本占 3% 或 40%。每对都是同一次训练连同优化器动"
        "量的两条分支，两种调度终点均为同一峰值的十分之一。针对报告推测的对照：余弦在加入精选数据"
        "时把学习率提到 WSD 退火段的均值并保持；以及自始即以该值为终点的余弦，分别加与不加精选数"
        "据。",
    ),
    limits=Said(
        "A fifth of a short run instead of a tenth of a long one, and curated data that hold most "
        "of what the score asks for, so that they can be worth more than in the report. A rate "
        "that stays high to the last step leaves noise in the weights, which the controls pay for "
        "and WSD does not: they bound the effect of the rate from below. The report compares "
        "scores; the loss was put first after prototypes in which a plain cosine only guessed at "
        "the facts. Scores are the second claim, and the seeds of the verdicts are others. In 500 "
        "steps hardly a fact is learned; runs have 1,000, set after a look at one seed "
        "(below 100) in which WSD with curated data led the cosine with them.",
        "取短训练的五分之一，而非长训练的十分之一；精选数据又包含考题所问的大部分内容，其价值可能"
        "高于报告。学习率直到最后仍高会在权重中留下噪声，对照组承受此代价而 WSD 不必，因此对照只给"
        "出学习率作用的下限。报告比较的是得分；首要论断改用损失，是因为原型试验中单纯余弦对事实仍处"
        "于随机水平。得分列为第二条论断，判定所用种子与原型不同。500 步几乎学不到事实；"
        "故取 1,000 步，系查看一个种子（小于 100）之后所定，"
        "其中加精选数据的 WSD 领先于加精选数据的余弦。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds={"quick": 5, "full": 12, "gpu": 3},
)
