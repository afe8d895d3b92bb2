"""The bigram model is a probability model of the right text, and xz is xz."""

import lzma
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.evals.baselines import Bigram, train_bigram, xz_bits_per_byte
from indexlm.tokens.tokenizer import EOS, Tokenizer

VOCAB = 12


def total(bigram: Bigram, previous: int) -> float:
    everything_V = np.arange(bigram.vocab_size)
    return float(bigram.probability(np.full_like(everything_V, previous), everything_V).sum())


@given(st.lists(st.lists(st.integers(3, VOCAB - 1), max_size=30), min_size=1, max_size=8))
def test_probabilities_are_above_0_and_sum_to_1(documents: list[list[int]]) -> None:
    bigram = train_bigram([np.array([*ids, EOS], np.uint16) for ids in documents], VOCAB)
    for previous in range(VOCAB):
        assert total(bigram, previous) == pytest.approx(1, abs=1e-12)
        assert bigram.probability(np.full(VOCAB, previous), np.arange(VOCAB)).min() > 0


def test_it_is_interpolated_kneser_ney() -> None:
    """Against the formula written out over a dictionary of counts."""
    documents = [[5, 6, 5, 6, 7], [5, 6, 8], [9]]
    stream = [EOS, 5, 6, 5, 6, 7, EOS, 5, 6, 8, EOS, 9, EOS]
    counts: dict[tuple[int, int], int] = {}
    for pair in pairwise(stream):
        counts[pair] = counts.get(pair, 0) + 1
    once, twice = (sum(c == n for c in counts.values()) for n in (1, 2))
    discount = once / (once + 2 * twice)
    follows = {w: len({v for v, x in counts if x == w}) for w in range(VOCAB)}
    lower = sum(c == 1 for c in follows.values())
    lower_discount = np.clip(lower / (lower + 2 * sum(c == 2 for c in follows.values())), 0.1, 0.9)
    kinds = sum(c > 0 for c in follows.values())

    def unigram(w: int) -> float:
        kept = max(follows[w] - lower_discount, 0)
        return float((kept + lower_discount * kinds / VOCAB) / len(counts))

    def expected(v: int, w: int) -> float:
        row = {pair: c for pair, c in counts.items() if pair[0] == v}
        if not row:
            return unigram(w)
        seen = max(row.get((v, w), 0) - discount, 0)
        return (seen + discount * len(row) * unigram(w)) / sum(row.values())

    bigram = train_bigram([np.array([*ids, EOS]) for ids in documents], VOCAB)
    for v in range(VOCAB):
        for w in range(VOCAB):
            found = bigram.probability(np.array([v]), np.array([w]))[0]
            assert found == pytest.approx(expected(v, w), abs=1e-12)


def test_bits_pay_for_every_token_and_each_end(
    tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    documents = texts["zh_curated"]
    ids = [tokenizer.encode(text) for text in documents]
    bigram = train_bigram([np.array([*each, EOS]) for each in ids], tokenizer.vocab_size)
    bits = 0.0
    for each in ids:
        line = np.array([EOS, *each, EOS])
        bits -= float(np.log2(bigram.probability(line[:-1], line[1:])).sum())
    found = bigram.bits_per_byte(tokenizer, documents)
    assert found.bits == pytest.approx(bits)
    assert found.bytes == sum(len(text.encode()) for text in documents)
    assert found.tokens == sum(len(each) + 1 for each in ids)


def test_it_knows_its_own_text_better(tokenizer: Tokenizer, texts: dict[str, list[str]]) -> None:
    zh, en = texts["zh_curated"], texts["en_noisy"]
    own, other = (
        train_bigram([np.array([*tokenizer.encode(t), EOS]) for t in part], tokenizer.vocab_size)
        for part in (zh, en)
    )
    uniform = math.log2(tokenizer.vocab_size)
    found = own.bits_per_byte(tokenizer, zh)
    assert found.bits < other.bits_per_byte(tokenizer, zh).bits
    assert found.bits / found.tokens < uniform


def test_no_text_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="no documents"):
        train_bigram([], VOCAB)
    with pytest.raises(UserError, match="no held-out text"):
        xz_bits_per_byte(b"")


def test_xz_packs_what_can_be_unpacked(texts: dict[str, list[str]]) -> None:
    text = "\n".join(texts["zh_curated"]).encode()
    packed = lzma.compress(text, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)
    assert lzma.decompress(packed) == text
    assert xz_bits_per_byte(text) == 8 * len(packed) / len(text)
    # Text said ten times costs hardly more than once.
    assert xz_bits_per_byte(text * 10) < 0.2 * xz_bits_per_byte(text)
