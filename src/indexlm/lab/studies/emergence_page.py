"""What the page of `emergence` shows: scores over the tokens, and where each seed's jumps."""

from collections.abc import Mapping, Sequence

from indexlm.evals.emergence import Jump, compare_jumps
from indexlm.lab.arms import Result
from indexlm.lab.drawing import (
    GUESSING,
    PERCENT_RIGHT,
    TOKENS,
    Column,
    curve,
    number,
    percent,
    scored,
    table,
)
from indexlm.lab.jumps import (
    REPORT_CURVE,
    curve_of,
    jump_in,
    jump_of,
    logarithmic,
    steepest,
    steepest_of_logarithm,
)
from indexlm.lab.study import Figure, Line, Panel, Results, Table
from indexlm.lab.verdict import Said

CONSTANT, SLOWER, ORDINARY = "constant rate", "a fifth of the rate", "less curated text"
QUESTIONS, STATEMENTS = "qa/held-out", "cloze/held-out"

NAMES = {
    CONSTANT: Said("constant rate", "恒定学习率"),
    SLOWER: Said("a fifth of the rate", "五分之一学习率"),
    ORDINARY: Said("less curated text", "精选文本较少"),
}
SCORES = {
    f"{QUESTIONS}/accuracy": Said("questions, accuracy", "问答，正确率"),
    f"{QUESTIONS}/margin": Said("questions, margin", "问答，间隔"),
    f"{STATEMENTS}/accuracy": Said("statements, accuracy", "陈述，正确率"),
    f"{STATEMENTS}/margin": Said("statements, margin", "陈述，间隔"),
}
KINDS = {
    "both": Said("both jump", "二者皆跃升"),
    "accuracy only": Said("accuracy only", "仅正确率跃升"),
    "continuous only": Said("margin only", "仅间隔跃升"),
    "neither": Said("neither", "均无跃升"),
}


def shown(results: Results) -> Sequence[Figure | Table]:
    there = {name: said for name, said in NAMES.items() if name in results}
    return (
        _scores(results),
        *_by_seed(results),
        _other_arms(results, there),
        _report_figure(),
        _jumps(results, there),
        table(
            Said("At the end of the runs.", "各运行终点。"),
            results,
            there,
            [
                Column(Said("questions, %", "问答 %"), percent(f"{QUESTIONS}/accuracy")),
                Column(Said("statements, %", "陈述 %"), percent(f"{STATEMENTS}/accuracy")),
                Column(Said("by letter, %", "选项字母 %"), percent("letters/held-out/accuracy")),
                Column(Said("margin, nats", "间隔（奈特）"), number(f"{QUESTIONS}/margin"), 2),
                Column(Said("loss, curated", "精选文本损失"), number("loss/hq"), 3),
                Column(Said("loss, ordinary", "普通文本损失"), number("loss/web"), 3),
            ],
        ),
    )


QUESTION_ITEMS, STATEMENT_ITEMS = Said("questions", "问答"), Said("statements", "陈述")


def _scores(results: Results) -> Figure:
    def of(kind: str, times: float) -> list[Line]:
        return [
            line
            for name, items in ((QUESTION_ITEMS, QUESTIONS), (STATEMENT_ITEMS, STATEMENTS))
            for line in curve(results, CONSTANT, name, scored(f"{items}/{kind}", times))
        ]

    losses = [
        line
        for name, text in (
            (Said("curated text", "精选文本"), "loss/hq"),
            (Said("ordinary text", "普通文本"), "loss/web"),
        )
        for line in curve(results, CONSTANT, name, scored(text))
    ]
    return Figure(
        Said(
            "Accuracy, the margin of the right answer over the best wrong one, and the losses of "
            "the same runs at constant rate and unchanged mix. Thin lines are single seeds.",
            "恒定学习率、数据配比不变的同一批运行：正确率、正确答案对最强错误答案的间隔，以及损失。"
            "细线为单个种子。",
        ),
        [
            Panel(
                Said("accuracy", "正确率"),
                TOKENS,
                PERCENT_RIGHT,
                of("accuracy", 100),
                chance=GUESSING,
            ),
            Panel(Said("margin", "间隔"), TOKENS, Said("nats", "奈特"), of("margin", 1)),
            Panel(Said("loss", "损失"), TOKENS, Said("nats", "奈特"), losses),
        ],
    )


ACCURACY, MARGIN = Said("accuracy", "正确率"), Said("margin", "间隔")
SMOOTH = Said("accuracy, logarithmic rise", "正确率，对数式上升")
PLACES = (
    (f"{QUESTIONS}/accuracy", ACCURACY, Said("accuracy's jump", "正确率的跃升"), 108.0),
    (f"{QUESTIONS}/margin", MARGIN, Said("margin's jump", "间隔的跃升"), 116.0),
)
"""Score, its name, that of its jump, and where the jump is drawn, above 100%."""


def _by_seed(results: Results) -> Sequence[Figure]:
    """Both scores of the same questions, each from its least to its most, and where they jump;
    nothing where all seeds diverged."""
    panels = []
    for seed, result in results[CONSTANT].items():
        if result.diverged:
            continue
        lines = [line for each in PLACES for line in _lines(result, *each)]
        at, values = curve_of(result, f"{QUESTIONS}/accuracy")
        smooth = logarithmic(at, *(_of_range(values, end) for end in (values[0], values[-1])))
        lines.append(Line(SMOOTH, at, smooth))
        title = Said(f"seed {seed}", f"种子 {seed}")
        panels.append(Panel(title, TOKENS, Said("of its range, %", "占自身变化范围 %"), lines))
    figure = Figure(
        Said(
            "Each seed: accuracy and margin of the same questions, both from their least to their "
            "most. Above 100% stand the middle of the jump (dot) and its 95% interval, for those "
            "that jump. The curved line is a rise with the logarithm of the tokens between the "
            "ends of accuracy.",
            "逐个种子：同一批问题的正确率与间隔，均按自身最小值至最大值缩放。100% 以上标出跃升的中"
            "点（圆点）及其 95% 区间，仅限判定为跃升者。弧线为与正确率首尾相同的对数式上升。",
        ),
        panels,
    )
    return [figure] if panels else []


