"""Figures of benchmark results: accuracy by way and by subject, and what the answers prefer.

Each takes models by name; where there are several, each has its colour.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator

from indexlm.evals.benchmark_table import WAY_NAMES
from indexlm.evals.results import wilson_interval
from indexlm.evals.task import LETTERS
from indexlm.report import choices
from indexlm.report.figures import PALETTE, WIDTH, drawing, percent_axis
from indexlm.report.markup import Html
from indexlm.report.result_files import Answers

SERIES = ("base", "pure", "chat", "character", "trunk", "bigram")
"""A model of one of these names has its own colour, others have those that are left, in order and
again from the first; the last one is no model that answers benchmarks."""
ERROR = {"fmt": "none", "ecolor": PALETTE["ink"], "elinewidth": 0.9, "capsize": 0}
CHANCE = {"colors": PALETTE["ink"], "linewidth": 0.9, "linestyles": (0, (4, 3))}
FAINT = 0.35
"""Opacity of a bar that guessing explains."""

ROW = 0.165
"""Inches of a row of type of SMALL points with one bar; each further bar adds half of it."""
SMALL = 8.0
MOST_ROWS = 16
"""Rows of a figure by subject before it takes two columns."""
WIDEST = 2.5
"""Inches of a subject's name; the rest of a longer one is cut off."""

Part = Mapping[str, Any]
"""What the results say of a task or of a prompt."""


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each model, those of the run's own models first."""
    free = [name for name in SERIES if name not in names]
    others = [name for name in names if name not in SERIES]
    found = {name: free[place % len(free)] for place, name in enumerate(others)} if free else {}
    return {name: PALETTE[found.get(name, name)] for name in names}


def by_way(task: str, models: Mapping[str, Part]) -> Html:
    """Accuracy over all items of each prompt and way; `models` is name -> the task's results."""
    chance = {
        (prompt, way): found["micro"]["chance"]
        for part in models.values()
        for prompt, found in part["prompts"].items()
        for way in found["micro"]["scores"]
    }
    look = colours(list(models))
    with drawing(f"by way {task}", 2.4) as page:
        axes = page.figure.subplots()
        for place, (name, part) in enumerate(models.items()):
            offset, width = _place(place, len(models), 0.1 * min(len(chance), 5))
            known = [
                (at + offset, asked["micro"]["scores"][way])
                for at, (prompt, way) in enumerate(chance)
                if (asked := part["prompts"].get(prompt)) and way in asked["micro"]["scores"]
            ]
            _bars(axes.bar, known, width, look[name], label=name)
            xs, heights = zip(*((x, score["accuracy"]) for x, score in known))
            axes.errorbar(xs, heights, yerr=_errors(known), **{**ERROR, "capsize": 2})
        places = np.arange(len(chance))
        axes.hlines(list(chance.values()), places - 0.5, places + 0.5, **CHANCE)
        labels = [f"{prompt}\n{WAY_NAMES[way]}" for prompt, way in chance]
        axes.set_xticks(places, labels)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.5, len(chance) - 0.5)
        axes.set_ylim(0, min(axes.get_ylim()[1], 1.0))
        axes.set_title("Accuracy over all items, by prompt and way of choosing")
        percent_axis(axes)
        if len(models) > 1:
            page.legend(axes)
        return page.svg(f"Accuracy on {task} by prompt and way of choosing, beside chance")


@dataclass(frozen=True)
class Row:
    """One line of the figure by subject; a heading has no scores."""

    label: str
    scores: tuple[Part | None, ...] = ()
    chance: float = 0.0


def by_subject(name: str, models: Mapping[str, Part], way: str) -> Html:
    """Accuracy of each subject, best first within its category; `models` is name -> the prompt's.

    Drawn at fixed places in inches: a figure of 70 subjects has rows as high as one of 7.
    """
    columns = _columns(_rows(list(models.values()), way))
    several = len(models) > 1
    top, bottom = 0.3, 0.6 if several else 0.3
    heights = [[_height(row, len(models)) for row in rows] for rows in columns]
    height = top + bottom + max(map(sum, heights))
    highest = max(s["interval"][1] for rows in columns for r in rows for s in r.scores if s)
    label = min(WIDEST, max(_width(r.label) for rows in columns for r in rows if r.scores)) + 0.12
    value = 0.1 if several else 0.42
    with drawing(f"by subject {name}", height) as page:
        page.figure.set_layout_engine("none")
        each = WIDTH / len(columns)
        for place, (rows, high) in enumerate(zip(columns, heights)):
            left, wide, tall = place * each + label, each - label - value - 0.1, sum(high)
            box = (left / WIDTH, 1 - (top + tall) / height, wide / WIDTH, tall / height)
            axes = page.figure.add_axes(box)
            axes.set_xlim(0, min(1.0, 1.02 * highest))
            axes.set_ylim(tall, 0)
            _draw_rows(axes, rows, high, colours(list(models)), label)
            axes.set_yticks([])
            axes.grid(axis="x")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 5, 10)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda share, place: f"{share:.0%}"))
        style = {"ha": "left", "va": "top", "weight": "bold", "fontsize": 9.5}
        title = f"Accuracy by subject, {WAY_NAMES[way]}"
        page.figure.text(0, 1 - 0.04 / height, title, **style)
        if several:
            handles, names = axes.get_legend_handles_labels()
            page.figure.legend(handles, names, loc="lower center", ncols=len(names))
        return page.svg(f"Accuracy of each subject of {name}, with 95% intervals and chance")


