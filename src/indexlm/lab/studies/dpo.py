"""DPO: learning rate and beta, and who wrote the refusals (section 3.2 of the report)."""

from collections.abc import Callable, Sequence

from indexlm.lab.drawing import (
    NATS,
    POINTS,
    STEPS,
    Column,
    Point,
    Value,
    against,
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
    RANKED,
    RATES,
    REPORT_RATE,
    SFT,
    SFT_RATE,
    WRITTEN,
    against_zero,
    arms,
    at,
    highest,
    last,
    mean,
    over_rates,
    perplexity,
    rates_of,
    told_apart,
)
from indexlm.lab.study import Declared, Figure, Line, Panel, Results, Study, Table
from indexlm.lab.verdict import Claim, Said

SAID_OWN = Said("the SFT model's own refusals", "SFT 模型自己的拒答")
SAID_WRITTEN = Said("written refusals", "人工撰写的拒答")
SELECTIVITY = Said(
    "selectivity (harmful questions refused less harmless ones, at the best learning rate)",
    "选择性（有害问题拒答率减无害问题拒答率，取最佳学习率）",
)
SAID_DPO, SAID_SFT = (
    Said("DPO with own refusals", "以自身拒答做 DPO"),
    Said("the SFT model", "SFT 模型"),
)
MAIN = at(OWN, REPORT_RATE)

CLAIMS = (
    Declared(
        "telling apart",
        Claim(SELECTIVITY, SAID_OWN, SAID_WRITTEN, "higher", 5, "low", POINTS),
        MAIN,
        at(WRITTEN, REPORT_RATE),
        made=over_rates(told_apart, highest),
    ),
    Declared(
        "perplexity",
        Claim(
            Said(
                "perplexity of the chosen refusals under the SFT model",
                "被选拒答在 SFT 模型下的困惑度",
            ),
            SAID_OWN,
            SAID_WRITTEN,
            "lower",
            1,
            "high",
        ),
        MAIN,
        at(WRITTEN, REPORT_RATE),
        perplexity,
    ),
    Declared(
        "over-refusal",
        Claim(
            Said(
                "over-refusal (harmless questions refused, mean over learning rates)",
                "过度拒答率（无害问题，各学习率平均）",
            ),
            SAID_OWN,
            SAID_WRITTEN,
            "lower",
            2,
            "high",
            POINTS,
        ),
        MAIN,
        at(WRITTEN, REPORT_RATE),
        made=over_rates(percent(HARMLESS), mean),
    ),
    Declared(
        "forgetting",
        Claim(
            Said("loss on curated text (mean over learning rates)", "精选文本损失（各学习率平均）"),
            SAID_OWN,
            SAID_WRITTEN,
            "lower",
            0.01,
            "high",
            NATS,
        ),
        MAIN,
        at(WRITTEN, REPORT_RATE),
        made=over_rates(number("loss/hq"), mean),
    ),
    Declared(
        "knowledge falls",
        Claim(
            Said("right answers about held-out entities", "留出实体回答正确率"),
            SAID_DPO,
            SAID_SFT,
            "lower",
            1,
            "low",
            POINTS,
        ),
        MAIN,
        SFT,
        percent(ANSWERED),
    ),
    Declared(
        "chosen answers get less likely",
        Claim(
            Said("change of the log-probability of the chosen answer", "被选答案对数概率的变化"),
            Said("DPO on right against wrong facts", "以正误事实做 DPO"),
            Said("none", "不变"),
            "lower",
            0.05,
            "low",
            NATS,
            claimant=Said("the paper of Pal et al. (2024)", "Pal 等（2024）"),
        ),
        at("facts", MIDDLE_RATE),
        at("facts", MIDDLE_RATE),
        made=against_zero(at("facts", MIDDLE_RATE), last("chosen")),
    ),
)

