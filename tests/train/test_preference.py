"""DPO: its value at the start, its gradient against a plain statement, its rows.

Shape suffixes: P pairs, V vocabulary.
"""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from workshop import Workshop

from indexlm.model.transformer import Transformer
from indexlm.tokens.chat_format import IGNORED
from indexlm.train.objectives.preference import (
    Pair,
    PairBatch,
    PairFeed,
    PreferenceLoss,
    label_logprobs,
    pair_rows,
    reference_logprobs,
)

BETA = 0.3


def pairs_of(count: int) -> list[Pair]:
    """Prompts and answers of every length; the chosen answers repeat one token, the others
    another."""
    made = []
    for number in range(count):
        prompt = [3, *range(10 + number, 13 + 2 * number), 4]
        sides = []
        for token, size in ((100, 2 + number % 4), (120, 1 + number % 5)):
            answer = [token] * size
            ids = prompt + answer
            sides.append((ids, [IGNORED] * (len(prompt) - 1) + [*answer, 2]))
        made.append(Pair(*sides))
    return made


PAIRS = pairs_of(7)


def plain_logprob(model: Transformer, side: tuple[list[int], list[int]]) -> Tensor:
    """One row alone, token by token."""
    ids, labels = side
    logits_TV = model.logits(model(torch.tensor([ids])))[0].double()
    return sum(
        logits_V[label] - logits_V.logsumexp(0)
        for logits_V, label in zip(logits_TV, labels)
        if label != IGNORED
    )


def batch_of(pairs: list[Pair], reference: Tensor) -> PairBatch:
    return PairBatch(pair_rows(pairs), reference.T.flatten())


def test_row_probabilities_are_those_of_each_row_alone(workshop: Workshop) -> None:
    model = workshop.model()
    with torch.no_grad():
        ours = label_logprobs(model, pair_rows(PAIRS))
        sides = [p.chosen for p in PAIRS] + [p.rejected for p in PAIRS]
        plain = torch.stack([plain_logprob(model, side) for side in sides])
    torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 3, 7, 20])
def test_the_reference_is_the_models_own_at_the_start(workshop: Workshop, at_once: int) -> None:
    model = workshop.model()
    reference = reference_logprobs(model, PAIRS, at_once)
    own = [[float(plain_logprob(model, s).detach()) for s in (p.chosen, p.rejected)] for p in PAIRS]
    assert not reference.requires_grad
    torch.testing.assert_close(reference, torch.tensor(own), rtol=1e-5, atol=1e-4)


def test_the_loss_starts_at_ln_2_with_no_margin(workshop: Workshop) -> None:
    model = workshop.model()
    reference = reference_logprobs(model, PAIRS, 3)
    loss, pairs, metrics = PreferenceLoss(BETA)(model, batch_of(PAIRS, reference))
    assert pairs == 7
    assert float(loss.detach()) / pairs == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["margin"] == pytest.approx(0, abs=1e-4)


def test_value_and_gradients_are_those_of_a_plain_statement(workshop: Workshop) -> None:
    reference = reference_logprobs(workshop.model(), PAIRS, 4)
    model = workshop.model(seed=2)
    loss, _, metrics = PreferenceLoss(BETA)(model, batch_of(PAIRS, reference))
    plain, margins = torch.zeros((), dtype=torch.float64), []
    for pair, (chosen, rejected) in zip(PAIRS, reference.tolist()):
        margin = plain_logprob(model, pair.chosen) - chosen
        margin = margin - (plain_logprob(model, pair.rejected) - rejected)
        margins.append(float(margin.detach()))
        plain = plain + torch.log(1 + torch.exp(-BETA * margin))
    torch.testing.assert_close(loss.double(), plain, rtol=1e-5, atol=1e-4)
    assert metrics["margin"] == pytest.approx(sum(margins), abs=1e-3)
    assert metrics["accuracy"] == sum(margin > 0 for margin in margins)
    assert metrics["chosen"] - metrics["rejected"] == pytest.approx(metrics["margin"], abs=1e-3)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(plain, parameters)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_margins_grow_in_training_and_the_split_of_a_batch_does_not_matter(
    workshop: Workshop,
) -> None:
    reference = reference_logprobs(workshop.model(), PAIRS, 4)
    entries = {}
    for micro_batch in (7, 1):
        feed = PairFeed(PAIRS, reference, batch=7, micro_batch=micro_batch, seed=1)
        stage = workshop.stage(12, feed=feed, objective=PreferenceLoss(BETA))
        workshop.run(f"by {micro_batch}", stage)
        entries[micro_batch] = workshop.entries(f"by {micro_batch}")
    whole, split = entries[7], entries[1]
    assert whole[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert whole[-1]["loss"] < 0.5 * whole[0]["loss"]
    assert whole[-1]["margin"] > 1 and whole[-1]["accuracy"] == 1.0
    assert [e["loss"] for e in whole] == pytest.approx([e["loss"] for e in split], abs=1e-5)
    assert [e["margin"] for e in whole] == pytest.approx([e["margin"] for e in split], abs=1e-3)


def test_an_epoch_takes_every_pair_once_with_its_own_reference() -> None:
    reference = torch.arange(14.0).view(7, 2)
    feed = PairFeed(PAIRS, reference, batch=7, micro_batch=1, seed=5)
    orders = []
    for epoch in (0, 1):
        batches = list(feed.micro_batches(epoch))
        order = [int(b.reference_R[0]) // 2 for b in batches]
        assert sorted(order) == list(range(7))
        for index, batch in zip(order, batches):
            assert batch.reference_R.tolist() == reference[index].tolist()
            assert batch.rows.ids_BT[0, : len(PAIRS[index].chosen[0])].tolist() == list(
                PAIRS[index].chosen[0]
            )
        orders.append(order)
    assert orders[0] != orders[1]
    whole = next(iter(PairFeed(PAIRS, reference, batch=7, micro_batch=7, seed=5).micro_batches(0)))
    assert whole.reference_R[:7].tolist() == [2.0 * index for index in orders[0]]
    assert Counter(whole.reference_R.tolist()) == Counter(reference.flatten().tolist())
