"""Is the Norm-Head better, and what is its gain made of?"""

import math
from collections.abc import Callable, Sequence

from indexlm.lab import on_text
from indexlm.lab.arms import Arm, Result
from indexlm.lab.drawing import (
    GUESSING,
    NATS,
    POINTS,
    RESOLVED,
    TOKENS,
    Column,
    Value,
    against,
    bars,
    curve,
    differences,
    number,
    percent,
    scored,
    table,
)
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
from indexlm.lab.sweep import (
    CLOZE,
    LOSS,
    LOSS_SAID,
    MORE,
    NORM_HEAD,
    PLAIN,
    RATE,
    RIGHT,
    SAID,
    SEEDS,
    SWEPT,
    at,
    at_best,
    at_rates,
    best,
    by_step,
    swept,
)
from indexlm.lab.verdict import REPORT, Claim, Said

LOSS_MARGIN, POINTS_MARGIN, SPREAD_MARGIN = 0.02, 2.0, 0.05
"""Nats: 1 to 2% of the loss of a head that has learned, while the report's gain is 1.3% of the
score. Percent: 5 of 256 items. Nats: losses at the ends of the list are whole nats apart."""

STEADIER = Said("whoever expects a steadier training", "“训练更稳定”之说")
"""Sensitivity is what instability leaves at small scale (Wortsman et al. 2023)."""


AT_BEST = Said(
    "loss on curated text, each at its best learning rate,", "各取最佳学习率时的精选文本损失"
)
RIGHT_AT_BEST = Said(
    "facts completed rightly, each at its best learning rate,", "各取最佳学习率时的事实补全正确率"
)
SPREAD = Said(
    "sensitivity to the learning rate (mean loss over all of them minus the lowest)",
    "学习率敏感度（各学习率的平均损失减去最低损失）",
)
LONG = Said("a plain head of the same logits", "logits 相同的普通输出头")
SCALED = Said("a plain head of the same logits and rows", "logits 与行长相同的普通输出头")


def arms(preset: PresetName, seed: int) -> list[Arm]:
    found = [arm for head in SWEPT for arm in swept(preset, seed, head)]
    return [*found, *(at(preset, seed, head) for head in MORE)]


def sensitivity(results: Results, head: str) -> Values:
    """Mean over the learning rates of the loss above the lowest one of the seed (Wortsman et al.
    2023); no loss counts as more than that of a uniform guess, which is also a diverged arm's."""
    named = at_rates(results, head).values()
    found: dict[int, float | None] = {}
    for seed, some in results[head].items():
        most = math.log(some.arm["model"]["vocab_size"])
        losses = [_at_most(results[arm][seed].value(LOSS), most) for arm in named]
        found[seed] = math.fsum(losses) / len(losses) - min(losses)
    return found


def _at_most(loss: float | None, most: float) -> float:
    return most if loss is None else min(loss, most)


def _of_best(value: Value, head: str, control: str) -> Callable[[Results], tuple[Values, Values]]:
    return lambda results: (at_best(results, head, value), at_best(results, control, value))


def _loss_claim(name: Said, control: str, said: Said, claimant: Said) -> Declared:
    return Declared(
        name,
        Claim(AT_BEST, NORM_HEAD, said, "lower", LOSS_MARGIN, "high", NATS, claimant=claimant),
        "norm-head",
        control,
        made=_of_best(number(LOSS), "norm-head", control),
    )


def _spread_claim(name: Said, control: str, said: Said) -> Declared:
    return Declared(
        name,
        Claim(SPREAD, NORM_HEAD, said, "lower", SPREAD_MARGIN, "high", NATS, claimant=STEADIER),
        "norm-head",
        control,
        made=lambda results: (
            sensitivity(results, "norm-head"),
            sensitivity(results, control),
        ),
    )


CLAIMS = (
    _loss_claim(Said("lower loss", "损失更低"), "plain", PLAIN, REPORT),
    Declared(
        Said("more facts", "事实更多"),
        Claim(
            RIGHT_AT_BEST,
            NORM_HEAD,
            PLAIN,
            "higher",
            POINTS_MARGIN,
            "low",
            POINTS,
            RESOLVED,
        ),
        "norm-head",
        "plain",
        made=_of_best(percent(CLOZE), "norm-head", "plain"),
    ),
    _loss_claim(
        Said("at equal logits", "logits 相同时"), "plain, long rows", LONG, on_text.CREDITS_ROWS
    ),
    _loss_claim(
        Said("at equal logits and rows", "logits 与行长相同时"),
        "plain, scaled",
        SCALED,
        on_text.CREDITS_ROWS,
    ),
    _spread_claim(Said("less sensitive", "对学习率更不敏感"), "plain", PLAIN),
    _spread_claim(
        Said("less sensitive at equal logits and rows", "logits 与行长相同时对学习率更不敏感"),
        "plain, scaled",
        SCALED,
    ),
)


