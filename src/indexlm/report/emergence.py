"""Capability curves of benchmarks: accuracy beside the continuous scores of the same items, and
whether anything in them is a jump.

Shapes: P points, I items.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from indexlm.errors import UserError
from indexlm.evals.emergence import Jump, compare_jumps, jump
from indexlm.evals.starter import CHANCE
from indexlm.report.figures import PALETTE, drawing, line, percent_axis
from indexlm.report.markup import (
    Html,
    both,
    document,
    element,
    figure,
    join,
    sentence,
    short,
    table,
)

MEASURES = {"accuracy": "Accuracy", "margin": "Margin, nats", "probability": "Probability"}
ERRORS = {"accuracy": "standard_error", "margin": "margin_standard_error"}
TRUNK, BRANCHES = "trunk", ("base", "pure")
DRAWS = 400
"""Of each p-value on a page: the smallest is 0.0025."""

KINDS_ZH = {
    "both": "准确率与连续分数均有跃升：能力本身发生了跃升。",
    "accuracy only": "只有准确率跃升，同一批题的连续分数并无跃升：模型是逐渐变好的，"
    "正确项排到第一时准确率才显现出来。",
    "continuous only": "连续分数跃升而准确率没有：模型变化是突然的，但尚未改变最优选项。",
    "neither": "均无跃升。",
}

Line = Mapping[str, Any]
"""A point: {"stage", "step", "tokens" (or None), "phase", "scores"} and, where they are kept,
"items": {name: {"right", "margin", "probability"}}."""


@dataclass(frozen=True)
class Curves:
    """All points of a run, or of a folder of models, in the order of training."""

    lines: Sequence[Line]
    decay_from: Mapping[str, float]
    """Stage -> where its decay begins, on the axis of the points."""

    @property
    def unit(self) -> str:
        known = all(each["tokens"] is not None for each in self.lines)
        return "pre-training tokens" if known else "step"

    def at(self, each: Line) -> float:
        return float(each["step"] if self.unit == "step" else each["tokens"])

    def stages(self) -> dict[str, list[Line]]:
        """The points of each stage; a branch begins with the last one before its decay."""
        found: dict[str, list[Line]] = {}
        for each in sorted(self.lines, key=self.at):
            found.setdefault(each["stage"], []).append(each)
        for name in BRANCHES:
            if name in found:
                found[name] = self._before(found, name)[-1:] + found[name]
        return found

    def histories(self) -> dict[str, list[Line]]:
        """The whole way to each end: the trunk and a branch, or a stage that has none."""
        stages = self.stages()
        branches = [name for name in BRANCHES if name in stages]
        if not branches:
            return stages
        # The last point before the decay is the first one of the branch.
        return {name: self._before(stages, name)[:-1] + stages[name] for name in branches}

    def _before(self, stages: Mapping[str, Sequence[Line]], branch: str) -> list[Line]:
        border = self.decay_from.get(branch, float("inf"))
        return [each for each in stages.get(TRUNK, ()) if self.at(each) <= border]

    def names(self, *, starter: bool = True) -> list[str]:
        """`<task>/<prompt>/<way>` of every choice test."""
        keys = {key for each in self.lines for key in each["scores"] if key.endswith("/margin")}
        found = sorted(key.removesuffix("/margin") for key in keys)
        return [name for name in found if starter or not name.startswith("starter/")]


@dataclass(frozen=True)
class Judged:
    """(end, name, measure) -> the jump that was looked for; `why` says what could not be judged."""

    found: Mapping[tuple[str, str, str], Jump]
    why: str


def curve_page(title: str, curves: Curves) -> str:
    """The whole document, which needs no other file."""
    lead = sentence(
        "p",
        f"{len(curves.lines)} points, each of the same items and the same text. Accuracy counts "
        "only which option comes first; margin and probability say how near the others are.",
        f"共 {len(curves.lines)} 个点，题目与文本各点相同。准确率只看哪个选项最优；"
        "间隔与概率说明其余选项相差多少。",
        "lead",
    )
    judged = judge(curves)
    header = element("header", element("h1", both(f"Curves: {title}", "能力曲线")), lead)
    parts = [
        element("section", element("h2", heading), content)
        for heading, content in (
            (both("Jumps", "跃升"), jumps(curves, judged)),
            (both("Bits per byte", "每字节比特"), bits(curves)),
            (both("Benchmarks", "基准评测"), choices(curves, judged)),
        )
        if content
    ]
    footer = sentence(
        "footer",
        "Written by indexlm from points.jsonl; every number on this page is computed from it.",
        "由 indexlm 根据 points.jsonl 生成，页中数字均由其算出。",
        "note",
    )
    return document(f"indexlm · {title}", header, element("main", *parts), footer)


def bits(curves: Curves) -> Html:
    """Bits per byte of each language."""
    keys = sorted(
        {key for each in curves.lines for key in each["scores"] if key.startswith("bits_per_byte/")}
    )
    if not keys:
        return Html("")
    with drawing("curve bits", 2.8) as page:
        panels = page.figure.subplots(1, len(keys), squeeze=False)[0]
        for axes, key in zip(panels, keys):
            for stage, found in _points(curves, key):
                x_P, y_P = np.array(found).T
                line(axes, x_P.tolist(), y_P.tolist(), _colour(stage), label=stage)
            axes.set_title(f"Bits per byte, {key.split('/')[1]}")
            _tokens_axis(axes, curves)
        page.legend(panels[0])
        return figure(
            page.svg("Bits per byte of each language over training"),
            "Bits per byte of held-out text; lower is better.",
            "留出文本的每字节比特数，越低越好。",
        )


def choices(curves: Curves, judged: Judged, *, starter: bool = True) -> Html:
    """A figure for every task and prompt: a row for each way, a column for each measure."""
    groups: dict[str, list[str]] = {}
    for name in curves.names(starter=starter):
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    parts = []
    for group, names in groups.items():
        parts += [
            element("h3", group.replace("/", ", ")),
            _choice_figure(curves, judged, group, names),
        ]
    return join(*parts)


def judge(curves: Curves, *, starter: bool = True) -> Judged:
    """Look for a jump in every curve, on the whole way to every end."""
    found: dict[tuple[str, str, str], Jump] = {}
    why = ""
    for end, history in curves.histories().items():
        for name in curves.names(starter=starter):
            for measure in MEASURES:
                try:
                    judged = _judged(curves, history, name, measure)
                except UserError as error:
                    why = str(error)
                    continue
                if judged is not None:
                    found[end, name, measure] = judged
    return Judged(found, why)


def jumps(curves: Curves, judged: Judged) -> Html:
    """A sentence for what jumped, a table of all; or why nothing can be judged."""
    if not judged.found:
        if not judged.why:
            return Html("")
        return sentence("p", f"No jump is looked for: {judged.why}.", "点数不足，不作跃升检验。")
    rows = [_row(*place, each) for place, each in judged.found.items()]
    told = [
        said
        for end, name in dict.fromkeys((end, name) for end, name, _ in judged.found)
        if (said := _told(curves, judged, end, name))
    ]
    nothing = sentence(
        "p", "No accuracy and no continuous score jumps.", "准确率与连续分数均无跃升。"
    )
    head = [
        both("Score", "分数"),
        both("Stage", "阶段"),
        both("Jump", "跃升"),
        both("At", "位置"),
        both("95%", "95% 区间"),
        both("Rise", "升幅"),
        both("95%", "95% 区间"),
        both("Share of all rise", "占总升幅"),
        "p",
    ]
    note = sentence(
        "p",
        f"A jump is a rise within a tenth of the run that is half of all rise or more and that a "
        f"smooth rise with the same noise shows in at most one case of twenty (p). Of {len(rows)} "
        f"curves, {len(rows) / 20:.0f} would have such a p by chance, and more where a curve stays "
        "above or below a smooth line for several points. Smooth is a power of the tokens or their "
        "logarithm.",
        "跃升：在全程十分之一之内完成至少一半升幅，"
        "且同等噪声下平滑上升出现同样升幅的概率 p 不超过 5%。"
        f"{len(rows)} 条曲线中偶然会有约 {len(rows) / 20:.0f} 条达到该 p；"
        "若曲线连续多点偏在平滑线一侧，则更多。"
        "平滑指词元数的幂或对数。",
        "note",
    )
    return join(*(told or [nothing]), table(head, rows, words=3), note)


def _told(curves: Curves, judged: Judged, end: str, name: str) -> Html:
    accuracy, margin = (judged.found.get((end, name, each)) for each in ("accuracy", "margin"))
    if accuracy is None or margin is None:
        return Html("")
    compared = compare_jumps(accuracy, margin)
    if compared.kind == "neither":
        return Html("")
    at = accuracy.at if accuracy.found else margin.at
    decay = ", in the decay" if at > curves.decay_from.get(end, at) else ""
    label = element("strong", f"{name} ({end}), at {short(at)}{decay}: ")
    return sentence("p", join(label, compared.text), KINDS_ZH[compared.kind])


def _judged(curves: Curves, history: Sequence[Line], name: str, measure: str) -> Jump | None:
    """None where the history has no such score. Raises UserError where it is too short."""
    lines = [each for each in history if f"{name}/margin" in each["scores"]]
    at = [curves.at(each) for each in lines]
    if lines and all(name in each.get("items", {}) for each in lines):
        item_PI = np.array([_values(each, name, measure) for each in lines])
        return jump(at, item_PI.mean(1), items=item_PI, draws=DRAWS)
    values = [each["scores"].get(f"{name}/{measure}") for each in lines]
    if not values or None in values:
        return None
    errors = [each["scores"].get(f"{name}/{ERRORS.get(measure)}") for each in lines]
    return jump(at, values, errors=None if None in errors else errors, draws=DRAWS)


def _row(end: str, name: str, measure: str, judged: Jump) -> list[Any]:
    percent = measure != "margin"

    def size(value: float) -> str:
        return f"{100 * value:.1f}%" if percent else f"{value:.3f}"

    def interval(low: str, high: str) -> str:
        return f"{low} – {high}"

    found = element("strong", both("yes", "是")) if judged.found else "–"
    return [
        f"{name} {measure}",
        end,
        found,
        short(judged.at),
        interval(*map(short, judged.place)),
        size(judged.size),
        interval(*map(size, judged.interval)),
        f"{judged.share_of_total_rise:.0%}",
        f"{judged.p_value:.3f}",
    ]


def _values(each: Line, name: str, measure: str) -> np.ndarray:
    found = each["items"][name]
    if measure == "accuracy":
        return np.array([letter == "1" for letter in found["right"]], float)
    return np.array(found[measure], float)


def _choice_figure(curves: Curves, judged: Judged, group: str, names: Sequence[str]) -> Html:
    measures = [
        measure
        for measure in MEASURES
        if any(
            f"{names[0]}/{measure}" in each["scores"] or "items" in each for each in curves.lines
        )
    ]
    with drawing(f"curve {group}", 2.0 * len(names) + 0.6) as page:
        grid = page.figure.subplots(len(names), len(measures), squeeze=False, sharex=True)
        for name, panels in zip(names, grid):
            for axes, measure in zip(panels, measures):
                _curve(axes, curves, name, measure)
                way = name.rpartition("/")[2].replace("_", " ")
                axes.set_title(f"{MEASURES[measure]}, {way}")
                for end in curves.histories():
                    _mark_jump(axes, curves, end, judged.found.get((end, name, measure)))
                _tokens_axis(axes, curves, below=name == names[-1])
        page.legend(grid[0][0])
        svg = page.svg(f"{group}: accuracy, margin and probability over training")
    count, chance = _facts(curves, names[0])
    said = f"{count:.0f} items, the same ones at every point; " if count else ""
    return figure(
        svg,
        f"{said}bands are one standard error, the dashed line is chance ({chance:.0%}). Shaded: "
        "decay. A dotted line marks a jump, with its 95% interval.",
        f"{f'{count:.0f} 题，各点相同；' if count else ''}带状为一个标准误，虚线为随机水平"
        f"（{chance:.0%}）；阴影为退火阶段；点线为跃升及其 95% 区间。",
    )


def _mark_jump(axes: Any, curves: Curves, end: str, judged: Jump | None) -> None:
    """In the colour of the stage that it lies in."""
    if judged is None or not judged.found:
        return
    on_trunk = judged.at <= curves.decay_from.get(end, 0.0)
    colour = PALETTE[TRUNK if on_trunk else _colour(end)]
    axes.axvline(judged.at, color=colour, linestyle=(0, (1, 1)))
    axes.axvspan(*judged.place, color=colour, alpha=0.12, linewidth=0)


def _curve(axes: Any, curves: Curves, name: str, measure: str) -> None:
    for stage, found in _points(curves, f"{name}/{measure}"):
        x_P, y_P = np.array(found).T
        line(axes, x_P.tolist(), y_P.tolist(), _colour(stage), label=stage)
        errors = _errors(curves, stage, name, measure)
        if errors is not None and len(errors) == len(x_P) and len(x_P) > 1:
            band = {"color": PALETTE[_colour(stage)], "alpha": 0.18, "linewidth": 0}
            axes.fill_between(x_P, y_P - errors, y_P + errors, **band)
    if measure != "margin":
        look = {"color": PALETTE["ink"], "linewidth": 0.9, "linestyle": (0, (4, 3))}
        axes.axhline(_facts(curves, name)[1], **look)
        percent_axis(axes)
    else:
        axes.axhline(0, color=PALETTE["soft"], linewidth=0.8)


def _points(curves: Curves, key: str) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Of each stage, where on the axis and what a score was."""
    name, _, measure = key.rpartition("/")
    for stage, lines in curves.stages().items():
        found = []
        for each in lines:
            if key in each["scores"]:
                found.append((curves.at(each), float(each["scores"][key])))
            elif name in each.get("items", {}):
                found.append((curves.at(each), float(_values(each, name, measure).mean())))
        if found:
            yield stage, found


