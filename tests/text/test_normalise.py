"""Text that reads the same is spelt the same, and a second pass changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.text.normalise import normalise

_AWKWARD = st.text(
    alphabet=st.one_of(
        st.sampled_from("aé\u0301中。　 \t\n\r\x0b\x00\u200b\ufeff\u2028Ａ９﹐\u0338=\u1100\u1161"),
        st.characters(),
    )
)


@given(_AWKWARD)
def test_a_second_pass_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(_AWKWARD)
def test_the_result_can_be_written_and_has_no_hidden_characters(text: str) -> None:
    clean = normalise(text)
    clean.encode()
    assert not set(clean) & set("\r\x00\x0b\u200b\ufeff\u2028")
    assert "\n\n\n" not in clean
    assert all(line == line.rstrip(" \t") for line in clean.split("\n"))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("e\u0301te\u0301", "été"),
        ("ＡＢｃ１２３", "ABc123"),
        ("甲﹐乙﹑丙﹔丁", "甲，乙、丙；丁"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a  \n\n\n\n b\t", "a\n\n b"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("half \ud800 pair", "half \ufffd pair"),
    ],
)
def test_known_cases(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@pytest.mark.parametrize("text", ["“你好”，他说：走！（笑）", 'He said: "it\'s 5%" — ok.', "x\ty"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert normalise(text) == text
