"""Scores against a plain forward pass over one row, and the mistakes that it would catch."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.evals.scoring import (
    Score,
    bits_per_byte,
    combined,
    cut_windows,
    evaluating,
    loglikelihood,
)
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import EOS, FILE_NAME, Tokenizer

SHORT = ("春天来了。", "hello", "山高路远，水声清澈。")
LONG = "学习要有耐心，孩子们在河边看青山。" * 6
PAIRS = [
    ("春天", "来了，"),
    ("The river", " was wide"),
    ("", "老人"),
    ("学习要有", "耐心"),
    ("比喻", "多此一举，反而办坏。"),
]


def plain_logprobs(model: Transformer, ids: list[int]) -> torch.Tensor:
    """Log-probability of ids[1:], each given all before it: one row, no batch, no window."""
    with torch.no_grad():
        logits_TV = model.logits(model(torch.tensor([ids[:-1]])))[0]
    return logits_TV.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].double()


def reference_bits(model: Transformer, tokenizer: Tokenizer, text: str) -> float:
    ids = [EOS, *tokenizer.encode(text), EOS]
    return -float(plain_logprobs(model, ids).sum()) / math.log(2)


def reference_score(
    model: Transformer, tokenizer: Tokenizer, context: str, continuation: str
) -> float:
    after = tokenizer.encode(continuation)
    ids = [EOS, *tokenizer.encode(context), *after]
    return float(plain_logprobs(model, ids)[-len(after) :].sum())


def test_bits_are_those_of_a_plain_forward_pass(model: Transformer, tokenizer: Tokenizer) -> None:
    result = bits_per_byte(model, tokenizer, SHORT)
    assert result.bits == pytest.approx(
        sum(reference_bits(model, tokenizer, text) for text in SHORT), abs=1e-4
    )
    assert result.bytes == sum(len(text.encode()) for text in SHORT)
    assert result.tokens == sum(len(tokenizer.encode(text)) + 1 for text in SHORT)
    assert result.documents == 3
    assert result.per_byte == result.bits / result.bytes


def test_the_reference_tells_mistakes_apart(model: Transformer, tokenizer: Tokenizer) -> None:
    """Forgetting an end mark, or scoring targets shifted by one, is far outside the tolerance."""
    text = SHORT[2]
    ids = [EOS, *tokenizer.encode(text), EOS]
    right = reference_bits(model, tokenizer, text)
    plain = plain_logprobs(model, ids)
    without_end = -float(plain[:-1].sum()) / math.log(2)
    without_first = -float(plain_logprobs(model, ids[1:]).sum()) / math.log(2)
    with torch.no_grad():
        logits_TV = model.logits(model(torch.tensor([ids[:-1]])))[0].log_softmax(-1)
    shifted = -float(logits_TV.gather(1, torch.tensor(ids[:-1])[:, None]).sum()) / math.log(2)
    found = bits_per_byte(model, tokenizer, [text]).bits
    assert found == pytest.approx(right, abs=1e-4)
    for wrong in (without_end, without_first, shifted):
        assert abs(found - wrong) > 0.1


def test_likelihoods_are_those_of_a_plain_forward_pass(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    for score, (context, continuation) in zip(loglikelihood(model, tokenizer, PAIRS), PAIRS):
        assert score.logprob == pytest.approx(
            reference_score(model, tokenizer, context, continuation), abs=1e-4
        )
        assert score.tokens == len(tokenizer.encode(continuation))


@pytest.mark.parametrize("batch_tokens", [1, 16, 40, 8192])
def test_neither_batch_size_nor_order_matters(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]], batch_tokens: int
) -> None:
    whole = loglikelihood(model, tokenizer, PAIRS)
    turned = loglikelihood(model, tokenizer, PAIRS[::-1], batch_tokens)[::-1]
    assert [s.logprob for s in turned] == pytest.approx([s.logprob for s in whole], abs=1e-4)
    assert [(s.tokens, s.greedy) for s in turned] == [(s.tokens, s.greedy) for s in whole]
    documents = [text for part in texts.values() for text in part]
    assert bits_per_byte(model, tokenizer, documents[::-1], batch_tokens).bits == pytest.approx(
        bits_per_byte(model, tokenizer, documents).bits, abs=1e-4
    )


def test_greedy_is_the_models_own_choice(model: Transformer, tokenizer: Tokenizer) -> None:
    found = []
    for context in ("春天", "The", "山", "学习", "he"):
        ids = [EOS, *tokenizer.encode(context)]
        with torch.no_grad():
            logits_V = model.logits(model(torch.tensor([ids])))[0, -1]
        for index in logits_V.topk(4).indices.tolist():
            text = tokenizer.decode([index])
            # A piece that is a single byte or a control id is no text by itself.
            if text and tokenizer.encode(text) == [index]:
                (score,) = loglikelihood(model, tokenizer, [(context, text)])
                assert score.greedy == (index == int(logits_V.argmax()))
                found.append(score.greedy)
    assert set(found) == {True, False}


def test_a_long_document_is_scored_in_windows(model: Transformer, tokenizer: Tokenizer) -> None:
    """First window full, then half a window of new tokens after half a window of context."""
    ids = [EOS, *tokenizer.encode(LONG), EOS]
    assert len(ids) > 3 * 16
    expected = plain_logprobs(model, ids[:17]).sum()
    for scored in range(16, len(ids) - 1, 8):
        end = min(scored + 8, len(ids) - 1)
        # The last window reaches back so far that it is full too.
        window = plain_logprobs(model, ids[end - 16 : end + 1])
        expected += window[scored - end :].sum()
    found = bits_per_byte(model, tokenizer, [LONG])
    assert found.bits == pytest.approx(-float(expected) / math.log(2), abs=1e-4)


def test_a_long_context_loses_its_beginning(model: Transformer, tokenizer: Tokenizer) -> None:
    context, continuation = LONG, "春天"
    after = tokenizer.encode(continuation)
    ids = [EOS, *tokenizer.encode(context), *after]
    (score,) = loglikelihood(model, tokenizer, [(context, continuation)])
    expected = plain_logprobs(model, ids[-17:])[-len(after) :].sum()
    assert score.logprob == pytest.approx(float(expected), abs=1e-4)


@given(
    inputs=st.integers(1, 200),
    first=st.integers(0, 200),
    context=st.integers(8, 64),
)
def test_windows_score_each_position_once_with_enough_context(
    inputs: int, first: int, context: int
) -> None:
    first = min(first, inputs - 1)
    windows = list(cut_windows(0, inputs, first, context))
    assert windows[0].scored == first and windows[-1].end == inputs
    assert all(one.end == two.scored for one, two in pairwise(windows))
    for window in windows:
        assert window.start <= window.scored < window.end <= window.start + context
        before = window.scored - window.start
        assert before == window.scored or before >= context - context // 2


def test_the_models_mode_and_the_random_state_stay(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    for training in (True, False):
        model.train(training)
        state = torch.get_rng_state()
        bits_per_byte(model, tokenizer, SHORT)
        assert model.training is training
        assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ZeroDivisionError), evaluating(model.train()):
        assert not model.training and not torch.is_grad_enabled()
        _ = 1 / 0
    assert model.training and torch.is_grad_enabled()


def test_training_goes_on_after_scoring(model: Transformer, tokenizer: Tokenizer) -> None:
    """Gradients flow and a change of weights is seen by the next evaluation."""
    before = bits_per_byte(model, tokenizer, SHORT)
    ids_BT = torch.tensor([[EOS, *tokenizer.encode(SHORT[0]), EOS]])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        logits = model.logits(model(ids_BT[:, :-1]))
        loss = torch.nn.functional.cross_entropy(logits[0], ids_BT[0, 1:])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    after = bits_per_byte(model, tokenizer, SHORT[:1]).bits
    assert after < bits_per_byte(model, tokenizer, SHORT).bits < before.bits
    assert after == pytest.approx(reference_bits(model, tokenizer, SHORT[0]), abs=1e-4)


def test_what_cannot_be_scored(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="春天"):
        loglikelihood(model, tokenizer, [("春天", "")])
    with pytest.raises(UserError, match="no held-out text"):
        bits_per_byte(model, tokenizer, [])
    assert loglikelihood(model, tokenizer, []) == []


def test_text_that_the_tokenizer_would_leave_out_is_not_scored(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """It would be counted in bytes and cost no bits."""
    from sentencepiece import sentencepiece_model_pb2

    spelling = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.path.read_bytes())
    spelling.trainer_spec.byte_fallback = False
    for piece in spelling.pieces:
        if piece.type == piece.BYTE:
            piece.type = piece.UNUSED
    path = tmp_path / FILE_NAME
    path.write_bytes(spelling.SerializeToString())
    poorer = Tokenizer(path)
    known, unknown = "the river", "the river 🙂"
    assert (
        bits_per_byte(model, poorer, [known]).bits == bits_per_byte(model, tokenizer, [known]).bits
    )
    with pytest.raises(UserError, match=re.escape(f"{path} has no pieces for some characters")):
        bits_per_byte(model, poorer, [known, unknown])
    assert bits_per_byte(model, tokenizer, [unknown]).bytes == 14


def test_parts_add_up(model: Transformer, tokenizer: Tokenizer) -> None:
    parts = [bits_per_byte(model, tokenizer, [text]) for text in SHORT]
    whole = bits_per_byte(model, tokenizer, SHORT)
    total = combined(parts)
    assert (total.bytes, total.tokens, total.documents) == (whole.bytes, whole.tokens, 3)
    assert total.bits == pytest.approx(whole.bits, abs=1e-4)
    assert isinstance(loglikelihood(model, tokenizer, PAIRS)[0], Score)
