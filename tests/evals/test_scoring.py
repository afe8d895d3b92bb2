"""Scores against a plain forward pass over one row, and the mistakes that it would catch."""

import copy
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from indexlm.errors import UserError
from indexlm.evals import scoring as subject
from indexlm.evals.scoring import (
    Row,
    Score,
    Scored,
    bits_per_byte,
    combined,
    evaluating,
    loglikelihood,
    score_rows,
)
from indexlm.model.config import ModelConfig
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


def wider(heads: int, kv_heads: int) -> Transformer:
    """A window of 96, and float64 weights."""
    config = ModelConfig(
        vocab_size=300,
        hidden=32,
        layers=2,
        heads=heads,
        kv_heads=kv_heads,
        ffn=64,
        context=96,
        head_scale=3.0,
        init_std=0.3,
    )
    network = Transformer(config)
    network.initialise(seed=5)
    return network.double()


def benchmark_rows() -> list[Row]:
    """A long beginning for all, questions, and options of one and of several tokens; rows that
    begin others, that differ in what is scored, that are the same, and one beyond the window."""
    rng = random.Random(4)

    def draw(count: int) -> list[int]:
        return [rng.randrange(300) for _ in range(count)]

    shots, rows = draw(40), []
    for _ in range(6):
        question = shots + draw(rng.randrange(10, 25))
        rows += [Row([*question, option], len(question)) for option in (7, 8, 9, 10)]
        rows += [Row(question + draw(5), len(question)) for _ in range(3)]
        rows += [Row(question[:-2], 45), Row(question, 50), Row(question, 1)]
    rows += [Row(shots, 20), Row(draw(30), 28), Row(shots + draw(150), 170), rows[0]]
    return rows


def by_itself(model: Transformer, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """A plain pass over one row, which loses its beginning beyond the window."""
    kept = row.ids[-model.config.context - 1 :]
    with torch.no_grad():
        logits_TV = model.logits(model(torch.tensor([kept[:-1]])))[0].double()
    count = len(row.ids) - row.first
    logits_NV, ids_N = logits_TV[-count:], torch.tensor(kept[-count:])
    logprobs_N = logits_NV.log_softmax(1).gather(1, ids_N[:, None])[:, 0]
    return logprobs_N.numpy(), (logits_NV.argmax(1) == ids_N).numpy()


def furthest(model: Transformer, rows: list[Row], scored: Scored) -> float:
    """The largest difference from plain passes; greediness is compared on the way."""
    assert len(scored.scores) == len(rows)
    differences = []
    for row, (logprobs_N, greedy_N) in zip(rows, scored.scores):
        expected_N, likeliest_N = by_itself(model, row)
        assert logprobs_N.dtype == np.float64 and greedy_N.tolist() == likeliest_N.tolist()
        differences.append(np.abs(logprobs_N - expected_N).max())
    return float(max(differences))


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (4, 1)])
def test_shared_beginnings_change_no_score(heads: int, kv_heads: int) -> None:
    exact = wider(heads, kv_heads)
    single = copy.deepcopy(exact).float()
    rows = benchmark_rows()
    computed = set()
    for batch_tokens in (1, 50, 130, 8192):
        scored = score_rows(exact, rows, batch_tokens)
        assert furthest(exact, rows, scored) < 1e-10
        assert furthest(single, rows, score_rows(single, rows, batch_tokens)) < 1e-5
        computed.add(scored.computed)
    assert computed == {scored.computed}
    alone = score_rows(exact, rows, share=False)
    assert furthest(exact, rows, alone) < 1e-10
    # The first row and the last are the same.
    assert alone.naive - alone.computed == len(rows[0].ids) - 1
    assert scored.naive == alone.naive > 6 * scored.computed


def test_the_order_of_rows_changes_no_score() -> None:
    model, rows = wider(4, 2), benchmark_rows()
    order = random.Random(2).sample(range(len(rows)), len(rows))
    scored = score_rows(model, rows)
    mixed = score_rows(model, [rows[number] for number in order])
    for number, score in zip(order, mixed.scores):
        assert score.logprobs == pytest.approx(scored.scores[number].logprobs, abs=1e-10)
        assert (score.greedy == scored.scores[number].greedy).all()
    assert mixed[1:] == scored[1:]


def test_identical_rows_tie_exactly() -> None:
    """In float32, where two computations of one number differ in their last bits."""
    model, rows = wider(4, 4).float(), benchmark_rows()
    for share in (True, False):
        found = score_rows(model, rows + rows[::-1], batch_tokens=70, share=share).scores
        for one, other in zip(found, found[::-1]):
            assert (one.logprobs == other.logprobs).all()


def test_options_of_one_token_cost_the_question_alone() -> None:
    question = list(range(50))
    rows = [Row([*question, option], 50) for option in range(60, 80)]
    scored = score_rows(wider(4, 4), rows)
    assert (scored.computed, scored.naive) == (50, 20 * 50)
    assert len({float(score.logprobs[0]) for score in scored.scores}) == 20


def test_rows_of_which_nothing_is_scored() -> None:
    rows = [Row([1, 2, 3], 3), Row([1, 2, 3], 2)]
    nothing, one = score_rows(wider(4, 4), rows).scores
    assert len(nothing.logprobs) == 0 and len(one.logprobs) == 1
    assert score_rows(wider(4, 4), []) == Scored([], 0, 0)


class Largest(TorchDispatchMode):
    """How many numbers the largest result of any operation has."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(
        self,
        operation: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = operation(*args, **kwargs or {})
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("share", [True, False])
def test_logits_of_all_positions_never_exist(monkeypatch: pytest.MonkeyPatch, share: bool) -> None:
    model = wider(4, 4)
    rows = [Row(row.ids, 1) for row in benchmark_rows()]
    largest = [Largest(), Largest()]
    with largest[0]:
        expected = score_rows(model, rows, 250, share=share)
    monkeypatch.setattr(subject, "CHUNK_FLOATS", 20_000)
    with largest[1]:
        found = score_rows(model, rows, 250, share=share)
    # 250 positions of the feed-forward layer have 16,000, all logits of a pass up to 75,000.
    assert largest[0].numbers > 50_000 and largest[1].numbers <= 20_000
    assert len(expected.scores) == len(found.scores)
    for one, other in zip(expected.scores, found.scores):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-10)
        assert (one.greedy == other.greedy).all()
