"""Scores that stay at chance for long and then surge (section 6.7 of the report)."""

from collections.abc import Sequence

from indexlm.evals.emergence import Jump, compare_jumps
from indexlm.lab import family, reference
from indexlm.lab.arms import Arm, Watch
from indexlm.lab.drawing import (
    GUESSING,
    POINTS,
    RESOLVED,
    STEPS,
    Column,
    curve,
    number,
    percent,
    scored,
    steps,
    table,
)
from indexlm.lab.jumps import REPORT_CURVE, jump_in, jump_of, shares_that_jump
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
from indexlm.lab.verdict import Claim, Said

CONSTANT, SLOWER, ORDINARY = "constant rate", "a fifth of the rate", "less curated text"

LENGTH = 2
"""Of a run, in stable phases of the other studies: surge and plateau are both in it."""
POINTS_OF_A_RUN = 40
RATE = 0.6
"""Of the size's peak: 3e-3 at the small one."""
MIXES = {
    CONSTANT: {"hq": 0.45, "web": 0.4, "instr": 0.15},
    SLOWER: {"hq": 0.45, "web": 0.4, "instr": 0.15},
    ORDINARY: {"hq": 0.09, "web": 0.76, "instr": 0.15},
}


def arms(preset: PresetName, seed: int) -> Sequence[Arm]:
    each = family.size(preset)
    count = LENGTH * each.stable
    watch = Watch(
        sets=(("qa", "held-out"), ("cloze", "held-out"), ("letters", "held-out")),
        every=count // POINTS_OF_A_RUN,
    )
    return [
        reference.reference(
            seed,
            name,
            world=each.world,
            model=each.model,
            train=reference.training(
                count,
                RATE * each.lr / (5 if name == SLOWER else 1),
                "wsd",
                batch=each.batch,
                micro_batch=each.batch,
            ),
            data=reference.text(**MIXES[name]),
            watch=watch,
        )
        for name in MIXES
        if name != ORDINARY or preset != "quick"
    ]


QUESTIONS, STATEMENTS = "qa/held-out", "cloze/held-out"


SHARE = Said(
    "share of the rise over the run that comes in one jump", "全程涨幅中由单次跃升贡献的份额"
)
LARGE, SMALL = (
    Said("a large constant rate", "较大的恒定学习率"),
    Said("a fifth of it", "其五分之一"),
)

CLAIMS = (
    Declared(
        "accuracy jumps",
        Claim(
            SHARE,
            Said("accuracy on held-out questions", "留出实体问答正确率"),
            Said("a smooth rise, which has none,", "没有跃升的平滑上升"),
            "higher",
            0.1,
            "low",
        ),
        CONSTANT,
        CONSTANT,
        made=shares_that_jump(CONSTANT, f"{QUESTIONS}/accuracy", 0.0),
    ),
    Declared(
        "margin is smoother",
        Claim(
            SHARE,
            Said("the margin of the same answers", "同一批答案的对数概率间隔"),
            Said("their accuracy", "其正确率"),
            "lower",
            0.1,
            "high",
            claimant=Said(
                "the paper of Schaeffer, Miranda and Koyejo (2023)",
                "Schaeffer、Miranda 与 Koyejo（2023）",
            ),
        ),
        CONSTANT,
        CONSTANT,
        made=shares_that_jump(CONSTANT, f"{QUESTIONS}/margin", f"{QUESTIONS}/accuracy"),
    ),
    Declared(
        "a large rate",
        Claim(
            Said("right answers to held-out questions at the end", "终点处留出实体问答正确率"),
            LARGE,
            SMALL,
            "higher",
            2,
            "low",
            POINTS,
            RESOLVED,
            claimant=Said("the report, as a guess,", "报告（作为推测）"),
        ),
        CONSTANT,
        SLOWER,
        percent(f"{QUESTIONS}/accuracy"),
    ),
)

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
            for line in curve(results, CONSTANT, name, scored(f"{items}/{kind}", times), x=steps)
        ]

    losses = [
        line
        for name, text in (
            (Said("curated text", "精选文本"), "loss/hq"),
            (Said("ordinary text", "普通文本"), "loss/web"),
        )
        for line in curve(results, CONSTANT, name, scored(text), x=steps)
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
                STEPS,
                Said("right, %", "正确率 %"),
                of("accuracy", 100),
                chance=GUESSING,
            ),
            Panel(Said("margin", "间隔"), STEPS, Said("nats", "奈特"), of("margin", 1)),
            Panel(Said("loss", "损失"), STEPS, Said("nats", "奈特"), losses),
        ],
    )


