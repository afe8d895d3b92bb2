"""The world's documents as endless rows: row n of a kind is a function of (world, seed, kind, n).

| kind | a document of it | stands for |
|---|---|---|
| `hq` | every fact of one entity, all right | curated text |
| `web` | two facts between words of noise, some of them wrong | ordinary text |
| `noise` | words by Zipf's law, each likely followed by one of four | text without facts |
| `instr` | a question and its answer or its letter, about the trained half | instruction data |
| `links` | who is whose friend | |
| `hops-2` | a fact of a friend, of the trained pairs | |
"""

from bisect import bisect
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from indexlm.errors import UserError
from indexlm.feed.packing import Row, Segment
from indexlm.lab.words import FRAMES, LANGUAGES, Language
from indexlm.lab.world import OPTIONS, World
from indexlm.tokens.tokenizer import EOS

KINDS = ("hq", "web", "noise", "instr", "links", "hops-2")

ROWS = 64
"""Rows drawn from one generator, whose making costs as much as a row."""

SUCCESSORS = 4
"""Words that are likely to follow a word of noise; they do half of the time."""

NOISE_BETWEEN = (3, 6)
"""Words of noise between the facts of a `web` document."""


class Draws:
    """Random numbers one by one, drawn from a generator many at a time."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._numbers = self._endless(generator)

    def share(self) -> float:
        """In [0, 1)."""
        return next(self._numbers)

    def below(self, count: int) -> int:
        return int(next(self._numbers) * count)

    def shuffled(self, count: int) -> list[int]:
        """0 to count - 1 in a random order."""
        return sorted(range(count), key=[self.share() for _ in range(count)].__getitem__)

    @staticmethod
    def _endless(generator: np.random.Generator) -> Iterator[float]:
        while True:
            yield from generator.random(1024).tolist()


class WorldSource:
    """Rows of `length` tokens of one kind; documents are whole but for the last of a row."""

    def __init__(self, world: World, kind: str, seed: int, length: int) -> None:
        """Raises UserError for a kind that there is not."""
        if kind not in KINDS:
            raise UserError(f"{kind!r} is no kind of document; there are {', '.join(KINDS)}")
        self.world, self.kind, self.seed, self.length = world, kind, seed, length
        self._write: Callable[[Draws, Language], list[int]] = {
            "hq": self._curated,
            "web": self._ordinary,
            "noise": self._senseless,
            "instr": self._instruction,
            "links": self._link,
            "hops-2": self._chain,
        }[kind]
        # A property of the world: the same in every arm.
        noise = np.random.default_rng((world.config.seed, 1))
        count = world.config.noise_words
        self._successors = noise.integers(count, size=(count, SUCCESSORS)).tolist()
        self._zipf = np.cumsum(1 / np.arange(1, count + 1))
        self._zipf = (self._zipf / self._zipf[-1]).tolist()
        self._block = lru_cache(maxsize=2)(self._rows)

    def row(self, number: int) -> Row:
        block, place = divmod(number, ROWS)
        return self._block(block)[place]

    def documents(self, number: int) -> list[int]:
        """A row is drawn as a whole and named as one."""
        return [number]

    def _rows(self, block: int) -> list[Row]:
        kind = KINDS.index(self.kind)
        draws = Draws(np.random.default_rng((self.world.config.seed, self.seed, kind, block)))
        return [self._row(draws) for _ in range(ROWS)]

    def _row(self, draws: Draws) -> Row:
        row: Row = []
        left = self.length
        while left:
            language = LANGUAGES[draws.share() < self.world.config.zh_share]
            ids = [EOS, *self._write(draws, language), EOS]
            labels = np.array(ids[1 : left + 1])
            row.append(Segment(np.array(ids[: len(labels)]), labels))
            left -= len(labels)
        return row

    def _curated(self, draws: Draws, language: Language) -> list[int]:
        entity = draws.below(self.world.config.entities)
        ids: list[int] = []
        for relation in draws.shuffled(self.world.config.relations):
            value = self.world.answer(entity, relation)
            ids += self._stated(draws, language, entity, relation, value)
        return ids

    def _ordinary(self, draws: Draws, language: Language) -> list[int]:
        config = self.world.config
        ids = self._noise(draws, language)
        for _ in range(2):
            entity, relation = draws.below(config.entities), draws.below(config.relations)
            value = self.world.answer(entity, relation)
            if draws.share() < config.wrong_share:
                value = (value + 1 + draws.below(config.values - 1)) % config.values
            ids += self._stated(draws, language, entity, relation, value)
            ids += self._noise(draws, language)
        return ids

    def _senseless(self, draws: Draws, language: Language) -> list[int]:
        return [word for _ in range(4) for word in self._noise(draws, language)]

    def _instruction(self, draws: Draws, language: Language) -> list[int]:
        world = self.world
        entity = draws.below(len(world.trained_entities))
        relation = draws.below(world.config.relations)
        value_ids = world.value_ids[language][relation]
        right = world.answer(entity, relation)
        if draws.share() >= world.config.letters_share:
            return world.filled(world.question(language, relation), entity, value_ids[right])
        options, place = drawn_options(draws, right, world.config.values)
        shown = [value_ids[option] for option in options]
        letter = world.letter_ids[place]
        return world.filled(world.choice(language, relation), entity, letter, shown)

    def _link(self, draws: Draws, language: Language) -> list[int]:
        entity = draws.below(self.world.config.entities)
        friend = self.world.entity_ids[self.world.friend_E[entity]]
        return self.world.filled(self.world.link(language), entity, friend)

    def _chain(self, draws: Draws, language: Language) -> list[int]:
        world, hops = self.world, 2
        entity, relation = draws.below(world.config.entities), draws.below(world.config.relations)
        while not world.is_trained(entity, relation, hops):
            entity, relation = (
                draws.below(world.config.entities),
                draws.below(world.config.relations),
            )
        value = world.value_ids[language][relation][world.answer(entity, relation, hops)]
        return world.filled(world.chained(language, relation), entity, value)

    def _stated(
        self, draws: Draws, language: Language, entity: int, relation: int, value: int
    ) -> list[int]:
        template = self.world.statement(language, relation, draws.below(len(FRAMES[language])))
        return self.world.filled(template, entity, self.world.value_ids[language][relation][value])

    def _noise(self, draws: Draws, language: Language) -> list[int]:
        fewest, most = NOISE_BETWEEN
        ids = self.world.noise_ids[language]
        word = bisect(self._zipf, draws.share())
        found = [ids[word]]
        for _ in range(fewest + draws.below(most - fewest + 1) - 1):
            follows = draws.share() < 0.5
            word = (
                self._successors[word][draws.below(SUCCESSORS)]
                if follows
                else bisect(self._zipf, draws.share())
            )
            found.append(ids[word])
        return found


def drawn_options(draws: Draws, right: int, values: int) -> tuple[list[int], int]:
    """Four different values in a random order, the right one among them, and its place."""
    wrong = [value for value in draws.shuffled(values) if value != right][: OPTIONS - 1]
    place = draws.below(OPTIONS)
    return [*wrong[:place], right, *wrong[place:]], place
