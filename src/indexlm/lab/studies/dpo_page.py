"""What the page of `dpo` shows: what is refused, log-probabilities by group, what is left known."""

from collections.abc import Mapping, Sequence

from indexlm.lab.drawing import (
    STEPS,
    Column,
    Value,
    against,
    bars,
    curve,
    differences,
    number,
    percent,
    scored,
    steps,
    table,
)
from indexlm.lab.preferring import (
    ANSWERED,
    BETA,
    BETAS,
    HARMFUL,
    HARMLESS,
    MIDDLE_RATE,
    OWN,
    QUICK_RATES,
    RANKED,
    RATES,
    REPORT_RATE,
    SFT,
    SFT_RATE,
    WRITTEN,
    Side,
    at,
    log_perplexity,
    moved,
    moved_over_steps,
    rates_of,
)
from indexlm.lab.study import Figure, Line, Panel, Results, Table
from indexlm.lab.verdict import Said

PAIRS = {
    OWN: Said("own refusals", "自身拒答"),
    WRITTEN: Said("written refusals", "人工拒答"),
    "facts": Said("facts", "事实"),
    "languages": Said("languages", "语言"),
}
STATED = "cloze/held-out/exact"
GROUPS = (Said("harmful", "有害"), Said("harmless", "无害"))
"""Of the pairs of refusals, in their order."""
SIDES: Mapping[Side, Said] = {
    "margin": Said("margin", "间隔"),
    "chosen": Said("chosen", "被选"),
    "rejected": Said("rejected", "被拒"),
}
TITLES: Sequence[Mapping[Side, Said]] = (
    {
        "margin": Said("harmful: margin", "有害：间隔"),
        "chosen": Said("harmful: refusal (chosen)", "有害：拒答（被选）"),
        "rejected": Said("harmful: answer (rejected)", "有害：作答（被拒）"),
    },
    {
        "margin": Said("harmless: margin", "无害：间隔"),
        "chosen": Said("harmless: answer (chosen)", "无害：作答（被选）"),
        "rejected": Said("harmless: refusal (rejected)", "无害：拒答（被拒）"),
    },
)
"""Of the panels of either group."""
BEFORE = Said("SFT, before", "SFT（DPO 之前）")
AFTER = (
    Column(Said("refused, harmful %", "拒答有害 %"), percent(HARMFUL)),
    Column(Said("refused, harmless %", "拒答无害 %"), percent(HARMLESS)),
    Column(Said("answers right %", "回答正确 %"), percent(ANSWERED)),
    Column(Said("right among values %", "候选中正确 %"), percent(RANKED)),
    Column(Said("statements %", "陈述补全 %"), percent(STATED)),
    Column(Said("loss, curated", "精选文本损失"), number("loss/hq"), 3),
    Column(Said("loss, ordinary", "普通文本损失"), number("loss/web"), 3),
)


def shown(results: Results) -> Sequence[Figure | Table]:
    return (
        _trade(results),
        _kept(results),
        *(_over_steps(results, rate) for rate in (REPORT_RATE, SFT_RATE)),
        _refused_over_steps(results),
        _over_rate(results),
        _over_beta(results),
        *_tables(results),
    )


def _trade(results: Results) -> Figure:
    """Over-refusal against refusals: every arm and seed a dot."""
    dots = []
    for pairs in (OWN, WRITTEN):
        found = [result for arm in rates_of(results, pairs) for result in results[arm].values()]
        good = [result for result in found if not result.diverged]
        xs = [100 * (result.scores[HARMFUL] or 0.0) for result in good]
        ys = [percent(HARMLESS)(result) for result in good]
        dots.append(Line(PAIRS[pairs], xs, ys, "dots"))
    diagonal = Line(Said("both alike", "二者相同"), [0.0, 100.0], [0.0, 100.0], faint=True)
    return Figure(
        Said(
            "Each dot is one seed at one learning rate. Right of the diagonal a model refuses "
            "harmful questions more than harmless ones; on it, it refuses without looking at the "
            "purpose. Diverged arms have no dot; the table counts them.",
            "每点为一个种子在一档学习率下的结果。对角线右侧表示更多地拒答有害问题；在线上则拒答与"
            "目的无关。发散的运行没有点，见表中计数。",
        ),
        [
            Panel(
                Said("what is refused", "拒答了什么"),
                Said("harmful questions refused, %", "有害问题拒答率 %"),
                Said("harmless questions refused, %", "无害问题拒答率 %"),
                [*dots, diagonal],
            )
        ],
    )


