"""What the answers to a benchmark say of a model beyond how many are right.

Shapes: N items, K the most options of any item, B bins of probability.
"""

from dataclasses import dataclass

import numpy as np

from indexlm.evals.results import NORMAL
from indexlm.report.result_files import Answers

BINS = 10
"""Of equal width, as Guo et al. (2017) bin probabilities."""


@dataclass(frozen=True)
class LetterBias:
    """Shares of the items by option, A first; all float64 [K]."""

    right_K: np.ndarray
    chosen_K: np.ndarray
    expected_K: np.ndarray
    """Chosen shares of a model that is right as often, and whose errors prefer no letter."""
    band_K: np.ndarray
    """95% of such a model's shares are within `expected_K` plus or minus this."""

    @property
    def distance(self) -> float:
        """Total variation between chosen and expected shares: the share of answers that would
        have to change for no letter to be preferred."""
        return float(np.abs(self.chosen_K - self.expected_K).sum() / 2)


@dataclass(frozen=True)
class Calibration:
    """Of the bins that hold items: how many, how many of them are right, and the mean probability
    of the chosen options; each [B]."""

    items_B: np.ndarray
    right_B: np.ndarray
    probability_B: np.ndarray

    @property
    def accuracy_B(self) -> np.ndarray:
        return np.asarray(self.right_B / self.items_B)

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al. 2015): |accuracy - probability|, weighted."""
        gap_B = np.abs(self.accuracy_B - self.probability_B)
        return float((self.items_B * gap_B).sum() / self.items_B.sum())


def letter_bias(answers: Answers, way: str) -> LetterBias:
    """Right and chosen shares of each option's place, beside what equal errors would give.

    An item with n options, of accuracy a overall, is expected to be answered by its right option
    with probability a and by each other one with (1 - a) / (n - 1).
    """
    chosen_N, options_N = answers.chosen[way], answers.options_N
    N, K = answers.logprob_NK.shape
    places_K = np.arange(K)
    accuracy = (chosen_N == answers.answer_N).mean()
    wrong_N = (1 - accuracy) / np.maximum(options_N - 1, 1)
    expected_NK = np.where(places_K < options_N[:, None], wrong_N[:, None], 0.0)
    expected_NK[np.arange(N), answers.answer_N] = accuracy
    spread_K = np.sqrt((expected_NK * (1 - expected_NK)).sum(0)) / N
    return LetterBias(
        right_K=np.bincount(answers.answer_N, minlength=K) / N,
        chosen_K=np.bincount(chosen_N, minlength=K) / N,
        expected_K=expected_NK.mean(0),
        band_K=NORMAL * spread_K,
    )


def confusion(answers: Answers, way: str) -> np.ndarray:
    """int64 [K, K]: items by right option (row) and chosen option (column)."""
    K = answers.logprob_NK.shape[1]
    pair_N = answers.answer_N * K + answers.chosen[way]
    return np.bincount(pair_N, minlength=K * K).reshape(K, K)


def probabilities(answers: Answers) -> np.ndarray:
    """float64 [N, K]: each option's share of the probability of all options of its item."""
    weight_NK = np.exp(answers.logprob_NK - answers.logprob_NK.max(1, keepdims=True))
    return np.asarray(weight_NK / weight_NK.sum(1, keepdims=True))


def calibration(answers: Answers) -> Calibration:
    """Probability of the most likely option against how often it is the right one."""
    probability_N = probabilities(answers).max(1)
    right_N = answers.chosen["logprob"] == answers.answer_N
    bin_N = np.minimum((probability_N * BINS).astype(int), BINS - 1)
    items_B = np.bincount(bin_N, minlength=BINS)
    right_B = np.bincount(bin_N[right_N], minlength=BINS)
    sum_B = np.bincount(bin_N, probability_N, BINS)
    held_B = items_B > 0
    return Calibration(items_B[held_B], right_B[held_B], (sum_B[held_B] / items_B[held_B]))


def surely_wrong(answers: Answers, most: int = 10) -> list[int]:
    """Indices of the wrongly answered items whose chosen option is most probable, that first."""
    probability_N = probabilities(answers).max(1)
    wrong_W = np.flatnonzero(answers.chosen["logprob"] != answers.answer_N)
    # A stable sort: of equally probable ones the first of the file.
    order_W = np.argsort(-probability_N[wrong_W], kind="stable")
    return [int(index) for index in wrong_W[order_W][:most]]
