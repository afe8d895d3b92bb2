"""Rows of the world: the same ones everywhere, whole, and with the facts that they should have."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.feed.packing import Row, Segment
from indexlm.lab.corpus import KINDS, ROWS, Draws, WorldSource, drawn_options
from indexlm.lab.words import LANGUAGES, VALUES
from indexlm.lab.world import World, WorldConfig
from indexlm.tokens.tokenizer import EOS

WORLD = World(WorldConfig())
LENGTH = 32


def names(world: World) -> dict[str, int]:
    return {world.words.pieces[each]: number for number, each in enumerate(world.entity_ids)}


NAMES = names(WORLD)


def source(kind: str, seed: int = 3, length: int = LENGTH, world: World = WORLD) -> WorldSource:
    return WorldSource(world, kind, seed, length)


def same(one: Row, other: Row) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.labels, b.labels)
        for a, b in zip(one, other)
    )


def sentences(kind: str, rows: int, world: World = WORLD) -> list[list[str]]:
    """Words, without the full stop, of the whole sentences of so many rows."""
    found = []
    for number in range(rows):
        for segment in source(kind, world=world).row(number):
            words: list[str] = []
            for word in world.words.decode(segment.labels.tolist()).split():
                if word in (".", "。", "</s>"):
                    found.append(words)
                    words = []
                else:
                    words.append(word)
    return [words for words in found if words]


def stated(words: list[str], world: World = WORLD) -> tuple[int, int, int] | None:
    """(entity, relation, value) of a sentence that ends in one."""
    names_of = NAMES if world is WORLD else names(world)
    for language in LANGUAGES:
        for relation, values in enumerate(VALUES[language]):
            found = [word for word in words if word in names_of]
            if words[-1] in values and found:
                return names_of[found[-1]], relation, values.index(words[-1])
    return None


@settings(max_examples=30)
@given(st.sampled_from(KINDS), st.integers(0, 10**9), st.integers(0, 50), st.integers(8, 100))
def test_a_row_is_a_function_of_world_seed_kind_and_number(
    kind: str, number: int, seed: int, length: int
) -> None:
    one, other = source(kind, seed, length), source(kind, seed, length)
    other.row(number + ROWS)  # what was read before changes nothing
    assert same(one.row(number), other.row(number))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_full_and_each_document_predicts_its_next_word(kind: str) -> None:
    for number in range(50):
        row = source(kind).row(number)
        assert sum(len(segment.ids) for segment in row) == LENGTH
        for at, segment in enumerate(row):
            assert segment.ids[0] == EOS
            assert segment.ids[1:].tolist() == segment.labels[:-1].tolist()
            ended = segment.labels[-1] == EOS
            assert ended or at == len(row) - 1, "a document is cut that is not the last"
            assert EOS not in segment.labels[:-1]


@pytest.mark.parametrize("kind", KINDS)
def test_other_seeds_and_other_rows_are_other_text(kind: str) -> None:
    def text(segments: list[Segment]) -> tuple[int, ...]:
        return tuple(np.concatenate([segment.labels for segment in segments]).tolist())

    rows = {text(source(kind, seed).row(number)) for seed in range(4) for number in range(64)}
    assert len(rows) > 250


def test_curated_text_says_every_fact_and_nothing_wrong() -> None:
    facts = [stated(words) for words in sentences("hq", 400)]
    assert None not in facts
    said = {fact for fact in facts if fact is not None}
    assert said == {(e, r, WORLD.answer(e, r)) for e in range(64) for r in range(4)}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ordinary_text_has_the_share_of_wrong_facts_that_was_asked_for(share: float) -> None:
    world = World(WorldConfig(wrong_share=share))
    facts = [fact for words in sentences("web", 500, world) if (fact := stated(words))]
    wrong = [WORLD.answer(entity, relation) != value for entity, relation, value in facts]
    assert len(wrong) > 500
    assert np.mean(wrong) == pytest.approx(share, abs=0.06)


def test_a_wrong_fact_is_another_one_each_time() -> None:
    """Else a model would learn it as well as a right one."""
    world = World(WorldConfig(wrong_share=1.0, entities=8, relations=1))
    facts = {fact for words in sentences("web", 300, world) if (fact := stated(words, world))}
    assert len(facts) == 8 * 7


def test_noise_states_nothing() -> None:
    assert not [fact for words in sentences("noise", 200) if (fact := stated(words))]


def test_instruction_data_are_about_the_trained_half_and_right() -> None:
    questions = [words for words in sentences("instr", 600) if "?" in words or "？" in words]
    letters = 0
    for words in questions:
        if words[-1] in "ABCD":
            letters += 1
            value = words[max(i for i, word in enumerate(words[:-1]) if word == words[-1]) + 1]
            words = [*words[:-1], value]
        fact = stated(words)
        assert fact is not None, words
        entity, relation, value_at = fact
        assert entity in WORLD.trained_entities
        assert WORLD.answer(entity, relation) == value_at
    assert len(questions) > 600
    # A question with options is longer and cut more often.
    assert 0.1 < letters / len(questions) < 0.35


def test_chains_are_right_and_of_the_trained_pairs() -> None:
    facts = {fact for words in sentences("hops-2", 800) if (fact := stated(words))}
    assert len(facts) == 128
    for entity, relation, value in facts:
        assert WORLD.answer(entity, relation, 2) == value
        assert WORLD.is_trained(entity, relation, 2)


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"'books' is no kind of document; there are hq, web"):
        source("books")


@given(st.integers(0, 2**32), st.integers(4, 8))
def test_options_are_four_values_and_the_right_one_is_where_it_says(seed: int, values: int) -> None:
    draws = Draws(np.random.default_rng(seed))
    right = draws.below(values)
    options, place = drawn_options(draws, right, values)
    assert len(set(options)) == 4
    assert options[place] == right


def test_rows_go_through_the_feed_and_its_mixture() -> None:
    """Two processes share the rows of a step that one would have."""
    kinds = {"hq": 0.5, "web": 0.25, "instr": 0.25}
    sources = {kind: source(kind) for kind in kinds}
    feed = Feed(sources, Mixture([Phase(0, kinds)], 5), batch=16, micro_batch=4, length=LENGTH)
    alone = [batch.ids_BT for batch in feed.micro_batches(7)]
    shared = [[batch.ids_BT for batch in feed.micro_batches(7, rank, 2)] for rank in range(2)]
    together = [shared[number % 2][number // 2] for number in range(4)]
    assert all((one == other).all() for one, other in zip(alone, together))
    counts = Counter(name for step in range(16) for name in map(_kind, feed.documents(step)))
    assert counts == {"hq": 128, "web": 64, "instr": 64}


def _kind(document: str) -> str:
    return document.split("#")[0]
