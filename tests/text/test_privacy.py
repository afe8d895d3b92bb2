"""Personal data is masked and nothing else is touched; documents are dropped as settings say."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.config import PrivacyConfig
from indexlm.errors import UserError
from indexlm.text.block import Block
from indexlm.text.document import Document
from indexlm.text.filters.privacy import REASONS, mask, privacy, suspects

MASKED = [
    ("来信请寄ann@qq.com或致电138-0000-0000。", "来信请寄name@example.com或致电000-0000-0000。"),
    (
        "Mail ann@firm.com, or call\n(212) 555-3456!",
        "Mail name@example.com, or call\n000-0000-0000!",
    ),
    (
        "身份证 11010519491231002X；卡 4111 1111 1111 1111",
        "身份证 " + "0" * 18 + "；卡 " + "0000 " * 3 + "0000",
    ),
    ("from 61.135.0.200 to 2400:cb00:2048:1::6810", "from 192.0.2.0 to 2001:db8::"),
    ("from 2400:cb00:2048:1::6810 to 61.135.0.200", "from 2001:db8:: to 192.0.2.0"),
]


def block(*texts: str) -> Block:
    return Block([Document(str(n), text, "made", "en", "noisy") for n, text in enumerate(texts)])


@pytest.mark.parametrize(("text", "expected"), MASKED)
def test_a_placeholder_stands_where_personal_data_stood(text: str, expected: str) -> None:
    assert mask(text, PrivacyConfig()) == (expected, mask(text, PrivacyConfig())[1])
    assert sum(mask(text, PrivacyConfig())[1].values()) == 2


def test_what_is_masked_is_counted_by_kind_and_what_is_kept_is_kept() -> None:
    text = "a1@qq.com b2@qq.com 138-0000-0000"
    assert mask(text, PrivacyConfig())[1] == {"email": 2, "phone": 1}
    kept = PrivacyConfig(email="keep")
    assert mask(text, kept) == ("a1@qq.com b2@qq.com 000-0000-0000", {"phone": 1})
    kinds = ("email", "phone", "id_number", "bank_card", "ip_address")
    everything = dict.fromkeys(kinds, "keep")
    assert mask(text, PrivacyConfig.model_validate(everything)) == (text, {})


PARTS = st.one_of(
    st.text("0123456789", min_size=1, max_size=12),
    st.text(max_size=5),
    st.sampled_from([" ", "-", ".", "(", ")", "+", "/", ":", ",", "，", "\n", "@", "=", "。"]),
    st.sampled_from(["电话", "order no. ", "ip ", "v", "身份证", "name@example.com", "192.0.2.0"]),
    st.sampled_from(
        ["a1@qq.com", "13800000000", "+44 20 7946 0000", "212-555-3456", "61.135.0.200"]
    ),
    st.sampled_from(
        ["11010519491231002X", "4111111111111111", "2400:cb00:2048:1::68", "010-80000000"]
    ),
)
TEXTS = st.lists(PARTS, max_size=10).map("".join)
PLACEHOLDERS = re.compile(
    "name@example.com|000-0000-0000|0{18}|0000 0000 0000 0000|192[.]0[.]2[.]0|2001:db8::"
)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once, _ = mask(text, PrivacyConfig())
    assert mask(once, PrivacyConfig()) == (once, {})


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_all_but_placeholders_stands_in_the_text_as_it_was(text: str) -> None:
    masked, counts = mask(text, PrivacyConfig())
    kept = PLACEHOLDERS.split(masked)
    assert re.fullmatch(".*".join(map(re.escape, kept)), text, re.DOTALL)
    assert bool(counts) == (masked != text)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=4))
def test_a_document_that_is_no_suspect_has_nothing_to_mask(texts: list[str]) -> None:
    flags = suspects(block(*texts)).tolist()
    assert flags == [suspects(block(text)).tolist()[0] for text in texts]
    for text, suspect in zip(texts, flags):
        assert suspect or mask(text, PrivacyConfig(private_addresses=True)) == (text, {})


def test_ordinary_prose_is_no_suspect() -> None:
    texts = [
        "It rained on 3 May 1998, at 12:30, and 1,200 people came. Then 7.5 of 10 left.",
        "一九九八年下了雨，2008年6月9日，来了大约1200人，比例是7.5%。",
    ]
    assert suspects(block(*texts)).tolist() == [False, False]


def test_what_only_a_mask_sets_apart_is_masked_too() -> None:
    # At first the last digits of the phone number read on into those of the card.
    masked = mask("212.555.3456 4111 1111 1111 1111", PrivacyConfig())
    expected = "000-0000-0000 0000 0000 0000 0000"
    assert masked == (expected, {"phone": 1, "bank_card": 1})


def test_an_identity_number_that_could_be_a_card_is_masked_as_one_thing() -> None:
    # Gansu is 62, as is the beginning of UnionPay's numbers; this one has both check digits.
    masked = mask("号码622498195501293268。", PrivacyConfig())
    assert masked == (f"号码{'0' * 18}。", {"id_number": 1})


def test_a_kind_set_to_drop_drops_the_document() -> None:
    texts = ["write to ann@firm.com", "call 212-555-3456", "nothing here", "at 10 @ 5"]
    step = privacy(PrivacyConfig(email="drop"))
    columns = step(block(*texts))
    assert list(columns["reason"]) == ["personal_data", "", "", ""]
    assert list(privacy(PrivacyConfig())(block(*texts))["reason"]) == [""] * 4


def listed(tmp_path: Path, words: str, *texts: str) -> list[str]:
    path = tmp_path / "words.txt"
    path.write_text(words, encoding="utf-8")
    columns = privacy(PrivacyConfig(words=(str(path),)))(block(*texts))
    expected = ["listed_word" if word else "" for word in columns["word"]]
    assert list(columns["reason"]) == expected
    return list(columns["word"])


def test_a_listed_word_is_found_in_any_case_as_a_word(tmp_path: Path) -> None:
    words = "# a list\nGrog\nold inn # a phrase\n\n酒馆\nＫＴＶ\n"
    texts = [
        *("They drank GROG.", "groggy, ingrog, grog_ale2", "the grog2 and 5grog", "喝了grog就走"),
        *("an Old\nInn there", "old  inn", "olden inn"),
        *("老酒馆里", "酒 馆", "去ktv吧", "ktvs", "no word"),
    ]
    assert listed(tmp_path, words, *texts) == [
        *("Grog", "Grog", "", "Grog"),
        *("old inn", "", ""),
        *("酒馆", "", "KTV", "", ""),
    ]


def test_the_first_word_is_named_and_of_two_there_the_longer(tmp_path: Path) -> None:
    words = "inn\nold inn\nold inn keeper\ngrog\n"
    texts = ["The old inn keeper had grog", "grog at the old inn", "the old innkeeper"]
    assert listed(tmp_path, words, *texts) == ["old inn keeper", "grog", ""]


def test_a_word_is_not_found_over_the_border_of_two_documents(tmp_path: Path) -> None:
    assert listed(tmp_path, "old inn\n酒馆\n", "very old", "inn", "酒", "馆") == [""] * 4


def test_letters_that_are_longer_in_lower_case_move_nothing(tmp_path: Path) -> None:
    assert listed(tmp_path, "grog\n", "İİİİ", "grog", "İ x") == ["", "grog", ""]


def test_personal_data_is_the_reason_before_a_listed_word(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("grog\n", encoding="utf-8")
    step = privacy(PrivacyConfig(email="drop", words=(str(path),)))
    columns = step(block("grog at ann@firm.com", "grog"))
    assert list(columns["reason"]) == ["personal_data", "listed_word"]
    assert list(columns["word"]) == ["", "grog"]
    assert set(columns["reason"]) == set(REASONS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"# only a comment\n\n", "has no word"),
        ("酒馆里的人".encode("gb18030"), "not UTF-8 at byte"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(UserError, match=said):
        privacy(PrivacyConfig(words=(str(tmp_path / "words.txt"),)))


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        privacy(PrivacyConfig(words=(str(tmp_path / "absent.txt"),)))
