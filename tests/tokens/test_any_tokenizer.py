"""Tokenizers of any maker say which characters each of their ids stands for."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto

from indexlm.errors import UserError
from indexlm.tokens.any_tokenizer import AnyTokenizer, open_any, partial_ids
from indexlm.tokens.tokenizer import FILE_NAME, Tokenizer

texts = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="▁"),
        st.sampled_from("春天来了中华人民共和国the river  \n，🙂龘"),
    ),
    max_size=40,
)


def covered(tokenizer: AnyTokenizer, text: str) -> list[int]:
    """How many ids cover each character."""
    [encoded] = tokenizer.encode([text])
    counts = [0] * len(text)
    for begin, end in encoded.spans:
        assert 0 <= begin <= end <= len(text)
        for place in range(begin, end):
            counts[place] += 1
    return counts


@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_every_character_is_covered(ours: AnyTokenizer, by_bytes: AnyTokenizer, text: str) -> None:
    for tokenizer in (ours, by_bytes):
        [encoded] = tokenizer.encode([text])
        assert len(encoded.ids) == len(encoded.spans)
        assert all(covered(tokenizer, text))
        assert tokenizer.decode([encoded.ids, []]) == [text, ""]
        assert all(0 <= index < tokenizer.vocab_size for index in encoded.ids)


def test_each_byte_of_a_character_covers_it(ours: AnyTokenizer, by_bytes: AnyTokenizer) -> None:
    """SentencePiece says it of the last one alone."""
    for tokenizer in (ours, by_bytes):
        assert covered(tokenizer, "a🙂b龘") == [1, 4, 1, 3]
        [encoded] = tokenizer.encode(["🙂"])
        partial = partial_ids(tokenizer)
        assert len(partial) == tokenizer.vocab_size and partial[encoded.ids].all()
        for whole in ("the", "t", " ", "\n"):
            [encoded] = tokenizer.encode([whole])
            assert not partial[encoded.ids].any()


def test_ids_are_those_that_a_model_is_given(ours: AnyTokenizer, tokenizer: Tokenizer) -> None:
    text = "The river 春天来了 🙂"
    [encoded] = ours.encode([text])
    assert encoded.ids == tokenizer.encode(text)
    assert (ours.kind, ours.vocab_size) == ("sentencepiece", tokenizer.vocab_size)


def test_what_is_unknown_has_an_id(
    ours: AnyTokenizer, by_bytes: AnyTokenizer, by_words: AnyTokenizer
) -> None:
    assert by_bytes.unknown is None and ours.unknown == 0
    [encoded] = by_words.encode(["the 龘 river"])
    unknown = [span for index, span in zip(*encoded) if index == by_words.unknown]
    assert unknown == [(4, 5)]
    assert by_words.decode([[by_words.unknown or 0]]) == ["[UNK]"]


def test_a_unigram_model_names_its_unknown_by_place(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    library = Library(models.Unigram([("a", -1.0), ("<none>", 0.0), ("b", -2.0)], unk_id=1))
    library.save(str(tmp_path / "tokenizer.json"))
    opened = open_any(tmp_path)
    assert opened.unknown == 1
    [encoded] = opened.encode(["aXb"])
    assert encoded.ids == [0, 1, 2]


def test_a_sentencepiece_model_of_another_maker_is_opened_as_it_is(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Other names at ids 0 to 4, a space put before each text: ours is refused such a file."""
    model = proto.ModelProto.FromString(tokenizer.path.read_bytes())
    for index, name in enumerate(("<pad>", "<bos>", "<end>")):
        model.pieces[index].piece = name
    model.normalizer_spec.add_dummy_prefix = True
    path = tmp_path / "spiece.model"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="begins with"):
        Tokenizer(path)
    opened = open_any(path)
    text = "The river"
    [encoded] = opened.encode([text])
    assert encoded.ids == tokenizer.encode(f" {text}") != tokenizer.encode(text)
    assert opened.decode([encoded.ids]) == [text]


def test_a_folder_with_both_gives_the_one_that_a_model_here_reads(place: Path) -> None:
    shutil.copy(place / "bytes.json", place / "tokenizer.json")
    assert open_any(place).kind == "sentencepiece"
    assert open_any(place / "tokenizer.json").kind == "tokenizers"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.model", None, "does not exist"),
        ("vocab.txt", b"the", "is of an unknown kind"),
        ("bad.model", b"not a model", "is not a SentencePiece model"),
        ("empty.model", b"", "is not a SentencePiece model"),
        ("bad.json", b"{", "is not JSON"),
        ("latin.json", "é".encode("latin-1"), "is not JSON"),
        ("config.json", b'{"vocab_size": 5}', "is not a file of the tokenizers library"),
        ("list.json", b"[]", "is not a file of the tokenizers library"),
    ],
)
def test_what_is_no_tokenizer_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / name))} {words}"):
        open_any(tmp_path / name)


def test_a_folder_without_a_tokenizer_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"{tmp_path} holds no tokenizer")) as caught:
        open_any(tmp_path)
    assert FILE_NAME in str(caught.value) and "tokenizer.json" in str(caught.value)


def test_a_missing_package_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install .indexlm\[tokenizers\]."):
        open_any(place / "bytes.json")
    # Ours does not need it.
    assert open_any(place / FILE_NAME).kind == "sentencepiece"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_spoilt_file_is_refused_or_still_encodes(
    place: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = json.loads((place / "bytes.json").read_text())
    part = data.draw(st.sampled_from([content, content["model"]]))
    # The library itself ends the process on a prefix that pieces do not have.
    key = data.draw(st.sampled_from(sorted(part.keys() - {"continuing_subword_prefix"})))
    part[key] = data.draw(st.sampled_from([None, 3, "x", [], {}, {"type": "ByteLevel"}]))
    path = tmp_path_factory.mktemp("spoilt") / "tokenizer.json"
    path.write_text(json.dumps(content))
    try:
        opened = open_any(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    [encoded] = opened.encode(["The river 春天来了 🙂"])
    assert len(encoded.ids) == len(encoded.spans)
