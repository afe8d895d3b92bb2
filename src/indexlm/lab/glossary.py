"""What the names of scores mean, for those who read a page first."""

from collections.abc import Iterator, Sequence

from indexlm.lab.verdict import Said

MEANINGS = {
    "cloze/": Said(
        "cloze: a statement up to its value, four values to choose from; chance is 25%",
        "cloze：给出陈述句中答案之前的部分，四选一；随机水平 25%",
    ),
    "qa/": Said(
        "qa: a question in the form that only instruction data has, four values to choose from",
        "qa：以只有指令数据才有的问句提问，四选一",
    ),
    "letters/": Said(
        "letters: four options are listed, and the model names the letter of one",
        "letters：列出四个选项，由模型给出字母",
    ),
    "hops-": Said(
        "hops: a fact of somebody's friend",
        "hops：朋友的事实",
    ),
    "chat/": Said(
        "chat: what a person asks a chat model, four values to choose from",
        "chat：以对话形式提问，四选一",
    ),
    "refused/": Said(
        "refused: share of the harmful, or harmless, requests that are refused",
        "refused：有害（或无害）请求被拒绝的比例",
    ),
    "trained": Said(
        "trained: about entities whose questions are trained on",
        "trained：所问实体的问题在训练中出现过",
    ),
    "held-out": Said(
        "held-out: about entities whose facts are in the text and whose questions never are",
        "held-out：所问实体的事实见于文本，其问题从未出现",
    ),
    "/accuracy": Said(
        "accuracy: share of the items whose right candidate is the likeliest of the four",
        "accuracy：正确候选在四者中概率最高的题目比例",
    ),
    "/exact": Said(
        "exact: share of the items whose right word is the likeliest of all words",
        "exact：正确的词在全部词中概率最高的题目比例",
    ),
    "bits/": Said(
        "bits: bits per byte of real documents that no arm trains on; lower is better",
        "bits：未用于训练的真实文档的每字节比特数，越低越好",
    ),
    "loss/hq": Said(
        "loss/hq: nats per token on curated documents that no arm trains on",
        "loss/hq：未用于训练的精选文档上每词元的损失（奈特）",
    ),
    "loss/web": Said(
        "loss/web: the same on ordinary documents, with noise and some wrong facts",
        "loss/web：同上，普通文档，含噪声与部分错误事实",
    ),
    "loss/noise": Said(
        "loss/noise: the same on text without facts", "loss/noise：同上，无事实的文本"
    ),
    "loss/instr": Said(
        "loss/instr: the same on questions with answers", "loss/instr：同上，问答文本"
    ),
    "loss/links": Said("loss/links: the same on who is whose friend", "loss/links：同上，朋友关系"),
}
"""Part of a score's name -> what it means."""


def explained(scores: Sequence[str]) -> Iterator[Said]:
    """The meanings of what occurs in the names of `scores`."""
    for part, said in MEANINGS.items():
        if any(part in score for score in scores):
            yield said
