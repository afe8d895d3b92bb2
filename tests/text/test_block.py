"""A block says of each document and line what the text itself says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.text.block import (
    BLOCK_CHARS,
    DIGIT,
    HAN,
    HANGUL,
    KANA,
    LATIN,
    LETTER,
    MARK,
    NEWLINE,
    OTHER,
    SPACE,
    SYMBOL,
    Block,
    blocks,
)
from indexlm.text.document import Document

TEXTS = st.lists(
    st.text(st.sampled_from("abAé中,1 \t\n"), min_size=1, max_size=30), min_size=1, max_size=6
)


def block(*texts: str) -> Block:
    return Block([Document(f"t/{n}", text, "t", "en", "ordinary") for n, text in enumerate(texts)])


@pytest.mark.parametrize(
    ("characters", "kind"),
    [
        ("azAZéÀắ", LATIN),
        ("中〇㐀𠀀", HAN),
        ("あア", KANA),
        ("한", HANGUL),
        ("яعह", LETTER),
        ("09½", DIGIT),
        (" \t", SPACE),
        ("\n", NEWLINE),
        (".,!?'\"()，。．！？“”《》…—", MARK),
        ("@#$+=<>|~^_*/\\×÷😀", SYMBOL),
        ("\ufeff\ue000\x00", OTHER),
    ],
)
def test_kinds_of_characters(characters: str, kind: int) -> None:
    assert block(characters).kinds_C.tolist() == [kind] * len(characters)


@given(TEXTS)
def test_documents_and_their_lines(texts: list[str]) -> None:
    made = block(*texts)
    joined = "".join(texts)
    pairs = zip(made.starts_N, made.ends_N)
    assert [joined[start:end] for start, end in pairs] == texts
    # A newline at the very end ends the last line and begins none.
    lines = [
        (line, number)
        for number, text in enumerate(texts)
        for line in text.removesuffix("\n").split("\n")
    ]
    bounds = zip(made.line_starts_L, made.line_ends_L, made.line_owners_L)
    assert [(joined[start:end], int(owner)) for start, end, owner in bounds] == lines
    visible = zip(made.line_firsts_L, made.line_ends_L)
    assert [joined[first:end] for first, end in visible] == [
        line.lstrip(" \t") for line, _ in lines
    ]


@given(TEXTS)
def test_sums_and_counts(texts: list[str]) -> None:
    made = block(*texts)
    assert made.counts_NK[:, HAN].tolist() == [text.count("中") for text in texts]
    assert made.counts_NK.sum(axis=1).tolist() == list(map(len, texts))
    line_sums = made.line_sums(made.codes_C == ord("a"))
    by_document = np.bincount(made.line_owners_L, line_sums, len(texts))
    assert by_document.tolist() == [text.count("a") for text in texts]


@given(TEXTS)
def test_words_stay_in_their_document(texts: list[str]) -> None:
    made = block(*texts)
    joined = "".join(texts)
    words = [joined[start:end] for start, end in made.words_2W.T]
    spaced = "".join(c if c in "abAé" else " " for text in texts for c in (*text, " "))
    assert words == spaced.split()


@given(TEXTS, st.integers(-3, 3))
def test_values_along_a_line(texts: list[str], offset: int) -> None:
    made = block(*texts)
    joined = "".join(texts)
    expected = []
    for first, end in zip(made.line_firsts_L.tolist(), made.line_ends_L.tolist()):
        place = (first if offset >= 0 else end) + offset
        expected.append(ord(joined[place]) if first <= place < end else 0)
    assert made.line_values(made.codes_C, offset).tolist() == expected


@given(TEXTS, st.data())
def test_hashes_are_equal_where_the_passages_are(texts: list[str], data: st.DataObject) -> None:
    made = block(*texts)
    joined = "".join(texts)
    places = st.integers(0, len(joined))
    bounds = [sorted(data.draw(st.tuples(places, places))) for _ in range(4)]
    starts, ends = np.array(bounds).T
    hashes = made.hashes(starts, ends).tolist()
    passages = [joined[start:end].replace("A", "a") for start, end in bounds]
    assert [[a == b for b in hashes] for a in hashes] == [
        [a == b for b in passages] for a in passages
    ]


def test_a_hash_does_not_depend_on_the_place_in_a_large_block() -> None:
    made = block("needle", "x" * (BLOCK_CHARS + 7), "Needle")
    starts = made.starts_N[[0, 2]]
    first, last = made.hashes(starts, starts + 6).tolist()
    assert first == last == block("needle").hashes(np.array([0]), np.array([6]))[0]


def test_blocks_hold_every_document_once_and_in_order() -> None:
    documents = [Document(str(n), "x" * (BLOCK_CHARS // 3), "t", "en", "") for n in range(8)]
    made = list(blocks(documents))
    assert [document for one in made for document in one.documents] == documents
    assert [len(one.documents) for one in made] == [4, 4]


def test_an_empty_document_is_refused() -> None:
    with pytest.raises(AssertionError):
        block("a", "")
