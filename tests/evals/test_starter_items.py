"""The starter test is fair: no rule about form picks the right option, and the seed fixes it."""

import random

import numpy as np
import pytest

from indexlm.evals import starter
from indexlm.evals.starter import (
    CHANCE,
    MAX_SHARED_PAIRS,
    NEUTRAL,
    STYLES,
    HeldOutEntry,
    Item,
    build_items,
    item_lines,
    score_items,
    shared_characters,
    summarise,
    within_chance,
)
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 400)]


def make_entries(count: int, kind: str = "idiom") -> list[HeldOutEntry]:
    """Entries of random characters, 6 to 30 long; a third repeats a character of the word."""
    rng = random.Random(7)
    entries: list[HeldOutEntry] = []
    for number in range(count):
        word = "".join(rng.sample(CHARACTERS, 4))
        told = "".join(rng.sample(CHARACTERS, rng.randrange(6, 30)))
        if number % 3 == 0:
            told += word[0]
        entries.append(
            {"id": f"{kind}/{number:04}", "kind": kind, "word": word, "explanation": f"{told}。"}
        )
    return entries


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return build_items(make_entries(200) + make_entries(120, "word"), 200, seed=1)


def test_items_ask_for_the_explanation_of_the_word(items: list[Item]) -> None:
    entries = {e["id"]: e for e in make_entries(200) + make_entries(120, "word")}
    for item in items:
        entry = entries[item.id]
        assert item.context == entry["word"] + "："
        assert len(set(item.options)) == 4
        assert item.options[item.answer] == entry["explanation"]
        others = {e["explanation"] for e in entries.values() if e["kind"] == item.kind}
        assert set(item.options) <= others


def test_comparing_characters_or_lengths_does_not_answer(items: list[Item]) -> None:
    longest = shortest = 0
    for item in items:
        word = item.context.removesuffix("：")
        assert len({shared_characters(word, option) for option in item.options}) == 1
        lengths = [len(option) for option in item.options]
        right = lengths[item.answer]
        assert all(abs(length - right) <= max(4, 0.3 * right) for length in lengths)
        longest += right == max(lengths)
        shortest += right == min(lengths)
    # Ties make both a little more frequent than chance.
    assert 0.15 < longest / len(items) < 0.4
    assert 0.15 < shortest / len(items) < 0.4


def test_no_wrong_option_retells_the_right_one() -> None:
    entries = make_entries(60)
    twin: HeldOutEntry = {**entries[0], "id": "idiom/twin", "word": "风花雪月"}
    twin["explanation"] = entries[0]["explanation"][:-2] + "也。"
    for item in build_items([*entries, twin], 100, seed=3):
        pairs = [{o[at : at + 2] for at in range(len(o) - 1)} for o in item.options]
        for other in range(4):
            if other != item.answer:
                shared = len(pairs[other] & pairs[item.answer])
                limit = MAX_SHARED_PAIRS * min(len(pairs[other]), len(pairs[item.answer]))
                assert shared <= limit


def test_the_seed_fixes_items_and_answers(items: list[Item]) -> None:
    entries = make_entries(200) + make_entries(120, "word")
    assert build_items(entries[::-1], 200, seed=1) == items
    assert build_items(entries, 200, seed=2) != items
    few = build_items(entries, 10, seed=1)
    idioms = [item for item in items if item.kind == "idiom"]
    assert [item for item in few if item.kind == "idiom"] == idioms[:10]
    places = np.bincount([item.answer for item in items], minlength=4)
    assert places.min() > len(items) / 8


def test_too_few_entries_make_no_item() -> None:
    assert build_items(make_entries(3), 10, seed=1) == []
    assert summarise([], {style: np.zeros((0, 4)) for style in STYLES}) == {}


def test_each_style_normalises_as_it_says(
    model: Transformer, tokenizer: Tokenizer, items: list[Item]
) -> None:
    item = items[0]
    scores = score_items(model, tokenizer, [item])
    told = starter.loglikelihood(model, tokenizer, [(item.context, o) for o in item.options])
    alone = starter.loglikelihood(model, tokenizer, [(NEUTRAL, o) for o in item.options])
    for place, option in enumerate(item.options):
        logprob = told[place].logprob
        tokens, size = len(tokenizer.encode(option)), len(option.encode())
        assert scores["per_token"][0, place] == pytest.approx(logprob / tokens, abs=1e-4)
        assert scores["per_byte"][0, place] == pytest.approx(logprob / size, abs=1e-4)
        assert scores["pmi"][0, place] == pytest.approx(logprob - alone[place].logprob, abs=1e-4)


def test_a_model_that_knows_and_one_that_guesses(items: list[Item]) -> None:
    answers = np.array([item.answer for item in items])
    knowing = np.zeros((len(items), 4))
    knowing[np.arange(len(items)), answers] = 2.0
    guessing = np.random.default_rng(0).normal(size=(len(items), 4))
    constant = np.zeros((len(items), 4))
    scores = {"per_token": knowing, "per_byte": guessing, "pmi": constant}
    for kind, summary in summarise(items, scores).items():
        count = sum(item.kind == kind for item in items)
        assert summary["items"] == count and summary["chance"] == CHANCE
        assert summary["per_token"] == {
            "accuracy": 1.0,
            "standard_error": 0.0,
            "margin": 2.0,
            "margin_standard_error": 0.0,
        }
        guess = summary["per_byte"]
        assert abs(guess["accuracy"] - CHANCE) < 4 * guess["standard_error"]
        assert guess["margin"] < 0
        assert summary["pmi"]["accuracy"] == 0


def test_lines_say_which_option_was_chosen(items: list[Item]) -> None:
    """None where the best two tie: a model that tells nothing apart has chosen nothing."""
    scores = {style: np.random.default_rng(0).normal(size=(len(items), 4)) for style in STYLES}
    scores["pmi"][:, 1:] = scores["pmi"][:, :1]
    lines = item_lines(items, scores)
    assert [line["id"] for line in lines] == [item.id for item in items]
    summary = summarise(items, scores)
    for kind, found in summary.items():
        own = [line for line in lines if line["subject"] == kind]
        for style in ("per_token", "pmi"):
            right = [line["choices"][style] == line["answer"] for line in own]
            assert sum(right) / len(own) == found[style]["accuracy"]
    assert all(line["choices"]["pmi"] is None for line in lines)
    assert len({line["prompt_sha256"] for line in lines}) == len(lines)


@pytest.mark.parametrize(
    ("right", "items", "expected"),
    [
        (0, 10, True),
        (5, 10, True),
        (6, 10, False),
        (16, 100, False),
        (17, 100, True),
        # Of the normal distribution in place of the binomial one, 33 and 89 would be the last.
        (34, 100, True),
        (35, 100, False),
        (90, 300, True),
        (91, 300, False),
    ],
)
def test_chance_is_the_range_of_a_guesser(right: int, items: int, expected: bool) -> None:
    """Either tail of the binomial distribution, as benchmarks have it."""
    assert within_chance(right / items, items) is expected
