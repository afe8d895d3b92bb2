"""The counts tell loops and the wrong language from good text."""

import pytest

from indexlm.evals.samples import (
    CONTINUATIONS,
    QUERIES,
    Prompt,
    Sample,
    distinct_2,
    draw_samples,
    language_share,
    measure_samples,
    repetition,
)

GOOD_ZH = "春天来了，河边的柳树发出新芽，孩子们在草地上奔跑。"
GOOD_EN = "The river was wide and slow, and in the evening the boats came home."


def test_prompts_ask_for_both_languages_alike() -> None:
    for prompts in (CONTINUATIONS, QUERIES):
        languages = [prompt.language for prompt in prompts]
        assert languages.count("zh") == languages.count("en") == len(prompts) / 2
        for prompt in prompts:
            assert language_share(prompt.text, prompt.language) > 0.5


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
        assert distinct_2(good) > 0.9
        assert repetition(good * 5) > 0.7
        assert distinct_2(good * 5) < 0.3
    # Six 4-grams of two kinds: 一二一二 and 二一二一.
    assert repetition("一二一二一二一二一") == pytest.approx(4 / 6)
    assert distinct_2("the the THE the") == pytest.approx(1 / 3)


def test_an_empty_answer_is_not_a_good_one() -> None:
    zh = Prompt("zh", "山：")
    measures = measure_samples([Sample(zh, GOOD_ZH), Sample(zh, " "), Sample(QUERIES[-1], "")])
    assert measures["zh"]["empty"] == 0.5
    assert measures["zh"]["in_language"] == 0.5
    assert measures["zh"]["repetition"] == 0
    assert measures["zh"]["distinct_2"] > 0.9
    assert measures["en"] == {"in_language": 0, "repetition": 0, "distinct_2": 0, "empty": 1}
