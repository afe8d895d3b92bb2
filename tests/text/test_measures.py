"""Each measure of a block is what counting in the text by hand gives."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.text.block import Block
from indexlm.text.document import Document
from indexlm.text.filters.measures import (
    CODE_GRAM,
    HAN_GRAM,
    LONG_RUN,
    MIN_GRAMS,
    SHORT_HAN_LINE,
    SHORT_LINE,
    WORD_GRAM,
    Measures,
)
from indexlm.text.normalise import normalise

LETTERS = ["the", "net", "of", "storm", "a1", "f0", "12", "中", "文", "的"]
MARKS = ["。", "，", ", ", ". ", "!", "!!", "……", "——", "...", "#", "{", "{x}"]
LAYOUT = ["\n", "\n\n", " ", "- ", "• "]
PIECES = st.sampled_from([*LETTERS, *MARKS, *LAYOUT])
TEXTS = st.lists(PIECES, max_size=120).map("".join).map(normalise).filter(bool)
DOCUMENTS = st.lists(
    st.tuples(TEXTS, st.sampled_from(["zh", "en", "code"])), min_size=1, max_size=4
)


def measures(*documents: tuple[str, str]) -> Measures:
    return Measures(
        Block(
            [
                Document(f"t/{n}", text, "t", language, "ordinary")
                for n, (text, language) in enumerate(documents)
            ]
        )
    )


def visible(text: str) -> int:
    return len("".join(text.split()))


def filled(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


@given(DOCUMENTS)
def test_repeated_grams(documents: list[tuple[str, str]]) -> None:
    for (text, language), share in zip(documents, measures(*documents).repeated_gram_shares_N):
        grams = []
        for unit in re.finditer("[a-z]+|[中文的]", text):
            length = WORD_GRAM if unit[0].isascii() else HAN_GRAM
            length = CODE_GRAM if language == "code" else length
            grams.append(text[unit.start() : unit.start() + length])
        expected = 1 - len(set(grams)) / len(grams) if len(grams) >= MIN_GRAMS else 0
        assert share == pytest.approx(expected)


@given(DOCUMENTS)
def test_repeated_lines(documents: list[tuple[str, str]]) -> None:
    for (text, _), share in zip(documents, measures(*documents).repeated_line_shares_N):
        lines = filled(text)
        expected = 1 - sum(map(len, set(lines))) / sum(map(len, lines)) if len(lines) >= 3 else 0
        assert share == pytest.approx(expected)


@given(DOCUMENTS)
def test_lines(documents: list[tuple[str, str]]) -> None:
    made = measures(*documents)
    for number, (text, language) in enumerate(documents):
        lines = filled(text)
        count = max(len(lines), 1)
        short = SHORT_HAN_LINE if language == "zh" else SHORT_LINE
        assert made.lines_N[number] == len(lines)
        assert made.short_shares_N[number] == sum(len(line) < short for line in lines) / count
        ended = [line for line in lines if line[-1] in "。，,.!…—-"]
        assert made.ended_shares_N[number] == len(ended) / count
        cut = [line for line in lines if line.endswith(("...", "…"))]
        assert made.ellipsis_shares_N[number] == len(cut) / count
        bullets = [line for line in lines if line.startswith(("- ", "•"))]
        assert made.bullet_shares_N[number] == len(bullets) / count
        assert made.mean_lines_N[number] == pytest.approx(sum(map(len, lines)) / count)
        long = sum(len(line) for line in lines if len(line) > 20) / max(sum(map(len, lines)), 1)
        assert made.long_line_shares_N(20)[number] == pytest.approx(long)


@given(DOCUMENTS)
def test_words_and_tokens(documents: list[tuple[str, str]]) -> None:
    made = measures(*documents)
    for number, (text, _) in enumerate(documents):
        tokens = text.split()
        lettered = [token for token in tokens if re.search("[a-z]", token)]
        assert made.tokens_N[number] == len(tokens)
        assert made.lettered_shares_N[number] == len(lettered) / max(len(tokens), 1)
        words = re.findall("[a-z]+", text)
        assert made.words_N[number] == len(words)
        stops = sum(word in ("the", "of") for word in words)
        assert made.stop_word_shares_N[number] == stops / max(len(words), 1)
        han = len(re.findall("[中文的]", text))
        assert made.stop_character_shares_N[number] == text.count("的") / max(han, 1)


@given(DOCUMENTS)
def test_shares_of_characters(documents: list[tuple[str, str]]) -> None:
    made = measures(*documents)
    for number, (text, _) in enumerate(documents):
        whole = max(visible(text), 1)
        assert made.visible_N[number] == visible(text)
        digits = len(re.findall(r"\d", text))
        assert made.digit_shares_N[number] == pytest.approx(digits / whole)
        named = len(re.findall(r"[\w]", text))
        assert made.alphanumeric_shares_N[number] == pytest.approx(named / whole)


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("abc", 0),
        ("a#c@", 2),
        ("wait!!!!", 3),
        ("好的……再见——完", 0),
        ("好的…………完", 2),
        ("等等。。。。", 3),
    ],
)
def test_symbols(text: str, symbols: int) -> None:
    assert measures((text, "zh")).symbol_shares_N[0] == pytest.approx(symbols / len(text))


def test_a_mark_does_not_repeat_what_ends_the_document_before() -> None:
    shares = measures(("yes!", "en"), ("!no", "en")).symbol_shares_N
    assert shares.tolist() == [0, 0]


def test_runs_are_counted_from_their_length_on_and_within_a_document() -> None:
    run = "Ab9+" * (LONG_RUN // 4)
    made = measures((run[:-1], "en"), (run, "en"), (f"the {run} net", "en"), (run[:30], "en"))
    assert made.run_shares_N.tolist() == [0, 1, pytest.approx(LONG_RUN / (LONG_RUN + 6)), 0]


@pytest.mark.parametrize(
    ("text", "share"),
    [("3f 2a 1b 00 c9", 1), ("1921 1922 1923", 0), ("a bad cafe faded", 0), ("net 12 a", 4 / 6)],
)
def test_hexadecimal_numbers(text: str, share: float) -> None:
    assert measures((text, "code")).hex_shares_N[0] == share


def test_brackets_of_programs_are_told_from_those_of_formulas() -> None:
    formula, program = r"\frac{1}{x_{2}}", "if (a) {b} else {c}"
    shares = measures((formula, "en"), (program, "en")).bracket_shares_N
    assert shares.tolist() == [0, pytest.approx(2 / visible(program))]


def test_a_phrase_of_another_document_is_no_repetition() -> None:
    """Nor is one that differs by a letter as the documents do by their place in the block."""
    tails = [f"{number:05b}".translate({48: "m", 49: "n"}) + "o" * 20 for number in range(30)]
    texts = [" ".join(first + tail for tail in tails) for first in "dcba"]
    shares = measures(*((text, "en") for text in [*texts, texts[0]])).repeated_gram_shares_N
    assert shares.tolist() == [0] * 5
