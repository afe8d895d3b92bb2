"""SFT: with the optimiser's state or without it, with replayed text or without."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from indexlm.lab.arms import Arm, Result
from indexlm.lab.drawing import (
    NATS,
    OF_CURATED,
    PERCENT_RIGHT,
    POINTS,
    STEPS,
    Column,
    Point,
    bars,
    curve,
    differences,
    number,
    percent,
    scored,
    steps,
    table,
)
from indexlm.lab.family import decayed, fine_tuned, size
from indexlm.lab.study import Declared, Figure, Panel, PresetName, Results, Study, Table
from indexlm.lab.verdict import Claim, Said

BASE = "base"

REPLAYED = 0.6
"""Share of the loss tokens that are answers, the rest is replayed: the report's best."""


@dataclass(frozen=True)
class Way:
    keep_optimiser: bool
    response_share: float
    said: Said


PLAIN, KEPT, BOTH, REPLAY = "plain", "optimiser", "optimiser + replay", "replay"
WAYS = {
    PLAIN: Way(False, 1.0, Said("plain", "普通 SFT")),
    KEPT: Way(True, 1.0, Said("optimiser's state", "保留优化器状态")),
    BOTH: Way(True, REPLAYED, Said("optimiser's state, replay", "保留状态并回放")),
    REPLAY: Way(False, REPLAYED, Said("replay alone", "仅回放")),
}
"""The report's three rows, and the fourth that tells which of two changes did it."""

REPORT_RATE, HIGH_RATE = 0.02, 0.2
"""Of the peak of pre-training: 1e-5 / 5e-4 in the report, and ten times that."""
QUICK_RATES = (REPORT_RATE, HIGH_RATE)
RATES = (REPORT_RATE, 0.06, HIGH_RATE, 0.6)


def at(way: str, rate: float) -> str:
    return f"{way}, {rate:g} of the peak"


def arms(preset: PresetName, seed: int) -> Sequence[Arm]:
    peak = size(preset).lr
    tuned = [
        fine_tuned(
            preset,
            seed,
            at(name, rate),
            lr=rate * peak,
            keep_optimiser=way.keep_optimiser,
            response_share=way.response_share,
        )
        for rate in (RATES if preset == "full" else QUICK_RATES)
        for name, way in WAYS.items()
    ]
    return [decayed(preset, seed, BASE), *tuned]


ANSWERED, OBEYED, STATED = "chat/held-out/exact", "refused/told", "cloze/held-out/exact"
TOTAL = (ANSWERED, OBEYED, STATED)

TOTAL_NAME = Said(
    "mean score of answers, obedience and statements", "回答、服从指令、陈述补全三项均分"
)
ANSWERED_NAME = Said("right answers about held-out entities", "留出实体回答正确率")
SAID_PLAIN = Said("plain SFT", "普通 SFT")
SAID_KEPT = Said("SFT with the optimiser's state", "保留优化器状态的 SFT")
SAID_BOTH = Said("SFT with the optimiser's state and 40% replay", "保留优化器状态并回放 40% 的 SFT")


def _claims(rate: float) -> list[Declared]:
    """The report's comparisons at one learning rate."""
    place = Said(f" (at {rate:g} of the peak rate)", f"（学习率为峰值的 {rate:g}）")

    def total(name: Said, treatment: str, said: Said) -> Declared:
        claim = Claim(_joined(TOTAL_NAME, place), said, SAID_PLAIN, "higher", 1, "low", POINTS)
        return Declared(
            _joined(name, place), claim, at(treatment, rate), at(PLAIN, rate), percent(*TOTAL)
        )

    return [
        total(Said("both against plain", "两者对普通"), BOTH, SAID_BOTH),
        total(Said("optimiser against plain", "优化器状态对普通"), KEPT, SAID_KEPT),
        Declared(
            _joined(Said("replay costs answers", "回放有损回答"), place),
            Claim(
                _joined(ANSWERED_NAME, place),
                SAID_BOTH,
                SAID_KEPT,
                "lower",
                1,
                "low",
                POINTS,
                # Where nobody answers, or everybody rightly, nothing is lost.
                (1.0, 99.0),
            ),
            at(BOTH, rate),
            at(KEPT, rate),
            percent(ANSWERED),
        ),
        Declared(
            _joined(Said("replay keeps text", "回放保住文本"), place),
            Claim(
                _joined(OF_CURATED, place),
                SAID_BOTH,
                SAID_KEPT,
                "lower",
                0.01,
                "high",
                NATS,
            ),
            at(BOTH, rate),
            at(KEPT, rate),
            number("loss/hq"),
        ),
    ]


def _joined(first: Said, second: Said) -> Said:
    return Said(first.en + second.en, first.zh + second.zh)


