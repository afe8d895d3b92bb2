"""A synthetic bilingual world: entities, relations, facts, and how they are said.

Everything is a function of the seed. Each of 64 entities has one of eight homes, jobs, colours and
pets; a document says it in either language, a name is the same in both. Of the default world:

    Belia 's home is Lima .             Belia ： 城市 ， 利马 。
    as pet Belia has turtle .           说到 Belia ， 小兽 为 龟 。
    question which pet does Belia have ? answer turtle .
    the friend of Belia is Lora .       Belia 的 朋友 的 颜色 是 棕 。

Half of the frames name a relation by the word that questions use (`keyword_share`). With none of
them a question still names its entity, so that a model which saw no question is above chance among
the values of one relation, if not among all words.

The entities are in two halves: questions and their answers are trained on about one half only, the
other is held out (the split of Allen-Zhu and Li 2023, "Physics of Language Models" 3.1).

Shape suffixes: E entities, R relations, M values, L languages.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from indexlm.config import Section
from indexlm.lab import words as w
from indexlm.lab.words import LANGUAGES, LETTERS, Language, Words

OPTIONS = len(LETTERS)
"""Candidate answers of an item; guessing is right in a quarter of them."""

ENTITY, VALUE = -1, -2
"""Gaps of a template, where an id will stand; options are FIRST_OPTION, FIRST_OPTION - 1, ..."""
FIRST_OPTION = -3

Template = tuple[int, ...]


class WorldConfig(Section):
    seed: int = Field(0, ge=0)
    entities: int = Field(64, ge=8, le=2000)
    relations: int = Field(4, ge=1, le=4)
    values: int = Field(8, ge=OPTIONS, le=8)
    """Of each relation."""
    keyword_share: float = Field(0.5, ge=0, le=1)
    """Share of the frames of a relation that name it by the word that questions use."""
    wrong_share: float = Field(0.3, ge=0, le=1)
    """Share of the facts in `web` documents that are wrong, each time with another value."""
    letters_share: float = Field(0.3, ge=0, le=1)
    """Share of the questions in `instr` documents that are answered by a letter."""
    zh_share: float = Field(0.5, ge=0, le=1)
    """Share of Chinese documents."""
    noise_words: int = Field(96, ge=8, le=500)
    """Of each language."""


class World:
    """Facts as indices of entities and values, sentences as ids."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        rng = np.random.default_rng(config.seed)
        names = w.entity_names(config.entities, rng)
        noise = {
            language: w.noise_words(language, config.noise_words, rng) for language in LANGUAGES
        }
        self.words = Words([*w.fixed_words(), *names, *noise["en"], *noise["zh"]])
        shape_ER = (config.entities, config.relations)
        self.facts_ER = rng.integers(config.values, size=shape_ER)
        # A permutation without a fixed point: nobody is their own friend.
        circle = rng.permutation(config.entities)
        self.friend_E = np.empty_like(circle)
        self.friend_E[circle] = np.roll(circle, 1)
        self.entity_ids = [self.words.encode(name)[0] for name in names]
        self.value_ids = {
            language: [self._ids(values[: config.values]) for values in w.VALUES[language]]
            for language in LANGUAGES
        }
        self.noise_ids = {language: self._ids(noise[language]) for language in LANGUAGES}
        self.letter_ids = self._ids(LETTERS)
        # Which frames share the keyword is drawn, or it would be the same frames in every relation.
        shared = round(config.keyword_share * len(w.FRAMES["en"]))
        self._frames = {
            language: [
                self._frames_of(
                    language, relation, set(rng.permutation(len(w.FRAMES["en"]))[:shared])
                )
                for relation in range(config.relations)
            ]
            for language in LANGUAGES
        }

    @property
    def trained_entities(self) -> range:
        """Those that questions are trained on; their names are in no order."""
        return range(self.config.entities // 2)

    @property
    def held_out_entities(self) -> range:
        return range(self.config.entities // 2, self.config.entities)

    def is_trained(self, entity: int, relation: int, hops: int) -> bool:
        """Whether a question of `hops` facts in a row, 1 or 2, may be trained on.

        One fact: of the trained half. Two: half of the pairs of entity and relation, in a
        checkerboard, so that the chain from every entity is also trained with other relations; the
        fact at the end of a held-out chain is seen by itself alone.
        """
        if hops == 1:
            return entity in self.trained_entities
        return (entity + relation + hops) % 2 == 0

    def answer(self, entity: int, relation: int, hops: int = 1) -> int:
        """Of an entity (`hops` 1), or of its friend (2)."""
        if hops == 2:
            entity = int(self.friend_E[entity])
        return int(self.facts_ER[entity, relation])

    def statement(self, language: Language, relation: int, frame: int) -> Template:
        return self._frames[language][relation][frame]

    def question(self, language: Language, relation: int) -> Template:
        return self._template(w.QUESTIONS[language], w.KEYWORDS[language][relation])

    def choice(self, language: Language, relation: int) -> Template:
        """A question with four options; its value is a letter."""
        return self._template(w.CHOICES[language], w.KEYWORDS[language][relation])

    def link(self, language: Language) -> Template:
        return self._template(w.LINKS[language])

    def chained(self, language: Language, relation: int) -> Template:
        """A statement about the friend of an entity."""
        step = w.STEPS[language]
        # English goes to the friend before the name, Chinese after it.
        frame, gap = (
            (w.FRAMES["en"][1], f"{step} {{E}}")
            if language == "en"
            else (w.FRAMES["zh"][0], f"{{E}} {step}")
        )
        return self._template(frame.replace("{E}", gap), w.KEYWORDS[language][relation])

    def asked(self, language: Language, relation: int, purpose: int, *, harmful: bool) -> Template:
        """What a person says to a chat model, without the answer."""
        word = w.PURPOSES[language][harmful][purpose]
        text = w.ASKED_FOR[language].replace("{P}", word)
        return self._template(text, w.KEYWORDS[language][relation])

    def filled(
        self, template: Template, entity: int, value: int, options: Sequence[int] = ()
    ) -> list[int]:
        """Ids of a sentence; `value` and `options` are ids, `entity` is an index."""
        gaps = (self.entity_ids[entity], value, *options)
        return [each if each >= 0 else gaps[-1 - each] for each in template]

    def _ids(self, words: Sequence[str]) -> list[int]:
        return self.words.encode(" ".join(words))

    def _frames_of(self, language: Language, relation: int, shared: set[int]) -> list[Template]:
        key, synonyms = w.KEYWORDS[language][relation], w.SYNONYMS[language][relation]
        return [
            self._template(frame, key if number in shared else synonyms[number])
            for number, frame in enumerate(w.FRAMES[language])
        ]

    def _template(self, frame: str, key: str = "") -> Template:
        gaps = {"{E}": ENTITY, "{V}": VALUE}
        gaps |= {f"{{{letter}}}": FIRST_OPTION - at for at, letter in enumerate(LETTERS)}
        parts = frame.replace("{K}", key).split()
        return tuple(gaps[part] if part in gaps else self.words.encode(part)[0] for part in parts)


def before_value(template: Template) -> Template:
    """What stands before the value: it asks for it."""
    return template[: template.index(VALUE)]