def _errors(curves: Curves, stage: str, name: str, measure: str) -> np.ndarray | None:
    """Standard errors of the points of a stage, None where they are not known."""
    errors = []
    for each in curves.stages()[stage]:
        if name in each.get("items", {}):
            value_I = _values(each, name, measure)
            errors.append(float(value_I.std() / max(len(value_I) - 1, 1) ** 0.5))
        else:
            errors.append(each["scores"].get(f"{name}/{ERRORS.get(measure)}"))
    return None if None in errors else np.array(errors)


def _facts(curves: Curves, name: str) -> tuple[float, float]:
    """Items of a test (0 where it is not known) and the level of chance."""
    group = name.rpartition("/")[0]
    scores = curves.lines[0]["scores"]
    known = curves.lines[0].get("items", {}).get(name)
    count = len(known["right"]) if known else scores.get(f"{group}/items", 0)
    return count, scores.get(f"{group}/chance", CHANCE)


def _colour(stage: str) -> str:
    return stage if stage in PALETTE else "base"


def _tokens_axis(axes: Any, curves: Curves, *, below: bool = True) -> None:
    """Tokens (or steps) below, the phases above; the decay is shaded."""
    low, high = axes.get_xlim()
    border = min(curves.decay_from.values(), default=high)
    if border < high:
        axes.axvspan(border, high, color=PALETTE["panel"], linewidth=0, zorder=0)
        axes.axvline(border, color=PALETTE["soft"], linewidth=0.8, linestyle=":")
        style = {"color": PALETTE["soft"], "fontsize": 8, "va": "top"}
        style |= {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        for label, side, away in (("stable", "right", -4), ("decay", "left", 4)):
            axes.annotate(label, (border, 1), (away, -2), ha=side, **style)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: short(value)))
    if below:
        axes.set_xlabel(curves.unit)
