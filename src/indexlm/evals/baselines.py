"""Two measures of text that know nothing of language, which a model has to beat.

A bigram model on the model's own tokenizer says what counting neighbours is worth; xz says what a
general compressor makes of the text alone. Both give bits per byte as the model does.

Shapes: N positions, P distinct pairs, V vocabulary.
"""

import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from indexlm.errors import UserError
from indexlm.evals.scoring import BitsPerByte, encode_documents, measured
from indexlm.tokens.tokenizer import EOS, Tokenizer


@dataclass(frozen=True)
class Bigram:
    """Interpolated Kneser-Ney (Kneser and Ney 1995): bigram, continuation unigram, uniform.

    Pairs are held as sorted codes `previous * vocab_size + next`, so that a lookup is a binary
    search: a dense table of a 65k vocabulary would take 16 GiB.
    """

    vocab_size: int
    pairs: np.ndarray
    """int64 [P], codes of the distinct pairs, ascending."""
    shares: np.ndarray
    """[P], discounted share of each pair among those with its previous token."""
    backoff: np.ndarray
    """[V], what each previous token leaves to the unigram; 1 for one never seen first."""
    unigram: np.ndarray
    """[V], by the number of distinct tokens that a token follows, mixed with uniform."""

    def probability(self, previous_N: np.ndarray, next_N: np.ndarray) -> np.ndarray:
        """P(next | previous) for each pair of ids, float64; above 0, and 1 in sum over all next."""
        code_N = previous_N.astype(np.int64) * self.vocab_size + next_N
        at_N = np.minimum(np.searchsorted(self.pairs, code_N), len(self.pairs) - 1)
        seen_N = np.where(self.pairs[at_N] == code_N, self.shares[at_N], 0.0)
        return np.asarray(seen_N + self.backoff[previous_N] * self.unigram[next_N])

    def bits_per_byte(self, tokenizer: Tokenizer, texts: Sequence[str]) -> BitsPerByte:
        """Score whole documents. Raises UserError where there is no text at all."""
        documents = encode_documents(tokenizer, texts)
        stream_N = _stream([np.array([*ids, EOS]) for ids in documents])
        probability_N = self.probability(stream_N[:-1], stream_N[1:])
        return measured(float(-np.log2(probability_N).sum()), documents, texts)


def train_bigram(documents: Iterable[np.ndarray], vocab_size: int) -> Bigram:
    """Count the pairs of documents, given as training holds them: ids with the end mark last.

    Takes 8 bytes per token and as much again while sorting. Raises UserError without documents.
    """
    stream_N = _stream(documents)
    if len(stream_N) < 2:
        raise UserError("there are no documents to count pairs in")
    code_N = stream_N[:-1] * vocab_size
    code_N += stream_N[1:]
    code_N.sort()
    first_P = np.flatnonzero(np.concatenate(([True], code_N[1:] != code_N[:-1])))
    count_P = np.diff(first_P, append=len(code_N))
    code_P = code_N[first_P]
    previous_P, next_P = np.divmod(code_P, vocab_size)

    discount = _discount(count_P)
    count_V = np.bincount(previous_P, weights=count_P, minlength=vocab_size)
    kinds_V = np.bincount(previous_P, minlength=vocab_size)
    backoff_V = np.ones(vocab_size)
    np.divide(discount * kinds_V, count_V, out=backoff_V, where=count_V > 0)

    follows_V = np.bincount(next_P, minlength=vocab_size)
    lower = _discount(follows_V[follows_V > 0])
    left_over = lower * np.count_nonzero(follows_V)
    unigram_V = (np.maximum(follows_V - lower, 0) + left_over / vocab_size) / follows_V.sum()
    return Bigram(
        vocab_size, code_P, (count_P - discount) / count_V[previous_P], backoff_V, unigram_V
    )


def xz_bits_per_byte(text: bytes) -> float:
    """Bits per byte of `xz -9e`. Raises UserError for no bytes."""
    if not text:
        raise UserError("there is no held-out text to compress; raise text.held_out_share")
    packed = lzma.compress(text, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)
    return 8 * len(packed) / len(text)


def _stream(documents: Iterable[np.ndarray]) -> np.ndarray:
    """All documents as one line of int64 ids that begins with an end mark.

    So each document follows the end mark of the one before it, and no pair crosses a border.
    """
    parts = [np.array([EOS], np.int64)]
    for ids in documents:
        # A second end mark would cost every document a bit for choosing between end and text.
        assert ids[-1] == EOS and not (len(ids) > 1 and ids[-2] == EOS)
        parts.append(ids.astype(np.int64))
    return np.concatenate(parts)


def _discount(count: np.ndarray) -> float:
    """n1 / (n1 + 2 n2), the estimate of Ney, Essen and Kneser (1994).

    A small text may have no count of 1 or of 2; the bounds keep every probability above 0.
    """
    once, twice = int(np.count_nonzero(count == 1)), int(np.count_nonzero(count == 2))
    return float(np.clip(once / max(once + 2 * twice, 1), 0.1, 0.9))