PAIRS = {
    OWN: Said("own refusals", "自身拒答"),
    WRITTEN: Said("written refusals", "人工拒答"),
    "facts": Said("facts", "事实"),
    "languages": Said("languages", "语言"),
}
OF_PAIRS = (
    Column(Said("margin, nats", "间隔（奈特）"), last("margin"), 2),
    Column(Said("pairs in order %", "排序正确的对 %"), lambda r: _times(100, last("accuracy")(r))),
    Column(Said("chosen, nats", "被选答案（奈特）"), last("chosen"), 2),
    Column(Said("rejected, nats", "被拒答案（奈特）"), last("rejected"), 2),
)
AFTER = (
    Column(Said("refused, harmful %", "拒答有害 %"), percent(HARMFUL)),
    Column(Said("refused, harmless %", "拒答无害 %"), percent(HARMLESS)),
    Column(Said("answers right %", "回答正确 %"), percent(ANSWERED)),
    Column(Said("right among values %", "候选中正确 %"), percent(RANKED)),
    Column(Said("statements %", "陈述补全 %"), percent("cloze/held-out/exact")),
    Column(Said("loss, curated", "精选文本损失"), number("loss/hq"), 3),
    Column(Said("loss, ordinary", "普通文本损失"), number("loss/web"), 3),
)


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def shown(results: Results) -> Sequence[Figure | Table]:
    return (
        _trade(results),
        _over_rate(results),
        _over_beta(results),
        *(_over_steps(results, rate) for rate in (REPORT_RATE, SFT_RATE)),
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
            Said("learning rate, as a share of SFT's", "学习率（占 SFT 的比例）"),
            y,
            lines,
            log_x=True,
            marks={REPORT_RATE: Said("the report's ratio", "报告的比例")},
        )

    percents, nats = Said("%", "%"), Said("nats", "奈特")
    return Figure(
        Said(
            "The learning rate. Margins grow with it whatever becomes of the model; what it knows "
            "and says is beside them.",
            "学习率的影响。间隔总随学习率增大，模型的能力与行为则另看。",
        ),
        [
            panel(Said("margin", "间隔"), nats, last("margin")),
            panel(Said("chosen answers", "被选答案"), nats, last("chosen")),
            panel(Said("rejected answers", "被拒答案"), nats, last("rejected")),
            panel(AFTER[0].head, percents, AFTER[0].value),
            panel(AFTER[1].head, percents, AFTER[1].value),
            panel(AFTER[2].head, percents, AFTER[2].value),
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
            f"Beta, at {MIDDLE_RATE:g} of SFT's rate: the smaller, the farther a model goes from "
            "where it started.",
            f"beta 的影响（学习率为 SFT 的 {MIDDLE_RATE:g}）：beta 越小，模型离出发点越远。",
        ),
        [panel(OF_PAIRS[0]), panel(AFTER[0]), panel(AFTER[2])],
    )


def _over_steps(results: Results, rate: float) -> Figure:
    def panel(title: Said, value: Callable[[Point], float | None], needs: str) -> Panel:
        lines = [
            line
            for pairs in (OWN, WRITTEN)
            for line in curve(results, at(pairs, rate), PAIRS[pairs], value, needs, steps)
        ]
        y = Said("refused, %", "拒答率 %") if needs == "scores" else Said("nats", "奈特")
        return Panel(title, STEPS, y, lines)

    def of(metric: str) -> Callable[[Point], float | None]:
        return lambda point: point[metric]

    return Figure(
        Said(
            f"Over the steps, at {rate:g} of SFT's rate. Log-probabilities are less those of the "
            "SFT model, means of a batch. Thin lines are single seeds.",
            f"随步数的变化（学习率为 SFT 的 {rate:g}）。对数概率已减去 SFT 模型的值，为批内均值。"
            "细线为单个种子。",
        ),
        [
            panel(Said("loss", "损失"), of("loss"), "margin"),
            panel(Said("chosen answers", "被选答案"), of("chosen"), "margin"),
            panel(Said("rejected answers", "被拒答案"), of("rejected"), "margin"),
            panel(Said("harmful questions", "有害问题"), scored(HARMFUL, 100), "scores"),
            panel(Said("harmless questions", "无害问题"), scored(HARMLESS, 100), "scores"),
        ],
    )


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
    chosen = Column(Said("perplexity of the refusals", "拒答的困惑度"), perplexity)
    before = {SFT: Said("SFT, before", "SFT（DPO 之前）")}
    compared = [
        (
            Said(f"own less written, {rate:g}", f"自身减人工，{rate:g}"),
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
                "Pairs in the last batch, against the SFT model.", "最后一批偏好对，相对 SFT 模型。"
            ),
            results,
            named,
            OF_PAIRS,
        ),
        table(Said("Refusals that are chosen.", "被选的拒答。"), results, refusals, [chosen]),
        differences(
            Said("Own and written refusals.", "自身与人工拒答。"), results, compared, AFTER
        ),
    )


