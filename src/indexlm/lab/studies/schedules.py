"""Cosine, linear and WSD schedules of equal final learning rate."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from indexlm.config import ScheduleConfig, TrainConfig
from indexlm.lab import on_text, reference
from indexlm.lab.arms import Arm, Result, TextData, Watch
from indexlm.lab.drawing import (
    NATS,
    POINTS,
    RESOLVED,
    STEPS,
    Column,
    curve,
    differences,
    number,
    percent,
    scored,
    steps,
    table,
)
from indexlm.lab.family import size
from indexlm.lab.study import (
    Declared,
    Figure,
    Line,
    Panel,
    PresetName,
    Results,
    Study,
    Table,
    Values,
)
from indexlm.lab.verdict import REPORT, Claim, Said
from indexlm.train.schedules import lr_share

DecayShape = Literal["linear", "exponential", "sqrt"]

LENGTHS: Mapping[PresetName, int] = {"quick": 1000, "full": 1000, "gpu": 2500}
DECAY = 0.2
"""Share of the steps; 22% in the report's ablation (55,499 of 255,499)."""
FINAL = 0.1
"""As in the report's ablation, 1e-3 to 1e-4."""
LR_SHARE = 0.8
"""Of the size's learning rate: 4e-3 at the small one."""
POINTS_OF_CURVE = 25
"""Measurements of a run; a decay has five of them."""

LOSS, CLOZE = "loss/web", "cloze/held-out/accuracy"
CLEAN = "loss/hq"

LOSS_MARGIN, POINTS_MARGIN = 0.02, 3.0
"""Nats: under 1% of the loss, and as far apart as the report's three, 2.70 to 2.72, are. Percent: 8
of 256 items; the report's three are 2 points apart or less on each of three tasks."""
BEHIND_MARGIN = 0.01
"""Nats: a fifth of what the report has between WSD and cosine while WSD is stable."""
COOLDOWN = Said("the paper of Hägele et al. (2024)", "Hägele 等（2024）")
"""Of the decay by 1 - sqrt; the report does not say which form its decay has."""

STABLE, TAIL = "stable", "stable, never decayed"
DECAYS: dict[str, DecayShape] = {
    "WSD": "linear",
    "WSD, exponential": "exponential",
    "WSD, 1 - sqrt": "sqrt",
}
SAID = {
    "cosine": Said("cosine", "余弦"),
    "linear": Said("linear", "线性"),
    "WSD": Said("WSD, linear decay", "WSD（线性退火）"),
    "WSD, exponential": Said("WSD, exponential decay", "WSD（指数退火）"),
    "WSD, 1 - sqrt": Said("WSD, 1 − √t decay", "WSD（1 − √t 退火）"),
    TAIL: Said("constant to the end", "全程恒定"),
}
ENDS = tuple(SAID)


def base_mix() -> TextData:
    """Ordinary text and noise with a little curated text, as before a decay."""
    return reference.text(web=0.6, hq=0.03, noise=0.37)


def arms(preset: PresetName, seed: int) -> list[Arm]:
    trunk = stable(preset, seed)
    return [
        falling(preset, seed, "cosine"),
        falling(preset, seed, "linear"),
        trunk,
        *(decayed(preset, seed, name, shape) for name, shape in DECAYS.items()),
        trunk.model_copy(
            update={
                "name": TAIL,
                "train": _training(preset, LENGTHS[preset], _schedule(preset, "wsd")),
                "trunk": trunk,
                "from_step": trunk.train.steps,
            }
        ),
    ]


def falling(preset: PresetName, seed: int, shape: Literal["cosine", "linear"]) -> Arm:
    """A schedule that falls from the end of the warm-up on."""
    return _arm(preset, seed, shape, LENGTHS[preset], _schedule(preset, shape))


def stable(preset: PresetName, seed: int) -> Arm:
    """What the decays of WSD start from."""
    length = round((1 - DECAY) * LENGTHS[preset])
    return _arm(preset, seed, STABLE, length, _schedule(preset, "wsd"))


def decayed(preset: PresetName, seed: int, name: str, shape: DecayShape) -> Arm:
    trunk, length = stable(preset, seed), LENGTHS[preset]
    return trunk.model_copy(
        update={
            "name": name,
            "train": _training(preset, length, _schedule(preset, "wsd", shape)),
            "decay_steps": length - trunk.train.steps,
            "trunk": trunk,
            "from_step": trunk.train.steps,
        }
    )


def _arm(preset: PresetName, seed: int, name: str, length: int, schedule: ScheduleConfig) -> Arm:
    each = size(preset)
    return reference.reference(
        seed,
        name,
        world=each.world,
        model=each.model,
        train=_training(preset, length, schedule),
        data=base_mix(),
        watch=Watch(
            sets=(("cloze", "held-out"),),
            rows=128,
            every=LENGTHS[preset] // POINTS_OF_CURVE,
        ),
    )


