"""Which past lines of a character fit what is being said now.

TF-IDF over single characters and pairs of characters (whole words in Latin script), cosine
similarity. For "which reply follows", pairs of Chinese characters do as well as a dense sentence
model, need no dictionary and no download, and one search takes well under a millisecond for a
thousand lines. The index is derived from the card and rebuilt in a fraction of a second, so the
store keeps the lines alone.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from indexlm.roleplay.card import Card, Line, exchanges

CONTEXT_LINES = 2
"""Lines before a reply that it is found by, and lines of the chat before the newest one that
take part in a query."""
OLDER_WEIGHT = 0.5
"""Weight of every line but the newest. Over the replies of three people of a novel, overlap of
what is found with the true reply was best at 0.3 to 0.6; 0 lost 8 to 17 percent of it."""
MATCHED_TERMS = 5

_RUN = re.compile(r"[\u3400-\u9fff]+|[^\W_\u3400-\u9fff]+")


@dataclass(frozen=True)
class Hit:
    """One past reply. `context` holds the lines before it with other speakers' names replaced
    by user0, user1..., because names must not steer the model; `score` is a cosine."""

    dialogue_index: int
    reply: str
    context: tuple[Line, ...]
    score: float
    matched_terms: tuple[str, ...]


class Memory:
    """An index of one card's replies, each found by its own words and the lines before it."""

    def __init__(self, card: Card) -> None:
        self._documents = [
            (each.dialogue_index, each.reply, _anonymous(each.context[-CONTEXT_LINES:], card.name))
            for each in exchanges(card)
        ]
        self._scenes = np.array([card.dialogues[index].scene for index, *_ in self._documents])
        bags = [
            _bag([*(line.text for line in lines), reply], newest=2)
            for _, reply, lines in self._documents
        ]
        found_in = Counter(term for bag in bags for term in bag)
        self._idf = {term: math.log(1 + len(bags) / count) for term, count in found_in.items()}
        postings: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, bag in enumerate(bags):
            for term, weight in self._unit(bag).items():
                postings[term].append((index, weight))
        self._postings = {
            term: (np.array([i for i, _ in entries]), np.array([w for _, w in entries]))
            for term, entries in postings.items()
        }

    def search(
        self, query_lines: Sequence[str], k: int, exclude_scene: str | None = None
    ) -> list[Hit]:
        """The `k` replies most like the query, best first; fewer where nothing else is alike.

        `query_lines` is the chat's end, newest last. `exclude_scene` hides the scene that a
        training row comes from, or the row would hold its own answer.
        """
        query = self._unit(_bag(query_lines[-1 - CONTEXT_LINES :], newest=1))
        terms = [term for term in query if term in self._postings]
        if not terms or k < 1:
            return []
        documents = np.concatenate([self._postings[term][0] for term in terms])
        parts = np.concatenate([query[term] * self._postings[term][1] for term in terms])
        scores = np.bincount(documents, parts, minlength=len(self._documents))
        if exclude_scene is not None:
            scores[self._scenes == exclude_scene] = 0
        # A stable order: equal scores keep the order of the script.
        best = np.argsort(-scores, kind="stable")[:k]
        return [self._hit(int(i), float(scores[i]), query) for i in best if scores[i] > 0]

    def _hit(self, index: int, score: float, query: dict[str, float]) -> Hit:
        dialogue_index, reply, lines = self._documents[index]
        shared = _bag([*(line.text for line in lines), reply], newest=1).keys() & query.keys()
        terms = sorted(shared, key=lambda term: (-query[term], term))[:MATCHED_TERMS]
        return Hit(dialogue_index, reply, lines, score, tuple(terms))

    def _unit(self, bag: dict[str, float]) -> dict[str, float]:
        """TF-IDF weights of length 1; a term of the query that no reply has counts for nothing."""
        weights = {
            term: (1 + math.log(weight) if weight > 1 else weight) * self._idf.get(term, 0.0)
            for term, weight in bag.items()
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {term: weight / length for term, weight in weights.items()} if length else {}


def terms_of(text: str) -> Iterable[str]:
    """Characters and pairs of neighbouring characters of Chinese; words of other scripts."""
    for run in _RUN.findall(text.lower()):
        if "\u3400" <= run[0] <= "\u9fff":
            yield from run
            yield from (a + b for a, b in pairwise(run))
        else:
            yield run


def _bag(lines: Sequence[str], newest: int) -> dict[str, float]:
    """Weighted counts of terms; the last `newest` lines count in full."""
    bag: defaultdict[str, float] = defaultdict(float)
    for age, line in enumerate(reversed(lines)):
        for term in terms_of(line):
            bag[term] += 1.0 if age < newest else OLDER_WEIGHT
    return dict(bag)


def _anonymous(lines: Sequence[Line], name: str) -> tuple[Line, ...]:
    """Other speakers become user0, user1... in order of appearance; the unknown one too."""
    others: dict[str, str] = {}
    for line in lines:
        if line.speaker != name:
            others.setdefault(line.speaker, f"user{len(others)}")
    return tuple(Line(others.get(line.speaker, name), line.text) for line in lines)