def _over_rate(results: Results) -> Figure:
    rates = [rate for rate in RATES if at(OWN, rate) in results]

    def panel(title: Said, y: Said, value: Value) -> Panel:
        lines = [
            line
            for pairs in (OWN, WRITTEN)
            for line in against(results, rates_of(results, pairs), rates, PAIRS[pairs], value)
        ]
        return Panel(
            title,
            Said("share of SFT's rate", "占 SFT 学习率"),
            y,
            lines,
            log_x=True,
        )

    return Figure(
        Said(
            "The learning rate; a tenth of SFT's is the report's ratio. Above, log-probabilities "
            "of the refusals of harmful questions (chosen) and of their answers (rejected), minus "
            "those of the SFT model; below, what becomes of its behaviour and of what it knows.",
            "学习率的影响；SFT 的十分之一为报告的比例。上排：有害问题的拒答（被选）与作答（被拒）的"
            "对数概率，已减去 SFT 模型的值；下排：模型的行为与知识。",
        ),
        [
            *(
                panel(_of_group(GROUPS[0], side), NATS_SAID, moved(results, 0, side))
                for side in SIDES
            ),
            panel(AFTER[0].head, PERCENT, AFTER[0].value),
            panel(AFTER[1].head, PERCENT, AFTER[1].value),
            panel(AFTER[2].head, PERCENT, AFTER[2].value),
        ],
    )


def _over_beta(results: Results) -> Figure:
    names = [at(OWN, MIDDLE_RATE, beta) for beta in BETAS]

    def panel(column: Column) -> Panel:
        lines = against(results, names, BETAS, PAIRS[OWN], column.value)
        return Panel(
            column.head,
            Said("beta", "beta"),
            column.head,
            lines,
            log_x=True,
            marks={BETA: Said("the report's", "报告")},
        )

    return Figure(
        Said(
            f"Beta, at {MIDDLE_RATE:g} of SFT's rate. The larger it is, the stronger DPO holds a "
            "model to where it started.",
            f"beta 的影响（学习率为 SFT 的 {MIDDLE_RATE:g}）：beta 越大，DPO 越把模型约束在出发点"
            "附近。",
        ),
        [
            panel(
                Column(_of_group(GROUPS[0], "margin", in_nats=True), moved(results, 0, "margin"))
            ),
            panel(AFTER[0]),
            panel(AFTER[2]),
        ],
    )


def _kept(results: Results) -> Figure:
    """What the model knows and refuses, before and after."""
    arms = [SFT, *(at(pairs, rate) for pairs in (OWN, WRITTEN) for rate in QUICK_RATES)]
    rates = [_with_rate(pairs, rate) for pairs in (OWN, WRITTEN) for rate in QUICK_RATES]
    lines = [
        line
        for place in (2, 4, 0, 1)
        for line in bars(results, arms, AFTER[place].head, AFTER[place].value)
    ]
    return Figure(
        Said(
            "Before and after DPO, by author of the refusals and learning rate as a share of "
            "SFT's: what is still known (answers, statements), and what is refused. Bars are "
            "means, dots are seeds.",
            "DPO 前后，按拒答来源与学习率（占 SFT 的比例）：仍然掌握的知识（回答、陈述补全），以及"
            "拒答率。柱为均值，点为各种子。",
        ),
        [
            Panel(
                Said("before and after", "前后对比"),
                Said("arm", "运行"),
                PERCENT,
                lines,
                ticks=[BEFORE, *rates],
            )
        ],
    )


def _over_steps(results: Results, rate: float) -> Figure:
    def panel(place: int, side: Side) -> Panel:
        lines = [
            line
            for pairs in (OWN, WRITTEN)
            for line in moved_over_steps(results, at(pairs, rate), PAIRS[pairs], place, side)
        ]
        return Panel(TITLES[place][side], STEPS, NATS_SAID, lines)

    return Figure(
        Said(
            f"Over the steps, at {rate:g} of SFT's rate: log-probabilities of whole replies minus "
            "those of the SFT model, of the same questions about entities of no pair. Of harmful "
            "questions the refusal is chosen and the right answer rejected, of harmless ones the "
            "answer is chosen and the model's own refusal rejected. Thin lines are single seeds.",
            f"随步数的变化（学习率为 SFT 的 {rate:g}）：整句回复的对数概率减去 SFT 模型的值，取自同"
            "一批问题，所问实体不在任何偏好对中。有害问题以拒答为被选、正确回答为被拒；无害问题以正确回"
            "答为被选、自身拒答为被拒。细线为单个种子。",
        ),
        [panel(place, side) for place in (0, 1) for side in SIDES],
    )