def _training(preset: PresetName, length: int, schedule: ScheduleConfig) -> TrainConfig:
    each = size(preset)
    return reference.training(
        length,
        LR_SHARE * each.lr,
        batch=each.batch,
        micro_batch=each.batch,
        schedule=schedule,
        # Where decays begin, forks of a cosine do too.
        keep_every=round((1 - DECAY) * LENGTHS[preset]),
    )


def _schedule(
    preset: PresetName,
    shape: Literal["wsd", "cosine", "linear"],
    decay_shape: DecayShape = "linear",
) -> ScheduleConfig:
    warmup = round(0.08 * LENGTHS[preset])
    return ScheduleConfig(shape=shape, warmup=warmup, decay_shape=decay_shape, final=FINAL)


# Claims.


def while_stable(results: Results) -> tuple[Values, Values]:
    """Losses of the stable phase at its end, and of the cosine at the same step."""

    def before_decay(result: Result, at: int) -> float | None:
        if result.diverged:
            return None
        (point,) = [p for p in result.curve if p["step"] + 1 == at and "scores" in p]
        return float(point["scores"][LOSS])

    lengths = {seed: r.arm["train"]["steps"] for seed, r in results[STABLE].items()}
    return (
        {seed: r.value(LOSS) for seed, r in results[STABLE].items()},
        {seed: before_decay(r, lengths[seed]) for seed, r in results["cosine"].items()},
    )


ORDINARY = Said("loss on ordinary text", "普通文本损失")
COSINE = Said("cosine", "余弦")


def _alike(treatment: str, control: str, claimant: Said = REPORT) -> Declared:
    return Declared(
        Said(
            f"{SAID[treatment].en} and {SAID[control].en}",
            f"{SAID[treatment].zh}与{SAID[control].zh}",
        ),
        Claim(
            ORDINARY,
            SAID[treatment],
            SAID[control],
            "same",
            LOSS_MARGIN,
            "high",
            NATS,
            claimant=claimant,
        ),
        treatment,
        control,
        number(LOSS),
    )


CLAIMS = (
    _alike("WSD", "cosine"),
    _alike("linear", "cosine"),
    _alike("WSD, exponential", "cosine"),
    _alike("WSD, 1 - sqrt", "cosine", COOLDOWN),
    Declared(
        Said("WSD is behind while stable", "稳定阶段 WSD 落后"),
        Claim(
            Said("loss on ordinary text before the decay", "退火开始前的普通文本损失"),
            Said("WSD", "WSD"),
            COSINE,
            "higher",
            BEHIND_MARGIN,
            "high",
            NATS,
        ),
        STABLE,
        "cosine",
        made=while_stable,
    ),
    Declared(
        Said("facts alike", "事实相近"),
        Claim(
            Said("facts completed rightly", "事实补全正确率"),
            SAID["WSD"],
            COSINE,
            "same",
            POINTS_MARGIN,
            "low",
            POINTS,
            RESOLVED,
        ),
        "WSD",
        "cosine",
        percent(CLOZE),
    ),
)


# The page.


def shown(results: Results) -> Sequence[Figure | Table]:
    return [_rates(results), _losses(results), _facts(results), _table(results), _paired(results)]


def _rates(results: Results) -> Figure:
    """As the schedules say, not as few steps show."""
    lines = []
    for arm in ENDS:
        settings = Arm.model_validate(next(iter(results[arm].values())).arm)
        train, last = settings.train, settings.train.steps
        ys = [
            train.optimiser.lr * lr_share(train.schedule, step, last, settings.decay_steps)
            for step in range(last)
        ]
        lines.append(Line(SAID[arm], [float(step + 1) for step in range(last)], ys))
    rate = Said("learning rate", "学习率")
    return Figure(
        Said(
            "The schedules. All end at a tenth of the peak but the constant one.",
            "各种调度。除恒定者外均止于峰值的十分之一。",
        ),
        [Panel(rate, STEPS, rate, lines, marks=_mark(results))],
    )


def _mark(results: Results) -> dict[float, Said]:
    return {float(_begin(results)): Said("decay", "退火")}


def _begin(results: Results) -> int:
    return int(next(iter(results[STABLE].values())).arm["train"]["steps"])


def _lines(results: Results, score: str, since: int, times: float = 1) -> list[Line]:
    """Decays go on from the stable phase, in the line of each."""
    found = []
    for arm in ENDS:
        trunks = results[STABLE] if arm in (*DECAYS, TAIL) else {}
        whole = {
            seed: _since(since, result, trunks.get(seed)) for seed, result in results[arm].items()
        }
        found += curve({arm: whole}, arm, SAID[arm], scored(score, times), x=steps)
    return found


def _since(step: int, result: Result, trunk: Result | None) -> Result:
    points = [*(trunk.curve if trunk else ()), *result.curve]
    return replace(result, curve=[point for point in points if point["step"] + 1 >= step])