def _other_arms(results: Results, there: dict[str, Said]) -> Figure:
    def panel(kind: str, title: Said, y: Said, times: float, chance: float | None) -> Panel:
        value = scored(f"{QUESTIONS}/{kind}", times)
        lines = [
            line
            for arm, name in there.items()
            for line in curve(results, arm, name, value, x=steps)
        ]
        return Panel(title, STEPS, y, lines, chance=chance)

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
                Said("right, %", "正确率 %"),
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
    name = Said("MMLU, the report's stable phase", "MMLU，报告的稳定阶段")
    return Figure(
        Said(
            "The report's own curve under the same detector: the rise that stands out most is "
            f"between {found.start:,.0f} and {found.end:,.0f} billion tokens, {size} points, "
            f"{share} of the whole rise (p = {found.p_value:.3f}).",
            f"用同一检测器看报告自己的曲线：最突出的上升在 {found.start:,.0f} 至 {found.end:,.0f} "
            f"十亿词元之间，{size} 分，占全程涨幅的 {share}（p = {found.p_value:.3f}）。",
        ),
        [
            Panel(
                name,
                Said("billions of tokens", "十亿词元"),
                Said("MMLU, %", "MMLU %"),
                [Line(name, at, scores)],
                marks={
                    found.start: Said("jump begins", "跃升起"),
                    found.end: Said("ends", "止"),
                },
                chance=GUESSING,
            )
        ],
    )


def _jumps(results: Results, there: dict[str, Said]) -> Table:
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
            "For each seed, the rise that stands out most: the step of its middle and the 95% "
            "interval of that, its share of the whole rise, p, and * where it is a jump (p at most "
            "0.05 and half of the rise or more). Intervals are a bootstrap over residuals.",
            "每个种子最突出的上升：其中点步数及 95% 区间、占全程涨幅的份额、p 值；* 表示算作跃升"
            "（p 不超过 0.05 且占涨幅一半以上）。区间由残差自助法得出。",
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
    low, high = found.place
    star = " *" if found.found else ""
    return (
        f"{found.at:.0f} [{low:.0f}, {high:.0f}], {100 * found.share_of_total_rise:.0f}%, "
        f"p {found.p_value:.3f}{star}"
    )


STUDY = Study(
    name="emergence",
    title=Said("Surge in the stable phase", "稳定阶段的能力跃升"),
    question=Said(
        "Do scores leave chance in a jump while learning rate and data stay the same, and does the "
        "model change in a jump too?",
        "在学习率与数据都不变时，得分是否以跃升的方式离开随机水平？模型本身是否也在跃变？",
    ),
    report=Said(
        "Section 6.7: in the stable phase, with nothing changed, C-Eval and MMLU stay near 27 and "
        "26 until 1T tokens and are near 36 and 33 at 1.2T. Unexplained; good data and a large "
        "stable learning rate are named as a plausible account.",
        "第 6.7 节：稳定阶段一切不变，C-Eval 与 MMLU 在 1T 词元前停留在 27 与 26 附近，到 1.2T 时"
        "约为 36 与 33。原因未明；报告给出的可能解释是优质数据与较大的稳定学习率。",
    ),
    design=Said(
        "Constant learning rate after the warm-up, one mix of curated text, ordinary text and "
        f"instruction data from the first step to the last, {POINTS_OF_A_RUN} evaluations evenly "
        "apart. Accuracy and its continuous counterpart, the log-probability of the right answer "
        "less that of the best wrong one, are of the same held-out questions. A jump is a rise "
        "within a tenth of the run that a smooth rise with the same noise would show in at most "
        "5% of the cases and that takes at least half of the whole rise. Each seed's curve is "
        "judged by itself; the value of a seed is the share of its rise that jumps, 0 where "
        "nothing stands out.",
        "热身之后学习率恒定，精选文本、普通文本与指令数据的配比自始至终不变，等间隔评测 "
        f"{POINTS_OF_A_RUN} 次。正确率及其连续对应量（正确答案与最强错误答案的对数概率之差）取自同"
        "一批留出问题。所谓跃升，指全程十分之一以内的上升：同样噪声的平滑上升至多 5% 的情形会出"
        "现，且占全程涨幅一半以上。每个种子的曲线单独判定；其取值为跃升占涨幅的份额，没有突出上升"
        "时为 0。",
    ),
    limits=Said(
        "This shows one mechanism in a toy, facts first and then all of them at once; whether the "
        "report's surge is of that kind is unknown. The share depends on how long the run goes on "
        "after it. Mind the resolution: 40 points, 256 questions.",
        "这里展示的是玩具规模下的一种机制：先是逐步积累，继而事实几乎同时可用；报告中的跃升是否属"
        "于此类不得而知。份额还取决于跃升之后训练多久。分辨率有限：40 个点、256 道题。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds={"quick": 3, "full": 8, "gpu": 3},
)
