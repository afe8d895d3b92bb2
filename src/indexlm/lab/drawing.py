"""Figures and tables of a study, from what its arms left: every seed is seen, and none is dropped.

Lines of one name share a colour; a faint one is a single seed. Where one of several arms diverged
there is no mean: it would be of those that survived.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexlm.lab.arms import Result
from indexlm.lab.intervals import less, mean, t_interval
from indexlm.lab.study import Line, Results, Table
from indexlm.lab.verdict import Said

Value = Callable[[Result], float | None]
Point = Mapping[str, Any]

TOKENS = Said("tokens", "词元数")
STEPS = Said("steps", "步数")
POINTS = Said(" points", " 个百分点")
NATS = Said(" nats", " 奈特")

PERCENT_RIGHT = Said("right, %", "正确率 %")
OF_CURATED = Said("loss on curated text", "精选文本损失")
OF_FACTS = Said("facts completed rightly", "事实补全正确率")

GUESSING = 25.0
"""Percent of the items that are right by chance."""

RESOLVED = (40.0, 99.0)
"""Percent right of 256 items. Who always says the most frequent value of a relation is right in 30
to 34% of them, give or take 3: below 40 nothing is known of anybody. Above 99 no more than two
items are wrong."""


def number(score: str) -> Value:
    """A score as it is measured."""
    return lambda result: result.value(score)


def percent(*scores: str) -> Value:
    """The mean of shares, in percent."""

    def value(result: Result) -> float | None:
        shares = [result.value(score) for score in scores]
        if any(share is None for share in shares):
            return None
        return 100 * math.fsum(share for share in shares if share is not None) / len(scores)

    return value


def tokens(result: Result, point: Point) -> float:
    """Read when a point was measured, by the arm and those that it goes on from."""
    return (point["step"] + 1) * result.arm["train"]["batch"] * result.arm["model"]["context"]


def steps(result: Result, point: Point) -> float:
    return float(point["step"] + 1)


def scored(score: str, times: float = 1) -> Callable[[Point], float | None]:
    """Of the points with scores."""

    def of_point(point: Point) -> float | None:
        value = point["scores"][score]
        return None if value is None else times * value

    return of_point


def curve(
    results: Results,
    arm: str,
    name: Said,
    value: Callable[[Point], float | None],
    needs: str = "scores",
    x: Callable[[Result, Point], float] = tokens,
) -> list[Line]:
    """A line of each seed and one of their mean, over the points that have what `value` needs."""
    found: dict[float, list[float | None]] = {}
    lines = []
    for result in results[arm].values():
        points = [point for point in result.curve if needs in point]
        xs = [x(result, point) for point in points]
        ys = [value(point) for point in points]
        lines.append(Line(name, xs, ys, faint=True))
        for at, y in zip(xs, ys):
            found.setdefault(at, []).append(y)
    shared = sorted(each for each, ys in found.items() if len(ys) == len(results[arm]))
    return [*lines, Line(name, shared, [mean(found[each]) for each in shared])]


def bars(results: Results, arms: Sequence[str], name: Said, value: Value) -> list[Line]:
    """The mean of each arm as a bar at 0, 1, ... and each seed as a dot on it."""
    of_arm = [[value(result) for result in results[arm].values()] for arm in arms]
    places = [float(place) for place, ys in enumerate(of_arm) for _ in ys]
    return [
        Line(
            name, [float(place) for place in range(len(arms))], [mean(ys) for ys in of_arm], "bars"
        ),
        Line(name, places, [y for ys in of_arm for y in ys], "dots", faint=True),
    ]


def against(
    results: Results, arms: Sequence[str], xs: Sequence[float], name: Said, value: Value
) -> list[Line]:
    """A value over a setting that the arms differ in: a line of each seed and one of the mean."""
    seeds = list(results[arms[0]])
    of_seed = [[value(results[arm][seed]) for arm in arms] for seed in seeds]
    means = [mean([ys[place] for ys in of_seed]) for place in range(len(arms))]
    return [*(Line(name, xs, ys, faint=True) for ys in of_seed), Line(name, xs, means)]


@dataclass(frozen=True)
class Column:
    head: Said
    value: Value
    digits: int = 1


SEEDS_IN = Said(
    "Mean over seeds and its 95% interval (Student's t; of few seeds it may reach beyond what is "
    "possible).",
    "各种子的均值及其 95% 区间（t 分布；种子少时可能超出取值范围）。",
)
PAIRED_IN = Said(
    "Differences are paired by seed; in brackets their 95% interval (Student's t).",
    "差值按种子配对；方括号内为 95% 区间（t 分布）。",
)
ARM = Said("arm", "运行")
DIFFERENCE = Said("difference", "差值")


def table(
    caption: Said, results: Results, arms: Mapping[str, Said], columns: Sequence[Column]
) -> Table:
    rows = [
        [
            name,
            *(
                _cell([*map(column.value, results[arm].values())], column.digits)
                for column in columns
            ),
        ]
        for arm, name in arms.items()
    ]
    return Table(_joined(caption, SEEDS_IN), [ARM, *(column.head for column in columns)], rows)


def differences(
    caption: Said,
    results: Results,
    pairs: Sequence[tuple[Said, str, str]],
    columns: Sequence[Column],
) -> Table:
    """`pairs` are (name, treatment, control)."""
    rows: list[list[str | Said]] = []
    for name, treatment, control in pairs:
        row: list[str | Said] = [name]
        for column in columns:
            values = [
                less(column.value(result), column.value(results[control][seed]))
                for seed, result in results[treatment].items()
            ]
            row.append(_cell(values, column.digits, sign="+"))
        rows.append(row)
    return Table(
        _joined(caption, PAIRED_IN), [DIFFERENCE, *(column.head for column in columns)], rows
    )


def _cell(values: Sequence[float | None], digits: int, sign: str = "") -> str | Said:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        count = len(values) - len(known)
        return Said(f"{count} of {len(values)} diverged", f"{len(values)} 次中 {count} 次发散")
    shape = f"{sign}.{digits}f"
    if len(known) < 2:
        return f"{known[0]:{shape}}"
    mean, low, high = t_interval(known)
    return f"{mean:{shape}} [{low:{shape}}, {high:{shape}}]"


def _joined(first: Said, second: Said) -> Said:
    return Said(f"{first.en} {second.en}", f"{first.zh}{second.zh}")
