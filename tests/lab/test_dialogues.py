"""Answers and pairs are what the chat format makes of them, about the half that is trained on."""

from typing import Any, cast

import numpy as np
import pytest
import torch

from indexlm.lab.corpus import Draws
from indexlm.lab.dialogues import (
    GROUPS,
    LONGEST_REFUSAL,
    PAIRED_PURPOSES,
    REPLIES,
    Dialogues,
    answered,
    perplexities,
    sampled,
)
from indexlm.lab.reference import shape
from indexlm.lab.words import PURPOSES, VALUES, WRITTEN_REFUSALS
from indexlm.lab.world import World, WorldConfig
from indexlm.model.transformer import Transformer
from indexlm.tokens.chat_format import IGNORED, Conversation, training_ids
from indexlm.tokens.tokenizer import ASSISTANT, EOS, USER

WORLD = World(WorldConfig())
VALUE_WORDS = {word for each in VALUES.values() for of_relation in each for word in of_relation}


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = Transformer(shape(WorldConfig(), 16, 1))
    made.initialise(0)
    return made


def words(ids: list[int]) -> list[str]:
    return WORLD.words.decode([each for each in ids if each != IGNORED]).split()


@pytest.mark.parametrize("system", ["", "say no"])
def test_an_answer_is_in_the_chat_format_of_the_product(system: str) -> None:
    asked, answer = "to visit Belia , home ?", "Lima ."
    whole = Conversation(system, (), asked, answer)
    ids, labels = training_ids(cast(Any, WORLD.words), whole)
    before = [0, *WORLD.words.encode(system)] if system else []
    prompt = [*before, USER, *WORLD.words.encode(asked), ASSISTANT]
    assert answered(prompt, WORLD.words.encode(answer)) == (ids, labels)


def test_answers_are_right_and_about_the_trained_half() -> None:
    answers = Dialogues(WORLD, 1).answers(600)
    told = 0
    for ids, labels in answers:
        (entity,) = [e for e, word in enumerate(WORLD.entity_ids) if word in ids]
        assert entity in WORLD.trained_entities
        assert labels[-1] == EOS
        if ids[0] != USER:
            told += 1
            continue
        value = next(label for label in labels if label != IGNORED)
        assert any(
            value == of[relation][WORLD.answer(entity, relation)]
            for of in WORLD.value_ids.values()
            for relation in range(4)
        )
    assert told / len(answers) == pytest.approx(0.15, abs=0.05)


def test_the_same_seed_draws_the_same_answers() -> None:
    assert Dialogues(WORLD, 1).answers(20) == Dialogues(WORLD, 1).answers(20)
    assert Dialogues(WORLD, 1).answers(20) != Dialogues(WORLD, 2).answers(20)


@pytest.mark.parametrize("group", GROUPS)
def test_a_pair_has_one_prompt_and_two_answers(group: Any, model: Transformer) -> None:
    for pair in Dialogues(WORLD, 3).pairs(group, 60, model):
        prompts = [ids[: ids.index(ASSISTANT) + 1] for ids, _ in (pair.chosen, pair.rejected)]
        assert prompts[0] == prompts[1]
        assert pair.chosen != pair.rejected
        (entity,) = [e for e, word in enumerate(WORLD.entity_ids) if word in prompts[0]]
        assert entity in WORLD.trained_entities


def test_groups_differ_in_what_is_better(model: Transformer) -> None:
    talk = Dialogues(WORLD, 4)
    for pair in talk.pairs("fact", 40, model):
        right, wrong = (words(labels)[0] for _, labels in (pair.chosen, pair.rejected))
        assert right.isascii() == wrong.isascii()
    for pair in talk.pairs("language", 40, model):
        right, wrong = (words(labels)[0] for _, labels in (pair.chosen, pair.rejected))
        assert right.isascii() != wrong.isascii()
    written = {text for each in WRITTEN_REFUSALS.values() for text in each}
    for group, refused in (("written refusal", 0), ("answer, not written", 1)):
        for pair in talk.pairs(group, 40, model):
            sides = [words(labels)[:-1] for _, labels in (pair.chosen, pair.rejected)]
            assert " ".join(sides[refused]) in written
            assert sides[1 - refused][0] in VALUE_WORDS
    for pair in talk.pairs("answer, not own", 40, model):
        assert words(pair.chosen[1])[0] in VALUE_WORDS


def test_authors_of_refusals_are_asked_the_same_questions(model: Transformer) -> None:
    for own, written in (
        ("own refusal", "written refusal"),
        ("answer, not own", "answer, not written"),
    ):
        asked = [
            [pair.chosen[0][: pair.chosen[0].index(ASSISTANT)] for pair in pairs]
            for pairs in (Dialogues(WORLD, 7).pairs(group, 40, model) for group in (own, written))
        ]
        assert asked[0] == asked[1]