def _losses(results: Results) -> Figure:
    begin = _begin(results)
    loss = Said("loss on ordinary text, nats", "普通文本损失（奈特）")
    last = Said("the decay, enlarged", "退火阶段放大")
    return Figure(
        Said(
            "Loss on ordinary text that no arm trains on, from a quarter of the stable phase on; "
            "right, from a little before the decay of WSD.",
            "未用于训练的普通文本上的损失，自稳定阶段四分之一处起；右图自 WSD 退火前不久起。",
        ),
        [
            Panel(loss, STEPS, loss, _lines(results, LOSS, begin // 4), marks=_mark(results)),
            Panel(last, STEPS, loss, _lines(results, LOSS, begin), marks=_mark(results)),
        ],
    )


def _facts(results: Results) -> Figure:
    right = Said("facts completed rightly, %", "事实补全正确率（%）")
    clean = Said("loss on curated text, nats", "精选文本损失（奈特）")
    mark = _mark(results)
    return Figure(
        Said(
            "Facts, and loss on the curated text that has them, over training.",
            "事实正确率与含事实的精选文本损失随训练的变化。",
        ),
        [
            Panel(right, STEPS, right, _lines(results, CLOZE, 0, 100), marks=mark, chance=25.0),
            Panel(clean, STEPS, clean, _lines(results, CLEAN, _begin(results) // 4), marks=mark),
        ],
    )


COLUMNS = (
    Column(Said("loss, ordinary text", "普通文本损失"), number(LOSS), 3),
    Column(Said("loss, curated text", "精选文本损失"), number(CLEAN), 3),
    Column(Said("facts, %", "事实（%）"), percent(CLOZE)),
)


def _table(results: Results) -> Table:
    caption = Said("At the end.", "结束时的结果。")
    return table(caption, results, {arm: SAID[arm] for arm in ENDS}, COLUMNS)


def _paired(results: Results) -> Table:
    pairs = [
        (Said(f"{SAID[arm].en} − cosine", f"{SAID[arm].zh} − 余弦"), arm, "cosine")
        for arm in ENDS[1:]
    ]
    return differences(Said("Less the cosine.", "减去余弦。"), results, pairs, COLUMNS)


STUDY = Study(
    name="schedules",
    title=Said("Schedules of the learning rate", "学习率调度"),
    question=Said(
        "Do cosine, linear and WSD schedules end alike when they end at the same learning rate?",
        "终点学习率相同时，余弦、线性与 WSD 的结果是否相近？",
    ),
    report=Said(
        "0.1B parameters, 1T tokens, 255,499 steps, peak 1e-3, end 1e-4. Validation losses end "
        "alike, near 2.70 to 2.72; WSD is behind while stable (about 2.80 against 2.75 at step "
        "180,000) and falls fast in its decay from step 200,000 on. What form the decay has is not "
        "said; in the figure it looks exponential.",
        "0.1B 参数、1T 词元、255,499 步，峰值 1e-3，终值 1e-4。"
        "验证损失最终相近，约 2.70 至 2.72；WSD 在稳定阶段落后（第 18 万步约 2.80 对 2.75），"
        "自第 20 万步退火起迅速下降。退火曲线的形式未说明，图中近似指数。",
    ),
    design=Said(
        "Five schedules of one peak and one final learning rate, 8% warm-up; WSD is stable for 80% "
        "of the steps, and its three decays, linear, exponential and 1 − √t, start from one "
        "checkpoint. Rows and first weights of a seed are the same in all. A run whose learning "
        "rate never falls shows what a decay is worth.",
        "五种调度，峰值与终值相同，预热占 8%；WSD 前 80% 的步数保持恒定，线性、指数与 1 − √t "
        "三种退火从同一检查点出发。同一种子的数据顺序与初始权重全部相同。另有学习率始终不降的运行，"
        "用以衡量退火的作用。",
    ),
    limits=Said(
        "The peak is one, near the optimum of the size; which schedule is ahead may depend on it. "
        "Ordinary text is half noise, whose loss no schedule can lower: 0.02 nats are a larger "
        "part of what can be learned than they look. Of 3% curated text few facts are learned: "
        "hardly any in 500 steps, which is why runs have 1,000. The margins were set after trials "
        "of a prototype (seeds below 100): on ordinary text the schedules ended within "
        "0.01 of each other, and WSD was ahead by 10 to 15 points in facts.",
        "仅用一个峰值（接近本规模最佳值），孰优孰劣可能随峰值而变。普通文本约半数为噪声，其损失不可"
        "降低：0.02 奈特在可学部分中所占比例高于表面数值。精选文本仅占 3%，学到的事实不多："
        "500 步时几乎没有，故取 1,000 步。"
        "容差拟定前已有原型试跑（种子小于 100）：普通文本上各调度终点相差不到 0.01，WSD 的事实"
        "高出 10 至 15 个百分点。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds={"quick": 3, "full": 8, "gpu": 3},
    on_text=on_text.SCHEDULES,
)
