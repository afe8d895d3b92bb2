"""Items ask what they say they ask, and scores are those of the model."""

import numpy as np
import pytest
import torch

from indexlm.feed.packing import collate
from indexlm.lab.corpus import WorldSource
from indexlm.lab.items import (
    HALVES,
    KINDS,
    Half,
    ItemKind,
    evaluation,
    items,
    likeliest,
    score,
    text_loss,
)
from indexlm.lab.reference import shape
from indexlm.lab.world import World, WorldConfig
from indexlm.model.transformer import Transformer
from indexlm.train.objectives.language import language_loss

WORLD = World(WorldConfig())


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = Transformer(shape(WorldConfig(), 16, 1))
    made.initialise(0)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half", HALVES)
def test_every_item_has_four_different_candidates_and_one_is_right(
    kind: ItemKind, half: Half
) -> None:
    some = items(WORLD, kind, half, 10_000)
    assert len(some.prompts) == 256
    for candidates in some.candidates_NO:
        assert len(set(candidates.tolist())) == 4
    places = np.bincount(some.right_N, minlength=4)
    assert places.min() > 40, "the right candidate stands anywhere"


@pytest.mark.parametrize("kind", ["cloze", "qa", "hops-2", "chat"])
def test_the_right_candidate_is_the_fact_and_is_not_in_the_prompt(kind: ItemKind) -> None:
    hops = int(kind[-1]) if kind.startswith("hops") else 1
    for half in HALVES:
        some = items(WORLD, kind, half, 10_000)
        for prompt, candidates, right in zip(some.prompts, some.candidates_NO, some.right_N):
            (entity,) = [e for e, word in enumerate(WORLD.entity_ids) if word in prompt]
            relation, value, language = next(
                (r, values.index(candidates[right]), language)
                for language, of in WORLD.value_ids.items()
                for r, values in enumerate(of)
                if candidates[right] in values
            )
            assert WORLD.answer(entity, relation, hops) == value
            assert set(candidates.tolist()) <= set(WORLD.value_ids[language][relation])
            assert not set(candidates.tolist()) & set(prompt)
            assert WORLD.is_trained(entity, relation, hops) == (half == "trained")


def test_the_right_letter_is_that_of_the_right_option() -> None:
    some = items(WORLD, "letters", "held-out", 10_000)
    for prompt, right in zip(some.prompts, some.right_N):
        option = prompt[prompt.index(WORLD.letter_ids[right]) + 1]
        (entity,) = [e for e, word in enumerate(WORLD.entity_ids) if word in prompt]
        assert any(
            option == of[relation][WORLD.answer(entity, relation)]
            for of in WORLD.value_ids.values()
            for relation in range(4)
        )


def test_items_are_the_same_for_every_arm_and_others_by_another_seed() -> None:
    one, again, other = (items(WORLD, "cloze", "held-out", 50, seed) for seed in (0, 0, 1))
    assert one.prompts == again.prompts
    assert one.prompts != other.prompts


def test_scores_are_the_log_probabilities_of_the_model(model: Transformer) -> None:
    """Each item by itself, from the logits of all words."""
    some = items(WORLD, "cloze", "held-out", 40)
    scores = score(model, some)
    for at, prompt in enumerate(some.prompts):
        with torch.no_grad():
            logits = model.logits(model(torch.tensor([prompt])))[0, -1].double()
        logprobs = logits.log_softmax(0).numpy()
        of_candidates = logprobs[some.candidates_NO[at]]
        right = of_candidates[some.right_N[at]]
        wrong = np.delete(of_candidates, some.right_N[at]).max()
        assert scores.logprob_N[at] == pytest.approx(right, abs=1e-5)
        assert scores.margin_N[at] == pytest.approx(right - wrong, abs=1e-5)
        share = np.exp(right) / np.exp(of_candidates).sum()
        assert scores.probability_N[at] == pytest.approx(share, abs=1e-5)
        chosen = int(likeliest(model, [prompt])[0])
        assert scores.exact_N[at] == (chosen == some.candidates_NO[at][some.right_N[at]])


def test_a_model_that_tells_nothing_apart_scores_nothing() -> None:
    same = Transformer(shape(WorldConfig(), 16, 1))
    same.initialise(0)
    with torch.no_grad():
        same.lm_head.weight.fill_(1.0)
    found = score(same, items(WORLD, "cloze", "held-out", 256)).summary("cloze")
    assert found["cloze/accuracy"] == 0
    assert found["cloze/margin"] == 0
    assert found["cloze/probability"] == pytest.approx(0.25)


def test_a_model_that_was_not_trained_guesses(model: Transformer) -> None:
    found = score(model, items(WORLD, "cloze", "held-out", 256)).summary("cloze")
    assert 0.15 < found["cloze/accuracy"] < 0.35


@pytest.mark.parametrize("kind", ["cloze", "qa", "hops-2", "chat"])
@pytest.mark.parametrize("half", HALVES)
def test_the_most_frequent_value_is_right_in_30_to_34_percent(kind: ItemKind, half: Half) -> None:
    some = items(WORLD, kind, half, 256)
    count = {
        word: np.count_nonzero(WORLD.facts_ER[:, relation] == value)
        for of in WORLD.value_ids.values()
        for relation, words in enumerate(of)
        for value, word in enumerate(words)
    }
    count_NO = np.vectorize(count.__getitem__)(some.candidates_NO)
    named_NO = count_NO == count_NO.max(1, keepdims=True)
    right_N = named_NO[np.arange(256), some.right_N] / named_NO.sum(1)
    assert 0.295 < right_N.mean() < 0.345


def test_the_loss_of_a_text_is_that_of_training(model: Transformer) -> None:
    source = WorldSource(WORLD, "hq", 0, 32)
    batch = collate([source.row(number) for number in range(8)], 32)
    loss, units, _ = language_loss(model, batch)
    assert text_loss(model, source, 8, 32) == pytest.approx(float(loss.detach()) / units, rel=1e-6)


def test_an_evaluation_leaves_the_model_as_it_was(model: Transformer) -> None:
    model.train()
    before = [p.clone() for p in model.parameters()]
    sets = [items(WORLD, "qa", "held-out", 20)]
    found = evaluation(model, sets, {"web": WorldSource(WORLD, "web", 0, 32)}, 4, 32)
    assert model.training
    assert all(map(torch.equal, before, model.parameters()))
    assert {"qa/held-out/accuracy", "qa/held-out/margin", "loss/web"} <= found.keys()
