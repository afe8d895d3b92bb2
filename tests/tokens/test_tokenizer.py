"""Text to ids and back: nothing is lost, and no text spells a marker."""

import re
from functools import partial
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
    flat, counts = tokenizer.encode_flat([text, "", text])
    assert flat.tolist() == ids + ids and counts.tolist() == [len(ids), 0, len(ids)]


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


def test_a_model_with_other_control_ids_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = changed(tokenizer, tmp_path / FILE_NAME, lambda model: None)
    assert Tokenizer(path).fingerprint == tokenizer.fingerprint

    def rename(index: int, text: str, model: proto.ModelProto) -> None:
        model.pieces[index].piece = text

    for index, text in ((0, "<pad>"), (1, "<bos>"), (2, "<|im_end|>")):
        changed(tokenizer, path, partial(rename, index, text))
        with pytest.raises(UserError, match=rf"{re.escape(str(path))} begins with .*{text[1:4]}"):
            Tokenizer(path)


@pytest.mark.parametrize("kept", [0, 3, 5])
def test_a_model_of_control_pieces_alone_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, kept: int
) -> None:
    def shorten(model: proto.ModelProto) -> None:
        del model.pieces[kept:]

    path = changed(tokenizer, tmp_path / FILE_NAME, shorten)
    with pytest.raises(UserError, match=f"is not a SentencePiece model: it has {kept} pieces"):
        Tokenizer(path)


def test_a_file_larger_than_any_tokenizer_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with path.open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(UserError, match="is not a SentencePiece model: it has 17179869184 bytes"):
        Tokenizer(path)


# Files of others: ids 3 and 4 under other names and types, no bytes to fall back to

PIECE = proto.ModelProto.SentencePiece
FOREIGN = ("the", "春")
"""Texts at ids 3 and 4 that every other text may hold."""


def foreign(kind: int, texts: tuple[str, str], spelled: bool, model: proto.ModelProto) -> None:
    taken = {piece.piece: piece for piece in model.pieces}
    for index, text in zip((3, 4), texts):
        if text in taken and taken[text] != model.pieces[index]:
            taken[text].piece = f"{text}{text}{text}"
        model.pieces[index].piece, model.pieces[index].type = text, kind
    if not spelled:
        model.trainer_spec.byte_fallback = False
        for piece in model.pieces:
            if piece.type == PIECE.BYTE:
                piece.type = PIECE.UNUSED


@pytest.fixture(scope="module")
def others(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> list[Tokenizer]:
    """One tokenizer for each way of storing ids 3 and 4, with byte fallback and without."""
    folder = tmp_path_factory.mktemp("foreign")
    made = []
    for kind in (PIECE.NORMAL, PIECE.USER_DEFINED, PIECE.UNUSED, PIECE.CONTROL):
        for texts in (("reserved_0", "reserved_1"), FOREIGN, ("reserved_1", "reserved_0")):
            for spelled in (True, False):
                path = folder / f"{len(made)}.model"
                changed(tokenizer, path, partial(foreign, kind, texts, spelled))
                made.append(Tokenizer(path))
    return made


@settings(max_examples=60, deadline=None)
@given(text=st.one_of(texts_with_markers, st.sampled_from(["the春the", "reserved_0reserved_1"])))
@example(text="the 春天 reserved_0 <unk>🙂")
def test_no_text_encodes_to_a_marker_with_any_file(others: list[Tokenizer], text: str) -> None:
    for tokenizer in others:
        ids = tokenizer.encode(text)
        assert all(5 <= index < tokenizer.vocab_size for index in ids)
        assert tokenizer.encode_all([text, text]) == [ids, ids]
        flat, counts = tokenizer.encode_flat([text, text])
        assert flat.tolist() == ids + ids and counts.tolist() == [len(ids)] * 2
        assert [tokenizer.piece(index) for index in range(5)] == list(SPECIAL_PIECES)


def test_such_files_do_give_markers_where_they_are_taken_as_they_are(
    others: list[Tokenizer],
) -> None:
    """Negative control: SentencePiece alone lets a text open a turn."""
    import sentencepiece

    found: set[int] = set()
    for tokenizer in others:
        stored = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path))
        for text in ("the春", "reserved_0", "reserved_1", "🙂"):
            found |= {index for index in stored.EncodeAsIds(text) if index < 5}
    assert found == {0, 3, 4}


def test_what_cannot_be_spelled_is_left_out_with_one_warning(
    tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change = partial(foreign, PIECE.NORMAL, ("reserved_0", "reserved_1"), False)
    path = changed(tokenizer, tmp_path / FILE_NAME, change)
    poorer = Tokenizer(path)
    assert poorer.decode(poorer.encode("the 🙂river")) == "the river"
    assert poorer.encode_all(["🙂", "the"]) == [[], poorer.encode("the")]
    flat, counts = poorer.encode_flat(["🙂", "🙂the", "a🙂a", ""])
    assert flat.tolist() == poorer.encode("the") + poorer.encode("aa")
    assert counts.tolist() == [0, len(poorer.encode("the")), len(poorer.encode("aa")), 0]
    assert poorer.encode("🙂🙂") == []
    [record] = caplog.records
    assert str(path) in record.message and "left out" in record.message
    assert tokenizer.encode("🙂") != [] and len(caplog.records) == 1


def test_where_nothing_may_be_left_out_it_is_refused_by_name_and_text(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    change = partial(foreign, PIECE.NORMAL, ("reserved_0", "reserved_1"), False)
    poorer = Tokenizer(changed(tokenizer, tmp_path / FILE_NAME, change))
    assert poorer.encode_whole(["the", ""]) == [poorer.encode("the"), []]
    with pytest.raises(UserError, match=re.escape(f"{poorer.path} has no pieces for")) as caught:
        poorer.encode_whole(["the", "the 🙂\n\x1b" + "river" * 1000])
    assert "'the 🙂" in str(caught.value) and len(str(caught.value)) < 600
    assert str(caught.value).isprintable()
    assert tokenizer.encode_whole(["🙂"]) == [tokenizer.encode("🙂")]


def test_a_refused_file_cannot_write_a_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    forged = "x\nWRONG: \x1b[2J"

    def twice(model: Any) -> None:
        model.pieces[-1].piece = model.pieces[-2].piece = forged

    def instead(model: Any) -> None:
        model.pieces[1].piece = forged * 100

    for change, words in ((twice, "is not a SentencePiece model"), (instead, "begins with")):
        path = changed(tokenizer, tmp_path / FILE_NAME, change)
        with pytest.raises(UserError, match=words) as caught:
            Tokenizer(path)
        message = str(caught.value)
        assert r"x\nWRONG: \x1b" in message.replace("\\\\", "\\")
        assert message.isprintable() and len(message) < 1000


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_spoilt_tokenizer_is_refused_or_still_gives_no_marker(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(tokenizer.path.read_bytes())
    places = st.integers(0, len(content) - 1)
    # The special pieces and the rules stand at the ends.
    ends = st.one_of(places, st.integers(0, 120), st.integers(len(content) - 200, len(content) - 1))
    for place in data.draw(st.lists(ends, min_size=1, max_size=4)):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    del content[data.draw(st.one_of(st.just(len(content)), places)) :]
    path = tmp_path_factory.mktemp("spoilt") / FILE_NAME
    path.write_bytes(content)
    try:
        ids = Tokenizer(path).encode("The river 春天来了 reserved_0 <unk> 🙂")
    except UserError as error:
        assert str(path) in str(error)
        return
    assert all(index >= 5 for index in ids)
