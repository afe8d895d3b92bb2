"""What answers say beyond their accuracy: liking of letters, confusion, calibration."""

from pathlib import Path

import numpy as np
import pytest
from made_results import Lines, answered, task, write_results

from indexlm.evals.results import marks
from indexlm.report import choices
from indexlm.report.result_files import Answers, read_answers


def answers_of(folder: Path, lines: Lines) -> Answers:
    results = write_results(folder, {"quiz": (task("quiz", "Quiz", {}), {"letters": lines})})
    micro = results["tasks"]["quiz"]["prompts"]["letters"]["micro"]
    return read_answers(folder, "quiz", "letters", micro)


def test_a_liking_for_a_letter_is_outside_of_its_band_and_none_is_inside(tmp_path: Path) -> None:
    for name, liking in (("fair", 0.0), ("biased", 1.0)):
        lines = answered({"quiz": 2000}, 0.5, liking, [3, 4], 4)
        bias = choices.letter_bias(answers_of(tmp_path / name, lines), "logprob")
        assert bias.expected_K.sum() == pytest.approx(1)
        assert bias.chosen_K.sum() == pytest.approx(1)
        beyond_K = np.abs(bias.chosen_K - bias.expected_K) > 1.5 * bias.band_K
        assert beyond_K.any() == (liking > 0)
        assert (bias.distance > 0.1) == (liking > 0)


def test_who_is_always_right_is_expected_to_choose_what_is_right(tmp_path: Path) -> None:
    bias = choices.letter_bias(
        answers_of(tmp_path / "a", answered({"quiz": 50}, 90.0, 0, [3, 4, 5], 4)), "logprob"
    )
    assert bias.expected_K == pytest.approx(bias.right_K)
    assert bias.chosen_K == pytest.approx(bias.right_K)
    assert bias.distance == pytest.approx(0) == bias.band_K.max()


def test_confusion_counts_every_item_once(tmp_path: Path) -> None:
    lines = answered({"quiz": 200}, 0.5, 0.5, [3, 4], 4)
    counts_KK = choices.confusion(answers_of(tmp_path / "a", lines), "logprob")
    by_hand = np.zeros((4, 4), int)
    for line in lines:
        by_hand[line["answer"], line["choices"]["logprob"]] += 1
    assert (counts_KK == by_hand).all()


def test_calibration_knows_the_sure_from_the_right(tmp_path: Path) -> None:
    """Options that are right as often as they are said to be, and the same with ten times the
    difference between their log-likelihoods."""
    dice = np.random.default_rng(3)
    lines = answered({"quiz": 4000}, 0.0, 0.0, [4], 4)
    for line in lines:
        logprobs = dice.normal(size=4)
        weights = np.exp(logprobs)
        line["logprobs"] = logprobs.tolist()
        line["answer"] = int(dice.choice(4, p=weights / weights.sum()))
    fair = choices.calibration(answers_of(tmp_path / "fair", lines))
    for line in lines:
        line["logprobs"] = [10 * score for score in line["logprobs"]]
    sure = choices.calibration(answers_of(tmp_path / "sure", lines))
    assert fair.error < 0.03 and sure.error > 0.3
    assert fair.items_B.sum() == sure.items_B.sum() == 4000
    assert fair.right_B.sum() == sure.right_B.sum()


def test_margins_and_the_surely_wrong_are_those_of_the_lines(tmp_path: Path) -> None:
    lines = answered({"quiz": 60}, 0.3, 0.5, [3, 4], 4)
    found = answers_of(tmp_path / "a", lines)
    assert found.margin_N == pytest.approx(marks(lines, "logprob").margin)

    def sureness(index: int) -> float:
        weights = np.exp(lines[index]["logprobs"])
        return float(weights.max() / weights.sum())

    wrong = [at for at, line in enumerate(lines) if line["choices"]["logprob"] != line["answer"]]
    expected = sorted(wrong, key=sureness, reverse=True)[:10]
    assert choices.surely_wrong(found) == expected
