"""What the world promises: facts that hold together, words of its own, halves that stay apart."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import indexlm.lab.world as module
from indexlm.errors import UserError
from indexlm.lab import words as w
from indexlm.lab.words import LANGUAGES, Language
from indexlm.lab.world import World, WorldConfig, before_value
from indexlm.tokens.tokenizer import SPECIAL_PIECES

WORLD = World(WorldConfig())


def test_the_same_seed_is_the_same_world_and_another_one_is_not() -> None:
    again, other = World(WorldConfig()), World(WorldConfig(seed=1))
    assert again.words.pieces == WORLD.words.pieces
    assert (again.facts_ER == WORLD.facts_ER).all()
    assert (other.facts_ER != WORLD.facts_ER).mean() > 0.5
    assert other.words.pieces != WORLD.words.pieces


def test_every_word_has_one_id_and_one_meaning() -> None:
    """Names, values and words of noise are never one another: a lookup cannot be ambiguous."""
    pieces = WORLD.words.pieces
    assert len(set(pieces)) == len(pieces)
    assert pieces[: len(SPECIAL_PIECES)] == list(SPECIAL_PIECES)
    values = [v for language in LANGUAGES for each in WORLD.value_ids[language] for v in each]
    noise = [*WORLD.noise_ids["en"], *WORLD.noise_ids["zh"]]
    apart = [*WORLD.entity_ids, *values, *noise, *WORLD.letter_ids]
    assert len(set(apart)) == len(apart)
    assert 400 <= len(pieces) <= 600


def test_no_word_of_a_relation_belongs_to_another_relation() -> None:
    for language in LANGUAGES:
        names = [*w.KEYWORDS[language], *(s for each in w.SYNONYMS[language] for s in each)]
        assert len(set(names)) == len(names)
        purposes = [p for each in w.PURPOSES[language] for p in each]
        assert not set(purposes) & set(names)


@given(st.integers(0, 10**6), st.sampled_from([8, 64, 300, 2000]))
def test_worlds_of_any_size_have_names_enough(seed: int, entities: int) -> None:
    names = w.entity_names(entities, np.random.default_rng(seed))
    assert len(set(names)) == entities
    assert not set(names) & set(w.fixed_words())


def test_a_word_of_another_world_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'unheard' is no word"):
        WORLD.words.encode("the unheard word")


def test_what_is_encoded_is_decoded() -> None:
    text = "说到 Belia ， 家 为 利马 。" if "Belia" in WORLD.words.pieces else "the home"
    assert WORLD.words.decode(WORLD.words.encode(text)) == text


# The examples of the documentation are true.


def told(sentence: str) -> tuple[str, int, int] | None:
    """(name, relation, value) of a sentence that states one fact."""
    words = sentence.split()
    for language in LANGUAGES:
        for relation, values in enumerate(w.VALUES[language]):
            found = [values.index(word) for word in words if word in values]
            if found:
                names = [word for word in words if word in names_of(WORLD)]
                return names[0], relation, found[0]
    return None


def names_of(world: World) -> list[str]:
    return [world.words.pieces[each] for each in world.entity_ids]


def test_the_examples_are_sentences_of_the_default_world_and_true() -> None:
    lines = [
        line.strip() for line in (module.__doc__ or "").splitlines() if line.startswith("    ")
    ]
    sentences = [each for line in lines for each in re.split(r"\s{3,}", line)]
    assert len(sentences) >= 6
    for sentence in sentences:
        WORLD.words.encode(sentence)
        hops = 1 + sentence.count("friend of") + sentence.count("的 朋友 的")
        fact = told(sentence)
        if fact is None:
            first, second = (word for word in sentence.split() if word in names_of(WORLD))
            friend = WORLD.friend_E[names_of(WORLD).index(first)]
            assert names_of(WORLD)[friend] == second
            continue
        name, relation, value = fact
        assert WORLD.answer(names_of(WORLD).index(name), relation, hops) == value, sentence


# Sentences.


@given(
    st.sampled_from(LANGUAGES),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 63),
    st.integers(0, 7),
)
def test_a_statement_names_its_entity_and_ends_in_its_value(
    language: Language, relation: int, frame: int, entity: int, value: int
) -> None:
    template = WORLD.statement(language, relation, frame)
    word = WORLD.value_ids[language][relation][value]
    ids = WORLD.filled(template, entity, word)
    assert min(ids) >= len(SPECIAL_PIECES)
    assert ids.count(WORLD.entity_ids[entity]) == 1
    assert ids[-2] == word
    assert WORLD.filled(before_value(template), entity, 0) == ids[:-2]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_frames_with_the_keyword_is_as_asked(share: float) -> None:
    world = World(WorldConfig(keyword_share=share))
    for language in LANGUAGES:
        for relation in range(4):
            key = world.words.encode(w.KEYWORDS[language][relation])[0]
            frames = [world.statement(language, relation, frame) for frame in range(4)]
            assert sum(key in frame for frame in frames) == 4 * share
            assert key in world.question(language, relation)


def test_an_english_and_a_chinese_word_mean_the_same_value() -> None:
    """Facts are of values, not of words: a name has the same home in either language."""
    for values in w.VALUES["en"], w.VALUES["zh"]:
        assert [len(each) for each in values] == [8, 8, 8, 8]
    assert w.VALUES["zh"][0][w.VALUES["en"][0].index("Tokyo")] == "东京"
    assert w.VALUES["zh"][2][w.VALUES["en"][2].index("purple")] == "紫"


# Chains and halves.


def test_friends_go_round_in_one_circle() -> None:
    seen, entity = [], 0
    for _ in range(64):
        entity = int(WORLD.friend_E[entity])
        seen.append(entity)
    assert sorted(seen) == list(range(64))


def test_a_chain_is_a_fact_of_the_friend() -> None:
    for entity in range(64):
        friend = int(WORLD.friend_E[entity])
        for relation in range(4):
            assert WORLD.answer(entity, relation, 2) == WORLD.answer(friend, relation)


def test_half_of_what_can_be_asked_is_held_out() -> None:
    for hops in (1, 2):
        trained = [WORLD.is_trained(e, r, hops) for e in range(64) for r in range(4)]
        assert sum(trained) == 128
    # Every link and every fact is also part of a longer question that is trained on.
    for entity in range(64):
        assert any(WORLD.is_trained(entity, relation, 2) for relation in range(4))
