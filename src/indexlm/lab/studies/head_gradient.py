"""Which layer has the gradient, and what the Norm-Head does to it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import stdev

from indexlm.lab.arms import Arm, Result
from indexlm.lab.drawing import TOKENS, Column, Point, against, curve, number, table
from indexlm.lab.on_text import CREDITS_ROWS
from indexlm.lab.study import Declared, Figure, Panel, PresetName, Results, Study, Table, Values
from indexlm.lab.sweep import LOSS, NORM_HEAD, PLAIN, SAID, SEEDS, at, at_rates, by_step, swept
from indexlm.lab.verdict import Claim, Said

SHOWN = ("plain", "plain, scaled", "norm-head", "norm-head, detached")
"""Heads whose layers are drawn."""

LAYER_NAMES = {
    "embedding": Said("embedding", "词嵌入"),
    "final norm": Said("final norm", "末层归一化"),
    "head": Said("LM head", "输出头"),
}

SHARE = Said("share of the squared gradient norm", "占梯度范数平方的份额")
MEAN_SHARE = Said(
    f"{SHARE.en}, mean over training at the middle learning rate,",
    "中间学习率下训练全程平均的梯度范数平方份额",
)
NORM = Said("gradient norm before clipping", "裁剪前梯度范数")
LOG_NORM = Said("logarithm of the total gradient norm", "总梯度范数的对数")
MOST, LARGEST_MARGIN, LOG_MARGIN, JITTER_MARGIN = 0.1, 0.05, 0.05, 0.02
"""A head between 45% and 55%, and so within 10 points of all else, has half; two layers within 5%
of the whole are alike; 5% of a norm, where the report's two differ by 39%; 2% of a norm."""


def arms(preset: PresetName, seed: int) -> list[Arm]:
    """Plain head and Norm-Head at every learning rate, the other two heads at the middle one."""
    found = [arm for head in ("plain", "norm-head") for arm in swept(preset, seed, head)]
    return [*found, *(at(preset, seed, head) for head in SHOWN[1::2])]


# Of one arm.


def _points(result: Result) -> Iterator[Mapping[str, float]]:
    """Norms by layer of every tenth step; a step whose gradient is no number has none."""
    for point in result.curve:
        layers = point.get("layers", {})
        if layers and all(map(math.isfinite, layers.values())):
            yield layers


def head_share(layers: Mapping[str, float]) -> float:
    return float(layers["head"] ** 2 / _whole(layers))


def largest_other(layers: Mapping[str, float]) -> float:
    """Share of the layer that has most of the rest."""
    others = [norm**2 for name, norm in layers.items() if name != "head"]
    return float(max(others) / _whole(layers))


def _whole(layers: Mapping[str, float]) -> float:
    return math.fsum(norm**2 for norm in layers.values())


def over_training(
    share: Callable[[Mapping[str, float]], float], begin: float = 0, end: float = 1
) -> Callable[[Result], float | None]:
    """Mean of the looked-at steps between two shares of the run."""

    def value(result: Result) -> float | None:
        if result.diverged:
            return None
        found = [share(layers) for layers in _points(result)]
        part = found[int(begin * len(found)) : math.ceil(end * len(found))]
        return math.fsum(part) / len(part)

    return value


def log_norm(begin: float, end: float) -> Callable[[Result], float | None]:
    """Logarithm of the mean of the total gradient norm between two shares of the run."""

    def value(result: Result) -> float | None:
        if result.diverged:
            return None
        count = len(result.gradients)
        part = result.gradients[int(begin * count) : math.ceil(end * count)]
        # A step that was skipped has no norm.
        known = [norm for norm in part if norm is not None]
        return math.log(math.fsum(known) / len(known)) if known else None

    return value


def climb(result: Result) -> float | None:
    """From the second tenth of the run, after the warm-up, to the last."""
    late, early = log_norm(0.9, 1)(result), log_norm(0.1, 0.2)(result)
    return None if late is None or early is None else late - early