def _height(row: Row, models: int) -> float:
    """Inches."""
    return ROW * (1 + 0.5 * (models - 1)) if row.scores else ROW


def _draw_rows(
    axes: Any, rows: Sequence[Row], heights: Sequence[float], look: Mapping[str, str], label: float
) -> None:
    """The unit of the vertical axis is the inch."""
    ends = np.cumsum(heights)
    style = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    style |= {"va": "center_baseline", "fontsize": SMALL, "annotation_clip": False}
    bars: dict[str, list[tuple[float, Part]]] = {name: [] for name in look}
    for end, high, row in zip(ends, heights, rows):
        y = end - high / 2
        if not row.scores:
            axes.annotate(row.label, (0, y), (-72 * label, 0), weight="bold", **style)
            continue
        axes.annotate(_cut(row.label), (0, y), (-5, 0), ha="right", **style)
        for place, (name, score) in enumerate(zip(look, row.scores)):
            if score is not None:
                offset, thickness = _place(place, len(look), 0.76 * high)
                bars[name].append((y + offset, score))
        if len(look) == 1 and row.scores[0] is not None:
            told = f"{100 * row.scores[0]['accuracy']:.1f}"
            axes.annotate(told, (1, y), (28, 0), ha="right", **style)
    for name, known in bars.items():
        _bars(axes.barh, known, thickness, look[name], label=name)
        ys, lengths = zip(*((y, score["accuracy"]) for y, score in known))
        axes.errorbar(lengths, ys, xerr=_errors(known), **ERROR)
    asked = [(end - high, end, r.chance) for end, high, r in zip(ends, heights, rows) if r.scores]
    begins, stops, chances = zip(*asked)
    axes.vlines(chances, begins, stops, **CHANCE)


def _rows(prompts: Sequence[Part], way: str) -> list[Row]:
    """Headings and subjects; without categories, subjects alone."""
    chance: dict[str, float] = {}
    groups: dict[str, list[str]] = {}
    for prompt in prompts:
        for subject, found in prompt["subjects"].items():
            if subject not in chance:
                chance[subject] = found["chance"]
                groups.setdefault(found["category"], []).append(subject)
    scores = {
        subject: tuple(
            prompt["subjects"][subject]["scores"][way] if subject in prompt["subjects"] else None
            for prompt in prompts
        )
        for subject in chance
    }
    best = {
        subject: next(score["accuracy"] for score in found if score is not None)
        for subject, found in scores.items()
    }
    rows = []
    for category, subjects in groups.items():
        rows += [Row(category)] if category else []
        ordered = sorted(subjects, key=lambda subject: (-best[subject], subject))
        rows += [Row(subject, scores[subject], chance[subject]) for subject in ordered]
    return rows


