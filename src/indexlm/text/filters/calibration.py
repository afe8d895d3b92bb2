"""From logits and labels to chances and thresholds, and what those are worth.

Shapes: N documents.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexlm.errors import UserError
from indexlm.text.filters.linear import Calibration, Cut, equal_shares, sigmoid

LOST = (0.001, 0.01, 0.05)
"""Shares of good documents whose thresholds are reported beside the conservative one."""
BINS = 10
"""Of the calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class Judged:
    """Logits of documents and their labels."""

    logits_N: NDArray[np.float64]
    good_N: NDArray[np.bool_]


def calibrated(
    language: str, setting: Judged, unseen: Judged, max_lost: float, documents: dict[str, int]
) -> Calibration:
    """Probabilities and thresholds from one part, what they are worth from another."""
    for part in (setting, unseen):
        if not 0 < part.good_N.sum() < len(part.good_N):
            raise UserError(
                f"{language}: the held-out part has {part.good_N.sum()} good documents of "
                f"{len(part.good_N)}; give more --good and --bad"
            )
    slope, offset = _platt(setting)
    if slope <= 0:
        chance = auc(unseen.logits_N, unseen.good_N)
        raise UserError(
            f"{language}: --good and --bad cannot be told apart (AUC {chance:.3f} on held-out "
            "documents); check that the files are what they should be"
        )
    setting, unseen = (
        Judged(slope * part.logits_N + offset, part.good_N) for part in (setting, unseen)
    )
    good = np.sort(setting.logits_N[setting.good_N])
    # Above even odds a document is more likely good: no threshold is worth dropping it.
    cuts = [("conservative", min(_quantile(good, max_lost), 0.0))]
    cuts += [(f"{lost:.1%} of good lost", _quantile(good, lost)) for lost in LOST]
    cuts.append(("even odds", 0.0))
    return Calibration(
        slope=slope,
        offset=offset,
        documents=documents,
        auc=auc(unseen.logits_N, unseen.good_N),
        calibration_error=_calibration_error(unseen),
        cuts=tuple(_cut(name, threshold, unseen) for name, threshold in cuts),
    )


def _quantile(sorted_N: NDArray[np.float64], share: float) -> float:
    """The value below which at most this share lies."""
    return float(sorted_N[int(share * len(sorted_N))])


def _cut(name: str, threshold: float, judged: Judged) -> Cut:
    low_N = judged.logits_N < threshold
    lost = float(low_N[judged.good_N].mean())
    caught = float(low_N[~judged.good_N].mean())
    precision = caught / (caught + lost) if caught + lost else 1.0
    return Cut(
        name=name, threshold=threshold, good_lost=lost, bad_caught=caught, precision=precision
    )


def auc(logits_N: NDArray[np.float64], good_N: NDArray[np.bool_]) -> float:
    """The chance that a good document has the higher logit (Mann and Whitney 1947); ties count
    half."""
    _, index, counts = np.unique(logits_N, return_inverse=True, return_counts=True)
    ranks_N = (np.cumsum(counts) - (counts - 1) / 2)[index]
    good = int(good_N.sum())
    rank_sum = float(ranks_N[good_N].sum())
    return (rank_sum - good * (good + 1) / 2) / (good * (len(good_N) - good))


def _platt(judged: Judged) -> tuple[float, float]:
    """Slope and offset of the logistic regression of the label on the logit, both labels weighing
    the same, by Newton's method; targets are drawn in from 0 and 1 as in Platt (1999)."""
    good_N = judged.good_N
    shares_N = equal_shares(good_N.tolist())
    counts = {label: int((good_N == label).sum()) for label in (True, False)}
    ends = ((counts[True] + 1) / (counts[True] + 2), 1 / (counts[False] + 2))
    targets_N = np.where(good_N, *ends)
    deviation = float(judged.logits_N.std()) or 1.0
    inputs_N2 = np.stack([judged.logits_N / deviation, np.ones(len(good_N))], axis=1)
    parameters = np.zeros(2)
    for _ in range(100):
        chances_N = sigmoid(inputs_N2 @ parameters)
        gradient = inputs_N2.T @ (shares_N * (chances_N - targets_N))
        curvature_N = shares_N * chances_N * (1 - chances_N)
        hessian = (inputs_N2 * curvature_N[:, None]).T @ inputs_N2 + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # Where labels are told apart almost perfectly, a whole step can leap out of all bounds.
        parameters -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return float(parameters[0]) / deviation, float(parameters[1])


def _calibration_error(judged: Judged) -> float:
    """Mean distance of stated and true chance over bins of the stated one, labels weighing the
    same."""
    shares_N = equal_shares(judged.good_N.tolist())
    chances_N = sigmoid(judged.logits_N)
    bins_N = np.minimum((chances_N * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins_N, weights=shares_N * (chances_N - judged.good_N), minlength=BINS)
    return float(np.abs(gaps).sum() / shares_N.sum())
