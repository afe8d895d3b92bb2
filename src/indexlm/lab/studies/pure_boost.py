"""What instruction data in the decay does."""

from collections.abc import Callable, Sequence

from indexlm.lab.arms import Arm, Result
from indexlm.lab.drawing import (
    GUESSING,
    NATS,
    PERCENT_RIGHT,
    POINTS,
    RESOLVED,
    TOKENS,
    Column,
    Point,
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
from indexlm.lab.family import CPU, decayed, stable
from indexlm.lab.study import Declared, Figure, Line, Panel, PresetName, Results, Study, Table
from indexlm.lab.verdict import Claim, Said

PURE, BOOST = "pure", "boost 7%"
SHARES = {PURE: 0.0, "boost 3%": 0.03, BOOST: 0.07, "boost 15%": 0.15}
"""Of the rows of the decay; the report adds 7%."""

AGES = (2, 3)
"""Quarters of the trunk after which it is forked too; all other forks are of its end."""


def aged(name: str, age: int) -> str:
    return f"{name}, at {25 * age}% of the trunk"


def arms(preset: PresetName, seed: int) -> Sequence[Arm]:
    forks = [decayed(preset, seed, name, share) for name, share in SHARES.items()]
    for age in AGES:
        forks += [
            decayed(preset, seed, aged(name, age), SHARES[name], age) for name in (PURE, BOOST)
        ]
    return [stable(preset, seed), *forks]


ASKED, ASKED_TRAINED = "qa/held-out/accuracy", "qa/trained/accuracy"
STATED, LETTERS = "cloze/held-out/accuracy", "letters/held-out/accuracy"

OF_ASKED = Said("right answers to questions", "问答正确率")
SAID_PURE = Said("the pure decay", "不加指令数据的退火（pure）")
SAID_BOOST = Said("the decay with 7% instruction data", "加 7% 指令数据的退火（boost）")

CLAIMS = (
    Declared(
        Said("held-out", "留出实体"),
        Claim(
            Said(f"{OF_ASKED.en} about held-out entities", "留出实体的问答正确率"),
            SAID_BOOST,
            SAID_PURE,
            "higher",
            2,
            "low",
            POINTS,
            RESOLVED,
        ),
        BOOST,
        PURE,
        percent(ASKED),
    ),
    Declared(
        Said("trained", "训练过的实体"),
        Claim(
            Said(
                f"{OF_ASKED.en} about the entities of the instruction data",
                "指令数据所涉实体的问答正确率",
            ),
            SAID_BOOST,
            SAID_PURE,
            "higher",
            2,
            "low",
            POINTS,
            RESOLVED,
        ),
        BOOST,
        PURE,
        percent(ASKED_TRAINED),
    ),
    Declared(
        Said("plain text", "普通文本"),
        Claim(
            Said("loss on ordinary text", "普通文本的损失"),
            SAID_BOOST,
            SAID_PURE,
            "higher",
            0.01,
            "high",
            NATS,
        ),
        BOOST,
        PURE,
        number("loss/web"),
    ),
)

NAMES = {
    "stable": Said("stable trunk", "稳定阶段主干"),
    PURE: Said("pure (0%)", "pure（0%）"),
    "boost 3%": Said("boost, 3%", "boost，3%"),
    BOOST: Said("boost, 7%", "boost，7%"),
    "boost 15%": Said("boost, 15%", "boost，15%"),
}
for _age in AGES:
    for _name in (PURE, BOOST):
        NAMES[aged(_name, _age)] = Said(
            f"{NAMES[_name].en}, fork at {25 * _age}%", f"{NAMES[_name].zh}，分叉于 {25 * _age}%"
        )

COLUMNS = (
    Column(Said("held-out questions, %", "留出实体问答 %"), percent(ASKED)),
    Column(Said("trained questions, %", "训练实体问答 %"), percent(ASKED_TRAINED)),
    Column(Said("held-out statements, %", "留出实体陈述 %"), percent(STATED)),
    Column(Said("by letter, %", "选项字母 %"), percent(LETTERS)),
    Column(Said("loss, curated", "精选文本损失"), number("loss/hq"), 3),
    Column(Said("loss, ordinary", "普通文本损失"), number("loss/web"), 3),
)

HELD_OUT, TRAINED = Said("held-out entities", "留出实体"), Said("trained entities", "训练实体")


def shown(results: Results) -> Sequence[Figure | Table]:
    return (
        _over_training(results),
        _benchmarks(results),
        _doses(results),
        _ages(results),
        *_tables(results),
    )


def _over_training(results: Results) -> Figure:
    def panel(
        title: Said, y: Said, value: Callable[[Point], float | None], chance: float | None
    ) -> Panel:
        trunk = curve(results, "stable", NAMES["stable"], value)
        lines = [
            Line(line.name, [start.xs[-1], *line.xs], [start.ys[-1], *line.ys], faint=line.faint)
            for arm in (PURE, BOOST)
            for start, line in zip(trunk, curve(results, arm, NAMES[arm], value))
        ]
        return Panel(title, TOKENS, y, [*trunk, *lines], chance=chance)

    return Figure(
        Said(
            "One stable trunk and two decays of it that differ in 7% of their rows. Thin lines are "
            "single seeds. The dashed line is guessing. The report draws MMLU in this way: its two "
            "branches end at 43.1 and 50.3.",
            "同一稳定主干与两条退火分支，二者仅有 7% 的数据不同。细线为单个种子，虚线为随机猜测。"
            "报告以此方式画出 MMLU：两条分支终点为 43.1 与 50.3。",
        ),
        [
            panel(HELD_OUT, PERCENT_RIGHT, scored(ASKED, 100), GUESSING),
            panel(TRAINED, PERCENT_RIGHT, scored(ASKED_TRAINED, 100), GUESSING),
            panel(
                Said("statements, held-out", "陈述补全（留出实体）"),
                PERCENT_RIGHT,
                scored(STATED, 100),
                GUESSING,
            ),
        ],
    )


def _benchmarks(results: Results) -> Figure:
    """Pure and boost beside each other by what is asked, and what plain text pays for it."""
    asked = COLUMNS[:4]
    rising = [
        Line(line.name, [x + place for x in line.xs], line.ys, line.kind, line.faint)
        for arm in (PURE, BOOST)
        for place, column in enumerate(asked)
        for line in bars(results, [arm], NAMES[arm], column.value)
    ]
    boosted = [name for name in SHARES if name != PURE]
    falling = [
        line
        for column in COLUMNS[4:]
        for line in bars(results, boosted, column.head, _above_pure(results, column.value))
    ]
    return Figure(
        Said(
            "Left, the scores of both decays; letters (A to D) stay at guessing where a model of "
            "this size has not learned to name an option. Right, where the report's HellaSwag "
            "falls: how far losses on plain text are above those of the pure decay. "
            "Bars are means, dots are seeds.",
            "左：两条退火分支的得分；此规模的模型若未学会用字母指代选项，字母题停留在随机水平。右："
            "对应报告中下降的 HellaSwag：普通语料的损失比 pure 分支高出多少。柱为均值，点"
            "为各种子。",
        ),
        [
            Panel(
                Said("by kind of question", "按题型"),
                Said("kind of question", "题型"),
                PERCENT_RIGHT,
                rising,
                chance=GUESSING,
                ticks=[column.head for column in asked],
            ),
            Panel(
                Said("loss above the pure decay's", "高于 pure 分支的损失"),
                Said("decay", "退火"),
                Said("nats", "奈特"),
                falling,
                ticks=[NAMES[name] for name in boosted],
            ),
        ],
    )


def _above_pure(results: Results, value: Value) -> Value:
    def above(result: Result) -> float | None:
        own, pure = value(result), value(results[PURE][result.arm["seed"]])
        return None if own is None or pure is None else own - pure

    return above


def _doses(results: Results) -> Figure:
    shares = [100 * share for share in SHARES.values()]
    x = Said("instruction data, % of rows", "指令数据占比 %")
    questions = [
        line
        for name, score in ((HELD_OUT, ASKED), (TRAINED, ASKED_TRAINED))
        for line in against(results, list(SHARES), shares, name, percent(score))
    ]
    statements = against(
        results,
        list(SHARES),
        shares,
        Said("statements, held-out", "陈述补全（留出实体）"),
        percent(STATED),
    )
    texts = (
        (Said("curated text", "精选文本"), "loss/hq"),
        (Said("ordinary text", "普通文本"), "loss/web"),
    )
    losses = [
        Panel(
            name,
            x,
            Said("loss, nats", "损失（奈特）"),
            against(results, list(SHARES), shares, name, number(score)),
        )
        for name, score in texts
    ]
    return Figure(
        Said(
            "The share of instruction data against what it gains and what it costs. Questions "
            "about trained and held-out entities rise together where the format is learned, and "
            "apart where answers are memorised.",
            "指令数据占比与得失。若学到的是问答形式，训练实体与留出实体同升；若只是背下答案，则二"
            "者分离。",
        ),
        [
            Panel(
                Said("right answers", "正确率"),
                x,
                PERCENT_RIGHT,
                [*questions, *statements],
                chance=GUESSING,
            ),
            *losses,
        ],
    )


def _ages(results: Results) -> Figure:
    ages = (*AGES, 4)
    places = [25.0 * age for age in ages]
    found = {
        name: [name if age == 4 else aged(name, age) for age in ages] for name in (PURE, BOOST)
    }
    x = Said("share of the trunk before the fork, %", "分叉时主干进度 %")

    def panel(title: Said, score: str) -> Panel:
        lines = [
            line
            for name, forks in found.items()
            for line in against(results, forks, places, NAMES[name], percent(score))
        ]
        return Panel(title, x, PERCENT_RIGHT, lines, chance=GUESSING)

    return Figure(
        Said(
            "Forks at several ages of the trunk: what instruction data gain on questions, beside "
            "what is known at that age, which statements show.",
            "在主干的不同进度分叉：指令数据在问答上的收益，与该进度下已掌握的知识（见陈述补全）对"
            "照。",
        ),
        [
            panel(Said("questions, held-out", "问答（留出实体）"), ASKED),
            panel(Said("statements, held-out", "陈述补全（留出实体）"), STATED),
        ],
    )


def _tables(results: Results) -> Sequence[Table]:
    forks = {name: said for name, said in NAMES.items() if name in results}
    pairs = [
        (
            Said(f"{NAMES[boosted].en} minus pure", f"{NAMES[boosted].zh} 减 pure"),
            boosted,
            plain,
        )
        for boosted, plain in (
            *((name, PURE) for name in SHARES if name != PURE),
            *((aged(BOOST, age), aged(PURE, age)) for age in AGES),
        )
    ]
    return (
        table(Said("All arms.", "全部运行。"), results, forks, COLUMNS),
        differences(
            Said("What instruction data changes.", "指令数据带来的变化。"), results, pairs, COLUMNS
        ),
    )


STUDY = Study(
    name="pure-boost",
    title=Said("Instruction data in the decay", "退火阶段加入指令数据"),
    question=Said(
        "Does 7% of instruction data in the decay raise scores on questions, and is it knowledge "
        "or the format that it teaches?",
        "退火阶段加入 7% 指令数据能否提高问答得分？它教会的是知识，还是问答形式？",
    ),
    report=Said(
        "Two decays of one stable checkpoint, 50k steps each, differ in 7% "
        "instruction data only. MMLU 43.75 without it and 51.21 with it, CMMLU 42.35 and 49.79, "
        "C-Eval 43.61 and 52.41, ARC-E 61.61 and 78.86; HellaSwag, a score of plain text, falls "
        "from 63.21 to 57.80 (the card of the checkpoint before the decay has the first two "
        "numbers "
        "of CMMLU and C-Eval the other way round).",
        "同一稳定阶段检查点的两条退火分支各 5 万步，唯一区别是 7% 的指令数据。"
        "MMLU 由 43.75 升至 51.21，CMMLU 由 42.35 升至 49.79，C-Eval 由 43.61 升至 52.41，ARC-E 由 "
        "61.61 升至 78.86；考察普通文本续写的 HellaSwag 由 63.21 降至 57.80（退火前检查点的模型卡"
        "上，"
        "CMMLU 与 C-Eval 的前一个数字互换）。",
    ),
    design=Said(
        "A stable trunk at constant learning rate reads curated and ordinary text, half of the "
        "rows each, and no question. It is forked, with its optimiser's moments, at 50, 75 and "
        f"100% of its steps; a decay is a quarter as long as the trunk ({CPU.decay} of "
        f"{CPU.stable} steps in the small presets). Instruction data, 0, 3, 7 or 15% of the rows, "
        "asks about one half of the entities. All facts stand in the text that every arm reads; "
        "questions about the other half are in no data. Every answer has four candidates, and "
        "the likeliest counts.",
        "稳定主干以恒定学习率读精选与普通文本（各占一半），不含任何问句。在其 50%、75%、100% 进度"
        f"处连同优化器动量一起分叉；退火长度为主干的四分之一（小规模预设为 {CPU.stable} 步与 "
        f"{CPU.decay} 步）。指令数据占 0、3、7 或 15%，只问一半实体；全部事实都在各运行共读的文本"
        "中，另一半实体的问句从未出现在任何数据里。每题四个候选答案，取似然最高者。",
    ),
    limits=Said(
        "Facts are of one word and questions of one form, so that a gain is not to be compared in "
        "size with the report's 7 points. All forks of a seed are of one trunk, as in the report; "
        "how a pure decay fares with a form that it never saw may differ from seed to seed. "
        "The cost is read as loss on ordinary text, where the report has "
        "HellaSwag.",
        "事实均为单词、问句只有一种形式，因此增益的大小不能与报告的 7 分相比。与报告一样，同一种子"
        "的各分支出自同一主干；pure 分支能否应付从未见过的问句形式可能因种子而异。代价以普"
        "通文本损失衡量，报告用的是 HellaSwag。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds={"quick": 5, "full": 12, "gpu": 3},
)