def _columns(rows: list[Row]) -> list[list[Row]]:
    """One column, or two that are cut between categories where that leaves them about as long."""
    total = len(rows)
    if total <= MOST_ROWS:
        return [rows]
    headings = [at for at, row in enumerate(rows) if at and not row.scores]
    cut = min(headings, key=lambda at: max(at, total - at), default=0)
    if max(cut, total - cut) <= 0.6 * total:
        return [rows[:cut], rows[cut:]]
    cut = -(-total // 2)
    before = [row for row in rows[:cut] if not row.scores]
    if not before or not rows[cut].scores:
        return [rows[:cut], rows[cut:]]
    return [rows[:cut], [replace(before[-1], label=f"{before[-1].label}, continued"), *rows[cut:]]]


def _width(label: str) -> float:
    """Inches of a text of SMALL points in the page's font, which matplotlib does not have."""
    ems = sum(1.0 if unicodedata.east_asian_width(sign) in "WF" else 0.56 for sign in label)
    return ems * SMALL / 72


def _cut(label: str) -> str:
    if _width(label) <= WIDEST:
        return label
    while _width(label) > WIDEST - 0.1:
        label = label[:-1]
    return f"{label}…"


def answers(name: str, models: Mapping[str, Answers], way: str) -> Html:
    """Letters, confusion, calibration and margins of the answers to one prompt, a row a model."""
    look = colours(list(models))
    with drawing(f"answers {name}", 2.75 * len(models)) as page:
        grid = page.figure.subplots(len(models), 4, squeeze=False)
        for (model, found), (letters, matrix, calibration, margins) in zip(models.items(), grid):
            _draw_letters(letters, choices.letter_bias(found, way), look[model])
            _draw_confusion(matrix, choices.confusion(found, way), look[model])
            _draw_calibration(calibration, choices.calibration(found), look[model])
            _draw_margins(margins, found.margin_N)
            if len(models) > 1:
                letters.set_ylabel(model)
        return page.svg(
            f"Letters chosen, confusion, calibration and margins of the answers to {name}"
        )


def _draw_letters(axes: Any, bias: choices.LetterBias, colour: str) -> None:
    places = np.arange(len(bias.right_K))
    axes.bar(places, bias.chosen_K, 0.66, color=colour, linewidth=0, alpha=0.75)
    low, band = bias.expected_K - bias.band_K, 2 * bias.band_K
    style = {"color": PALETTE["soft"], "alpha": 0.5, "linewidth": 0, "zorder": 3}
    axes.bar(places, band, 0.86, bottom=low, **style)
    axes.plot(places, bias.right_K, "D", color=PALETTE["ink"], markersize=4, zorder=4)
    axes.set_xticks(places, list(LETTERS[: len(places)]))
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(bottom=0)
    axes.set_title("Chosen and right, by letter")
    percent_axis(axes)


def _draw_confusion(axes: Any, count_KK: np.ndarray, colour: str) -> None:
    """Each row is the items of one right letter: shares of it, in percent where they fit."""
    K = len(count_KK)
    share_KK = count_KK / np.maximum(count_KK.sum(1, keepdims=True), 1)
    right, chosen = (each.ravel() for each in np.indices((K, K)))
    shades = [to_rgba(colour, 0.75 * share) for share in share_KK.ravel()]
    axes.bar(chosen, 0.94, 0.94, bottom=right - 0.47, color=shades, linewidth=0)
    style = {"ha": "center", "va": "center_baseline", "fontsize": 8.5}
    for y, x in zip(right, chosen) if K <= 6 else ():
        if count_KK[y].any():
            axes.text(x, y, f"{100 * share_KK[y, x]:.0f}", **style)
    letters = list(LETTERS[:K])
    axes.set_xticks(range(K), letters)
    axes.set_yticks(range(K), letters)
    axes.set_ylim(K - 0.5, -0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False)
    axes.set_title("Right (row) × chosen, %")


def _draw_calibration(axes: Any, found: choices.Calibration, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=PALETTE["soft"], linewidth=0.8, linestyle="--")
    ends = [wilson_interval(right, items) for right, items in zip(found.right_B, found.items_B)]
    axes.vlines(found.probability_B, *zip(*ends), color=PALETTE["ink"], linewidth=0.9)
    axes.plot(
        found.probability_B, found.accuracy_B, "o", color=colour, markersize=4.5, clip_on=False
    )
    style = {"rotation": 90, "ha": "center", "fontsize": 7.5, "color": PALETTE["soft"]}
    for x, y, items in zip(found.probability_B, found.accuracy_B, found.items_B):
        # Where the point is not.
        at = {"y": 0.98, "va": "top"} if y < 0.6 else {"y": 0.02, "va": "bottom"}
        axes.text(x, s=f"{items:,}", **at, **style)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    percent_axis(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.0%}"))
    axes.set_xlabel("probability of the chosen option")
    axes.set_title(f"Accuracy; ECE {100 * found.error:.1f}%")


def _draw_margins(axes: Any, margin_N: np.ndarray) -> None:
    """The 1% at either end are counted into the first and last bar."""
    low, high = np.quantile(margin_N, (0.01, 0.99))
    low, high = min(low, -1e-6), max(high, 1e-6)
    width = (high - low) / 32
    # An edge at 0 tells right from wrong.
    edges = np.arange(np.floor(low / width), np.ceil(high / width) + 1) * width
    inside_N = np.clip(margin_N, edges[0], edges[-1])
    for side_N, colour in ((inside_N[margin_N < 0], "bad"), (inside_N[margin_N >= 0], "good")):
        axes.hist(side_N, edges, color=PALETTE[colour], alpha=0.8, linewidth=0)
    axes.axvline(0, color=PALETTE["ink"], linewidth=0.9)
    axes.axvline(margin_N.mean(), color=PALETTE["ink"], linewidth=0.9, linestyle=":")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel("nats")
    axes.set_title("Margin of the right option")


def _place(place: int, of: int, room: float) -> tuple[float, float]:
    """Offset and thickness of one of `of` bars that share `room`."""
    return (place - (of - 1) / 2) * room / of, 0.88 * room / of


def _bars(
    draw: Any, known: Sequence[tuple[float, Part]], thickness: float, colour: str, label: str
) -> None:
    """Bars of one model at their places; faint where guessing explains the score."""
    places, accuracies = zip(*((place, score["accuracy"]) for place, score in known))
    shades = [to_rgba(colour, FAINT if s["within_chance"] else 1.0) for _, s in known]
    draw(places, accuracies, thickness, color=shades, linewidth=0)
    draw([0], [0], 0, color=colour, label=label)


def _errors(known: Sequence[tuple[float, Part]]) -> np.ndarray:
    """[2, bars]; what matplotlib calls errors: the distances to both ends of the 95% intervals."""
    ends = [(s["accuracy"] - s["interval"][0], s["interval"][1] - s["accuracy"]) for _, s in known]
    # Wilson's interval of none right begins at 0, after rounding a little above.
    return np.maximum(np.array(ends).T, 0.0)