def test_over_refusal_is_measured_on_purposes_of_no_pair(model: Transformer) -> None:
    """SFT has answered harmless ones and knows of none that it is harmful; pairs are about half of
    the harmless ones, and about all that are harmful."""
    talk = Dialogues(WORLD, 5)
    answered_to = asked_words([ids for ids, _ in talk.answers(800)])
    pairs = [pair for group in GROUPS for pair in talk.pairs(group, 200, model)]
    paired = asked_words([pair.chosen[0] for pair in pairs])
    for harmless, harmful in PURPOSES.values():
        assert {*harmless, *harmful} <= answered_to
        assert {*harmless[:PAIRED_PURPOSES], *harmful} <= paired
        assert not set(harmless[PAIRED_PURPOSES:]) & paired


def asked_words(rows: list[list[int]]) -> set[str]:
    # What a model answers that was not trained may be any word.
    return {word for ids in rows for word in words(ids[: ids.index(ASSISTANT)])}


def test_perplexity_is_the_inverse_of_the_mean_probability_of_a_token(model: Transformer) -> None:
    pairs = Dialogues(WORLD, 6).pairs("fact", 2, model)
    # Two tokens and the end mark in either answer.
    logprobs = torch.log(torch.tensor([[0.5**3, 0.1**3], [0.5**3, 0.2**3]]))
    found = perplexities(pairs, logprobs)
    assert found["chosen"] == pytest.approx(2)
    assert found["rejected"] == pytest.approx(50**0.5)


def test_a_refusal_is_neither_a_value_nor_noise() -> None:
    own, written = (WORLD.words.encode(word)[0] for word in ("sorry", "such"))
    value, noise = WORLD.value_ids["en"][0][0], WORLD.noise_ids["zh"][0]
    for favourite, share in ((value, 0.0), (noise, 0.0), (own, 1.0), (written, 1.0)):
        biased = Transformer(shape(WorldConfig(), 16, 1, norm_head=False))
        biased.initialise(0)
        with torch.no_grad():
            # Whatever the hidden state is, one of the two rows is on its side.
            biased.model.norm.weight.zero_()
            biased.model.norm.weight[0] = 1.0
            biased.model.embed_tokens.weight.abs_()
            biased.lm_head.weight.zero_()
            biased.lm_head.weight[favourite, 0] = 100.0
        found = Dialogues(WORLD, 0).refusals(biased, 50)
        refused = {name: value for name, value in found.items() if name.startswith("refused/")}
        assert refused.keys() == {"refused/harmful", "refused/harmless", "refused/told"}
        assert set(refused.values()) == {share}


def test_replies_are_weighed_as_wholes_with_their_end_marks() -> None:
    """A model to which all words are alike: every word of a reply costs it log V."""
    even = Transformer(shape(WorldConfig(), 16, 1, norm_head=False))
    even.initialise(0)
    with torch.no_grad():
        even.lm_head.weight.zero_()
    each = np.log(len(WORLD.words))
    found = Dialogues(WORLD, 0).refusals(even, 50)
    for purpose in ("harmful", "harmless"):
        words_of = {reply: -found[f"logprob/{purpose}/{reply}"] / each for reply in REPLIES}
        for reply in ("right", "wrong", "other language"):
            assert words_of[reply] == pytest.approx(3), "value, full stop, end mark"
        assert 5 < words_of["own refusal"] < 6 < words_of["written refusal"]


def test_a_model_of_refusals_finds_them_likelier_and_all_answers_less_likely() -> None:
    even, refusing = (Transformer(shape(WorldConfig(), 16, 1, norm_head=False)) for _ in range(2))
    with torch.no_grad():
        for each in (even, refusing):
            each.initialise(0)
            each.lm_head.weight.zero_()
        refusing.model.norm.weight.zero_()
        refusing.model.norm.weight[0] = 1.0
        refusing.model.embed_tokens.weight.abs_()
        refusing.lm_head.weight[WORLD.words.encode("sorry no 抱歉 不行"), 0] = 3.0
    before, after = (Dialogues(WORLD, 0).refusals(each, 50) for each in (even, refusing))
    for purpose in ("harmful", "harmless"):
        likelier = {
            reply
            for reply in REPLIES
            if after[f"logprob/{purpose}/{reply}"] > before[f"logprob/{purpose}/{reply}"]
        }
        assert likelier == {"own refusal"}


def test_samples_end_at_the_end_mark_or_at_the_longest(model: Transformer) -> None:
    prompts = [[USER, 9, 10, ASSISTANT], [USER, 11, ASSISTANT]]
    answers = sampled(model, prompts, Draws(np.random.default_rng(0)))
    again = sampled(model, prompts, Draws(np.random.default_rng(0)))
    assert answers == again
    assert all(len(answer) <= LONGEST_REFUSAL and EOS not in answer for answer in answers)
