"""The feed: how a step is split changes nothing but memory."""

import numpy as np
import pytest
import torch

from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.feed.packing import Batch, TextSource
from indexlm.tokens.shards import Shard
from indexlm.tokens.tokenizer import EOS

LENGTH = 16


def feed_of(batch: int, micro_batch: int) -> Feed:
    sources = {}
    for number, name in enumerate(["en", "zh"]):
        generator = np.random.default_rng(number)
        offsets = np.cumsum([0, *generator.integers(1, 30, size=50)])
        ids = generator.integers(10, 99, size=offsets[-1])
        ids[offsets[1:] - 1] = EOS
        sources[name] = TextSource(Shard(name, ids, offsets), LENGTH, seed=number)
    mixture = Mixture([Phase(0, {"en": 0.4, "zh": 0.6})], 7)
    return Feed(sources, mixture, batch=batch, micro_batch=micro_batch, length=LENGTH)


def joined(feed: Feed, step: int) -> Batch:
    parts = list(feed.micro_batches(step))
    return Batch(
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("ids_BT", "labels_BT", "positions_BT", "documents_BT")
        )
    )


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6])
def test_the_split_gives_the_same_rows(micro_batch: int) -> None:
    whole, split = feed_of(12, 12), feed_of(12, micro_batch)
    assert len(list(split.micro_batches(0))) == 12 // micro_batch
    for step in (0, 1, 40):
        ours, theirs = joined(whole, step), joined(split, step)
        assert torch.equal(ours.ids_BT, theirs.ids_BT)
        assert torch.equal(ours.labels_BT, theirs.labels_BT)
        assert torch.equal(ours.positions_BT, theirs.positions_BT)
        assert torch.equal(ours.documents_BT, theirs.documents_BT)


def test_steps_follow_each_other_through_the_samples() -> None:
    """Two steps of 4 are one step of 8."""
    small, large = feed_of(4, 4), feed_of(8, 8)
    both = torch.cat([joined(small, step).ids_BT for step in (6, 7)])
    assert torch.equal(both, joined(large, 3).ids_BT)


def test_a_step_does_not_depend_on_the_steps_before_it() -> None:
    read_on, jumped = feed_of(8, 4), feed_of(8, 4)
    for step in range(20):
        list(read_on.micro_batches(step))
    assert torch.equal(joined(read_on, 20).ids_BT, joined(jumped, 20).ids_BT)


def test_a_batch_that_cannot_be_split_evenly_is_refused() -> None:
    with pytest.raises(AssertionError):
        feed_of(10, 4)
