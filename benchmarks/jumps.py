"""How often a capability curve is said to jump: where there is no jump, and where there is one.

    OMP_NUM_THREADS=1 python -m benchmarks.jumps
    python -m benchmarks.jumps --curves 20 --out trial.json
    python -m benchmarks.jumps --table en

Curves are made, each with noise of its own, and `indexlm.evals.emergence.jump` judges them with as
many permutations as the page of `indexlm curve` takes. Without a jump they are flat, or rise by 1
in a straight line, as a power law that levels off, or as a logistic curve from 10% to 90% in four
tenths of the run. Jumps stand between two points, anywhere from a tenth to nine tenths of the run,
and are a share of the rise; the rest of it is the power law. Curves of the first kind that are said
to jump are false alarms, those of the second are detections; a jump of less than half of the rise
is none by definition.

The noise is a share of the rise: normal, of one size all over the curve. Its autocorrelation is how
much of it is left at the next point (AR(1); 0: independent). To know them of a curve of yours, look
at how far its points lie from a smooth line, and at how many in a row lie on one side of it.

Curve c of cell n (from 0, in the order of the results) is drawn by numpy's default_rng([0, n, c])
and judged with seed c: the same command makes the same results. 250 curves a cell take about ten
minutes of one core, fewer take less in proportion.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.evals import emergence
from indexlm.evals.emergence import Jump, jump
from indexlm.report.emergence import DRAWS

SEED = 0
AUTOCORRELATIONS = (0.0, 0.5, 0.8)
SETTINGS = ((40, 0.05), (20, 0.2), (40, 0.2), (80, 0.2), (40, 0.5))
"""(points, noise). A flat curve is noise whatever its size, and has those of 20% alone."""
SMOOTH = ("flat", "straight", "power law", "logistic")
SHARES = (0.25, 0.75, 1.0)
"""Of a jump, of the rise of the whole run."""
POWER = -0.3
"""Of the tokens, in the power law."""
LOGISTIC = 2 * math.log(9) / 0.4
"""Steepness of a logistic curve that goes from 10% to 90% in 0.4 of the run."""


@dataclass(frozen=True)
class Cell:
    """One kind of curve. `share` is None where no jump is planted."""

    shape: str
    share: float | None
    points: int
    noise: float
    autocorrelation: float

    @property
    def name(self) -> str:
        kind = self.shape if self.share is None else f"jump of {self.share:.0%}, rest {self.shape}"
        return (
            f"{kind}; {self.points} points, noise {self.noise:.0%}, autocorrelation "
            f"{self.autocorrelation}"
        )


def cells() -> list[Cell]:
    kinds = [(shape, None) for shape in SMOOTH] + [("power law", share) for share in SHARES]
    return [
        Cell(shape, share, points, noise, autocorrelation)
        for shape, share in kinds
        for autocorrelation in AUTOCORRELATIONS
        for points, noise in SETTINGS
        if shape != "flat" or noise == 0.2
    ]


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.jumps", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--curves", type=int, default=250, help="of each cell; default 250")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/results/jumps.json"),
        help="default benchmarks/results/jumps.json, which the documents show",
    )
    parser.add_argument(
        "--table", choices=LABELS, help="only print the table of --out, in this language"
    )
    asked = parser.parse_args()
    if asked.curves < 1:
        parser.error(f"--curves {asked.curves}: at least 1")
    if asked.table:
        print(table(json.loads(asked.out.read_text(encoding="utf-8")), asked.table))
        return
    if not asked.out.parent.is_dir():
        parser.error(f"--out {asked.out}: there is no folder {asked.out.parent}")
    begin, every, results = time.perf_counter(), cells(), []
    for number, cell in enumerate(every):
        results.append(asdict(cell) | rates(cell, number, asked.curves))
        spent = time.perf_counter() - begin
        left = spent / (number + 1) * (len(every) - number - 1)
        said = results[-1]["found"].count("1")
        print(
            f"{number + 1}/{len(every)} {cell.name}: a jump in {said} of {asked.curves}; "
            f"{left / 60:.0f} min left",
            flush=True,
        )
    content = {"setting": _setting(asked.curves), "cells": results}
    asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _setting(curves: int) -> dict[str, Any]:
    return {
        "curves": curves,
        "seed": SEED,
        "draws": DRAWS,
        "window": emergence.WINDOW,
        "level": emergence.LEVEL,
        "least_share": emergence.LEAST_SHARE,
        "numpy": np.__version__,
    }


def rates(cell: Cell, number: int, curves: int) -> dict[str, Any]:
    """`found` has a 1 for each curve that is said to jump; the others are counts of curves.

    `small_p`: p is at most LEVEL. Of planted jumps `at_place`: said, and within the two points
    beside the true place; `held`: the 95% interval (over residuals) has the true size in it.
    """
    found, small_p, at_place, held = "", 0, 0, 0
    for curve in range(curves):
        place, judged = judgement(cell, number, curve)
        found += str(int(judged.found))
        small_p += judged.p_value <= emergence.LEVEL
        if cell.share is not None:
            at_place += judged.found and judged.start <= place <= judged.end
            held += judged.interval[0] <= cell.share <= judged.interval[1]
    counts = {"found": found, "small_p": small_p}
    return counts if cell.share is None else counts | {"at_place": at_place, "held": held}


def judgement(cell: Cell, number: int, curve: int) -> tuple[float, Jump]:
    """Curve `curve` of cell `number`: where its jump is planted, if one is, and what is found."""
    generator = np.random.default_rng([SEED, number, curve])
    run_P = np.arange(1, cell.points + 1) / cell.points
    place = _place(run_P, generator)
    value_P = smooth(cell.shape, run_P)
    if cell.share is not None:
        value_P = (1 - cell.share) * value_P + cell.share * (run_P > place)
    value_P = value_P + cell.noise * noise(cell.points, cell.autocorrelation, generator)
    return place, jump(run_P, value_P, draws=DRAWS, seed=curve)


def _place(run_P: np.ndarray, generator: np.random.Generator) -> float:
    """Half way between two points, from a tenth to nine tenths of the run."""
    between = (run_P[1:] + run_P[:-1]) / 2
    return float(generator.choice(between[(between >= 0.1) & (between <= 0.9)]))


def smooth(shape: str, run_P: np.ndarray) -> np.ndarray:
    """[P], from 0 at the first point to 1 at the last; `flat` is 0."""
    match shape:
        case "flat":
            return np.zeros_like(run_P)
        case "straight":
            value_P = run_P
        case "power law":
            value_P = -(run_P**POWER)
        case "logistic":
            value_P = 1 / (1 + np.exp(-LOGISTIC * (run_P - 0.5)))
        case _:
            raise AssertionError(shape)
    risen_P: np.ndarray = (value_P - value_P[0]) / (value_P[-1] - value_P[0])
    return risen_P


def noise(points: int, autocorrelation: float, generator: np.random.Generator) -> np.ndarray:
    """[P] of AR(1) with standard deviation 1 at every point."""
    fresh_P = generator.standard_normal(points)
    noise_P = fresh_P.copy()
    new = math.sqrt(1 - autocorrelation**2)
    for point in range(1, points):
        noise_P[point] = autocorrelation * noise_P[point - 1] + new * fresh_P[point]
    return noise_P


def exact_interval(hits: int, count: int) -> tuple[float, float]:
    """95%, of a share, from the tails of the binomial (Clopper and Pearson 1934)."""
    ways = [
        math.lgamma(count + 1) - math.lgamma(n + 1) - math.lgamma(count - n + 1)
        for n in range(count + 1)
    ]

    def reached(share: float, least: int) -> float:
        """Probability of `least` hits or more."""
        hit, missed = math.log(share), math.log1p(-share)
        return sum(
            math.exp(ways[n] + n * hit + (count - n) * missed) for n in range(least, count + 1)
        )

    def where(least: int, probability: float) -> float:
        """The share at which `reached` has that probability; it grows with the share."""
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if reached(middle, least) < probability else (low, middle)
        return high

    return (
        0.0 if hits == 0 else where(hits, 0.025),
        1.0 if hits == count else where(hits + 1, 0.975),
    )


LABELS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "kind": "curve",
        "autocorrelation": "autocorrelation",
        "setting": "{points} points, noise {noise:.0%}",
        "flat": "flat",
        "straight": "straight line",
        "power law": "power law",
        "logistic": "logistic",
        "jump": "**jump** of {share:.0%}",
    },
    "zh": {
        "kind": "曲线",
        "autocorrelation": "自相关",
        "setting": "{points} 点，噪声 {noise:.0%}",
        "flat": "持平",
        "straight": "直线",
        "power law": "幂律",
        "logistic": "逻辑斯谛",
        "jump": "**跃升**占 {share:.0%}",
    },
}


def table(results: Mapping[str, Any], language: str) -> str:
    """Percent of curves that are said to jump, with the 95% interval; Markdown."""
    labels = LABELS[language]
    head = [labels["kind"], labels["autocorrelation"]]
    head += [labels["setting"].format(points=points, noise=noise) for points, noise in SETTINGS]
    rows: dict[tuple[str, str], dict[tuple[int, float], str]] = {}
    for cell in results["cells"]:
        kind = labels[cell["shape"]]
        if cell["share"] is not None:
            kind = labels["jump"].format(share=cell["share"])
        row = rows.setdefault((kind, f"{cell['autocorrelation']:g}"), {})
        row[cell["points"], cell["noise"]] = _rate(cell["found"])
    body = [
        [*names, *(row.get(setting, "") for setting in SETTINGS)] for names, row in rows.items()
    ]
    return "\n".join(_line(cells) for cells in (head, ["---"] * len(head), *body))


def _rate(found: str) -> str:
    hits, count = found.count("1"), len(found)
    low, high = exact_interval(hits, count)
    return f"{100 * hits / count:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
