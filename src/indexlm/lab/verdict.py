"""A verdict is computed: the claim is declared before the runs, the rest follows from the numbers.

A claim names a metric, two arms, the direction of the difference between them that the report
claims, and the margin within which a difference counts as none. Of the differences, paired by seed,
the 95% interval decides:

| interval of the difference | where a direction is claimed | where none is claimed |
|---|---|---|
| inside the margin | `no difference` | `reproduced` |
| beyond 0 on the claimed side, its centre beyond the margin | `reproduced` | |
| beyond 0 on the other side, its centre beyond the margin | `opposite` | |
| beyond the margin on either side | | `opposite` |
| else | `inconclusive` | `inconclusive` |

Inside the margin is looked at first: two one-sided tests (Schuirmann 1987), each at 2.5%, so that
the interval which a page shows decides everything. With no effect at all a direction is called
`reproduced` in at most 2.5% of the cases. A difference that is surely there and probably smaller
than what counts as none is no finding either way.

A diverged arm is never left out: those that survive are not those that were drawn. It counts as the
worst value there is, a pair of which both diverged as a tie. Means of such values say nothing, so
the interval is then that of the median by the sign test, which takes six seeds; and since an arm
that diverges differs from one that does not, `no difference` is not said.

Two arms that both guess, or both know everything, are equal for another reason: where all values
are at the same end of what the metric tells apart, the verdict is `inconclusive`, and so it is
below three seeds.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from indexlm.lab.intervals import Interval, sign_interval, t_interval

Word = Literal["reproduced", "opposite", "no difference", "inconclusive"]
WORDS: tuple[Word, ...] = ("reproduced", "opposite", "no difference", "inconclusive")


class Said(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str


FEWEST_SEEDS = 3
"""Accuracies are multiples of one item: two seeds may agree to the last digit by accident, and
their interval would be a point."""

NO_UNIT = Said("", "")
REPORT = Said("the report", "报告")


@dataclass(frozen=True)
class Claim:
    """What is declared before the first arm runs."""

    metric: Said
    treatment: Said
    control: Said
    direction: Literal["higher", "lower", "same"]
    """What the claimant says of the treatment, beside the control."""
    margin: float
    """A difference smaller than this counts as none; in the unit of the metric."""
    diverged_is: Literal["low", "high"]
    """Which end of the metric is the worst, where a diverged arm is put."""
    unit: Said = NO_UNIT
    resolves: tuple[float, float] = (-math.inf, math.inf)
    """Values at or beyond an end do not tell arms apart: chance, and all items right."""
    claimant: Said = REPORT
    """Whose claim it is; a paper's where the report says nothing of it."""

    def __post_init__(self) -> None:
        assert self.margin > 0, self.margin
        assert self.resolves[0] < self.resolves[1], self.resolves

    @property
    def worst(self) -> float:
        return -math.inf if self.diverged_is == "low" else math.inf


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    word: Word
    differences: Mapping[int, float]
    """Treatment less control by seed; infinite where one of them diverged."""
    interval: Interval | None
    """None below two seeds."""
    diverged: tuple[int, int]
    """Arms of the treatment and of the control."""
    reason: Literal["", "few", "limit"] = ""
    """Why it is inconclusive, beside a wide interval: fewer than FEWEST_SEEDS, or a metric at the
    same end in all arms."""

    @property
    def seeds(self) -> int:
        return len(self.differences)

    @property
    def by_signs(self) -> bool:
        """Whether the interval is of the median, by the sign test."""
        return any(self.diverged)

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite number is a string."""
        claim = self.claim
        return {
            "verdict": self.word,
            "sentence": {"en": sentence(self, "en"), "zh": sentence(self, "zh")},
            "metric": claim.metric._asdict(),
            "treatment": claim.treatment._asdict(),
            "control": claim.control._asdict(),
            "claimed": claim.direction,
            "claimant": claim.claimant._asdict(),
            "margin": claim.margin,
            "seeds": self.seeds,
            "differences": {str(seed): _plain(value) for seed, value in self.differences.items()},
            "interval": None if self.interval is None else [*map(_plain, self.interval)],
            "interval_by": "sign test" if self.by_signs else "t",
            "diverged": {"treatment": self.diverged[0], "control": self.diverged[1]},
        }


def judge(
    claim: Claim, treatment: Mapping[int, float | None], control: Mapping[int, float | None]
) -> Verdict:
    """The verdict on values by seed; None is an arm that diverged.

    Both need the same seeds: a missing arm is one that has not run yet, and nothing is said of a
    study before all of its arms are done.
    """
    assert treatment.keys() == control.keys(), (sorted(treatment), sorted(control))
    diverged = tuple(sum(value is None for value in arm.values()) for arm in (treatment, control))
    assert len(diverged) == 2
    differences = {
        seed: _difference(claim, treatment[seed], control[seed]) for seed in sorted(treatment)
    }
    values = list(differences.values())
    interval = None
    if len(values) > 1:
        interval = sign_interval(values) if any(diverged) else t_interval(values)
    if interval is None or len(values) < FEWEST_SEEDS:
        return Verdict(claim, "inconclusive", differences, interval, diverged, "few")
    known = [value for arm in (treatment, control) for value in arm.values() if value is not None]
    low, high = claim.resolves
    if not any(diverged) and (max(known) <= low or min(known) >= high):
        return Verdict(claim, "inconclusive", differences, interval, diverged, "limit")
    return Verdict(claim, _word(claim, interval, any(diverged)), differences, interval, diverged)


def _word(claim: Claim, interval: Interval, any_diverged: bool) -> Word:
    negligible = interval.within(claim.margin) and not any_diverged
    if claim.direction == "same":
        if negligible:
            return "reproduced"
        beyond = interval.low > claim.margin or interval.high < -claim.margin
        return "opposite" if beyond else "inconclusive"
    if negligible:
        return "no difference"
    sign = 1 if claim.direction == "higher" else -1
    nearest, farthest = sorted((sign * interval.low, sign * interval.high))
    if abs(interval.centre) < claim.margin:
        return "inconclusive"
    if nearest > 0:
        return "reproduced"
    return "opposite" if farthest < 0 else "inconclusive"


def _difference(claim: Claim, treatment: float | None, control: float | None) -> float:
    for value in (treatment, control):
        assert value is None or math.isfinite(value), f"{value}: an arm that diverged is None"
    if treatment is None and control is None:
        return 0.0
    if treatment is None:
        return claim.worst
    return -claim.worst if control is None else treatment - control


SENTENCES: dict[Word, Said] = {
    "reproduced": Said("Reproduced at {n} {seeds}", "已复现（{n} 个种子）"),
    "opposite": Said("The opposite was found at {n} {seeds}", "结果相反（{n} 个种子）"),
    "no difference": Said("No difference at {n} {seeds}", "没有差别（{n} 个种子）"),
    "inconclusive": Said("Inconclusive at {n} {seeds}", "尚无定论（{n} 个种子）"),
}
FOUND = Said(
    "{metric} of {treatment} minus that of {control} is {centre}{unit} ({kind}; 95% interval {low} "
    "to {high}{why})",
    "“{treatment}”减去“{control}”的{metric}为 {centre}{unit}（{kind}；95% 区间 {low} 至 "
    "{high}{why}）",
)
CLAIMED_SIDE = Said(", all on the claimed side of zero", "，全在零点的所称一侧")
OTHER_SIDE = Said(", all on the other side of zero", "，全在零点的另一侧")
INSIDE = Said(", all inside the margin", "，全在容差之内")
BEYOND = Said(", all beyond the margin", "，全在容差之外")
SMALL = Said(
    ", all on one side of zero, but its middle is inside the margin",
    "，全在零点一侧，但中心在容差之内",
)
OPEN = Said(", which leaves more than one answer open", "，不足以分辨")
INSIDE_BUT = Said(
    ", inside the margin; but arms of which one diverged are not alike",
    "，虽在容差之内，但有运行发散，不能称为相同",
)
CLAIMED: dict[str, Said] = {
    "higher": Said("{claimant} claims a higher one", "{claimant}称前者更高"),
    "lower": Said("{claimant} claims a lower one", "{claimant}称前者更低"),
    "same": Said("{claimant} claims that they are alike", "{claimant}称二者相近"),
}
MARGIN = Said("less than {margin} counts as none", "不足 {margin}视为没有差别")
DIVERGED = Said(
    "of {n} {seeds}, {treatment} diverged at {treated} and {control} at {controls}; a diverged arm "
    "counts as the worst",
    "{n} 次运行中，“{treatment}”有 {treated} 次、“{control}”有 {controls} 次发散，均按最差计",
)
LIMIT = Said(
    "all arms are at the same end of what the metric can tell apart",
    "所有运行都处于该指标分辨范围的同一端",
)
FEW = Said("fewer than three seeds decide nothing", "不足三个种子不下结论")
_BORDER = re.compile(r"(?<=[一-龥])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[一-龥])")
"""Between a Han character and a Latin one, where Chinese print leaves a gap."""
KINDS: dict[bool, Said] = {False: Said("mean", "均值"), True: Said("median", "中位数")}


def amount(value: float, unit: str) -> str:
    """`2 points` and `1 point`; a unit begins with its space."""
    return f"{value:g}{unit.removesuffix('s') if value == 1 else unit}"


SAID = ("metric", "treatment", "control", "unit", "claimant")


def _why(verdict: Verdict) -> Said:
    """Where the interval lies, which is what decided; nothing where something else did."""
    if verdict.reason or verdict.interval is None:
        return Said("", "")
    same = verdict.claim.direction == "same"
    match verdict.word:
        case "reproduced":
            return INSIDE if same else CLAIMED_SIDE
        case "opposite":
            return BEYOND if same else OTHER_SIDE
        case "no difference":
            return INSIDE
        case "inconclusive":
            if verdict.interval.within(verdict.claim.margin):
                return INSIDE_BUT
            one_side = verdict.interval.low > 0 or verdict.interval.high < 0
            return SMALL if one_side and not same else OPEN


def sentence(verdict: Verdict, language: Literal["en", "zh"]) -> str:
    """What a page says, made of the verdict alone."""
    claim = verdict.claim
    said = {name: getattr(claim, name) for name in SAID}
    gaps: dict[str, Any] = {name: getattr(value, language) for name, value in said.items()}
    gaps |= {"n": verdict.seeds, "margin": amount(claim.margin, gaps["unit"])}
    gaps |= {"seeds": "seed" if verdict.seeds == 1 else "seeds"}
    gaps |= {"why": getattr(_why(verdict), language)}
    gaps |= {"treated": verdict.diverged[0], "controls": verdict.diverged[1]}
    parts = []
    if verdict.interval is not None:
        gaps["kind"] = getattr(KINDS[verdict.by_signs], language)
        gaps |= {name: signed(value) for name, value in verdict.interval._asdict().items()}
        parts.append(FOUND)
    parts += [CLAIMED[claim.direction], MARGIN]
    parts += [DIVERGED] if verdict.by_signs else []
    parts += {"": [], "few": [FEW], "limit": [LIMIT]}[verdict.reason]
    separator, colon, stop = (("; ", ": ", "."), ("；", "：", "。"))[language == "zh"]
    body = separator.join(getattr(part, language) for part in parts)
    whole = f"{getattr(SENTENCES[verdict.word], language)}{colon}{body}{stop}".format(**gaps)
    return whole if language == "en" else _BORDER.sub(" ", whole)


def signed(value: float) -> str:
    """Three digits and a sign, without an exponent."""
    if not math.isfinite(value):
        return "+∞" if value > 0 else "-∞"
    return np.format_float_positional(float(f"{value:.3g}"), trim="-", sign=True)


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