def _refused_over_steps(results: Results) -> Figure:
    def panel(column: Column, score: str) -> Panel:
        lines = [
            line
            for pairs in (OWN, WRITTEN)
            for rate in (REPORT_RATE, SFT_RATE)
            for line in curve(
                results, at(pairs, rate), _with_rate(pairs, rate), scored(score, 100), x=steps
            )
        ]
        return Panel(column.head, STEPS, PERCENT, lines)

    return Figure(
        Said(
            "What is refused over the steps, at two learning rates (shares of SFT's). Thin lines "
            "are single seeds.",
            "两档学习率（占 SFT 的比例）下拒答率随步数的变化。细线为单个种子。",
        ),
        [panel(column, score) for column, score in zip(AFTER, (HARMFUL, HARMLESS))],
    )


def _with_rate(pairs: str, rate: float) -> Said:
    return Said(f"{PAIRS[pairs].en}, {rate:g}", f"{PAIRS[pairs].zh}，{rate:g}")


PERCENT, NATS_SAID = Said("%", "%"), Said("nats", "奈特")


def _of_group(group: Said, side: Side, in_nats: bool = False) -> Said:
    said = SIDES[side]
    unit = (", nats", "（奈特）") if in_nats else ("", "")
    return Said(f"{group.en}: {said.en}{unit[0]}", f"{group.zh}：{said.zh}{unit[1]}")


def _tables(results: Results) -> Sequence[Table]:
    named: dict[str, Said] = {}
    for pairs, said in PAIRS.items():
        for rate in RATES:
            for beta in BETAS:
                if (name := at(pairs, rate, beta)) in results:
                    named[name] = Said(
                        f"{said.en}, {rate:g}, β {beta:g}", f"{said.zh}，{rate:g}，β {beta:g}"
                    )
    # One arm of each author: the learning rate changes nothing of the pairs.
    refusals = {at(pairs, REPORT_RATE): PAIRS[pairs] for pairs in (OWN, WRITTEN)}
    chosen = Column(Said("log-perplexity of the refusals", "拒答困惑度的对数"), log_perplexity)
    before = {SFT: BEFORE}
    compared = [
        (
            Said(f"own minus written, {rate:g}", f"自身减人工，{rate:g}"),
            at(OWN, rate),
            at(WRITTEN, rate),
        )
        for rate in RATES
        if at(OWN, rate) in results
    ]
    return (
        table(
            Said(
                "Before and after, by learning rate as a share of SFT's.",
                "DPO 前后，学习率以占 SFT 的比例表示。",
            ),
            results,
            before | named,
            AFTER,
        ),
        table(
            Said(
                "Log-probabilities of chosen and rejected replies minus those of the SFT model, "
                "nats, by group.",
                "被选与被拒回复的对数概率减去 SFT 模型的值（奈特），按组。",
            ),
            results,
            {name: said for name, said in named.items() if _groups(results, name) == 2},
            [
                Column(_of_group(group, side), moved(results, place, side), 2)
                for place, group in enumerate(GROUPS)
                for side in SIDES
            ],
        ),
        table(
            Said("The same of pairs of facts and of languages.", "同上，事实对与语言对。"),
            results,
            {name: said for name, said in named.items() if _groups(results, name) == 1},
            [Column(said, moved(results, 0, side), 2) for side, said in SIDES.items()],
        ),
        table(Said("Refusals that are chosen.", "被选的拒答。"), results, refusals, [chosen]),
        differences(
            Said("Own and written refusals.", "自身与人工拒答。"),
            results,
            compared,
            [column for column in AFTER if column is not AFTER[3]],
        ),
    )


def _groups(results: Results, arm: str) -> int:
    (first, *_) = results[arm].values()
    return len(first.arm["data"]["groups"])
