"""Did a capability come in a jump, or has it risen all along?

A jump is a rise within a tenth of the run that stands out from the rest of it and takes half of all
the rise there is. The rest of the run is a smooth rise, and the null hypothesis is that it is all:

    value_i = a + b * g_k(t_i) + noise_i,    g_k(t) = (t^k - 1) / k, g_0 = log,    -1 <= k <= 2,

one power of the tokens read (Box and Cox 1964): straight, as the logarithm, levelling off, or
gaining speed. Against it stands the same with c * ramp added, c > 0, where the ramp goes from 0 to
1 within the window. Both are fitted by least squares over all k and all ramps, and the statistic is
the ratio of what they leave, as in a search for a change point (Andrews 1993). Its p-value is by
permutation: residuals of the smooth fit are put back on it in another order, in blocks as long as
the window so that what lasts in the noise lasts there too, and both are fitted again.

A score that is cut off (accuracy: only the best option counts) can jump where the model improves
smoothly (Schaeffer, Miranda and Koyejo 2023). Therefore both scores of the same items are judged
and `compare_jumps` says which of them jumped.

docs/evaluation.md has the rates of false alarms and of detection on made curves, measured by
`python -m benchmarks.jumps`. Two things to know before believing a jump: noise that lasts from
point to point makes p-values too small; and a gradual rise that is none of the null's shapes
(logistic) is told from a jump by its share of the rise alone, which noise can hide.

Nothing here knows of run folders: tokens may as well be steps, and a curve one seed's of many.

Shapes: P points, I items, M ramps, S curves that are judged at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from indexlm.errors import UserError

Array = np.ndarray[Any, Any]

WINDOW = 0.1
"""Share of the run within which a jump happens."""
LEAST_SHARE = 0.5
"""Share of the rise of the whole run that a jump has. A logistic curve has it if it comes from 10%
to 90% in less than a fifth of the run."""
LEVEL = 0.05
"""Largest p-value of a jump."""
DRAWS = 1000
FEWEST = 11
"""Points: of fewer, evenly apart, no two are within a tenth of the run."""
POWERS = np.linspace(-1, 2, 13)
NOTHING = 1e-12
"""Share of the squares of a curve that is rounding."""


@dataclass(frozen=True)
class Jump:
    """The rise of one curve that stands out most. `at`, `start`, `end`, `place` are in tokens."""

    at: float
    """The middle of the ramp."""
    start: float
    end: float
    size: float
    """What the ramp rises by, beyond the smooth rise; 0 where nothing stands out."""
    interval: tuple[float, float]
    """95%, of `size`."""
    place: tuple[float, float]
    """95%, of `at`."""
    share_of_total_rise: float
    """`size` over the largest rise of the fitted curve, at most 1."""
    p_value: float
    """How often a smooth rise with the same noise has a ramp that stands out as much."""
    found: bool
    """`p_value` is at most LEVEL and `share_of_total_rise` at least LEAST_SHARE."""


def jump(
    tokens: Sequence[float] | Array,
    values: Sequence[float] | Array,
    *,
    errors: Sequence[float] | Array | None = None,
    items: Array | None = None,
    window: float = WINDOW,
    draws: int = DRAWS,
    seed: int = 0,
) -> Jump:
    """Find the rise within `window` of the run that stands out most, and judge it.

    `tokens` ascend and are not negative. Higher `values` are better: give bits per byte with their
    sign turned. The intervals are a bootstrap over `items`, [P, I], whose means are `values`;
    without them over points with standard `errors`; without either, over the residuals of the fit.
    The same arguments give the same answer.

    Raises UserError for fewer than FEWEST points, tokens that do not ascend, values that are not
    finite, and points so far apart that no two of them are within a window.
    """
    at_P, value_P = np.asarray(tokens, float), np.asarray(values, float)
    _check(at_P, value_P, window)
    generator = np.random.default_rng(seed)
    ramps = _Ramps(at_P, window * (at_P[-1] - at_P[0]))
    level = float(value_P.mean())
    fit = ramps.fit((value_P - level)[None])
    smooth_P, risen_P = fit.smooth[0], ramps.curve(fit, value_P - level)

    block = max(1, round(window * len(at_P)))
    left_P = value_P - level - smooth_P
    null = ramps.fit(smooth_P + _shuffled(left_P, block, draws, generator))
    # The curve itself is one of those that the null could have made: never 0.
    as_much = int((null.ratio >= fit.ratio[0] * (1 - 1e-9)).sum())
    p_value = (1 + as_much) / (1 + draws)

    if items is not None:
        again_SP = _drawn_items(np.asarray(items, float), draws, generator) - level
    elif errors is not None:
        spread_P = np.asarray(errors, float)
        again_SP = value_P - level + spread_P * generator.standard_normal((draws, len(at_P)))
    else:
        # What five fitted numbers have taken out of the residuals.
        spread = (len(at_P) / (len(at_P) - 5)) ** 0.5
        again_SP = risen_P + spread * _shuffled(value_P - level - risen_P, 1, draws, generator)
    again = ramps.fit(again_SP)
    start, end = ramps.ends(fit)
    total = float((risen_P - np.minimum.accumulate(risen_P)).max())
    size = float(fit.size[0])
    share = min(1.0, size / total) if total > 0 else 0.0
    return Jump(
        at=float(start[0] + end[0]) / 2,
        start=float(start[0]),
        end=float(end[0]),
        size=size,
        interval=_middle(again.size),
        place=_middle(np.mean(ramps.ends(again), axis=0)),
        share_of_total_rise=share,
        p_value=p_value,
        found=p_value <= LEVEL and share >= LEAST_SHARE,
    )


Kind = Literal["both", "accuracy only", "continuous only", "neither"]


@dataclass(frozen=True)
class Comparison:
    """Which of two scores of the same items jumped, and what that means, in a sentence."""

    kind: Kind
    text: str


def compare_jumps(accuracy: Jump, continuous: Jump, name: str = "margin") -> Comparison:
    """Tell a jump of a capability from one that the sharpness of accuracy makes.

    `continuous` is the `name` (margin or probability of the right option) of the same items.
    """
    if accuracy.found and continuous.found:
        apart = accuracy.at - continuous.at
        width = max(accuracy.end - accuracy.start, continuous.end - continuous.start)
        when = "together" if abs(apart) <= width else f"the {name} first"
        if apart < -width:
            when = "accuracy first"
        return Comparison("both", f"Accuracy and {name} both jump, {when}: the capability does.")
    if accuracy.found:
        return Comparison(
            "accuracy only",
            f"Accuracy jumps and the {name} of the same items does not: the model improves "
            "gradually, and accuracy shows it once the right option comes out first.",
        )
    if continuous.found:
        return Comparison(
            "continuous only",
            f"The {name} jumps and accuracy does not: the model has changed at once, and not yet "
            "in which option comes out first.",
        )
    return Comparison("neither", f"Neither accuracy nor {name} jumps.")


@dataclass(frozen=True)
class _Fit:
    """The best smooth rise of each curve, [S, P], and the best one with a ramp, [S]."""

    smooth: Array
    ratio: Array
    """Squares left by the smooth rise over those left with a ramp, at least 1."""
    power: Array
    ramp: Array
    size: Array


class _Ramps:
    """Least squares of many curves over one set of points, for every power and ramp."""

    def __init__(self, at_P: Array, reach: float) -> None:
        self.at_P = at_P
        self.pairs = _pairs(at_P, reach)
        start_M, end_M = at_P[self.pairs.T]
        self.ramp_MP = np.clip((at_P - start_M[:, None]) / (end_M - start_M)[:, None], 0, 1)
        # The untrained model has read nothing; for the logarithm it stands half way to the next.
        above_P = np.where(at_P > 0, at_P, at_P[1] / 2) / at_P[-1]
        self.bases, self.beyond, self.norms = [], [], []
        centred_MP = self.ramp_MP - self.ramp_MP.mean(1, keepdims=True)
        for power in POWERS:
            shape_P = np.log(above_P) if power == 0 else (above_P**power - 1) / power
            base_P2, _ = np.linalg.qr(np.stack([np.ones_like(shape_P), shape_P], 1))
            beyond_MP = self.ramp_MP - (self.ramp_MP @ base_P2) @ base_P2.T
            norm_M = np.linalg.norm(beyond_MP, axis=1)
            # What the smooth rise can do as well is no ramp beside it.
            apart_M = norm_M > 1e-3 * np.linalg.norm(centred_MP, axis=1)
            norm_M = np.where(apart_M, norm_M, np.inf)
            self.bases.append(base_P2)
            self.beyond.append(beyond_MP / norm_M[:, None])
            self.norms.append(norm_M)

    def fit(self, value_SP: Array) -> _Fit:
        curves = len(value_SP)
        whole_S = np.square(value_SP).sum(1)
        smooth_SP = np.zeros_like(value_SP)
        least_S, less_S = np.full(curves, np.inf), np.full(curves, np.inf)
        power_S, ramp_S = np.zeros(curves, int), np.zeros(curves, int)
        size_S = np.zeros(curves)
        for power, (base_P2, beyond_MP) in enumerate(zip(self.bases, self.beyond)):
            part_S2 = value_SP @ base_P2
            left_S = whole_S - np.square(part_S2).sum(1)
            better_S = left_S < least_S
            least_S[better_S] = left_S[better_S]
            smooth_SP[better_S] = part_S2[better_S] @ base_P2.T
            along_SM = np.maximum(value_SP @ beyond_MP.T, 0)
            best_S = along_SM.argmax(1)
            along_S = along_SM[np.arange(curves), best_S]
            left_S = left_S - np.square(along_S)
            better_S = left_S < less_S
            less_S[better_S] = left_S[better_S]
            power_S[better_S], ramp_S[better_S] = power, best_S[better_S]
            size_S[better_S] = (along_S / self.norms[power][best_S])[better_S]
        floor_S = np.maximum(NOTHING * whole_S, np.finfo(float).tiny)
        ratio_S = np.maximum(least_S, floor_S) / np.maximum(less_S, floor_S)
        return _Fit(smooth_SP, ratio_S, power_S, ramp_S, size_S)

    def curve(self, fit: _Fit, value_P: Array) -> Array:
        """The fitted curve with its ramp, of the first curve of a fit."""
        risen_P = fit.size[0] * self.ramp_MP[fit.ramp[0]]
        base_P2 = self.bases[fit.power[0]]
        curve_P: Array = risen_P + ((value_P - risen_P) @ base_P2) @ base_P2.T
        return curve_P

    def ends(self, fit: _Fit) -> tuple[Array, Array]:
        """Tokens of the beginning and the end of each ramp, [S]."""
        start_S, end_S = self.at_P[self.pairs[fit.ramp].T]
        return start_S, end_S


def _pairs(at_P: Array, reach: float) -> Array:
    """Points between which a ramp can rise, [M, 2]: neighbours, half a window, a window apart."""
    pairs = []
    for start in range(len(at_P) - 1):
        far = int(np.searchsorted(at_P, at_P[start] + reach * (1 + 1e-9), side="right")) - 1
        if far > start:
            pairs += [(start, end) for end in sorted({start + 1, (start + 1 + far) // 2, far})]
    if not pairs:
        closest = float(np.diff(at_P).min())
        raise UserError(
            f"the points are {closest:,.0f} tokens and more apart, and a window is {reach:,.0f}; "
            "evaluate more often, or widen the window"
        )
    return np.array(pairs)


def _shuffled(left_P: Array, block: int, draws: int, generator: np.random.Generator) -> Array:
    """[S, P]: the residuals in blocks, from a random point on, in random order."""
    points = len(left_P)
    place_SP = np.empty((draws, points), int)
    for place_P in place_SP:
        ring = np.roll(np.arange(points), int(generator.integers(block)))
        parts = [ring[at : at + block] for at in range(0, points, block)]
        place_P[:] = np.concatenate([parts[number] for number in generator.permutation(len(parts))])
    shuffled_SP: Array = left_P[place_SP]
    return shuffled_SP


def _drawn_items(item_PI: Array, draws: int, generator: np.random.Generator) -> Array:
    """[S, P]: means over items drawn anew, the same ones at every point."""
    items = item_PI.shape[1]
    times_SI = generator.multinomial(items, np.full(items, 1 / items), draws)
    means_SP: Array = times_SI @ item_PI.T / items
    return means_SP


def _middle(values_S: Array) -> tuple[float, float]:
    low, high = np.quantile(values_S, (0.025, 0.975))
    return float(low), float(high)


def _check(at_P: Array, value_P: Array, window: float) -> None:
    assert at_P.shape == value_P.shape and at_P.ndim == 1
    assert 0 < window < 1
    if len(at_P) < FEWEST:
        raise UserError(
            f"a curve of {len(at_P)} points is too short to look for a jump in; {FEWEST} are the "
            "fewest"
        )
    for number, (before, after) in enumerate(pairwise(at_P)):
        if not 0 <= before < after:
            raise UserError(
                f"tokens have to ascend from 0: point {number} is at {before:g}, the next at "
                f"{after:g}"
            )
    if not np.isfinite(value_P).all():
        number = int(np.flatnonzero(~np.isfinite(value_P))[0])
        raise UserError(f"the value at {at_P[number]:g} tokens is {value_P[number]}, no number")
