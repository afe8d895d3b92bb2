"""The page of curves, from made points: what jumps is marked and said, what is too short is not."""

import re
from typing import Any

import numpy as np

from indexlm.report import curves as of_run
from indexlm.report.emergence import Curves, curve_page, judge

NAME = "mmlu/letters/logprob"
MILLION = 10**6


def line(stage: str, step: int, margin_I: np.ndarray, *, items: bool = True) -> dict[str, Any]:
    right_I = margin_I > 0
    probability_I = 1 / (1 + 3 * np.exp(-margin_I))
    scores = {
        f"{NAME}/accuracy": float(right_I.mean()),
        f"{NAME}/standard_error": float(right_I.std() / len(margin_I) ** 0.5),
        f"{NAME}/margin": float(margin_I.mean()),
        f"{NAME}/margin_standard_error": float(margin_I.std() / len(margin_I) ** 0.5),
        f"{NAME}/probability": float(probability_I.mean()),
        "mmlu/letters/chance": 0.25,
        "mmlu/letters/items": len(margin_I),
        "bits_per_byte/zh": 3 - step / 100,
    }
    kept = {
        "right": "".join("1" if right else "0" for right in right_I),
        "margin": margin_I.tolist(),
        "probability": probability_I.tolist(),
    }
    place = {"stage": stage, "step": step, "tokens": step * MILLION, "phase": ""}
    return place | {"scores": scores} | ({"items": {NAME: kept}} if items else {})


def made(jumps: bool, *, points: int = 30, items: bool = True) -> Curves:
    """A trunk and two decays; letters are learned at once, or bit by bit."""
    generator = np.random.default_rng(3)
    lines = []
    for step in range(1, points + 1):
        level = (2.0 if step > points / 2 else -1.5) if jumps else -1 + step / points
        stages = ["trunk"] if step <= 0.8 * points else ["base", "pure"]
        for stage in stages:
            margin_I = generator.normal(level, 1 if jumps else 4, size=80)
            lines.append(line(stage, step, margin_I, items=items))
    border = 0.8 * points * MILLION
    return Curves(lines, {"base": border, "pure": border})


def said(page: str) -> str:
    return re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)


def test_a_jump_is_marked_and_said_with_its_place() -> None:
    page = curve_page("made", made(jumps=True))
    told = said(page)
    assert f"{NAME} (base), at 15.5 M" in told and "Accuracy and margin both jump" in told
    assert "均有跃升" in told and "in the decay" not in told
    for word in ("Accuracy, logprob", "Margin, nats, logprob", "Probability, logprob"):
        assert word in page
    for word in ("stable", "decay", "trunk", "pure", "chance (25%)", "80 items"):
        assert word in page, word
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']+""", page)
    # The same points give the same bytes.
    assert page == curve_page("made", made(jumps=True))


def test_a_smooth_rise_is_said_to_be_none() -> None:
    told = said(curve_page("made", made(jumps=False)))
    assert "No accuracy and no continuous score jumps" in told
    assert "both jump" not in told


def test_every_way_to_an_end_is_judged() -> None:
    judged = judge(made(jumps=True)).found
    assert {end for end, _, _ in judged} == {"base", "pure"}
    assert {measure for _, _, measure in judged} == {"accuracy", "margin", "probability"}
    # What is kept of the items says the same as means with their errors.
    plain = judge(made(jumps=True, items=False)).found
    for place, found in judged.items():
        assert plain[place].size == found.size and plain[place].found == found.found


def test_few_points_are_drawn_and_not_judged() -> None:
    told = said(curve_page("made", made(jumps=True, points=8)))
    assert "No jump is looked for" in told and "8 points" in told


def test_a_folder_of_models_has_steps_and_no_phases() -> None:
    lines = [{**each, "stage": "models", "tokens": None} for each in made(jumps=True).lines[:20]]
    curves = Curves(lines, {})
    assert curves.unit == "step" and list(curves.histories()) == ["models"]
    page = curve_page("made", curves)
    assert ">step</text>" in page and ">decay</text>" not in page


def test_evaluations_inside_a_run_stand_at_what_it_had_read() -> None:
    """A branch that leaves its trunk early has not read the rest of it."""
    scores = made(jumps=True).lines[0]["scores"]

    def entries(first: int, last: int) -> list[dict[str, Any]]:
        steps = range(first, last)
        return [{"step": step, "tokens": 10, "scores": scores} for step in steps]

    metrics = {"trunk": entries(0, 6), "base": entries(4, 6), "pure": entries(6, 8)}
    found = of_run.scored(metrics)
    assert found.decay_from == {"base": 40, "pure": 60}
    tokens = {name: [each["tokens"] for each in lines] for name, lines in found.stages().items()}
    assert tokens == {
        "trunk": [10, 20, 30, 40, 50, 60],
        "base": [40, 50, 60],
        "pure": [60, 70, 80],
    }
    ways = {end: [each["tokens"] for each in way] for end, way in found.histories().items()}
    assert ways["base"] == [10, 20, 30, 40, 50, 60]
    assert ways["pure"] == [10, 20, 30, 40, 50, 60, 70, 80]
