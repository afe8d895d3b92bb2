"""Jumps in the scores of arms, and in the report's own curve."""

from collections.abc import Callable
from functools import lru_cache

from indexlm.evals.emergence import Jump, jump
from indexlm.lab.arms import Result
from indexlm.lab.study import Results, Values

REPORT_CURVE = {
    80: 26.34, 160: 25.15, 240: 26.88, 320: 26.57, 400: 25.2, 480: 26.24, 560: 26.93, 640: 27.62,
    720: 27.4, 800: 27.52, 880: 25.69, 960: 26.77, 1000: 28.46, 1040: 27.87, 1120: 30.39,
    1200: 30.79, 1280: 31.5, 1360: 33.4, 1440: 35.57, 1520: 33.11, 1600: 35.39, 1680: 35.85,
    1760: 33.39, 1840: 35.54, 1920: 35.75, 2000: 36.43, 2080: 37.16, 2160: 37.67, 2240: 36.69,
    2320: 35.85, 2400: 34.46, 2480: 34.51,
}  # fmt: skip
"""MMLU of the report's stable phase by billions of tokens, as its figure has it."""


def jump_of(result: Result, score: str) -> Jump:
    """The rise of one seed's curve that stands out most, at steps."""
    points = [point for point in result.curve if "scores" in point]
    at = tuple(point["step"] + 1 for point in points)
    return jump_in(at, tuple(point["scores"][score] for point in points))


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
    arm: str, treatment: str, control: str | float
) -> Callable[[Results], tuple[Values, Values]]:
    """Of two scores of the same runs, or of one score and a number."""

    def of(score: str | float, result: Result) -> float | None:
        if isinstance(score, str):
            return share_that_jumps(result, score)
        return None if result.diverged else score

    def made(results: Results) -> tuple[Values, Values]:
        return (
            {seed: of(treatment, result) for seed, result in results[arm].items()},
            {seed: of(control, result) for seed, result in results[arm].items()},
        )

    return made
