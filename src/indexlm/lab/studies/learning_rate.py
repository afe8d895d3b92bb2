"""Is the larger learning rate better, and where on the curve do both stand?"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from indexlm.lab import on_text
from indexlm.lab.arms import Arm
from indexlm.lab.drawing import (
    GUESSING,
    NATS,
    OF_CURATED,
    POINTS,
    RESOLVED,
    TOKENS,
    Column,
    Value,
    against,
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
    FIRST_RATE,
    LOSS,
    LOSS_SAID,
    RATE,
    RATIO,
    RIGHT,
    SAID,
    SEEDS,
    at_rates,
    best,
    by_step,
    named,
    swept,
)
from indexlm.lab.verdict import Claim, Said

SMALL, LARGE = (named("norm-head", FIRST_RATE * factor) for factor in (1, RATIO))
"""The report's pair."""

HEADS = ("norm-head", "plain")

LOSS_MARGIN, POINTS_MARGIN = 0.02, 2.0
"""Nats: 1 to 2% of the loss of a model that has learned; the report, which gives no numbers, says
"markedly". Percent: 5 of 256 items."""


def arms(preset: PresetName, seed: int) -> list[Arm]:
    return [arm for head in HEADS for arm in swept(preset, seed, head)]


def optimum(results: Results, head: str, without: int = -1) -> int:
    """Place, among the learning rates, of the best one that has a neighbour on both sides."""
    inner = list(at_rates(results, head).values())[1:-1]
    return 1 + inner.index(best(results, inner, without=without))


def beside_optimum(
    head: str, upper: int, value: Value
) -> Callable[[Results], tuple[Values, Values]]:
    """A pair whose larger learning rate stands `upper` places above the optimum, which for each
    seed is that of the others: chosen with its own values it would be the best by construction."""

    def made(results: Results) -> tuple[Values, Values]:
        named_arms = list(at_rates(results, head).values())
        larger: dict[int, float | None] = {}
        smaller: dict[int, float | None] = {}
        for seed in results[head]:
            place = optimum(results, head, without=seed) + upper
            larger[seed] = value(results[named_arms[place]][seed])
            smaller[seed] = value(results[named_arms[place - 1]][seed])
        return larger, smaller

    return made


CLAIMS = (
    Declared(
        Said("the report's pair", "报告的一对学习率"),
        Claim(
            OF_CURATED,
            Said("5e-4", "5e-4"),
            Said("2e-4", "2e-4"),
            "lower",
            LOSS_MARGIN,
            "high",
            NATS,
        ),
        LARGE,
        SMALL,
        number(LOSS),
    ),
    Declared(
        Said("the report's pair, facts", "报告的一对学习率：事实"),
        Claim(
            Said("facts completed rightly", "事实补全正确率"),
            Said("5e-4", "5e-4"),
            Said("2e-4", "2e-4"),
            "higher",
            POINTS_MARGIN,
            "low",
            POINTS,
            RESOLVED,
        ),
        LARGE,
        SMALL,
        percent(CLOZE),
    ),
    Declared(
        Said("a pair that ends at the optimum", "以最佳值为较大者的一对"),
        Claim(
            OF_CURATED,
            Said("the optimum of this size", "本规模的最佳学习率"),
            Said("the rate 2.5 times lower", "其 1/2.5 的学习率"),
            "lower",
            LOSS_MARGIN,
            "high",
            NATS,
            claimant=on_text.LARGER_IS_BETTER,
        ),
        "norm-head, at the optimum",
        "norm-head, one rate lower",
        made=beside_optimum("norm-head", 0, number(LOSS)),
    ),
    Declared(
        Said("a pair that begins at the optimum", "以最佳值为较小者的一对"),
        Claim(
            OF_CURATED,
            Said("a rate 2.5 times the optimum", "最佳学习率的 2.5 倍"),
            Said("the optimum of this size", "本规模的最佳学习率"),
            "lower",
            LOSS_MARGIN,
            "high",
            NATS,
            claimant=on_text.LARGER_IS_BETTER,
        ),
        "norm-head, one rate higher",
        "norm-head, at the optimum",
        made=beside_optimum("norm-head", 1, number(LOSS)),
    ),
)


def shown(results: Results) -> Sequence[Figure | Table]:
    return [
        _curve(results),
        _pair(results),
        _near(results),
        _table(results),
        _steps_up(results),
    ]


def _curve(results: Results) -> Figure:
    rates = list(at_rates(results, "norm-head"))
    place = optimum(results, "norm-head")
    marks = {
        rates[0]: Said("report 2e-4", "报告"),
        rates[1]: Said("report 5e-4", "报告"),
    }
    marks.setdefault(rates[place], Said("optimum", "最佳"))
    # The lower one of the pair that ends at the optimum, unless it is the report's own.
    marks.setdefault(rates[place - 1], Said("optimum / 2.5", "最佳/2.5"))

    def lines(value: Value) -> list[Line]:
        return [
            line
            for head in HEADS
            for at in (at_rates(results, head),)
            for line in against(results, list(at.values()), list(at), SAID[head], value)
        ]

    return Figure(
        Said(
            "End of training over the peak learning rate. Dotted: the report's pair, and the pair "
            "of the same ratio that ends at this size's optimum (that of the Norm-Head). In the "
            "middle, the Norm-Head alone from the lower rate of that pair on.",
            "训练结束时的指标随峰值学习率的变化。点线：报告的一对学习率，以及比值相同、以本规模最佳值"
            "为较大者的一对（按 Norm-Head）。中图只画 Norm-Head，自该对较小者起。",
        ),
        [
            Panel(LOSS_SAID, RATE, LOSS_SAID, lines(number(LOSS)), log_x=True, marks=marks),
            Panel(
                Said("the Norm-Head near its optimum", "Norm-Head 最佳值附近"),
                RATE,
                LOSS_SAID,
                _around(results, rates[place - 1 :]),
                log_x=True,
            ),
            Panel(
                RIGHT,
                RATE,
                RIGHT,
                lines(percent(CLOZE)),
                log_x=True,
                marks=marks,
                chance=GUESSING,
            ),
        ],
    )


