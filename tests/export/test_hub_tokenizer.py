"""tokenizer.json gives SentencePiece's ids, and the chat template the ids of a prompt built as ids.

Both are read by the transformers library, which is what users of the folder run.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import sentencepiece
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from indexlm.errors import UserError
from indexlm.export import hub_tokenizer
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import SPECIAL_PIECES, Tokenizer

CONTEXT = 4096


def write_folder(tokenizer: Tokenizer, folder: Path) -> Path:
    hub_tokenizer.write(tokenizer, folder, CONTEXT)
    # What tells AutoTokenizer which kind of model the folder holds.
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tokenizer, tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


repeats = st.builds(
    lambda text, times: text * times,
    st.sampled_from([" ", "\n", "a", "-", ".", "。", "哈", "0", "the", "中华", "🙂", "\t"]),
    st.integers(1, 40),
)
texts = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.text(st.sampled_from("春天来了中华人民共和国的首都是北京，。！"), max_size=20),
        st.text(st.sampled_from("the river was wide and slow Hello, 0123456789.\n"), max_size=40),
        st.sampled_from(
            ["🙂", "👩‍🚀", "é\u0301", "\ufeff", "\x00", "\r\n", "▁", "<0x41>", "<pad>"]
        ),
        repeats,
    ),
    max_size=6,
).map("".join)
plain_texts = texts.filter(lambda text: not any(piece in text for piece in SPECIAL_PIECES))


@settings(max_examples=300, deadline=None)
@given(text=plain_texts)
@example(text="")
@example(text=" ")
@example(text="  two  spaces \n\n and a line ")
@example(text=" a .  b , c 's n't")
@example(text="中华人民共和国成立了。" * 50 + "reserved_")
def test_a_text_has_the_same_ids_and_comes_back(
    tokenizer: Tokenizer, theirs: PreTrainedTokenizerBase, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert theirs(text)["input_ids"] == ids
    assert theirs.decode(ids) == tokenizer.decode(ids)


def test_every_piece_is_read_the_same(
    tokenizer: Tokenizer, theirs: PreTrainedTokenizerBase
) -> None:
    assert len(theirs) == theirs.vocab_size == tokenizer.vocab_size
    pieces = [tokenizer.piece(index) for index in range(tokenizer.vocab_size)]
    assert theirs.convert_ids_to_tokens(range(tokenizer.vocab_size)) == pieces
    for index, piece in enumerate(pieces[len(SPECIAL_PIECES) :], start=len(SPECIAL_PIECES)):
        for text in (piece, piece.replace("▁", " "), piece * 3, f"{piece} {piece}"):
            assert theirs(text)["input_ids"] == tokenizer.encode(text)
        if not piece.startswith("<0x"):
            assert theirs.decode([index]) == tokenizer.decode([index])


def test_an_order_of_merges_that_is_another_would_be_noticed(tokenizer: Tokenizer) -> None:
    content = hub_tokenizer.tokenizer_json(tokenizer)
    content["model"]["merges"].reverse()
    wrong = tokenizers.Tokenizer.from_str(json.dumps(content))
    text = "The river was wide and slow. 中华人民共和国成立了。"
    assert wrong.encode(text).ids != tokenizer.encode(text)


def test_nothing_is_put_before_or_after_a_text(theirs: PreTrainedTokenizerBase) -> None:
    assert theirs("")["input_ids"] == []
    assert theirs(["the", " the"])["input_ids"] == [theirs(t)["input_ids"] for t in ("the", " the")]
    assert theirs("the")["input_ids"] != theirs(" the")["input_ids"]
    special = [theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id]
    assert special == [0, 1, 2, 0]
    assert sorted(theirs.all_special_ids) == [0, 1, 2, 3, 4]
    assert theirs.model_max_length == CONTEXT
    rows = theirs(["the river", "the"], padding=True)
    assert rows["attention_mask"][1][0] == 0 and rows["input_ids"][1][0] == 0


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.one_of(plain_texts, st.sampled_from(SPECIAL_PIECES)), max_size=6))
def test_marker_words_in_a_text_are_markers_unless_that_is_turned_off(
    tokenizer: Tokenizer, theirs: PreTrainedTokenizerBase, parts: list[str]
) -> None:
    """As in the published tokenizer; a text that spells them can be kept from it."""
    text = "".join(parts)
    assert theirs(text, split_special_tokens=True)["input_ids"] == tokenizer.encode(text)
    said = theirs("你reserved_0好")["input_ids"]
    assert said == [*tokenizer.encode("你"), 3, *tokenizer.encode("好")]


def test_the_model_file_goes_with_it_unchanged(tokenizer: Tokenizer, folder: Path) -> None:
    assert Tokenizer.load(folder).fingerprint == tokenizer.fingerprint


# The chat template

conversations = st.builds(
    Conversation,
    system=plain_texts,
    history=st.lists(st.tuples(plain_texts, plain_texts), max_size=3).map(tuple),
    query=plain_texts,
)


def messages_of(conversation: Conversation) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": conversation.system}] if conversation.system else []
    for said, answered in conversation.history:
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": answered})
    return [*messages, {"role": "user", "content": conversation.query}]


@settings(max_examples=200, deadline=None)
@given(conversation=conversations, asked=st.booleans())
@example(Conversation("", (), ""), True)
@example(Conversation("\n", (("\n\n", " "),), "\n"), False)
def test_a_rendered_conversation_has_the_ids_of_a_prompt(
    tokenizer: Tokenizer, theirs: PreTrainedTokenizerBase, conversation: Conversation, asked: bool
) -> None:
    messages = messages_of(conversation)
    rendered = theirs.apply_chat_template(messages, add_generation_prompt=asked)
    assert rendered["input_ids"] == prompt_ids(tokenizer, conversation)
    assert set(rendered["attention_mask"]) == {1}


def test_the_template_in_words(theirs: PreTrainedTokenizerBase) -> None:
    messages = messages_of(Conversation("规则", (("问", "答"),), "再问"))
    text = theirs.apply_chat_template(messages, tokenize=False)
    assert text == "<unk>规则reserved_0问reserved_1答reserved_0再问reserved_1"
    answered = [*messages, {"role": "assistant", "content": "再答"}]
    assert theirs.apply_chat_template(answered, tokenize=False) == text + "再答"
    # An empty system text is no system turn, as in chat_format.
    empty = [{"role": "system", "content": ""}, *messages[1:]]
    assert theirs.apply_chat_template(empty, tokenize=False) == text.removeprefix("<unk>规则")


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (["user", "system"], "a system message must be the first"),
        (["system", "system", "user"], "a system message must be the first"),
        (["user", "tool"], "role tool is not system, user or assistant"),
    ],
)
def test_a_conversation_that_the_format_has_no_form_for_is_refused(
    theirs: PreTrainedTokenizerBase, roles: list[str], message: str
) -> None:
    messages = [{"role": role, "content": "春天"} for role in roles]
    with pytest.raises(jinja2.TemplateError, match=message):
        theirs.apply_chat_template(messages)


# Any vocabulary: the same ids, or a refusal


def changed(tokenizer: Tokenizer, path: Path, change: Callable[[Any], Any]) -> Tokenizer:
    model = proto.ModelProto.FromString(tokenizer.path.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())
    return Tokenizer(path)


def with_pieces(tokenizer: Tokenizer, path: Path, scores: dict[str, float]) -> Tokenizer:
    """The same specials and bytes with other learned pieces."""

    def change(model: Any) -> None:
        del model.pieces[len(SPECIAL_PIECES) + 256 :]
        for piece, score in scores.items():
            model.pieces.add(piece=piece, score=score, type=1)

    return changed(tokenizer, path, change)


LETTERS = "ab▁"
small = st.lists(st.text(st.sampled_from("aab▁"), min_size=2, max_size=6), max_size=12, unique=True)
"""Pieces over few letters: full of overlaps, repeats and splits that compete."""
said = st.lists(st.text(st.sampled_from("aaab ß"), max_size=40), min_size=5, max_size=15)
scratch = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@scratch
@given(pieces=small, order=st.randoms(use_true_random=False), texts=said)
@example(["aa", "aaa", "aaaa"], None, ["a" * n for n in range(20)])
def test_any_order_of_scores_gives_the_same_ids(
    tokenizer: Tokenizer, tmp_path: Path, pieces: list[str], order: Any, texts: list[str]
) -> None:
    """Also orders that no training gives, in which a piece ranks above its parts."""
    names = [*LETTERS, *pieces]
    if order is not None:
        order.shuffle(names)
    ours = with_pieces(tokenizer, tmp_path / "m", {name: -float(i) for i, name in enumerate(names)})
    fast = tokenizers.Tokenizer.from_str(json.dumps(hub_tokenizer.tokenizer_json(ours)))
    for text in texts:
        assert fast.encode(text).ids == ours.encode(text)


@scratch
@given(pieces=small, scores=st.lists(st.integers(-6, 0), min_size=12, max_size=12), texts=said)
def test_equal_scores_give_the_same_ids_or_a_refusal(
    tokenizer: Tokenizer, tmp_path: Path, pieces: list[str], scores: list[int], texts: list[str]
) -> None:
    ranks = dict.fromkeys(LETTERS, -9.0) | dict(zip(pieces, map(float, scores)))
    ours = with_pieces(tokenizer, tmp_path / "m", ranks)
    try:
        content = hub_tokenizer.tokenizer_json(ours)
    except UserError as error:
        assert "scores without an order" in str(error)
        return
    fast = tokenizers.Tokenizer.from_str(json.dumps(content))
    for text in texts:
        assert fast.encode(text).ids == ours.encode(text)


def test_equal_scores_that_matter_are_refused_and_others_are_not(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    letters = dict.fromkeys("abcd▁", -9.0)
    overlapping = with_pieces(tokenizer, tmp_path / "m", letters | {"ab": -1.0, "ba": -1.0})
    # SentencePiece takes the left one of the two, a list of pairs could not.
    assert [overlapping.piece(i) for i in overlapping.encode("abaXbab")] == [
        *("ab", "a", "<0x58>"),
        *("ba", "b"),
    ]
    with pytest.raises(UserError, match="gives 'ab' and 'ba' scores without an order"):
        hub_tokenizer.tokenizer_json(overlapping)
    used = with_pieces(tokenizer, tmp_path / "m", letters | {"ab": -2.0, "cd": -2.0, "abc": -1.0})
    with pytest.raises(UserError, match="gives 'ab' and 'abc' scores without an order"):
        hub_tokenizer.tokenizer_json(used)
    # As two halves of a vocabulary give them: no text lets one stand in the other's way.
    apart = with_pieces(tokenizer, tmp_path / "m", letters | {"ab": -1.0, "cd": -1.0, "abc": -2.0})
    assert hub_tokenizer.tokenizer_json(apart)["model"]["merges"] == [
        ["a", "b"],
        ["c", "d"],
        ["ab", "c"],
    ]


# Rules that change a text before it is cut


@pytest.fixture(scope="module", params=["prefix", "trim", "prefix and trim"])
def ruled(
    request: pytest.FixtureRequest,
    tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Tokenizer, PreTrainedTokenizerBase]:
    """A tokenizer with rules, and its folder in transformers."""
    folder = tmp_path_factory.mktemp("ruled")

    def change(model: Any) -> None:
        model.normalizer_spec.add_dummy_prefix = "prefix" in request.param
        model.normalizer_spec.remove_extra_whitespaces = "trim" in request.param

    ours = changed(tokenizer, folder / "ruled.model", change)
    return ours, AutoTokenizer.from_pretrained(write_folder(ours, folder))


spaced = st.lists(
    st.one_of(plain_texts, st.text(st.sampled_from(" ▁ab\n\t\u3000"), max_size=12)), max_size=4
).map("".join)
spaced = spaced.filter(lambda text: not any(piece in text for piece in SPECIAL_PIECES))


@settings(max_examples=400, deadline=None)
@given(text=spaced)
@example(text="")
@example(text="   ")
@example(text=" ▁ ▁ ")
@example(text="▁  a")
@example(text=" a  b \n  c ")
def test_a_space_before_and_spaces_removed_are_followed(
    ruled: tuple[Tokenizer, PreTrainedTokenizerBase], text: str
) -> None:
    ours, theirs = ruled
    ids = ours.encode(text)
    assert theirs(text)["input_ids"] == ids
    if "▁" not in text:
        assert theirs.decode(ids) == ours.decode(ids)


@settings(max_examples=100, deadline=None)
@given(conversation=conversations)
def test_rules_apply_to_each_text_of_a_conversation_by_itself(
    ruled: tuple[Tokenizer, PreTrainedTokenizerBase], conversation: Conversation
) -> None:
    ours, theirs = ruled
    rendered = theirs.apply_chat_template(messages_of(conversation))
    assert rendered["input_ids"] == prompt_ids(ours, conversation)


def test_rules_that_are_not_followed_would_be_noticed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def both(model: Any) -> None:
        model.normalizer_spec.add_dummy_prefix = True
        model.normalizer_spec.remove_extra_whitespaces = True

    ours = changed(tokenizer, tmp_path / "m", both)
    content = hub_tokenizer.tokenizer_json(ours)
    text = "  the  river "
    assert tokenizers.Tokenizer.from_str(json.dumps(content)).encode(text).ids == ours.encode(text)
    rules = content["normalizer"]["normalizers"]
    for left_out in range(len(rules)):
        content["normalizer"]["normalizers"] = [r for i, r in enumerate(rules) if i != left_out]
        wrong = tokenizers.Tokenizer.from_str(json.dumps(content))
        assert wrong.encode(text).ids != ours.encode(text)


def test_the_step_for_a_table_of_characters_gives_other_ids(tmp_path: Path) -> None:
    """Why such a tokenizer is refused: on common texts the two agree, on this one they do not."""
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["the quick brown fox"] * 20),
        model_prefix=str(tmp_path / "nfkc"),
        model_type="bpe",
        normalization_rule_name="nmt_nfkc",
        vocab_size=300,
        hard_vocab_limit=False,
        byte_fallback=True,
        control_symbols=["reserved_0", "reserved_1"],
        minloglevel=2,
    )
    ours = Tokenizer(tmp_path / "nfkc.model")
    table = proto.ModelProto.FromString(ours.path.read_bytes()).normalizer_spec
    step = tokenizers.normalizers.Precompiled(table.precompiled_charsmap)
    differing = []
    for text in ("Ａ１", "ﬁne", "é", "ﬀ\u0300"):
        expected = ours.processor.Normalize(text).removeprefix("▁")
        if step.normalize_str(text) != expected:
            differing.append(text)
    assert differing == ["ﬀ\u0300"]
    with pytest.raises(UserError, match=r"normalises a text before it is cut .rule 'nmt_nfkc'"):
        hub_tokenizer.tokenizer_json(ours)


def normalise_by_nfkc(model: Any) -> None:
    model.normalizer_spec.name = "nmt_nfkc"
    model.normalizer_spec.precompiled_charsmap = b"\x00\x00\x00\x00"


def mark_spaces_after_words(model: Any) -> None:
    model.trainer_spec.treat_whitespace_as_suffix = True


def mark_no_spaces(model: Any) -> None:
    model.normalizer_spec.escape_whitespaces = False


def change_what_is_decoded(model: Any) -> None:
    model.denormalizer_spec.precompiled_charsmap = b"\x00\x00\x00\x00"


def without_fallback(model: Any) -> None:
    model.trainer_spec.byte_fallback = False


def user_defined(model: Any) -> None:
    model.pieces[300].type = 4


def unigram(model: Any) -> None:
    model.trainer_spec.model_type = 1


def lose_a_character(model: Any) -> None:
    at = next(i for i, piece in enumerate(model.pieces) if piece.piece == "中")
    model.pieces[at].piece = "龘"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (normalise_by_nfkc, "normalises a text before it is cut .rule 'nmt_nfkc'"),
        (mark_spaces_after_words, "does not mark spaces before words"),
        (mark_no_spaces, "does not mark spaces before words"),
        (change_what_is_decoded, "changes a text after it is decoded"),
        (without_fallback, "does not spell unknown characters by their bytes"),
        (user_defined, "has a piece of another kind"),
        (unigram, "is not a BPE model"),
        (lose_a_character, "makes '中.+' from '中', which is no piece"),
    ],
)
def test_a_model_that_tokenizer_json_cannot_follow_is_refused_by_name(
    tokenizer: Tokenizer, tmp_path: Path, change: Callable[[Any], Any], reason: str
) -> None:
    other = changed(tokenizer, tmp_path / "tokenizer.model", lambda model: None)
    hub_tokenizer.tokenizer_json(other)
    other.path.write_bytes(edited(other, change))
    with pytest.raises(UserError, match=reason) as caught:
        hub_tokenizer.write(other, tmp_path, CONTEXT)
    assert str(other.path) in str(caught.value)
    assert not (tmp_path / "tokenizer.json").exists()


def edited(tokenizer: Tokenizer, change: Callable[[Any], Any]) -> bytes:
    """SentencePiece itself refuses some of these; the file is all that is read."""
    model = proto.ModelProto.FromString(tokenizer.path.read_bytes())
    change(model)
    return model.SerializeToString()
