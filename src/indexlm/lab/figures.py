"""The drawings of a study's page, from the plain values of its result.

Words of both languages stand in the SVG where their width decides nothing (titles, axes); a legend,
whose entries stand side by side, is HTML below it.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from indexlm.lab.pieces import Plain, claimed_by, unended
from indexlm.report.figures import PALETTE, WIDTH, drawing, scientific
from indexlm.report.markup import Html, both, element, sentence, short

COLOURS = ("base", "pure", "chat", "character", "bad", "trunk", "bigram")
DASHES = ((0, ()), (0, (4, 2)), (0, (1, 1.5)))
"""Of the first seven names, of the next seven, and of those after them."""

ABREAST = 3
"""Panels of a row."""
MOST_NAMES = 4
"""Below a panel that is not as wide as the page."""
PANEL_HEIGHT = 2.9
STRIP_HEIGHT = 0.92
"""Inches."""
TITLE_LINE, TITLE_ROOM = 0.17, 132
"""Of a strip: inches for each further line, and letters in one."""
HIGH = 36
"""Letters beside a panel."""
PARTS = re.compile(
    r"\s*(?:[\u2e80-\u9fff\uff00-\uffef][）】，。；：]*|[^\s\u2e80-\u9fff\uff00-\uffef]+)"
)
"""What a line may be broken before: a Chinese character, or a word."""

Style = tuple[str, Any]
"""Key of PALETTE and dashes."""


def drawn(figure: Plain, name: str) -> Html:
    """A figure with its legend and caption; `name` makes its bytes its own."""
    panels = figure["panels"]
    styles = _styles(panels)
    columns = min(len(panels), _abreast(panels))
    rows = math.ceil(len(panels) / columns)
    with drawing(name, PANEL_HEIGHT * rows) as page:
        grid = page.figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels):
            _panel(axes, panel, styles, columns)
        for axes in grid[len(panels) :]:
            axes.remove()
        svg = page.svg(figure["caption"]["en"])
    caption = sentence("figcaption", figure["caption"]["en"], figure["caption"]["zh"])
    return element("figure", element("div", svg, class_="scroll"), _legend(panels, styles), caption)


def _abreast(panels: Sequence[Plain]) -> int:
    """One where a panel has many names below it."""
    return 1 if any(len(panel["ticks"] or ()) > MOST_NAMES for panel in panels) else ABREAST


def differences(claims: Sequence[Plain], name: str) -> Html:
    """A strip for each claim: the differences of all seeds, their interval, and the margin."""
    titles = [_strip_title(place, claim) for place, claim in enumerate(claims, 1)]
    heights = [STRIP_HEIGHT + TITLE_LINE * title.count("\n") for title in titles]
    with drawing(name, sum(heights) + 0.15) as page:
        grid = page.figure.subplots(len(claims), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, claim, title in zip(grid, claims, titles):
            _strip(axes, claim)
            axes.set_title(title, pad=3)
        svg = page.svg("Differences of all seeds, their intervals and the margins, by claim")
    return element(
        "figure",
        element("div", svg, class_="scroll"),
        sentence(
            "figcaption",
            "Every dot is the difference of one seed; the bar is the 95% interval of their mean "
            "(of their median where an arm diverged). Inside the grey band a difference counts as "
            "none; the arrow points to the side that is claimed, by the report unless the title "
            "names another.",
            "每个点为一个种子的差值，横条为均值的 95% 区间（有发散时为中位数的区间）。"
            "灰带以内视为没有差别；箭头指向所称的一侧，标题未注明出处者为报告的论断。",
        ),
    )


def _strip(axes: Any, claim: Plain) -> None:
    values = [_number(value) for value in claim["differences"].values()]
    margin, colour = claim["margin"], PALETTE[_colour_of(claim["verdict"])]
    finite = [value for value in values if math.isfinite(value)]
    ends = [] if claim["interval"] is None else [*map(_number, claim["interval"])]
    seen = [abs(value) for value in (*finite, *ends, 1.3 * margin) if math.isfinite(value)]
    reach = 1.12 * max(seen)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-1, 1)
    axes.axvspan(-margin, margin, color=PALETTE["rule"], alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0, color=PALETTE["soft"], linewidth=0.8)
    if ends:
        centre, low, high = (min(max(value, -reach), reach) for value in ends)
        axes.plot([low, high], [-0.35, -0.35], color=colour, linewidth=4, alpha=0.55)
        axes.plot([centre], [-0.35], color=colour, marker="D", markersize=5)
    # An arm that diverged is beyond any value: at the edge, as a triangle.
    for value in values:
        edge = {math.inf: (0.98 * reach, ">"), -math.inf: (-0.98 * reach, "<")}
        at, marker = edge.get(value, (value, "o"))
        axes.plot([at], [0.35], color=colour, marker=marker, markersize=4.5, alpha=0.75)
    if claim["claimed"] != "same":
        side = 1 if claim["claimed"] == "higher" else -1
        arrow = {"arrowstyle": "-|>", "color": PALETTE["soft"], "linewidth": 1}
        ends_at = (side * 0.995 * reach, 0.8), (side * 0.9 * reach, 0.8)
        axes.annotate("", *ends_at, arrowprops=arrow)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9))


def _strip_title(place: int, claim: Plain) -> str:
    """Metrics are too long to stand here too: `place` is that in the table below."""
    treatment, control = unended(claim["treatment"]), unended(claim["control"])
    sides = dict.fromkeys(f"{one} − {other}" for one, other in zip(treatment, control))
    unit, whose = claim["unit"]["en"].strip(), claimed_by(claim)
    title = f"{place}. {' · '.join(sides)}"
    title += f" ({unit})" if unit else ""
    return _folded(title if whose is None else f"{title}, {whose[0]}", TITLE_ROOM)


def _colour_of(word: str) -> str:
    return {"reproduced": "good", "opposite": "bad"}.get(word, "trunk")


def _number(value: float | str) -> float:
    """`inf` and `-inf` are strings in a result."""
    return float(value)


def _styles(panels: Sequence[Plain]) -> dict[str, Style]:
    """Every name has one look in the whole figure."""
    names = dict.fromkeys(line["name"]["en"] for panel in panels for line in panel["lines"])
    return {
        name: (COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)])
        for place, name in enumerate(names)
    }


def _panel(axes: Any, panel: Plain, styles: Mapping[str, Style], columns: int) -> None:
    bars = _side_by_side(panel["lines"])
    width = 0.8 / max(len(bars), 1)
    for line in panel["lines"]:
        name = line["name"]["en"]
        moved = width * (bars.index(name) - (len(bars) - 1) / 2) if name in bars else 0.0
        _line(axes, line, styles[name], moved, width)
    if panel["log_x"]:
        axes.set_xscale("log")
        _log_ticks(axes.xaxis, axes.get_xlim())
    elif panel["ticks"] is not None:
        axes.set_xticks(range(len(panel["ticks"])), _ticks(panel["ticks"], columns))
    else:
        _plain_ticks(axes.xaxis, [x for line in panel["lines"] for x in line["xs"]])
    if panel["log_y"]:
        axes.set_yscale("log")
        _log_ticks(axes.yaxis, axes.get_ylim())
    if panel["chance"] is not None:
        look = {"color": PALETTE["ink"], "linewidth": 0.9, "linestyle": (0, (4, 3))}
        axes.axhline(panel["chance"], **look)
    for at, said in (panel["marks"] or {}).items():
        axes.axvline(float(at), color=PALETTE["soft"], linewidth=0.9, linestyle=(0, (1, 1.5)))
        _mark(axes, float(at), said)
    axes.set_title("\n".join(_lines(panel["title"])))
    axes.set_xlabel(_axis(panel["x"]))
    if panel["y"] != panel["title"]:
        label = "\n".join(_folded(line, HIGH) for line in _lines(panel["y"]))
        axes.set_ylabel(label, multialignment="left")


def _side_by_side(lines: Sequence[Plain]) -> list[str]:
    """Names of bars that share places; none where every place has a single bar."""
    bars = [line for line in lines if line["kind"] == "bars"]
    places = [place for line in bars for place in line["xs"]]
    if len(set(places)) == len(places):
        return []
    return list(dict.fromkeys(line["name"]["en"] for line in bars))


def _line(axes: Any, line: Plain, style: Style, moved: float, width: float) -> None:
    colour, dashes = PALETTE[style[0]], style[1]
    xs = np.array(line["xs"], float) + moved
    ys = np.array([math.nan if y is None else y for y in line["ys"]], float)
    look: dict[str, Any] = {"color": colour}
    if line["kind"] == "bars":
        axes.bar(xs, ys, 0.92 * width, alpha=0.35, **look)
    elif line["kind"] == "dots":
        axes.plot(xs, ys, linestyle="", marker="o", markersize=4, alpha=0.8, **look)
    elif line["faint"]:
        axes.plot(xs, ys, linestyle=dashes, linewidth=0.8, alpha=0.4, **look)
    else:
        marker = "o" if len(xs) <= 16 else ""
        axes.plot(xs, ys, linestyle=dashes, linewidth=1.7, marker=marker, markersize=3.2, **look)


def _plain_ticks(axis: Any, xs: Sequence[float]) -> None:
    whole = all(float(x).is_integer() for x in xs)
    steps = (1, 2, 5, 10)
    axis.set_major_locator(MaxNLocator(nbins=6, steps=steps, integer=whole, min_n_ticks=1))
    if max(xs, default=0) >= 10_000:
        axis.set_major_formatter(FuncFormatter(lambda value, place: short(value)))


def _log_ticks(axis: Any, limits: tuple[float, float]) -> None:
    low, high = limits
    steps = (1,) if high / low > 300 else (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 5, 7)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [step * 10.0**power for power in powers for step in steps]
    axis.set_major_locator(FixedLocator([place for place in places if low <= place <= high]))
    axis.set_major_formatter(
        FuncFormatter(lambda value, place: scientific(value) if value < 0.01 else f"{value:g}")
    )
    axis.set_minor_locator(NullLocator())


def _ticks(names: Sequence[str | Plain], columns: int) -> list[str]:
    """In lines as long as there is room for."""
    room = max(6, round(WIDTH * 13 / columns / max(len(names), 1)))
    return ["\n".join(_folded(line, room) for line in _lines(name)) for name in names]


def _lines(name: str | Plain) -> list[str]:
    """One for each language where they differ."""
    return [name] if isinstance(name, str) else list(dict.fromkeys((name["en"], name["zh"])))


def _folded(text: str, room: int) -> str:
    """In lines of at most `room` Latin letters; a Chinese one is as wide as two."""
    lines, left = [""], room
    for part in PARTS.findall(text):
        width = sum(1 + (each >= "\u2e80") for each in part)
        if lines[-1] and width > left:
            lines.append("")
            left, part = room, part.lstrip()
        lines[-1] += part
        left -= width
    return "\n".join(lines)


def _mark(axes: Any, at: float, said: Plain) -> None:
    axes.annotate(
        f"{said['en']} {said['zh']}",
        (at, 1),
        (-3, -3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        rotation=90,
        rotation_mode="anchor",
        ha="right",
        va="bottom",
        fontsize=7.5,
        color=PALETTE["soft"],
    )


def _axis(said: Plain) -> str:
    return said["en"] if said["en"] == said["zh"] else f"{said['en']} · {said['zh']}"


def _legend(panels: Sequence[Plain], styles: Mapping[str, Style]) -> Html:
    """Nothing for a single name."""
    named = {line["name"]["en"]: line["name"] for panel in panels for line in panel["lines"]}
    if len(named) < 2:
        return Html("")
    entries = [element("li", *_entry(said, styles[name])) for name, said in named.items()]
    return element("ul", *entries, class_="legend")


def _entry(said: Plain, style: Style) -> Iterator[Html]:
    key, dashes = style
    border = {DASHES[0]: "solid", DASHES[1]: "dashed", DASHES[2]: "dotted"}[dashes]
    yield element("i", style=f"border-top: 3px {border} var(--{key}, {PALETTE[key]})")
    yield said["en"] if said["en"] == said["zh"] else both(said["en"], said["zh"])
