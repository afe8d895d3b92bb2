"""DPO: learning rate and beta, and who wrote the refusals."""

from indexlm.lab.drawing import NATS, POINTS, number, percent
from indexlm.lab.preferring import (
    ANSWERED,
    HARMLESS,
    MIDDLE_RATE,
    OWN,
    REPORT_RATE,
    SFT,
    WRITTEN,
    against_zero,
    arms,
    at,
    at_best_rate,
    late,
    log_perplexity,
    over_rates,
    told_apart,
)
from indexlm.lab.studies.dpo_page import shown
from indexlm.lab.study import Declared, Study
from indexlm.lab.verdict import Claim, Said

SAID_OWN = Said("the SFT model's own refusals", "SFT 模型自己的拒答")
SAID_WRITTEN = Said("written refusals", "人工撰写的拒答")
SELECTIVITY = Said(
    "selectivity (harmful questions refused minus harmless ones, at the rate that the other seeds "
    "find best)",
    "选择性（有害问题拒答率减无害问题拒答率，取其余种子所选的最佳学习率）",
)
SAID_DPO, SAID_SFT = (
    Said("DPO with own refusals", "以自身拒答做 DPO"),
    Said("the SFT model", "SFT 模型"),
)
MAIN = at(OWN, REPORT_RATE)

CLAIMS = (
    Declared(
        Said("over-refusal", "过度拒答"),
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
            # A model that refuses nothing, or everything, tells the authors apart no more.
            (1.0, 99.0),
        ),
        MAIN,
        at(WRITTEN, REPORT_RATE),
        made=over_rates(percent(HARMLESS)),
    ),
    Declared(
        Said("forgetting", "遗忘"),
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
        made=over_rates(number("loss/hq")),
    ),
    Declared(
        Said("perplexity", "困惑度"),
        Claim(
            Said(
                "logarithm of the perplexity of the chosen refusals under the SFT model",
                "被选拒答在 SFT 模型下困惑度的对数",
            ),
            SAID_OWN,
            SAID_WRITTEN,
            "lower",
            0.1,
            "high",
            NATS,
        ),
        MAIN,
        at(WRITTEN, REPORT_RATE),
        log_perplexity,
    ),
    Declared(
        Said("knowledge falls", "知识下降"),
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
        Said("chosen answers get less likely", "被选答案概率下降"),
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
        made=against_zero(at("facts", MIDDLE_RATE), late("chosen")),
    ),
    Declared(
        Said("telling apart", "分辨有害与无害"),
        Claim(
            SELECTIVITY,
            SAID_OWN,
            SAID_WRITTEN,
            "higher",
            5,
            "low",
            POINTS,
            claimant=Said("this study, after its prototypes,", "本研究（在原型试验之后）"),
        ),
        MAIN,
        at(WRITTEN, REPORT_RATE),
        made=at_best_rate(told_apart),
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
        "Beta 0.1, learning rate 1e-6, cosine, one epoch. Refusals that the SFT model gives under "
        "another system prompt are kept as chosen answers; written ones have too high a "
        "perplexity under it, and forcing them raises over-refusal and forgetting, for which the "
        "report gives no figures. On a benchmark of its own the mean rises from 2.2952 to 2.3184, "
        "knowledge falls from 2.2182 to 2.1226.",
        "beta 0.1，学习率 1e-6，余弦，一个 epoch。采用 SFT 模型在另一系统提示下自己给出的拒答作为被"
        "选答案；人工撰写的拒答在该模型下困惑度过高，强行学习会加重过度拒答与遗忘（报告未给出数"
        "字）。其自建评测的均分由 2.2952 升至 2.3184，知识由 2.2182 降至 2.1226。",
    ),
    design=Said(
        "From one SFT model, which answers whatever the purpose of a question is. Half of the "
        "pairs are of harmful purposes, the refusal chosen over the answer; half are of harmless "
        "ones, the answer chosen over the refusal. On both sides the refusals are of one author: "
        "sampled from the SFT model when told to refuse, or written by somebody else; the "
        "questions are the same. Measured on entities of no pair: refusals "
        "of harmful questions, over-refusal on harmless purposes of no pair, answers, the "
        "log-probabilities of answers and refusals, loss on text. Cosine, every pair once; "
        "learning rates of a tenth of SFT's, the report's ratio, three tenths and SFT's own (from "
        "a hundredth to three times it in the full preset), beta from 0.02 to 0.5. Claims of means "
        "are over all these rates, so that none is picked. Two more arms: pairs of right and "
        "wrong facts, and of languages.",
        "从同一 SFT 模型出发，它对任何目的的提问都作答。一半偏好对为有害目的，拒答优于作答；另一"
        "半为无害目的，作答优于拒答。两侧的拒答出自同一来源：或由 SFT 模型在被要求拒答时采样得到，"
        "或由他人撰写；问题相同。测量"
        "所用实体不在任何偏好对中：有害问题的拒答率、偏好对之外的无害目的上的过度拒答、回答正确率、"
        "回答与拒答的对数概率、文本损失。余弦调度，每对只用一次；学习率为 SFT 的十分之一（报告的比"
        "例）、十分之三及与之相同（full 档自百分之一至三倍），beta 自 0.02 至 0.5。涉及均值的论断取"
        "全部学习率，不作挑选。另有两组：正误事实对与语言对。",
    ),
    limits=Said(
        "That written refusals have a high perplexity is so by construction: the world's text "
        "hardly has their words. An author whose refusals are not learned cannot over-refuse: read "
        "over-refusal beside refusals. How well purposes can be told apart depends on the size of "
        "the model. The last claim, on that, was added after prototypes had been seen and is not "
        "the "
        "report's.",
        "人工拒答困惑度高是构造所致：其用词几乎不见于语料。若某种拒答根本没有学会，自然谈不上过度"
        "拒答，因此过度拒答率应与拒答率对照着看。能否分辨目的取决于模型大小；最后一条与此有关的论断"
        "是看"
        "过原型结果之后加入的，并非报告所称。",
    ),
    arms=arms,
    claims=CLAIMS,
    shown=shown,
    seeds={"quick": 5, "full": 12, "gpu": 3},
)
