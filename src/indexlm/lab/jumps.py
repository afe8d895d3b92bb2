"""Jumps in the scores of arms, and in the report's own curve; places are in tokens.

A surge is judged by the most that a score gains within a tenth of the run, beside the most that a
rise with the logarithm of the tokens gains there: the usual smooth course of a score, between the
same ends and with the same noise. A plateau and a step gain more than that in a tenth of the run, a
straight line less.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from indexlm.evals.emergence import WINDOW, Jump, jump
from indexlm.lab.arms import Result
from indexlm.lab.drawing import scored, tokens
from indexlm.lab.study import Results, Values

DRAWS = 1000
"""Of the noise of a logarithmic rise."""

REPORT_CURVE = {
    80: 26.34, 160: 25.15, 240: 26.88, 320: 26.57, 400: 25.2, 480: 26.24, 560: 26.93, 640: 27.62,
    720: 27.4, 800: 27.52, 880: 25.69, 960: 26.77, 1000: 28.46, 1040: 27.87, 1120: 30.39,
    1200: 30.79, 1280: 31.5, 1360: 33.4, 1440: 35.57, 1520: 33.11, 1600: 35.39, 1680: 35.85,
    1760: 33.39, 1840: 35.54, 1920: 35.75, 2000: 36.43, 2080: 37.16, 2160: 37.67, 2240: 36.69,
    2320: 35.85, 2400: 34.46, 2480: 34.51,
}  # fmt: skip
"""MMLU of the report's stable phase by billions of tokens, as its figure has it."""


def curve_of(result: Result, score: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Tokens read, and the score there, of an arm that did not diverge."""
    points = [point for point in result.curve if "scores" in point]
    measured = [(round(tokens(result, point)), scored(score)(point)) for point in points]
    known = [(at, value) for at, value in measured if value is not None]
    return tuple(at for at, _ in known), tuple(value for _, value in known)


def jump_of(result: Result, score: str) -> Jump:
    """The rise of one seed's curve that stands out most."""
    return jump_in(*curve_of(result, score))


# Claims, figures and tables ask for the same ones.
@lru_cache(maxsize=512)
def jump_in(at: tuple[int, ...], values: tuple[float, ...]) -> Jump:
    return jump(at, values)


def share_that_jumps(result: Result, score: str) -> float | None:
    """Of all the rise of a curve; 0 where no part of it stands out."""
    if result.diverged:
        return None
    found = jump_of(result, score)
    return found.share_of_total_rise if found.found else 0.0


def shares_that_jump(
    arm: str, treatment: str, control: str
) -> Callable[[Results], tuple[Values, Values]]:
    """Of two scores of the same runs."""

    def made(results: Results) -> tuple[Values, Values]:
        treated, other = (
            {seed: share_that_jumps(result, score) for seed, result in results[arm].items()}
            for score in (treatment, control)
        )
        return treated, other

    return made


def steepest(at: Sequence[float], values: Sequence[float]) -> float:
    """The most that is gained within a tenth of the run, in the unit of `values`."""
    return float(_steepest(np.asarray(at, float), np.asarray(values, float)[None])[0])


def logarithmic(at: Sequence[float], first: float, last: float) -> list[float]:
    """A rise with the logarithm of the tokens from one value to another."""
    log_P = np.log(np.asarray(at, float))
    along_P = (log_P - log_P[0]) / (log_P[-1] - log_P[0])
    return [float(each) for each in first + (last - first) * along_P]


def steepest_of_logarithm(at: Sequence[float], values: Sequence[float]) -> float:
    """What `steepest` is in the mean of a logarithmic rise between the ends of `values`, with noise
    like theirs: the most of many differences is above 0 where nothing rises at all."""
    smooth_P = np.asarray(logarithmic(at, values[0], values[-1]))
    noise_SP = _noise(values) * np.random.default_rng(0).standard_normal((DRAWS, len(smooth_P)))
    return float(_steepest(np.asarray(at, float), smooth_P + noise_SP).mean())


def _noise(values: Sequence[float]) -> float:
    """Standard deviation of a point, by the median of second differences: of a rise they are 0, and
    those that a step makes are few."""
    second = np.abs(np.diff(np.asarray(values, float), 2))
    # 0.6745 standard deviations hold half of a normal distribution; the variance is 1 + 4 + 1.
    return float(np.median(second)) / 0.6745 / 6**0.5


def gains(arm: str, score: str) -> Callable[[Results], tuple[Values, Values]]:
    """Percent right that an arm gains in its steepest tenth, and that a logarithmic rise would."""

    def of(result: Result) -> tuple[float | None, float | None]:
        if result.diverged:
            return None, None
        at, values = curve_of(result, score)
        return 100 * steepest(at, values), 100 * steepest_of_logarithm(at, values)

    def made(results: Results) -> tuple[Values, Values]:
        found = {seed: of(result) for seed, result in results[arm].items()}
        return (
            {seed: gained for seed, (gained, _) in found.items()},
            {seed: smooth for seed, (_, smooth) in found.items()},
        )

    return made


def _steepest(at_P: np.ndarray, value_SP: np.ndarray) -> np.ndarray:
    """[S]; P points, S curves."""
    reach = WINDOW * at_P[-1] * (1 + 1e-9)
    most_S = np.full(len(value_SP), -np.inf)
    for start in range(len(at_P) - 1):
        end = int(np.searchsorted(at_P, at_P[start] + reach, side="right"))
        if end > start + 1:
            risen_S = value_SP[:, start + 1 : end].max(1) - value_SP[:, start]
            most_S = np.maximum(most_S, risen_S)
    return most_S