CLAIMS = (*_claims(REPORT_RATE), *_claims(HIGH_RATE))

COLUMNS = (
    Column(Said("three scores, mean %", "三项均分 %"), percent(*TOTAL)),
    Column(Said("answers, held-out %", "回答（留出实体）%"), percent(ANSWERED)),
    Column(Said("answers, trained %", "回答（训练实体）%"), percent("chat/trained/exact")),
    Column(Said("obeys the system prompt %", "服从系统提示 %"), percent(OBEYED)),
    Column(Said("statements %", "陈述补全 %"), percent(STATED)),
    Column(Said("loss, curated", "精选文本损失"), number("loss/hq"), 3),
    Column(Said("loss, ordinary", "普通文本损失"), number("loss/web"), 3),
)


def shown(results: Results) -> Sequence[Figure | Table]:
    rates = [rate for rate in RATES if at(PLAIN, rate) in results]
    return (
        _rows(results),
        *(_over_steps(results, rate) for rate in (REPORT_RATE, HIGH_RATE)),
        _forgotten(results, rates),
        *_tables(results, rates),
    )


def _rows(results: Results) -> Figure:
    """The report's three rows and the fourth, by what is scored."""

    def panel(rate: float) -> Panel:
        names = [at(name, rate) for name in WAYS]
        lines = [
            line
            for column in (COLUMNS[0], COLUMNS[1], COLUMNS[3], COLUMNS[4])
            for line in bars(results, names, column.head, column.value)
        ]
        title = Said(f"{rate:g} of the peak", f"峰值的 {rate:g}")
        ticks = [way.said for way in WAYS.values()]
        return Panel(title, Said("way of SFT", "SFT 方式"), Said("%", "%"), lines, ticks=ticks)

    return Figure(
        Said(
            "The report's three rows (1.7933, 1.8176 and 1.9291 of 3) and replay alone, at two "
            "learning rates: the mean score and the three that it is made of. Bars are means, dots "
            "are seeds.",
            "报告的三行（满分 3 分：1.7933、1.8176、1.9291）以及仅回放，两档学习率：均分及其三个组"
            "成部分。柱为均值，点为各种子。",
        ),
        [panel(rate) for rate in (REPORT_RATE, HIGH_RATE)],
    )


def _over_steps(results: Results, rate: float) -> Figure:
    def panel(title: Said, y: Said, value: Callable[[Point], float | None]) -> Panel:
        lines = [
            line
            for name, way in WAYS.items()
            for line in curve(results, at(name, rate), way.said, value, x=steps)
        ]
        return Panel(title, STEPS, y, lines)

    nats = Said("nats", "奈特")
    return Figure(
        Said(
            f"Learning rate {rate:g} of the peak of pre-training"
            + (", the report's ratio." if rate == REPORT_RATE else ".")
            + " Thin lines are single seeds; an answer is right where no word at all is likelier.",
            f"学习率为预训练峰值的 {rate:g}"
            + ("，即报告的比例。" if rate == REPORT_RATE else "。")
            + "细线为单个种子；正确答案在全部词中概率最高才算答对。",
        ),
        [
            panel(
                Said("answers, held-out", "回答（留出实体）"), PERCENT_RIGHT, scored(ANSWERED, 100)
            ),
            panel(
                Said("obeys the system prompt", "服从系统提示"), PERCENT_RIGHT, scored(OBEYED, 100)
            ),
            panel(OF_CURATED, nats, scored("loss/hq")),
        ],
    )


def _forgotten(results: Results, rates: Sequence[float]) -> Figure:
    """What a base knew and the tuned model has lost, by way and rate."""
    panels = []
    for rate in rates:
        names = [at(name, rate) for name in WAYS]
        lines = [
            line
            for text, said in (
                ("loss/hq", Said("curated text", "精选文本")),
                ("loss/web", Said("ordinary text", "普通文本")),
            )
            for line in bars(results, names, said, _above_base(results, text))
        ]
        panels.append(
            Panel(
                Said(f"{rate:g} of the peak", f"峰值的 {rate:g}"),
                Said("way of SFT", "SFT 方式"),
                Said("loss above the base's, nats", "高于基座的损失（奈特）"),
                lines,
                ticks=[way.said for way in WAYS.values()],
            )
        )
    return Figure(
        Said(
            "Forgetting: how far the loss on plain text has risen above that of the base model. "
            "Dots are seeds.",
            "遗忘：普通语料上的损失比基座模型高出多少。点为各种子。",
        ),
        panels,
    )


def _above_base(results: Results, text: str) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        base = results[BASE][result.arm["seed"]].value(text)
        tuned = result.value(text)
        return None if base is None or tuned is None else tuned - base

    return value


