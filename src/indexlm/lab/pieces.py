"""What pages of the lab share: said texts, verdicts as words, and how a verdict is reached."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from indexlm.lab.verdict import REPORT, Said, Word
from indexlm.report.markup import Html, both, element, join, sentence

Plain = Mapping[str, Any]

WORD_ZH: dict[Word, str] = {
    "reproduced": "已复现",
    "opposite": "结果相反",
    "no difference": "没有差别",
    "inconclusive": "尚无定论",
}
READING = (
    Said(
        "A claim names a metric, two arms (kinds of runs), the direction in which the first is "
        "said to differ, and a margin below which a difference counts as none; all of it is "
        "written down before any arm of this page runs.",
        "一条论断写明指标、两组运行、前者相对后者的方向，以及容差（小于它的差别视为没有）；"
        "全部在本页的运行开始之前写定。",
    ),
    Said(
        "Both arms run with the same seeds (first weights and order of the data). Their "
        "differences, seed by seed, have a mean and a 95% interval: of intervals made in this way "
        "nineteen of twenty hold the true difference. Where the interval lies decides. World and "
        "questions are the same for all seeds: of another world the interval says nothing.",
        "两组使用相同的种子（决定初始权重与数据顺序）。逐个种子求差，得到均值与 95% 区间："
        "这样得出的区间，二十个中约有十九个包含真实差值。判定取决于区间的位置。各种子共用同一世界与"
        "同一批问题：区间不涉及其他世界。",
    ),
)
MEANINGS: dict[Word, Said] = {
    "reproduced": Said(
        "found as claimed: all of the interval lies on the claimed side of zero, and its mean "
        "beyond the margin; where likeness is claimed, all of it inside the margin",
        "与所称一致：区间全在零点的所称一侧，且均值超出容差；若所称为相近，则区间全在容差之内",
    ),
    "opposite": Said(
        "found the other way round: all of it lies on the other side of zero, and its mean beyond "
        "the margin; where likeness is claimed, all of it beyond the margin",
        "与所称相反：区间全在零点的另一侧，且均值超出容差；若所称为相近，则区间全在容差之外",
    ),
    "no difference": Said(
        "a difference was claimed, and all of the interval lies inside the margin",
        "所称有差别，而区间全在容差之内",
    ),
    "inconclusive": Said(
        "neither yes nor no: the interval reaches beyond the margin and its mean does not, or it "
        "holds zero; there are fewer than three seeds; or all arms are where the metric tells "
        "nothing apart (all guess, or all know everything)",
        "不能说是，也不能说否：区间超出容差而均值没有，或区间含零点；或不足三个种子；或各组都处于指"
        "标无法分辨之处"
        "（全在猜测，或全部答对）",
    ),
}
DIVERGED = Said(
    "A run that diverges is not left out: it counts as the worst value there is.",
    "发散的运行不剔除，按最差值计入。",
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
    return element("div", *content, class_="wide")


def same_or_both(english: str, chinese: str) -> Html:
    """Once where both languages write it alike."""
    return join(english) if english == chinese else both(english, chinese)


def unended(said: Plain) -> tuple[str, str]:
    """Without the comma that a sentence needs after it."""
    return said["en"].rstrip(","), said["zh"].rstrip("，")


def claimed_by(claim: Plain) -> tuple[str, str] | None:
    """Whose claim it is, where it is not the report's own."""
    english, chinese = unended(claim["claimant"])
    if english == REPORT.en:
        return None
    return f"by {english}", f"出处：{chinese}"


def reading() -> Html:
    """How a verdict is read, by one who never has."""
    words = [
        element("li", verdict_word(word), sentence("div", *meaning))
        for word, meaning in MEANINGS.items()
    ]
    heading = element("h3", both("How to read a verdict", "如何读判定"))
    before = [sentence("p", *each) for each in READING]
    listed = element("ul", *words)
    return element("div", heading, *before, listed, sentence("p", *DIVERGED), class_="reading")


def further(found: Plain) -> Html:
    """The verdicts of the claims after the first, counted; nothing where it is the only one."""
    others = Counter(claim["verdict"] for claim in found["claims"][1:])
    if not others:
        return Html("")
    english = ", ".join(f"{count} {word}" for word, count in others.items())
    chinese = "，".join(f"{count} 条{WORD_ZH[word]}" for word, count in others.items())
    return sentence("small", f"Further claims: {english}", f"其余论断：{chinese}")


def seeds_said(found: Plain) -> Html:
    count = len(found["seeds"])
    return both(f"{count} seed" if count == 1 else f"{count} seeds", f"{count} 个种子")
