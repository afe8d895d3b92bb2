"""How every figure of the report looks: one style, one palette, SVG that sits inside the page.

Drawn without pyplot, so that no state is shared with a caller. Words stay text in the SVG, in the
page's own font, and colours become CSS variables with the light one as fallback, so that one
drawing is readable in light, in dark and on paper. The same data gives the same bytes.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from indexlm.evals.starter import CHANCE, within_chance
from indexlm.report.markup import Html

WIDTH = 10.4
"""Inches; at the SVG's 72 units to the inch and the page's 1040 px, 9-point type is 12.5 px."""
FEW_POINTS = 16
MOST_POINTS = 600
"""Points of a line; more cannot be told apart at this width."""

PALETTE = {
    "ink": "#22262b",
    "soft": "#6b7380",
    "rule": "#d9dde3",
    "panel": "#f4f5f8",
    "trunk": "#4a5768",
    "base": "#2463a9",
    "pure": "#d0740f",
    "sft": "#5f6f7f",
    "chat": "#12876a",
    "character-sft": "#5f6f80",
    "character": "#9c3d8c",
    "bigram": "#8d95a0",
    "xz -9e": "#bcc2cb",
    "good": "#12876b",
    "bad": "#b8402f",
}
"""Light colours; page.css has the dark ones. All differ, because a drawn colour is found again by
its value."""

STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": PALETTE["ink"],
    "text.parse_math": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": PALETTE["soft"],
    "axes.edgecolor": PALETTE["rule"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": PALETTE["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": PALETTE["soft"],
    "ytick.color": PALETTE["soft"],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.4,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.dpi": 72,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.constrained_layout.hspace": 0.04,
    "figure.constrained_layout.wspace": 0.03,
    "svg.fonttype": "none",
}


@contextmanager
def drawing(name: str, height: float) -> Iterator["Drawing"]:
    """A figure of WIDTH x `height` inches in the report's style; `svg()` of it ends the drawing."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"indexlm {name}"}):
        yield Drawing(name, height)


class Drawing:
    """One figure; `figure` is matplotlib's."""

    def __init__(self, name: str, height: float) -> None:
        self.name = name
        self.figure: Any = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(self.figure)

    def legend(self, axes: Any) -> None:
        """The lines or bars of `axes` named once below all panels."""
        handles, labels = axes.get_legend_handles_labels()
        self.figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))

    def svg(self, description: str) -> Html:
        """The drawing as an `<svg>` element; `description` is what a screen reader says."""
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():
            # Text stays text: what matplotlib's own font lacks, Chinese, the page's font has.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            self.figure.savefig(file, format="svg", metadata=nothing)
        return _for_page(file.getvalue(), description)


def _for_page(source: str, description: str) -> Html:
    """Cut away what an SVG inside HTML neither needs nor may have: prolog, style, repeated ids."""
    svg = source[source.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None
    quoted = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    svg = re.sub(r"<svg[^>]*>", f'<svg {size[0]} role="img" aria-label="{quoted}">', svg, count=1)
    for name, colour in PALETTE.items():
        svg = svg.replace(colour, f"var(--{name.split()[0]}, {colour})")
    return Html(svg)


def line(axes: Any, xs: Sequence[float], ys: Sequence[float], name: str, **style: Any) -> None:
    """A line in the colour that `name` has everywhere, thinned to what can be seen.

    Few points are marked, so that a single one is seen too.
    """
    seen_xs, seen_ys = thinned(xs, ys)
    marker = "o" if len(seen_xs) <= FEW_POINTS else ""
    look = {"color": PALETTE[name], "label": name, "marker": marker, "markersize": 3.2}
    axes.plot(seen_xs, seen_ys, **{**look, **style})


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points, each the mean of as many neighbours."""
    x_N, y_N = np.asarray(xs, float), np.asarray(ys, float)
    group = -(-len(x_N) // MOST_POINTS)
    if group <= 1:
        return x_N, y_N
    starts = np.arange(0, len(x_N), group)
    sizes = np.diff(np.append(starts, len(x_N)))
    return np.add.reduceat(x_N, starts) / sizes, np.add.reduceat(y_N, starts) / sizes


def plain_log(axes: Any) -> None:
    """A log axis whose ticks are plain numbers (2, 5, 10), a few more where it spans little."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    axes.set_yticks([tick for tick in ticks if low <= tick <= high])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def steps_axis(axes: Any, label: str = "step") -> None:
    """Whole numbers below, few of them."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.set_xlabel(label)


def rate_axis(axes: Any) -> None:
    """Learning rates from 0 up, as `5e-5`."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: scientific(value)))


def scientific(value: float) -> str:
    """0.0015 -> `1.5e-3`."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def percent_axis(axes: Any) -> None:
    """Shares as whole percents."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{100 * value:.0f}%"))


def chance_band(axes: Any, items: int) -> None:
    """The line of chance, and the accuracies on `items` items that guessing explains."""
    explained = [right / items for right in range(items + 1) if within_chance(right / items, items)]
    look = {"color": PALETTE["rule"], "alpha": 0.45, "linewidth": 0, "zorder": 0}
    axes.axhspan(explained[0], explained[-1], **look)
    axes.axhline(CHANCE, color=PALETTE["ink"], linewidth=0.9, linestyle=(0, (4, 3)))
    percent_axis(axes)