STUDY = Study(
    name="dpo",
    title=Said("DPO, and who writes the refusals", "DPO 与拒答的来源"),
    question=Said(
        "What do learning rate and beta of DPO buy and cost, and are the SFT model's own refusals "
        "better pairs than written ones?",
        "DPO 的学习率与 beta 换来什么、代价是什么？以 SFT 模型自己的拒答为偏好对，是否优于人工撰"
        "写？",
    ),
    report=Said(
        "Section 3.2: beta 0.1, learning rate 1e-6, cosine, one epoch. Refusals that the SFT model "
        "gives under another system prompt are kept as chosen answers; written ones have too high "
        "a perplexity under it, and forcing them raises over-refusal and forgetting. Scores of at "
        "most 3: the mean rises from 2.2952 to 2.3184, knowledge falls from 2.2182 to 2.1226.",
        "第 3.2 节：beta 0.1，学习率 1e-6，余弦，一个 epoch。采用 SFT 模型在另一系统提示下自己给"
        "出的拒答作为被选答案；人工撰写的拒答在该模型下困惑度过高，强行学习会加重过度拒答与遗忘。"
        "满分 3 分：均分由 2.2952 升至 2.3184，知识由 2.2182 降至 2.1226。",
    ),
    design=Said(
        "From one SFT model, which answers whatever the purpose of a question is. Half of the "
        "pairs are of harmful purposes, the refusal chosen over the answer; half are of harmless "
        "ones, the answer chosen over the refusal. Refusals are sampled from the SFT model when "
        "told to refuse, or written by somebody else. Measured on entities of no pair: refusals "
        "of harmful questions, over-refusal on harmless purposes of no pair, answers, loss on "
        "text. Cosine, every pair once, learning rates from a tenth of SFT's, the report's "
        "ratio, to SFT's own, beta from 0.02 to 0.5. Two more arms: pairs of right and wrong "
        "facts, and of languages.",
        "从同一 SFT 模型出发，它对任何目的的提问都作答。一半偏好对为有害目的，拒答优于作答；另一"
        "半为无害目的，作答优于拒答。拒答或由 SFT 模型在被要求拒答时采样得到，或由他人撰写。测量"
        "所用实体不在任何偏好对中：有害问题的拒答率、偏好对之外的无害目的上的过度拒答、回答正确率"
        "与文本损失。余弦调度，每对只用一次；学习率自 SFT 的十分之一（报告的比例）至与 SFT 相同，"
        "beta 自 0.02 至 0.5。另有两组：正误事实对与语言对。",
    ),
    limits=Said(
        "That written refusals have a high perplexity is so by construction: the world's text "
        "hardly has their words. A model of two layers tells purposes apart with difficulty, and "
        "an author whose refusals are not learned cannot over-refuse: read over-refusal beside "
        "refusals, as the first claim does.",
        "人工拒答困惑度高是构造所致：其用词几乎不见于语料。两层的模型很难分辨目的；若某种拒答根本"
        "没有学会，自然谈不上过度拒答，因此应与拒答率对照着看，首要结论正是如此。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds={"quick": 3, "full": 8, "gpu": 3},
)
