"""Text to ids and back: nothing is lost, and no text spells a marker."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto

from indexlm.errors import UserError
from indexlm.tokens import tokenizer as module
from indexlm.tokens.tokenizer import FILE_NAME, SPECIAL_PIECES, Tokenizer

SPACE_MARK = "\u2581"
"""SentencePiece spells a space so, hence reads it as one: the only text that comes back changed."""

MARKERS = ("<unk>", "<s>", "</s>", "reserved_0", "reserved_1", "<0x41>", "<pad>", "<|im_start|>")

texts = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("春天来了中华人民共和国the river  \n\t\r，。🙂👩‍🚀é\u0301\ufeff\x00"),
    ),
    max_size=60,
)
texts_with_markers = st.lists(st.one_of(texts, st.sampled_from(MARKERS)), max_size=6).map("".join)


def test_the_special_ids_are_the_published_ones(tokenizer: Tokenizer) -> None:
    assert (module.UNK, module.PAD, module.SYSTEM) == (0, 0, 0)
    assert (module.BOS, module.EOS, module.USER, module.ASSISTANT) == (1, 2, 3, 4)
    pieces = [tokenizer.piece(index) for index in range(5)]
    assert pieces == ["<unk>", "<s>", "</s>", "reserved_0", "reserved_1"]
    assert tokenizer.processor.unk_id() == 0 and tokenizer.processor.eos_id() == 2


@settings(max_examples=300)
@given(text=texts_with_markers)
@example(text="")
@example(text=" ")
@example(text="  two  spaces \n\n and a line ")
@example(text="\x00\ufffd\ufeff\u200d")
@example(text="▅")
@example(text="ﬁ Ａ ½ e\u0301 é")
def test_any_text_comes_back_but_for_the_mark_of_a_space(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.replace(SPACE_MARK, " ")
    assert tokenizer.encode_all([text, "", text]) == [ids, [], ids]


def test_the_mark_of_a_space_is_read_as_a_space(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(f"a{SPACE_MARK}b")) == "a b"


@settings(max_examples=200)
@given(text=texts_with_markers)
def test_no_text_encodes_to_a_marker(tokenizer: Tokenizer, text: str) -> None:
    assert all(5 <= index < tokenizer.vocab_size for index in tokenizer.encode(text))


@pytest.mark.parametrize("text", MARKERS)
def test_a_text_that_spells_a_marker_is_ordinary_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert len(ids) > 1 and tokenizer.decode(ids) == text
    # Negative control: the marker itself is a piece of the model, and says nothing.
    if text in SPECIAL_PIECES:
        assert tokenizer.decode([SPECIAL_PIECES.index(text)]) == ""


@settings(max_examples=100)
@given(text=texts, markers=st.lists(st.integers(0, 4), max_size=5), place=st.integers(0, 99))
def test_markers_among_ids_leave_no_trace_in_the_text(
    tokenizer: Tokenizer, text: str, markers: list[int], place: int
) -> None:
    text = text.replace(SPACE_MARK, "")
    ids = tokenizer.encode(text)
    place %= len(ids) + 1
    assert tokenizer.decode([*ids[:place], *markers, *ids[place:]]) == text


def test_nothing_is_put_before_a_text(tokenizer: Tokenizer) -> None:
    """A dummy prefix would make the same word two pieces, and every Chinese answer begin blank."""
    assert tokenizer.encode("") == []
    spaced, bare = tokenizer.encode(" the"), tokenizer.encode("the")
    assert spaced != bare
    assert tokenizer.decode(bare) == "the" and tokenizer.decode(spaced) == " the"
    assert tokenizer.encode("a\nthe") == [*tokenizer.encode("a\n"), *bare]


@pytest.mark.parametrize("character", ["🙂", "龘", "ß", "\x00", "\U0010ffff"])
def test_an_unknown_character_is_its_bytes(tokenizer: Tokenizer, character: str) -> None:
    pieces = [tokenizer.piece(index) for index in tokenizer.encode(character)]
    assert pieces == [f"<0x{byte:02X}>" for byte in character.encode()]


def test_an_unfinished_character_shows_as_one_that_is_not_known(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🙂")
    assert tokenizer.decode(ids) == "a🙂"
    for kept in range(1, 4):
        assert re.fullmatch("a\ufffd+", tokenizer.decode(ids[:-kept]))


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb"])
def test_what_no_encoding_can_spell_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(UserError, match="not text in UTF-8"):
        tokenizer.encode(text)


# The file


def test_a_tokenizer_is_loaded_from_its_folder_and_known_by_its_content(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).write_bytes(tokenizer.path.read_bytes())
    copy = Tokenizer.load(tmp_path)
    assert copy.fingerprint == tokenizer.fingerprint and copy.vocab_size == tokenizer.vocab_size
    changed(tokenizer, tmp_path / FILE_NAME, lambda model: model.pieces.pop())
    shorter = Tokenizer.load(tmp_path)
    assert shorter.fingerprint != copy.fingerprint and shorter.vocab_size == copy.vocab_size - 1


def test_a_missing_tokenizer_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / FILE_NAME))) as caught:
        Tokenizer.load(tmp_path)
    assert "indexlm tokenizer train" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a model", "中文".encode(), b"\x00" * 64])
def test_another_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{path} is not a SentencePiece model")):
        Tokenizer(path)


def changed(tokenizer: Tokenizer, path: Path, change: Any) -> Path:
    model = proto.ModelProto.FromString(tokenizer.path.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def swap_the_roles(model: proto.ModelProto) -> None:
    model.pieces[3].piece, model.pieces[4].piece = "reserved_1", "reserved_0"


def call_user_im_start(model: proto.ModelProto) -> None:
    model.pieces[3].piece = "<|im_start|>"


@pytest.mark.parametrize("change", [swap_the_roles, call_user_im_start])
def test_a_model_with_other_special_ids_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, change: Any
) -> None:
    path = changed(tokenizer, tmp_path / FILE_NAME, lambda model: None)
    assert Tokenizer(path).fingerprint == tokenizer.fingerprint
    changed(tokenizer, path, change)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} begins with .*reserved_1"):
        Tokenizer(path)
