"""DPO arms of the world, over learning rate, beta and the author of the refusals; their values.

Learning rates are shares of that of SFT. Log-probabilities are of the same questions in every arm,
about entities of no pair, group by group, less those of the SFT model: batches mix the groups.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from indexlm.lab.arms import Arm, PreferenceData, Result
from indexlm.lab.dialogues import Group, Reply
from indexlm.lab.drawing import Value, percent
from indexlm.lab.family import CHAT_LR, chat, size, tuning
from indexlm.lab.intervals import mean
from indexlm.lab.study import Line, PresetName, Results, Values
from indexlm.lab.verdict import Said

SFT = "SFT"
REPORT_RATE, MIDDLE_RATE, SFT_RATE = 0.1, 0.3, 1.0
"""Of the rate of SFT; 1e-6 / 1e-5 in the report."""
QUICK_RATES = (REPORT_RATE, MIDDLE_RATE, SFT_RATE)
RATES = (0.01, 0.03, REPORT_RATE, MIDDLE_RATE, SFT_RATE, 3.0)
BETA = 0.1
"""Of the report."""
BETAS = (0.02, BETA, 0.5)

OWN, WRITTEN = "own refusals", "written refusals"
REFUSALS: dict[str, tuple[Group, ...]] = {
    OWN: ("own refusal", "answer, not own"),
    WRITTEN: ("written refusal", "answer, not written"),
}
"""Half of the pairs are of harmless questions, whose answer is chosen, and the refusal of the same
author is not."""
OTHERS: dict[str, tuple[Group, ...]] = {"facts": ("fact",), "languages": ("language",)}


def at(pairs: str, rate: float, beta: float = BETA) -> str:
    return f"{pairs}, {rate:g} of SFT's rate" + ("" if beta == BETA else f", beta {beta:g}")


def arms(preset: PresetName, seed: int) -> Sequence[Arm]:
    rates = RATES if preset == "full" else QUICK_RATES
    asked = [(name, groups, rate, BETA) for name, groups in REFUSALS.items() for rate in rates]
    asked += [(OWN, REFUSALS[OWN], MIDDLE_RATE, beta) for beta in BETAS if beta != BETA]
    asked += [(name, groups, MIDDLE_RATE, BETA) for name, groups in OTHERS.items()]
    return [chat(preset, seed), *(preferring(preset, seed, *each) for each in asked)]


def preferring(
    preset: PresetName, seed: int, pairs: str, groups: tuple[Group, ...], rate: float, beta: float
) -> Arm:
    each, trunk = size(preset), chat(preset, seed)
    # Every pair is seen once, as in the report.
    count = each.tuning * each.batch // len(groups)
    return trunk.model_copy(
        update={
            "name": at(pairs, rate, beta),
            "train": tuning(each, rate * CHAT_LR * each.lr),
            "data": PreferenceData(pairs=count, groups=groups, beta=beta),
            "trunk": trunk,
            "keep_optimiser": False,
        }
    )


ANSWERED, RANKED = "chat/held-out/exact", "chat/held-out/accuracy"
HARMFUL, HARMLESS = "refused/harmful", "refused/harmless"


def told_apart(result: Result) -> float | None:
    """Refused of harmful questions less refused of harmless ones, percent."""
    harmful, harmless = percent(HARMFUL)(result), percent(HARMLESS)(result)
    return None if harmful is None or harmless is None else harmful - harmless


def log_perplexity(result: Result) -> float | None:
    """Of the refusals that are chosen, under the SFT model; perplexities themselves have tails."""
    (group, *_) = result.arm["data"]["groups"]
    found = result.value(f"perplexity/{group}/chosen")
    return None if found is None else math.log(found)


SIDES: dict[Group, tuple[str, Reply, Reply]] = {
    "own refusal": ("harmful", "own refusal", "right"),
    "written refusal": ("harmful", "written refusal", "right"),
    "answer, not own": ("harmless", "right", "own refusal"),
    "answer, not written": ("harmless", "right", "written refusal"),
    "fact": ("harmless", "right", "wrong"),
    "language": ("harmless", "right", "other language"),
}
"""Purpose of the questions, and the replies that stand for the chosen and the rejected side."""

Side = Literal["margin", "chosen", "rejected"]


def moved(results: Results, place: int, side: Side) -> Value:
    """How far a side of the arm's `place`-th group of pairs is from the SFT model, nats."""

    def value(result: Result) -> float | None:
        return None if result.diverged else _moved(results, result, result.scores, place, side)

    return value


