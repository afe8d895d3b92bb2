"""Function words are found as whole words, whatever their case."""

from indexlm.text.block import Block
from indexlm.text.document import Document
from indexlm.text.words import CODE_WORD, ENGLISH, FOREIGN, KEYWORD, word_flags


def flags(text: str) -> dict[str, int]:
    block = Block([Document("t/1", text, "t", "en", "ordinary")])
    bits_C = word_flags(block)
    starts_W, ends_W = block.words_2W
    assert bits_C.sum() == bits_C[starts_W].sum()
    return {text[start:end]: int(bits_C[start]) for start, end in zip(starts_W, ends_W)}


def test_words_have_their_bits() -> None:
    assert flags("The der import while harbour") == {
        "The": ENGLISH,
        "der": FOREIGN,
        "import": KEYWORD | CODE_WORD,
        "while": ENGLISH | KEYWORD,
        "harbour": 0,
    }


def test_parts_of_words_have_none() -> None:
    assert not any(flags("theory lathe zundert imported 的the的x t-he").values()) or flags(
        "的the的"
    ) == {"the": ENGLISH}


def test_accented_words_are_foreign() -> None:
    assert flags("für été není") == dict.fromkeys(("für", "été", "není"), FOREIGN)
