"""Conversations and pairs of unequal lengths, for the network of the workshop."""

from functools import cache

import numpy as np
from workshop import SHAPE

from indexlm.feed.packing import ConversationSource
from indexlm.tokens.chat_format import IGNORED
from indexlm.train.objectives.preference import Pair


@cache
def talk() -> ConversationSource:
    """Conversations of 4 to 20 tokens, of which the last 1 to 15 are labelled."""
    generator = np.random.default_rng(7)
    made = []
    for size in generator.integers(4, 21, size=90):
        ids = generator.integers(5, SHAPE.vocab_size, size=size).tolist()
        prompt = int(generator.integers(1, size - 1)) if size % 3 else size - 2
        made.append((ids, [IGNORED] * prompt + ids[prompt + 1 :] + [2]))
    return ConversationSource(made, SHAPE.context, 4)


def pairs() -> list[Pair]:
    generator = np.random.default_rng(8)

    def side(prompt: list[int], token: int) -> tuple[list[int], list[int]]:
        answer = [token] * int(generator.integers(1, 6))
        ids = prompt + answer
        return ids, [IGNORED] * (len(prompt) - 1) + [*answer, 2]

    prompts = [generator.integers(5, 100, size=6).tolist() for _ in range(30)]
    return [Pair(side(p, 100 + p[0] % 7), side(p, 120 + p[1] % 7)) for p in prompts]