def _around(results: Results, rates: Sequence[float]) -> list[Line]:
    arms = [at_rates(results, "norm-head")[rate] for rate in rates]
    return against(results, arms, rates, SAID["norm-head"], number(LOSS))


def _pair(results: Results) -> Figure:
    pair = {SMALL: Said("2e-4", "2e-4"), LARGE: Said("5e-4", "5e-4")}
    return _trained(
        results,
        pair,
        Said("The report's pair over training.", "报告的一对学习率随训练的变化。"),
    )


def _near(results: Results) -> Figure:
    at = at_rates(results, "norm-head")
    rates, place = list(at), optimum(results, "norm-head")
    around = {at[rate]: Said(f"{rate:.3g}", f"{rate:.3g}") for rate in rates[place - 1 : place + 2]}
    return _trained(
        results,
        around,
        Said("The optimum and its neighbours over training.", "最佳学习率及其相邻值随训练的变化。"),
    )


def _trained(results: Results, named_arms: dict[str, Said], caption: Said) -> Figure:
    training = Said("training loss, nats", "训练损失（奈特）")
    losses = [
        line for arm, said in named_arms.items() for line in by_step(results, arm, said, "losses")
    ]
    measured = [
        line for arm, said in named_arms.items() for line in curve(results, arm, said, scored(LOSS))
    ]
    return Figure(
        caption,
        [
            Panel(training, TOKENS, training, losses),
            Panel(LOSS_SAID, TOKENS, LOSS_SAID, measured),
        ],
    )


def _table(results: Results) -> Table:
    named_arms = at_rates(results, "norm-head")
    arms_said = {arm: Said(f"{rate:.3g}", f"{rate:.3g}") for rate, arm in named_arms.items()}
    columns = [Column(LOSS_SAID, number(LOSS), 3), Column(RIGHT, percent(CLOZE))]
    columns.append(Column(Said("clipped", "被裁剪比例"), lambda result: result.clipped, 2))
    caption = Said("Norm-Head at every learning rate.", "Norm-Head 在各学习率下的结果。")
    return table(caption, results, arms_said, columns)


def _steps_up(results: Results) -> Table:
    rates = at_rates(results, "norm-head")
    pairs = [
        (
            Said(*[f"{upper:.3g} − {lower:.3g}"] * 2),
            rates[upper],
            rates[lower],
        )
        for lower, upper in pairwise(rates)
    ]
    caption = Said(
        "Each learning rate minus the one 2.5 times lower.", "各学习率减去其 1/2.5 的学习率。"
    )
    columns = [Column(LOSS_SAID, number(LOSS), 3), Column(RIGHT, percent(CLOZE))]
    return differences(caption, results, pairs, columns)


STUDY = Study(
    name="learning-rate",
    title=Said("The size of the learning rate", "学习率的大小"),
    question=Said(
        "Is 5e-4 better than 2e-4, and is a larger learning rate better as such?",
        "5e-4 是否优于 2e-4？学习率更大本身就更好吗？",
    ),
    report=Said(
        "Of two 1B models trained on 1T tokens by a cosine, the one with peak 5e-4 is stably and "
        "markedly better than the one with 2e-4 (the numbers of the figure are not known to us).",
        "两个 1B 模型以余弦调度训练 1T 词元，峰值 5e-4 者稳定且明显优于 2e-4 者"
        "（图中数值未能取得）。",
    ),
    design=Said(
        "Learning rates from 2e-4 in steps of 2.5, the report's own ratio, by a cosine to a tenth. "
        "The best learning rate falls with width, so two absolute values say little at another "
        "size: the same step is also looked at where it ends at this size's optimum, and where it "
        "begins there. The optimum of a seed is that of the other seeds, among the rates that have "
        "a neighbour on both sides. It is where their loss is lowest, so that a neighbour can "
        "hardly be better: by how much it is worse is the question.",
        "学习率自 2e-4 起以 2.5 倍（报告的比值）递增，余弦降至十分之一。最佳学习率随宽度下降，"
        "两个绝对值在另一规模上意义有限：因此还考察以本规模最佳值为终点和为起点的同样一步。"
        "每个种子的最佳值由其余种子决定，且限于两侧都有相邻值者。它既是损失最低处，相邻值自然难以更好："
        "要问的是差多少。",
    ),
    limits=Said(
        "Where the report's pair stands relative to the optimum of its own model is not known. "
        "Some hundred steps: a longer run has a lower optimum. Early trials (seeds below 100) had "
        "5e-4 ahead of 2e-4 and the optimum near 5e-3, around which the list of rates and the "
        "claims were then laid. Facts of a synthetic world, not text.",
        "报告的一对学习率相对其模型最佳值的位置未知。此处仅数百步，训练越长最佳学习率越低。"
        "早期试跑（种子小于 100）中 5e-4 优于 2e-4，最佳值约为 5e-3，学习率列表与论断据此拟定。"
        "语料为合成世界的事实，非真实文本。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds=SEEDS,
    on_text=on_text.RATES,
)