# The page.


def shown(results: Results) -> Sequence[Figure | Table]:
    return [
        _over_rates(results),
        _made_of(results),
        _over_training(results),
        _norms(results),
        *_at_middle(results),
        _at_all_rates(results),
    ]


def _swept(results: Results, value: Value) -> list[Line]:
    return [
        line
        for head in SWEPT
        for named in (at_rates(results, head),)
        for line in against(results, list(named.values()), list(named), SAID[head], value)
    ]


def _over_rates(results: Results) -> Figure:
    return Figure(
        Said(
            "End of training over the peak learning rate. A head that is merely better at one rate "
            "is lower at one place, one that is better made is lower everywhere.",
            "训练结束时的指标随峰值学习率的变化。仅在某一学习率占优的输出头只在一处更低，"
            "真正更好的则处处更低。",
        ),
        [
            Panel(LOSS_SAID, RATE, LOSS_SAID, _swept(results, number(LOSS)), log_x=True),
            Panel(RIGHT, RATE, RIGHT, _swept(results, percent(CLOZE)), log_x=True, chance=GUESSING),
        ],
    )


def _made_of(results: Results) -> Figure:
    heads = [*SWEPT, *MORE]
    names = [SAID[head] for head in heads]
    head, name = Said("head", "输出头"), Said("mean; a dot is a seed", "均值；圆点为单个种子")
    panels = [
        Panel(title, head, title, bars(results, heads, name, value), ticks=names, chance=chance)
        for title, value, chance in (
            (LOSS_SAID, number(LOSS), None),
            (RIGHT, percent(CLOZE), GUESSING),
        )
    ]
    return Figure(
        Said(
            "What the gain is made of, all at the middle learning rate. “Long rows” begin with raw "
            "rows as long as the scale, “scaled” is a plain head times a constant: both have the "
            "Norm-Head's logits at the first step, the latter also its rows.",
            "增益从何而来，均取中间学习率。“长行”指初始行长等于系数，“乘系数”指普通输出头乘以常数："
            "二者首步 logits 均与 Norm-Head 相同，后者行长也相同。",
        ),
        panels,
    )


def _over_training(results: Results) -> Figure:
    def lines(score: str, times: float = 1) -> list[Line]:
        return [
            line
            for head in SWEPT
            for line in curve(results, head, SAID[head], scored(score, times))
        ]

    return Figure(
        Said("Over training, at the middle learning rate.", "中间学习率下随训练的变化。"),
        [
            Panel(RIGHT, TOKENS, RIGHT, lines(CLOZE, 100), chance=GUESSING),
            Panel(LOSS_SAID, TOKENS, LOSS_SAID, lines(LOSS)),
        ],
    )


def _norms(results: Results) -> Figure:
    norm = Said("gradient norm before clipping", "裁剪前梯度范数")
    rows = Said("mean length of the head's raw rows", "输出头原始行的平均长度")
    clipped = Said("share of the steps that are clipped", "被裁剪步数的比例")
    gradients = [
        line for head in SWEPT for line in by_step(results, head, SAID[head], "gradients", 5)
    ]
    lengths = [
        line
        for head in SWEPT
        for line in curve(
            results, head, SAID[head], lambda point: point["head_rows"]["mean"], "head_rows"
        )
    ]
    return Figure(
        Said(
            "Total gradient norm and length of the rows over training, at the middle learning "
            "rate, and how often updates are clipped at 1. Longer rows turn more slowly.",
            "中间学习率下总梯度范数与行长随训练的变化，以及更新在 1 处被裁剪的频率。"
            "行越长转动越慢。",
        ),
        [
            Panel(norm, TOKENS, norm, gradients, log_y=True),
            Panel(rows, TOKENS, rows, lengths, log_y=True),
            Panel(clipped, RATE, clipped, _swept(results, _clipped), log_x=True),
        ],
    )


def _clipped(result: Result) -> float | None:
    return result.clipped


def _at_middle(results: Results) -> list[Table]:
    """Two, as one would be wider than a page."""
    learned = [
        Column(LOSS_SAID, number(LOSS), 3),
        Column(RIGHT, percent(CLOZE)),
        Column(Said("loss of the first step", "首步损失"), lambda result: result.losses[0], 2),
    ]
    moved = [
        Column(Said("gradient norm, last tenth", "梯度范数，后十分之一"), _late, 2),
        Column(Said("clipped steps", "被裁剪比例"), _clipped, 2),
        Column(Said("row length at the end", "结束时行长"), _row_length, 2),
    ]
    caption = Said("All heads at the middle learning rate.", "中间学习率下的全部输出头。")
    heads = {head: SAID[head] for head in (*SWEPT, *MORE)}
    return [table(caption, results, heads, columns) for columns in (learned, moved)]