def jitter(result: Result) -> float | None:
    """Standard deviation of the logarithm of the head's gradient norm about its own trend, second
    half of the run: neighbouring looked-at steps differ by sqrt(2) of it."""
    if result.diverged:
        return None
    logs = [math.log(layers["head"]) for layers in _points(result)]
    logs = logs[len(logs) // 2 :]
    return stdev([later - sooner for sooner, later in pairwise(logs)]) / math.sqrt(2)


# Claims.


def _parts(
    arm: str, own: Callable[[Result], float | None], other: Callable[[Result], float | None]
) -> Callable[[Results], tuple[Values, Values]]:
    """Two parts of the same arms, as treatment and control."""

    def made(results: Results) -> tuple[Values, Values]:
        by_seed = results[arm].items()
        return {s: own(r) for s, r in by_seed}, {s: other(r) for s, r in by_seed}

    return made


HEAD = Said("the plain LM head", "普通输出头")

CLAIMS = (
    Declared(
        Said("most of the gradient", "占梯度的大部分"),
        Claim(
            MEAN_SHARE,
            HEAD,
            Said("all other layers together", "其余各层合计"),
            "higher",
            MOST,
            "low",
        ),
        "plain, its head",
        "plain, its other layers",
        made=_parts(
            "plain",
            over_training(head_share),
            over_training(lambda layers: 1 - head_share(layers)),
        ),
    ),
    Declared(
        Said("largest layer", "最大的一层"),
        Claim(
            MEAN_SHARE,
            HEAD,
            Said("the largest other layer", "其余各层中最大者"),
            "higher",
            LARGEST_MARGIN,
            "low",
        ),
        "plain, its head",
        "plain, its largest other layer",
        made=_parts("plain", over_training(head_share), over_training(largest_other)),
    ),
    Declared(
        Said("Norm-Head raises the norm", "Norm-Head 使梯度范数变大"),
        Claim(
            Said(f"{LOG_NORM.en} over the last tenth", f"最后十分之一步数的{LOG_NORM.zh}"),
            NORM_HEAD,
            PLAIN,
            "higher",
            LOG_MARGIN,
            "high",
        ),
        "norm-head",
        "plain",
        log_norm(0.9, 1),
    ),
    Declared(
        Said("the same at equal logits", "logits 相同时亦然"),
        Claim(
            Said(f"{LOG_NORM.en} over the last tenth", f"最后十分之一步数的{LOG_NORM.zh}"),
            NORM_HEAD,
            Said("a plain head of the same logits and rows", "logits 与行长相同的普通输出头"),
            "higher",
            LOG_MARGIN,
            "high",
            claimant=CREDITS_ROWS,
        ),
        "norm-head",
        "plain, scaled",
        log_norm(0.9, 1),
    ),
    Declared(
        Said("smaller climb later", "后期上升更少"),
        Claim(
            Said(
                f"change of the {LOG_NORM.en} from the second tenth to the last",
                f"从第二个十分之一到最后十分之一，{LOG_NORM.zh}的变化",
            ),
            NORM_HEAD,
            PLAIN,
            "lower",
            2 * LOG_MARGIN,
            "high",
        ),
        "norm-head",
        "plain",
        climb,
    ),
    Declared(
        Said("steadier head", "输出头更平稳"),
        Claim(
            Said(
                "jitter of the head's gradient norm (standard deviation of its logarithm)",
                "输出头梯度范数的抖动（对数的标准差）",
            ),
            NORM_HEAD,
            PLAIN,
            "lower",
            JITTER_MARGIN,
            "high",
        ),
        "norm-head",
        "plain",
        jitter,
    ),
)


# The page.


def shown(results: Results) -> Sequence[Figure | Table]:
    figures = [_by_layer(results), _shares(results), _totals(results)]
    return [*figures, _table(results), _table_of_rates(results)]


def _by_layer(results: Results) -> Figure:
    panels = []
    for arm in SHOWN:
        some = next(layers for r in results[arm].values() for layers in _points(r))
        lines = [
            line
            for layer in some
            for line in curve(results, arm, _layer(layer), _norm_of(layer), "layers")
        ]
        panels.append(Panel(SAID[arm], TOKENS, NORM, lines, log_y=True))
    return Figure(
        Said(
            "Gradient norm of each layer over training, by head, every tenth step; each seed faint "
            "and the mean.",
            "各层梯度范数随训练的变化，按输出头分图，每十步一点；细线为单个种子，粗线为均值。",
        ),
        panels,
    )


def _layer(name: str) -> Said:
    number_of = name.removeprefix("layer ")
    return LAYER_NAMES.get(name, Said(name, f"第 {number_of} 层"))


def _norm_of(layer: str) -> Callable[[Point], float | None]:
    return lambda point: point["layers"][layer]


def _shares(results: Results) -> Figure:
    over_time = [
        line
        for arm in SHOWN
        for line in curve(
            results, arm, SAID[arm], lambda point: head_share(point["layers"]), "layers"
        )
    ]
    over_rates = [
        line
        for head in ("plain", "norm-head")
        for named in (at_rates(results, head),)
        for line in against(
            results, list(named.values()), list(named), SAID[head], over_training(head_share)
        )
    ]
    of_head = Said(f"{SHARE.en}, LM head", f"输出头{SHARE.zh}")
    return Figure(
        Said(
            "Share of the LM head in the squared gradient norm: over training, and its mean over "
            "training at all learning rates. Above the dashed line it is more than all other "
            "layers together.",
            "输出头占梯度范数平方的份额：随训练的变化，以及各学习率下的训练全程均值。"
            "虚线以上表示超过其余各层之和。",
        ),
        [
            Panel(Said("over training", "随训练"), TOKENS, of_head, over_time, chance=0.5),
            Panel(
                Said("by learning rate", "按学习率"),
                Said("peak learning rate", "峰值学习率"),
                of_head,
                over_rates,
                log_x=True,
                chance=0.5,
            ),
        ],
    )


def _totals(results: Results) -> Figure:
    lines = [
        line for arm in SHOWN for line in by_step(results, arm, SAID[arm], "gradients", smooth=5)
    ]
    return Figure(
        Said(
            "Total gradient norm before clipping, which is what the report shows; means of five "
            "steps. Updates are clipped at 1.",
            "裁剪前的总梯度范数（报告所示即此量），每五步取均值。更新在 1 处裁剪。",
        ),
        [Panel(Said("total gradient norm", "总梯度范数"), TOKENS, NORM, lines, log_y=True)],
    )


def _table(results: Results) -> Table:
    columns = [
        Column(Said("head's share", "输出头份额"), over_training(head_share), 2),
        Column(Said("last tenth", "后十分之一"), over_training(head_share, 0.9, 1), 2),
        Column(Said("largest other", "其余最大层"), over_training(largest_other), 2),
        Column(Said("norm, last tenth", "范数，后十分之一"), _late_norm, 2),
        Column(Said("jitter", "抖动"), jitter, 3),
        Column(Said("loss, curated text", "精选文本损失"), number(LOSS), 3),
    ]
    caption = Said("Heads at the middle learning rate.", "中间学习率下的各种输出头。")
    return table(caption, results, {arm: SAID[arm] for arm in SHOWN}, columns)


def _table_of_rates(results: Results) -> Table:
    arms = {
        arm: Said(f"{SAID[head].en} @ {rate:.3g}", f"{SAID[head].zh} @ {rate:.3g}")
        for head in ("plain", "norm-head")
        for rate, arm in at_rates(results, head).items()
    }
    columns = [
        Column(Said("head's share", "输出头份额"), over_training(head_share), 2),
        Column(Said("largest other", "其余最大层"), over_training(largest_other), 2),
    ]
    caption = Said(
        "Share of the squared norm, mean over training, at every learning rate.",
        "各学习率下占范数平方的份额，训练全程均值。",
    )
    return table(caption, results, arms, columns)


def _late_norm(result: Result) -> float | None:
    found = log_norm(0.9, 1)(result)
    return None if found is None else math.exp(found)


STUDY = Study(
    name="head-gradient",
    title=Said("The gradient of the LM head", "输出头的梯度"),
    question=Said(
        "Is most of the gradient the LM head's, and what does the Norm-Head do to the gradient "
        "norm?",
        "梯度是否主要来自输出头？Norm-Head 对梯度范数有何影响？",
    ),
    report=Said(
        "The LM head's gradient makes up most of the total gradient norm, and sparse vocabulary "
        "makes that layer unstable. With the Norm-Head the norm is higher (0.332 "
        "against 0.2395 at step 255,499 of a 1B model, a difference of 0.33 in the logarithm), "
        "rises fast early and climbs less later.",
        "输出头的梯度占总梯度范数的大部分，词表稀疏使该层不稳定。使用 Norm-Head 后范数"
        "更高（1B 模型第 255,499 步 0.332 对 0.2395，对数差 0.33），早期上升快，后期相对增幅小。",
    ),
    design=Said(
        "Plain head and Norm-Head at every learning rate from 2e-4 on, at the middle one also with "
        "two controls: a plain head multiplied by a constant, so that its logits at the first step "
        "and the length of its rows are the Norm-Head's, and a Norm-Head whose norms get no "
        "gradient. Norms of all layers are taken before clipping at every tenth step. The share is "
        "of the squared norm, which layers add up to; a quarter of it is half of the norm itself.",
        "普通输出头与 Norm-Head 遍历 2e-4 起的各学习率；在中间学习率另加两个对照：乘以常数的"
        "普通输出头（首步 logits 与行长同 Norm-Head），以及范数不传梯度的 Norm-Head。"
        "每十步记录一次裁剪前各层范数。份额按范数平方计算，各层之和为 1；"
        "四分之一的份额相当于范数的一半。",
    ),
    limits=Said(
        "Some 470 words (1,433 in the gpu preset) instead of 65,029, so that far fewer rows are "
        "without a gradient in a step; two layers (six) instead of 36. How much a Norm-Head raises "
        "the norm depends on how long its rows are drawn, since the gradient of a row is divided "
        "by its length: 0.11 at width 32, 0.45 at the width and initialisation of the release. The "
        "head's share depends on the learning rate; the verdict is of the middle one. The claims "
        "were written after early trials (seeds below 100), in which the head was nearly always "
        "the largest layer but not always more than half, and the Norm-Head's norm was the higher "
        "one.",
        "词表约 470 词（gpu 预设 1,433 词）而非 65,029，单步内没有梯度的行少得多；"
        "2 层（gpu 预设 6 层）而非 36 层。Norm-Head 使范数升高多少取决于初始行长（行的梯度"
        "除以行长）：宽度 32 时为 0.11，发布模型的宽度与初始化下为 0.45。"
        "输出头的份额随学习率而变，判定取中间学习率。"
        "论断拟定前已有试跑（种子小于 100）：输出头几乎总是最大的一层，但未必过半；"
        "Norm-Head 的范数较高。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds=SEEDS,
)