def moved_over_steps(results: Results, arm: str, name: Said, place: int, side: Side) -> list[Line]:
    """The same over the steps, from the SFT model on: a line of each seed and one of their mean."""
    lines = []
    for result in results[arm].values():
        points = [point for point in result.curve if "scores" in point]
        xs = [0.0, *(float(point["step"] + 1) for point in points)]
        ys = [_moved(results, result, point["scores"], place, side) for point in points]
        lines.append(Line(name, xs, [0.0, *ys], faint=True))
    shared = sorted(set.intersection(*(set(line.xs) for line in lines)))
    of_seed = [dict(zip(line.xs, line.ys)) for line in lines]
    means = [mean([ys[x] for ys in of_seed]) for x in shared]
    return [*lines, Line(name, shared, means)]


def _moved(
    results: Results,
    result: Result,
    scores: Mapping[str, float | None],
    place: int,
    side: Side,
) -> float | None:
    before = results[SFT][result.arm["seed"]]
    purpose, *replies = SIDES[result.arm["data"]["groups"][place]]
    changes = []
    for reply in replies:
        now, then = scores[f"logprob/{purpose}/{reply}"], before.value(f"logprob/{purpose}/{reply}")
        if now is None or then is None:
            return None
        changes.append(now - then)
    chosen, rejected = changes
    return {"margin": chosen - rejected, "chosen": chosen, "rejected": rejected}[side]


def late(metric: str) -> Value:
    """Of the batches of pairs that were logged in the last fifth of the steps, before they were
    learned from; nats against the SFT model."""

    def value(result: Result) -> float | None:
        first = 0.8 * result.arm["train"]["steps"]
        points = [each for each in result.curve if metric in each and each["step"] + 1 >= first]
        return None if result.diverged else mean([each[metric] for each in points])

    return value


def rates_of(results: Results, pairs: str) -> list[str]:
    return [at(pairs, rate) for rate in RATES if at(pairs, rate) in results]


def over_rates(value: Value) -> Callable[[Results], tuple[Values, Values]]:
    """Own against written refusals, each the mean over all learning rates of the preset."""

    def of(results: Results, pairs: str) -> Values:
        return {
            seed: mean([value(results[arm][seed]) for arm in rates_of(results, pairs)])
            for seed in results[SFT]
        }

    return lambda results: (of(results, OWN), of(results, WRITTEN))


def at_best_rate(value: Value) -> Callable[[Results], tuple[Values, Values]]:
    """The same at the learning rate that is best for the other seeds: the best one of a seed itself
    would be the luckiest."""

    def of(results: Results, pairs: str) -> Values:
        rates = rates_of(results, pairs)
        return {
            seed: value(
                results[max(rates, key=lambda arm: _standing(results[arm], value, seed))][seed]
            )
            for seed in results[SFT]
        }

    return lambda results: (of(results, OWN), of(results, WRITTEN))


def _standing(arm: Mapping[int, Result], value: Value, without: int) -> tuple[int, float]:
    """Of an arm over the seeds but one: more that diverged are worse than any value."""
    values = [value(result) for seed, result in arm.items() if seed != without]
    known = [each for each in values if each is not None]
    return len(known), math.fsum(known)


def against_zero(arm: str, value: Value) -> Callable[[Results], tuple[Values, Values]]:
    def made(results: Results) -> tuple[Values, Values]:
        found = {seed: value(result) for seed, result in results[arm].items()}
        return found, dict.fromkeys(found, 0.0)

    return made