def _late(result: Result) -> float | None:
    part = result.gradients[-max(1, len(result.gradients) // 10) :]
    return None if result.diverged else math.fsum(norm or 0 for norm in part) / len(part)


def _row_length(result: Result) -> float | None:
    found = [point["head_rows"]["mean"] for point in result.curve if "head_rows" in point]
    return None if result.diverged else float(found[-1])


def _at_all_rates(results: Results) -> Table:
    rates = {head: at_rates(results, head) for head in SWEPT}
    pairs = [
        (
            Said(f"{rate:.3g}: minus {SAID[head].en}", f"{rate:.3g}：减去{SAID[head].zh}"),
            rates["norm-head"][rate],
            arm,
        )
        for head in SWEPT[:-1]
        for rate, arm in rates[head].items()
    ]
    columns = [Column(LOSS_SAID, number(LOSS), 3), Column(RIGHT, percent(CLOZE))]
    chosen = {head: f"{_best_rate(results, head):.3g}" for head in SWEPT}
    caption = Said(
        "Norm-Head minus another head at each learning rate. Best rates: "
        + "; ".join(f"{SAID[head].en} {rate}" for head, rate in chosen.items())
        + ".",
        "各学习率下 Norm-Head 减去另一输出头。最佳学习率："
        + "；".join(f"{SAID[head].zh} {rate}" for head, rate in chosen.items())
        + "。",
    )
    return differences(caption, results, pairs, columns)


def _best_rate(results: Results, head: str) -> float:
    named = at_rates(results, head)
    chosen = best(results, list(named.values()))
    return next(rate for rate, arm in named.items() if arm == chosen)


STUDY = Study(
    name="norm-head",
    title=Said("Norm-Head against a plain head", "Norm-Head 与普通输出头"),
    question=Said(
        "Does a head with normalised rows learn better, and is it the normalisation that does it?",
        "行归一化的输出头是否学得更好？起作用的是归一化本身吗？",
    ),
    report=Said(
        "1B parameters, 1T tokens, cosine from 2e-4. The mean of six tasks is 34.36 with the "
        "Norm-Head and 33.93 without at the end, and it is ahead at eight of the nine points that "
        "the figure names; the same was seen at 0.1B.",
        "1B 参数、1T 词元、余弦调度、峰值 2e-4。结束时六项任务均分"
        " Norm-Head 为 34.36，普通输出头为 33.93，图中九个读数点有八个领先；"
        "0.1B 规模上亦有同样现象。",
    ),
    design=Said(
        "Each head is trained at every learning rate, and compared at the rate that the other "
        "seeds find best for it, so that no head gains by a rate that suits it alone. Two controls "
        "decide what a gain is made of: plain heads whose logits at the first step are those of "
        "the Norm-Head, one by long rows, the other by a constant factor over rows of the same "
        "length. Further arms: other scales, long rows under the Norm-Head, and norms that get no "
        "gradient.",
        "每种输出头遍历全部学习率，并在其余种子认为最佳的学习率上比较，避免某一学习率恰好只适合其一。"
        "两个对照判定增益来源：首步 logits 与 Norm-Head 相同的普通输出头，一个靠长行，一个靠同样"
        "行长乘以常数。另有其他系数、长行 Norm-Head、范数不传梯度等运行。",
    ),
    limits=Said(
        "At width 32 normalised rows without a scale bound a logit by 5.7, too little for a fact "
        "among 470 words, so the Norm-Head has scale 3 there (2.3 in the gpu preset; at the "
        "release's width the bound is 45 without any), and a plain head begins with far smaller "
        "logits than at that width: the first claim alone would reproduce the report for the wrong "
        "reason. Scale 3 was the best of 1, 3 and 8 in early trials (seeds below 100), whose gain "
        "was mostly one of scale, for which the controls were then added. Facts of a synthetic "
        "world, not text.",
        "宽度 32 时，不带系数的归一化行使 logit 不超过 5.7，不足以在 470 词中确定一个事实，"
        "故系数取 3（gpu 预设 2.3；发布模型的宽度下无系数时上限已为 45）；"
        "普通输出头的初始 logits 也远小于该宽度下的值。仅看第一条结论，"
        "会因错误的原因“复现”报告。系数 3 是早期试跑（种子小于 100）中 1、3、8 里最好的；"
        "试跑中的增益主要来自系数，两个对照因此而设。语料为合成世界的事实，非真实文本。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds=SEEDS,
    on_text=on_text.HEADS,
)
