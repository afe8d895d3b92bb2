"""Text that reads the same is spelt the same, and a second pass changes nothing."""

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexlm.text.normalise import normalise

_AWKWARD = st.text(
    alphabet=st.one_of(
        st.sampled_from(
            "aé\u0301中。　 \t\n\r\x0b\x00\u200b\ufeff\u2028Ａ９﹐\u0338=\u1100\u1161\u2000…，"
        ),
        st.characters(),
    )
)


@given(_AWKWARD)
@example("\u2000")  # NFC turns it into another odd space
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


@given(_AWKWARD)
def test_the_result_is_composed(text: str) -> None:
    assert unicodedata.is_normalized("NFC", normalise(text))


def test_no_character_slips_past_the_quick_tests() -> None:
    """Each alone among Latin and among Chinese letters, so that no other opens a pass for it: all
    of the basic plane, and some of each other one."""
    for code in (*range(0x10000), *range(0x10000, sys.maxunicode + 1, 97)):
        character = chr(code)
        inside = normalise(f"a{character}b")[1:-1]
        assert inside == normalise(f"中{character}，")[1:-1] or unicodedata.combining(character)
        category = unicodedata.category(character)
        assert category != "Zs" or inside == " "
        assert category not in ("Cc", "Cs", "Zl", "Zp") or inside in ("", "\t", "\n", "\ufffd")


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("e\u0301te\u0301", "été"),
        ("ＡＢｃ１２３", "ABc123"),
        ("甲﹐乙﹑丙﹔丁", "甲，乙、丙；丁"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a  \n\n\n\n b\t", "a\n\n b"),
        ("tab\t\nend", "tab\nend"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("　　全角空格", "全角空格"),
        ("non\u00a0breaking", "non breaking"),
    ],
)
def test_known_cases(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@pytest.mark.parametrize(
    "text",
    [
        "“你好”，他说：走！（笑）",
        'He said: "it\'s 5%" — ok.',
        "x\ty",
        "繁體字不變成簡體字……",
        "def f(x):\n\treturn x  # ½\n\nprint(f(1))",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert normalise(text) == text
