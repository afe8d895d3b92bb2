"""What pages of the lab share: said texts, verdicts as words, and how a verdict is reached."""

from collections.abc import Mapping
from typing import Any

from indexlm.lab.verdict import Word
from indexlm.report.markup import Html, both, element, sentence

Plain = Mapping[str, Any]

WORD_ZH: dict[Word, str] = {
    "reproduced": "已复现",
    "opposite": "结果相反",
    "no difference": "没有差别",
    "inconclusive": "尚无定论",
}
RULES = (
    "How a verdict is computed: metric, arms, direction and margin are declared before any arm "
    "runs. Of the differences, paired by seed, the 95% interval decides: inside the margin it is "
    "“no difference”; beyond zero on the claimed side “reproduced”, on the other side “opposite”; "
    "else, and below three seeds, “inconclusive”. Where likeness is claimed, inside the "
    "margin is “reproduced” and beyond it “opposite”. A diverged arm counts as the worst value "
    "there is; none is left out.",
    "判定如何得出：指标、对照、方向与容差都在运行之前声明。按种子配对求差，由 95% 区间判定："
    "落在容差之内为“没有差别”；越过零点且与所称同侧为“已复现”，异侧为“结果相反”；"
    "其余情形以及不足三个种子时为“尚无定论”。若所称为二者相近，则容差之内为“已复现”，容差之外为"
    "“结果相反”。发散的运行按最差值计入，不剔除任何运行。",
)


def said(tag: str, said: Plain, class_: str = "said") -> Html:
    return sentence(tag, said["en"], said["zh"], class_)


def verdict_word(word: Word) -> Html:
    shown = both(word, WORD_ZH[word])
    return element("strong", shown, class_=f"{word.replace(' ', '-')} unbroken")


def plain_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def wide(*content: object) -> Html:
    """What names a row, beside columns of numbers that would leave it a word's width."""
    return element("div", *content, style="min-width: 11em")


def seeds_said(found: Plain) -> str:
    count = len(found["seeds"])
    return f"{count} seed" if count == 1 else f"{count} seeds"
