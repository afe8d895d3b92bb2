"""The text of every row: made-up documents, the same ids for all.

Lengths are log-normal, their median 200 tokens; ids follow Zipf's law, so that the embedding's
gradient meets frequent and rare rows as in real text.
"""

import numpy as np

TOKENS = 2_000_000
END = 2
"""Ends a document; ids below 5 are control tokens of indexlm and appear nowhere else."""


def documents(vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids [tokens] and the borders of the documents [documents + 1]."""
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(np.log(200), 0.8, size=TOKENS // 200).astype(np.int64) + 2
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    # The inverse of the distribution function of p(id) ~ 1 / id.
    ids = 4 + (vocab_size - 4) ** generator.random(int(offsets[-1]))
    ids = np.minimum(ids, vocab_size - 1).astype(np.uint16)
    ids[offsets[1:] - 1] = END
    return ids, offsets


def packed_rows(vocab_size: int, length: int) -> np.ndarray:
    """The documents one after another, cut into rows, int64 [rows, length]."""
    ids, _ = documents(vocab_size)
    return ids[: len(ids) // length * length].reshape(-1, length).astype(np.int64)
