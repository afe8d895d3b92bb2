"""Figures of a report count what is there; nothing that a tokenizer loses is passed over."""

import json
import re
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.text.document import Document
from indexlm.tokens import report
from indexlm.tokens.any_tokenizer import AnyTokenizer
from indexlm.tokens.report import compare, compression, report_table
from indexlm.tokens.tokenizer import Tokenizer

RARE = "龘靐齉"


def documents(texts: Mapping[str, list[str]]) -> list[Document]:
    return [
        Document(f"{language}/{number}", text, "tales", language, "noisy")
        for language, some in texts.items()
        for number, text in enumerate(some)
    ]


def rows(tokenizer: AnyTokenizer, texts: Mapping[str, list[str]]) -> dict[str, dict[str, object]]:
    rows_by_language: dict[str, dict[str, object]] = compare({"it": tokenizer}, documents(texts))[
        "tokenizers"
    ]["it"]["languages"]
    return rows_by_language


def test_figures_times_tokens_give_back_the_text(tokenizer: Tokenizer) -> None:
    texts = {"zh": ["春天来了", "山水"], "en": ["the river", "a stone"]}
    found = compression(tokenizer, texts)
    for name, some in texts.items():
        tokens = sum(len(tokenizer.encode(text)) for text in some)
        assert found[name]["tokens"] == tokens
        size = sum(len(text.encode()) for text in some)
        assert found[name]["bytes_per_token"] * tokens == pytest.approx(size)
        assert found[name]["characters_per_token"] * tokens == pytest.approx(sum(map(len, some)))


def test_characters_out_of_the_vocabulary_are_all_bytes(tokenizer: Tokenizer) -> None:
    row = compression(tokenizer, {"rare": [RARE, ""], "none": [], "blank": [""]})
    assert row.keys() == {"rare"}
    assert row["rare"]["bytes_per_token"] == 1.0
    assert row["rare"]["characters_per_token"] == 1 / 3
    assert row["rare"]["byte_share"] == 1.0 and row["rare"]["unknown_share"] == 0
    assert row["rare"]["tokens_per_han"] == 3.0
    assert "tokens_per_word" not in row["rare"]
    known = compression(tokenizer, {"known": ["春天来了\n"]})["known"]
    assert known["byte_share"] == 0


def test_words_and_han_characters_are_paid_for_where_they_stand(tokenizer: Tokenizer) -> None:
    """A piece that holds the space before a word, or two characters, is one token of theirs."""
    text = "the river, the river 春天 3.14 \n"
    pieces = [tokenizer.piece(index) for index in tokenizer.encode(text)]
    pieces = [piece for piece in pieces if not piece.startswith("<0x")]
    words = sum(bool(re.search("[a-z]", piece)) for piece in pieces)
    han = sum(bool(re.search("[春天]", piece)) for piece in pieces)
    row = compression(tokenizer, {"it": [text]})["it"]
    assert row["tokens_per_word"] == words / 4
    assert row["tokens_per_han"] == han / 2


def test_words_of_two_documents_are_two(tokenizer: Tokenizer) -> None:
    one, two = (
        compression(tokenizer, {"it": texts})["it"]["tokens_per_word"]
        for texts in (["theriver"], ["the", "river"])
    )
    tokens = [len(tokenizer.encode(text)) for text in ("theriver", "the", "river")]
    assert one == tokens[0] and two == (tokens[1] + tokens[2]) / 2


texts_by_language = st.dictionaries(
    st.sampled_from(["zh", "en", "code"]),
    st.lists(
        st.text(
            st.one_of(
                st.characters(exclude_categories=["Cs"], exclude_characters="▁"),
                st.sampled_from("the river 春天来了 🙂龘"),
            ),
            min_size=1,
            max_size=20,
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(texts=texts_by_language, block=st.integers(1, 60))
def test_figures_do_not_depend_on_how_many_documents_are_held(
    by_bytes: AnyTokenizer, texts: dict[str, list[str]], block: int
) -> None:
    whole = rows(by_bytes, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexlm.text.block.BLOCK_CHARS", block)
        assert rows(by_bytes, texts) == whole
    assert whole.keys() == (texts.keys() | {"all"} if len(texts) > 1 else texts.keys())
    for row in whole.values():
        assert row["exact_share"] == 1 and row["lost"] == row["gained"] == {}
        for name in ("byte_share", "unknown_share", "used_share"):
            assert isinstance(share := row[name], float) and 0 <= share <= 1


def test_what_is_lost_on_the_way_is_named(
    ours: AnyTokenizer, by_words: AnyTokenizer, place: object
) -> None:
    texts = {"en": ["The  river", "stone"], "zh": ["春天"]}
    row = rows(by_words, texts)["en"]
    assert row["exact_share"] == 0.5
    assert row["lost"] == {"T": 1, " ": 1} and row["gained"] == {"t": 1}
    table = report_table(compare({"ours": ours, "words": by_words}, documents(texts)))
    assert "words, en: lost U+0020 x1, U+0054 x1; gained U+0074 x1" in table.replace(
        "lost U+0054 x1, U+0020 x1", "lost U+0020 x1, U+0054 x1"
    )
    # Nothing to be said of ours.
    assert "ours, " not in table


def test_pieces_used_are_counted_once(ours: AnyTokenizer) -> None:
    texts = {"en": ["the the the"], "zh": ["the"]}
    found = rows(ours, texts)
    ids = {language: set(ours.encode(some)[0].ids) for language, some in texts.items()}
    for language, used in (*ids.items(), ("all", ids["en"] | ids["zh"])):
        assert found[language]["used_share"] == len(used) / ours.vocab_size


def test_a_table_has_languages_side_by_side_and_is_aligned(
    ours: AnyTokenizer, by_bytes: AnyTokenizer
) -> None:
    texts = {"en": ["the river"], "zh": ["春天来了"], "code": ["x = 1"]}
    found = compare({"ours": ours, "a longer name": by_bytes}, documents(texts))
    lines = report_table(found).splitlines()
    assert lines[0].split() == ["text", "en", "zh", "code", "all"]
    assert lines[1].split() == ["documents", "1", "1", "1", "3"]
    numbers = [line for line in lines if line.startswith("  ")]
    assert len(numbers) == 2 + 2 * len(report.ROWS)
    ends = [match.end() for match in re.finditer(r"\S+", lines[0])][1:]
    for line in numbers:
        assert [match.end() for match in re.finditer(r"\S+", line)][-4:] == ends
    # What a language does not have is not a number.
    at = lines.index("tokens per Han character")
    assert lines[at + 1].split()[-4] == "-"
    assert json.loads(json.dumps(found)) == found