def _lines(result: Result, score: str, name: Said, jumps: Said, height: float) -> list[Line]:
    at, values = curve_of(result, score)
    found = jump_of(result, score)
    lines = [Line(name, at, [_of_range(values, each) for each in values])]
    if found.found:
        lines += [
            Line(jumps, found.place, [height, height]),
            Line(jumps, [found.at], [height], "dots"),
        ]
    return lines


def _of_range(values: Sequence[float], value: float) -> float:
    return 100 * (value - min(values)) / max(max(values) - min(values), 1e-9)


def _other_arms(results: Results, there: Mapping[str, Said]) -> Figure:
    def panel(kind: str, title: Said, y: Said, times: float, chance: float | None) -> Panel:
        value = scored(f"{QUESTIONS}/{kind}", times)
        lines = [line for arm, name in there.items() for line in curve(results, arm, name, value)]
        return Panel(title, TOKENS, y, lines, chance=chance)

    return Figure(
        Said(
            "The same questions where the learning rate is a fifth, or, in the longer presets, "
            "curated text is a fifth: the report suspects good data and a large stable rate.",
            "同一批问题，学习率降为五分之一，或（较长预设中）精选文本降为五分之一：报告推测跃升来"
            "自优质数据与较大的稳定学习率。",
        ),
        [
            panel(
                "accuracy",
                Said("questions, accuracy", "问答，正确率"),
                PERCENT_RIGHT,
                100,
                GUESSING,
            ),
            panel("margin", Said("questions, margin", "问答，间隔"), Said("nats", "奈特"), 1, None),
        ],
    )


def _report_figure() -> Figure:
    at, scores = tuple(REPORT_CURVE), tuple(REPORT_CURVE.values())
    found = jump_in(at, scores)
    size, share = f"{found.size:.1f}", f"{100 * found.share_of_total_rise:.0f}%"
    gained = steepest(at, scores)
    smooth = steepest_of_logarithm(at, scores)
    name = Said("MMLU, the report's stable phase", "MMLU，报告的稳定阶段")
    return Figure(
        Said(
            f"The report's own curve by the same measures. Within a tenth of its length it gains "
            f"at most {gained:.1f} points, where a logarithmic rise between its ends gains "
            f"{smooth:.1f}. The rise that stands out most is between {found.start:,.0f} and "
            f"{found.end:,.0f} billion tokens, {size} points, {share} of the whole rise "
            f"(p = {found.p_value:.3f}).",
            f"用同样的方法看报告自己的曲线：任一十分之一区间内最多上升 {gained:.1f} 分，首尾相同的"
            f"对数式上升则为 {smooth:.1f} 分。最突出的上升在 {found.start:,.0f} 至 "
            f"{found.end:,.0f} 十亿词元之间，{size} 分，占全程涨幅的 {share}"
            f"（p = {found.p_value:.3f}）。",
        ),
        [
            Panel(
                name,
                Said("billions of tokens", "十亿词元"),
                Said("MMLU, %", "MMLU，%"),
                [Line(name, at, scores)],
                marks={
                    found.start: Said("jump begins", "跃升起"),
                    found.end: Said("ends", "止"),
                },
                chance=GUESSING,
            )
        ],
    )


def _jumps(results: Results, there: Mapping[str, Said]) -> Table:
    rows: list[list[str | Said]] = []
    for arm, name in there.items():
        for seed, result in results[arm].items():
            if result.diverged:
                rows.append([name, str(seed), *[Said("diverged", "发散")] * (len(SCORES) + 1)])
                continue
            cells = [_told(jump_of(result, score)) for score in SCORES]
            kind = compare_jumps(
                jump_of(result, f"{QUESTIONS}/accuracy"), jump_of(result, f"{QUESTIONS}/margin")
            ).kind
            rows.append([name, str(seed), *cells, KINDS[kind]])
    return Table(
        Said(
            "For each seed, the rise that stands out most: its middle and the 95% interval of "
            "that, in thousands of tokens, its share of the whole rise, p, and * where it is a "
            "jump (p at most 0.05 and half of the rise or more). Intervals are a bootstrap over "
            "residuals.",
            "每个种子最突出的上升：其中点及 95% 区间（千词元）、占全程涨幅的份额、p 值；* 表示算作"
            "跃升（p 不超过 0.05 且占涨幅一半以上）。区间由残差自助法得出。",
        ),
        [
            Said("arm", "运行"),
            Said("seed", "种子"),
            *SCORES.values(),
            Said("questions: which jumps", "问答：何者跃升"),
        ],
        rows,
    )


def _told(found: Jump) -> str:
    at, low, high = (f"{each / 1000:.0f}" for each in (found.at, *found.place))
    star = " *" if found.found else ""
    share = f"{100 * found.share_of_total_rise:.0f}%"
    return f"{at} [{low}, {high}], {share}, p {found.p_value:.3f}{star}"
