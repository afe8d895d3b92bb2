"""Cores side by side: the numbers of one lane, the same bits every time, gradients of their own."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import interrupted
from test_preference import PAIRS
from torch import Tensor
from workshop import LORA, Workshop, same_weights

from indexlm.config import HardwareConfig
from indexlm.errors import StoppedError
from indexlm.model.config import LoraConfig
from indexlm.train.lanes import Lanes, fitting_lanes
from indexlm.train.loop import train
from indexlm.train.objectives.language import language_loss
from indexlm.train.objectives.preference import PairFeed, PreferenceLoss, reference_logprobs


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def one_lane(workshop: Workshop, name: str, stage: Any) -> Any:
    torch.set_num_threads(1)
    try:
        return workshop.run(name, stage)
    finally:
        torch.set_num_threads(2)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("micro_batch", [8, 4, 2])
def test_two_lanes_give_the_numbers_of_one(workshop: Workshop, micro_batch: int) -> None:
    stage = workshop.stage(12, micro_batch=micro_batch)
    one = one_lane(workshop, "one", stage)
    two = workshop.run("two", stage)
    assert workshop.losses("one") == pytest.approx(workshop.losses("two"), rel=1e-6)
    for mine, theirs in zip(one.parameters(), two.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)
    for of_one, of_two in zip(workshop.entries("one"), workshop.entries("two")):
        for name in {"layers", "updates", "activations"} & of_one.keys():
            assert of_one[name] == pytest.approx(of_two[name], rel=2e-3), name
        assert of_one["sources"] == of_two["sources"] and of_one["units"] == of_two["units"]


@pytest.mark.usefixtures("two_threads")
def test_two_lanes_give_the_same_bits_every_time_and_after_a_stop(workshop: Workshop) -> None:
    """Micro-batches of two: whichever lane is faster, sums come in one order."""
    stage = workshop.stage(16, micro_batch=2)
    whole = workshop.run("whole", stage)
    assert same_weights(whole, workshop.run("again", stage))
    with pytest.raises(StoppedError):
        workshop.run("stopped", interrupted(stage, 9, signal.SIGTERM))
    assert same_weights(whole, workshop.run("stopped", stage, seed=5))
    assert workshop.entries("whole") == workshop.entries("again") == workshop.entries("stopped")


@pytest.mark.usefixtures("two_threads")
def test_pairs_stay_together_in_a_lane(workshop: Workshop) -> None:
    model = workshop.model()
    reference = reference_logprobs(model, PAIRS, 4) + torch.tensor([0.3, -0.2])
    feed = PairFeed(PAIRS, reference, batch=6, micro_batch=3, seed=5)
    loss = PreferenceLoss(0.5)
    batch = next(iter(feed.micro_batches(0)))
    whole, pairs, sums = loss(model, batch)
    parts = [loss(model, part) for part in batch.split(2)]
    assert [count for _, count, _ in parts] == [2, 1] and pairs == 3
    total = sum(float(part.detach()) for part, _, _ in parts)
    assert total == pytest.approx(float(whole.detach()), rel=1e-5)
    for name, value in sums.items():
        assert sum(more[name] for _, _, more in parts) == pytest.approx(value, abs=1e-4)
    stage = workshop.stage(6, objective=loss, feed=feed)
    config = stage.config.model_copy(update={"batch": 6, "micro_batch": 3})
    stage = replace(stage, config=config, tokens_per_step=0)
    one = one_lane(workshop, "one", stage)
    two = workshop.run("two", stage)
    assert workshop.losses("one") == pytest.approx(workshop.losses("two"), abs=1e-5)
    assert not same_weights(one, workshop.model()) and not same_weights(two, workshop.model())


@pytest.mark.usefixtures("two_threads")
def test_lanes_share_weights_and_not_gradients(workshop: Workshop) -> None:
    from indexlm.model.shard import arrange

    model = workshop.model()
    first, second = arrange(model, "cpu"), arrange(model, "cpu", beside=True)
    batch = next(iter(workshop.feed().micro_batches(0)))
    loss, _, _ = language_loss(second, batch)
    loss.backward()
    assert all(p.grad is None for p in first.parameters())
    assert all(p.grad is not None for p in second.parameters())
    pairs = list(zip(model.parameters(), first.parameters(), second.parameters()))
    assert all(a is b and a.data_ptr() == c.data_ptr() for a, b, c in pairs)
    lanes = Lanes([first, second], language_loss)
    first.zero_grad(set_to_none=True)
    second.zero_grad(set_to_none=True)
    lanes.run(batch)
    lanes.collect()
    lanes.close()
    gradients = [p.grad.clone() for p in first.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    language_loss(model, batch)[0].backward()
    for mine, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-5)
    assert all(p.grad is None for p in second.parameters())


@pytest.mark.usefixtures("two_threads")
def test_a_failing_lane_ends_the_run(workshop: Workshop) -> None:
    def fails_on_the_second_half(model: Any, batch: Any) -> Any:
        if int(batch.ids_BT[0, 0]) != first:
            raise ValueError("a lane's own")
        return language_loss(model, batch)

    first = int(next(iter(workshop.feed().micro_batches(0))).ids_BT[0, 0])
    with pytest.raises(ValueError, match="a lane's own"):
        workshop.run("run", workshop.stage(4, objective=fails_on_the_second_half))


@pytest.mark.usefixtures("two_threads")
def test_there_are_as_many_lanes_as_can_be_used(tmp_path: Path) -> None:
    plain = Workshop(tmp_path).model()
    assert [fitting_lanes(plain, "cpu", rows) for rows in (1, 2, 8)] == [1, 2, 2]
    assert fitting_lanes(plain, "cuda", 8) == 1
    # Its masks come from one generator, which two threads would draw from in any order.
    assert fitting_lanes(Workshop(tmp_path, LORA).model(), "cpu", 8) == 1
    still = LoraConfig(rank=4, alpha=8, dropout=0.0)
    assert fitting_lanes(Workshop(tmp_path, still).model(), "cpu", 8) == 2


@pytest.mark.usefixtures("two_threads")
def test_compiled_and_recomputing_lanes_give_the_same_numbers(workshop: Workshop) -> None:
    def losses(name: str, **hardware: Any) -> list[float]:
        stage = workshop.stage(6, hardware=HardwareConfig(device="cpu", **hardware))
        model = workshop.model()
        train(model, stage, workshop.folder / name)
        found: list[Tensor] = [p.detach() for p in model.parameters()]
        assert all(bool(each.isfinite().all()) for each in found)
        return workshop.losses(name)

    plain = losses("plain")
    assert losses("recomputed", recompute=True) == pytest.approx(plain, rel=1e-6)
    assert losses("compiled", compile=True) == pytest.approx(plain, rel=1e-5)
