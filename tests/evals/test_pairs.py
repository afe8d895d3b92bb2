"""Parts of texts are encoded apart only where the ids stay those of the whole texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from evals.conftest import EN, ZH
from indexlm.evals import pairs as module
from indexlm.evals.pairs import Borders, encode_pairs, encode_pairs_whole
from indexlm.tokens.tokenizer import SPECIAL_PIECES, Tokenizer

WORDS = ["春天来了", "河边的柳树", "the river", "the window", "Answer:", "答案：", "A", "B. ", "▁"]
GAPS = [" ", " ", "  ", "\n", "\n\n", "", "。", "\t", "\u3000"]
text = st.lists(st.sampled_from([*WORDS, *GAPS]) | st.text(max_size=3), max_size=8).map("".join)


def trained(folder: Path, **changes: Any) -> Tokenizer:
    """A SentencePiece BPE tokenizer with byte fallback, as others may have trained theirs."""
    options = {
        **{"model_type": "bpe", "vocab_size": 560, "byte_fallback": True, "num_threads": 1},
        **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        **{"add_dummy_prefix": False, "control_symbols": ",".join(SPECIAL_PIECES[3:])},
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((ZH + EN) * 3),
        model_prefix=str(folder / "tokenizer"),
        minloglevel=2,
        hard_vocab_limit=False,
        **options | changes,
    )
    return Tokenizer(folder / "tokenizer.model")


KINDS = {
    "ours": {},
    "with a space before every text": {"add_dummy_prefix": True},
    "with words of several words": {"split_by_whitespace": False},
    "with spaces at the end of words": {"treat_whitespace_as_suffix": True},
    "with runs of spaces": {"allow_whitespace_only_pieces": True},
    "that tidies spaces": {"remove_extra_whitespaces": True, "add_dummy_prefix": True},
    "that changes characters": {"normalization_rule_name": "nmt_nfkc"},
    "of likeliest pieces": {"model_type": "unigram"},
}
WHOLE = {
    *("with spaces at the end of words", "that tidies spaces", "that changes characters"),
    "of likeliest pieces",
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("tokenizers")
    made = {}
    for number, (kind, changes) in enumerate(KINDS.items()):
        (folder / str(number)).mkdir()
        made[kind] = trained(folder / str(number), **changes)
    return made


@given(pairs=st.lists(st.tuples(text, text), max_size=5), start=text)
def test_ids_are_those_of_the_whole_texts(
    tokenizers: dict[str, Tokenizer], pairs: list[tuple[str, str]], start: str
) -> None:
    together = [(start + context, continuation) for context, continuation in pairs]
    for kind, tokenizer in tokenizers.items():
        # One that changes characters may leave nothing of some.
        for asked in (pairs, together):
            assert encode_pairs(tokenizer, asked) == encode_pairs_whole(tokenizer, asked), kind


@pytest.mark.parametrize("kind", KINDS)
def test_few_examples_are_encoded_once(
    tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Only for the tokenizers whose vocabulary proves that it may be."""
    examples = "The first question has an answer.\nAnswer: A\n\n" * 20
    questions = [f"{examples}Question {number} of the day\nAnswer:" for number in range(10)]
    questions += [f"{examples}第{number}题：春天来了\n答案：" for number in range(10)]
    asked = [(question, option) for question in questions for option in (" A", " B", " C", " D")]
    given_texts: list[str] = []
    encode_whole = Tokenizer.encode_whole

    def counted(self: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        given_texts.extend(texts)
        return encode_whole(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_whole", counted)
    encode_pairs(tokenizers[kind], asked)
    characters, whole = sum(map(len, given_texts)), sum(map(len, questions))
    assert (characters < whole / 5) == (kind not in WHOLE), (characters, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_anywhere_would_change_ids(
    tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Why the vocabulary is read, and the rules of the tokenizer."""
    tokenizer = tokenizers[kind]
    asked = [(line[:at], line[at:]) for line in (*EN, *ZH) for at in range(1, len(line))]
    asked += [(f"  {context}", continuation) for context, continuation in asked]
    assert encode_pairs(tokenizer, asked) == encode_pairs_whole(tokenizer, asked)
    anywhere = Borders(frozenset(), prefix=False)
    monkeypatch.setattr(module, "read_borders", lambda tokenizer: anywhere)
    assert encode_pairs(tokenizer, asked) != encode_pairs_whole(tokenizer, asked)


def test_spaces_at_the_end_of_a_context_belong_to_what_follows(tokenizer: Tokenizer) -> None:
    moved, plain = encode_pairs(tokenizer, [("The river ", "was"), ("The river", " was")])
    assert moved == plain
    assert tokenizer.decode(moved.ids[moved.context :]) == " was"
