"""The counts tell loops and the wrong language from good text."""

import json
import math
from collections.abc import Sequence

import pytest

from indexlm.evals.samples import (
    CONTINUATIONS,
    MEASURES,
    PROMPTS,
    QUERIES,
    Prompt,
    Sample,
    distinct,
    draw_samples,
    generation_table,
    generation_test,
    language_share,
    measure_samples,
    repetition,
)
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import EOS, Tokenizer

GOOD_ZH = "春天来了，河边的柳树发出新芽，孩子们在草地上奔跑。"
GOOD_EN = "The river was wide and slow, and in the evening the boats came home."


def test_prompts_ask_for_both_languages_alike() -> None:
    for prompts in (CONTINUATIONS, QUERIES, *PROMPTS.values()):
        assert len(set(prompts)) == len(prompts)
        languages = [prompt.language for prompt in prompts]
        assert languages.count("zh") == languages.count("en") == len(prompts) / 2
        for prompt in prompts:
            assert language_share(prompt.text, prompt.language) > 0.5


def test_the_prompts_for_reading_are_among_the_forty_that_are_counted() -> None:
    for few, kind in ((CONTINUATIONS, "continuations"), (QUERIES, "queries")):
        assert len(few) == 8 and len(PROMPTS[kind]) == 40
        assert set(few) <= set(PROMPTS[kind])


def test_samples_keep_prompt_and_text_together() -> None:
    samples = draw_samples(lambda text: text.upper(), CONTINUATIONS)
    assert [sample.prompt for sample in samples] == list(CONTINUATIONS)
    assert all(sample.text == sample.prompt.text.upper() for sample in samples)


@pytest.mark.parametrize(
    ("text", "zh", "en"),
    [(GOOD_ZH, 1, 0), (GOOD_EN, 0, 1), ("好ok", 1 / 3, 2 / 3), ("123，。!", 0, 0), ("", 0, 0)],
)
def test_language_is_that_of_the_letters(text: str, zh: float, en: float) -> None:
    assert language_share(text, "zh") == pytest.approx(zh)
    assert language_share(text, "en") == pytest.approx(en)


def test_loops_show() -> None:
    for good in (GOOD_ZH, GOOD_EN):
        assert repetition(good) == 0
        assert distinct(good, 2) > 0.9
        assert repetition(good * 5) > 0.7
        assert distinct(good * 5, 2) < 0.3
    # Six 4-grams of two kinds: 一二一二 and 二一二一.
    assert repetition("一二一二一二一二一") == pytest.approx(4 / 6)
    assert distinct("the the THE the", 2) == pytest.approx(1 / 3)
    assert [distinct("一二一二一", size) for size in (1, 2, 3, 9)] == [2 / 5, 2 / 4, 2 / 3, 1]


def test_an_empty_answer_is_not_a_good_one() -> None:
    zh = Prompt("zh", "山：")
    measures = measure_samples([Sample(zh, GOOD_ZH), Sample(zh, " "), Sample(QUERIES[-1], "")])
    assert measures["zh"]["empty"] == 0.5
    assert measures["zh"]["in_language"] == 0.5
    assert measures["zh"]["repetition"] == 0
    assert measures["zh"]["distinct_2"] > 0.9
    assert measures["zh"]["length"] == 22
    assert measures["en"] == {measure: float(measure == "empty") for measure in MEASURES}


def test_shares_count_texts_over_their_bounds() -> None:
    zh = Prompt("zh", "山：")
    looping = GOOD_ZH[:5] + "来了又去了" * 20
    samples = [Sample(zh, text) for text in (GOOD_ZH, GOOD_ZH * 2, looping, GOOD_EN)]
    (measures,) = measure_samples(samples).values()
    assert measures["loop"] == 2 / 4
    assert measures["mismatch"] == 1 / 4
    twice = measure_samples(samples[1:2])["zh"]
    assert 0.4 < twice["distinct_1"] < twice["distinct_2"] < twice["distinct_3"] < 0.6


@pytest.mark.parametrize("kind", ["continuations", "queries"])
def test_generation_asks_every_prompt_as_its_kind_is_asked(tokenizer: Tokenizer, kind: str) -> None:
    asked: list[list[int]] = []

    def answer(prompts: Sequence[list[int]]) -> list[list[int]]:
        asked.extend(prompts)
        return [tokenizer.encode(GOOD_ZH) for _ in prompts]

    result = generation_test(tokenizer, answer, kind)
    assert json.loads(json.dumps(result)) == result
    for ids, prompt, text in zip(asked, PROMPTS[kind], result["texts"], strict=True):
        plain = [EOS, *tokenizer.encode(prompt.text)]
        chat = prompt_ids(tokenizer, Conversation("", (), prompt.text))
        assert ids == (plain if kind == "continuations" else chat)
        told = {"language": prompt.language, "prompt": prompt.text, "text": GOOD_ZH}
        assert text == told
    zh, en = result["languages"]["zh"], result["languages"]["en"]
    assert zh["samples"] == en["samples"] == 20
    assert zh["in_language"] == {"value": 1, "standard_error": 0}
    assert (zh["mismatch"]["value"], en["mismatch"]["value"]) == (0, 1)


def test_errors_are_those_of_a_mean_over_prompts(tokenizer: Tokenizer) -> None:
    """Five of twenty answers are in English: 0.25 +- sqrt(0.25 x 0.75 / 19)."""

    def answer(prompts: Sequence[list[int]]) -> list[list[int]]:
        return [tokenizer.encode(GOOD_EN if n % 4 == 0 else GOOD_ZH) for n in range(len(prompts))]

    found = generation_test(tokenizer, answer, "queries")["languages"]["zh"]["mismatch"]
    assert found["value"] == 0.25
    assert found["standard_error"] == pytest.approx(math.sqrt(0.25 * 0.75 / 19))


def test_the_table_tells_what_was_not_written(tokenizer: Tokenizer) -> None:
    written = generation_test(
        tokenizer, lambda ps: [tokenizer.encode(GOOD_ZH)] * len(ps), "queries"
    )
    lines = generation_table(written).splitlines()
    assert lines[0].split() == ["writing,", "queries,", "%", "zh", "en"]
    cells = {line.rsplit("  ", 2)[0].strip(): line.split()[-4:] for line in lines[1:-1]}
    assert len(cells) == len(MEASURES)
    assert cells[MEASURES["mismatch"]] == ["0.0", "±0.0", "100.0", "±0.0"]
    assert cells[MEASURES["length"]] == ["22.0", "±0.0", "22.0", "±0.0"]
    silent = generation_table(generation_test(tokenizer, lambda ps: [[] for _ in ps], "queries"))
    assert [line.split()[-2:] for line in silent.splitlines() if "loops" in line] == [["-", "-"]]