def _tables(results: Results, rates: Sequence[float]) -> Sequence[Table]:
    tuned = {
        at(name, rate): Said(f"{way.said.en}, {rate:g}", f"{way.said.zh}，{rate:g}")
        for rate in rates
        for name, way in WAYS.items()
    }
    # The learning rate changes nothing of the data.
    mixed = {at(name, REPORT_RATE): way.said for name, way in WAYS.items()}
    base = {BASE: Said("base, before", "基座（SFT 之前）")}
    share = Column(
        Said("answers' share of loss tokens, measured %", "回答占损失词元的份额（实测 %）"),
        percent("response_share"),
    )
    text = COLUMNS[4:]
    pairs = [
        (
            Said(
                f"{WAYS[treatment].said.en} minus {WAYS[control].said.en}, {rate:g}",
                f"{WAYS[treatment].said.zh} 减 {WAYS[control].said.zh}，{rate:g}",
            ),
            at(treatment, rate),
            at(control, rate),
        )
        for rate in rates
        for treatment, control in ((KEPT, PLAIN), (BOTH, PLAIN), (REPLAY, PLAIN), (BOTH, KEPT))
    ]
    return (
        table(Said("The base model.", "基座模型。"), results, base, text),
        table(
            Said(
                "All arms, by learning rate as a share of the peak.",
                "全部运行，学习率以占峰值的比例表示。",
            ),
            results,
            tuned,
            COLUMNS,
        ),
        table(Said("What the loss is made of.", "损失词元的构成。"), results, mixed, [share]),
        differences(
            Said("Differences between the ways.", "各方式之间的差值。"), results, pairs, COLUMNS
        ),
    )


STUDY = Study(
    name="sft",
    title=Said("SFT with the optimiser's state and replay", "SFT：保留优化器状态与回放"),
    question=Said(
        "Does SFT gain from going on with the optimiser's state of pre-training, and from replayed "
        "pre-training text?",
        "SFT 沿用预训练的优化器状态、并回放预训练文本，是否有益？",
    ),
    report=Said(
        "Internal scores of at most 3: plain SFT 1.7933, with the optimiser's state "
        "1.8176, with it and 40% of the loss tokens replayed 1.9291. Against the optimiser's state "
        "alone, replay lowers instructions (1.9433 to 1.8065), knowledge (2.192 to 1.9375) and "
        "mathematics, and raises open questions and writing. Learning rate 1e-5, a fiftieth of the "
        "peak.",
        "内部评测满分 3 分：普通 SFT 1.7933，保留优化器状态 1.8176，再回放 40%（按损失"
        "词元计）1.9291。与仅保留状态相比，回放降低指令（1.9433 至 1.8065）、知识（2.192 至 "
        "1.9375）与数学，提高开放问答与写作。学习率 1e-5，为峰值的五十分之一。",
    ),
    design=Said(
        "A decayed model that saw no question is tuned on answers about one half of the "
        "entities, 15% of them under a system prompt to refuse; loss is on the answers alone. "
        "Four ways, equal steps and rows: plain, with the moments and step count of the "
        "optimiser, with 40% of the loss tokens replayed text (the share is measured), and with "
        "both. The score is the mean of three shares: answers about the other half right, "
        "refusals when told, statements of the other half still completed right. Forgetting is "
        "the loss on curated and ordinary text. Two learning rates in the quick preset, four in "
        "the full one.",
        "从未见过问句的退火模型，用关于一半实体的回答做微调，其中 15% 带有要求拒答的系统提示；只"
        "在回答上计损失。步数与行数相同的四种方式：普通；沿用优化器动量与步数；40% 损失词元为回放"
        "文本（份额实测）；二者兼用。得分为三项的平均：另一半实体回答正确率、被要求时的拒答率、另"
        "一半实体的陈述补全正确率。遗忘以精选与普通文本的损失衡量。quick 预设两档学习率，full 四"
        "档。",
    ),
    limits=Said(
        "A hundred steps on answers of one word. The two learning rates that claims are about were "
        "set after prototypes: the report's ratio, at which so few steps leave SFT unfinished, and "
        "ten times that, at which it comes to its end and the ways differ in what they forget. The "
        "first claim is of the report's ratio. The report's open questions and writing have no "
        "counterpart here but the loss on text.",
        "仅一百步、答案均为单词。论断所涉的两档学习率是看过原型试验之后定下的：一档为报告的比例，步"
        "数太少，训练未到头；另一档为其十倍，可训练到头，差别在于遗忘多少。首要论断按报告的比例。报"
        "告的开放问答与写作在此只有文本损失可作对应。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds={"quick": 5, "full": 12, "gpu": 3},
)
