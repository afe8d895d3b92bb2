"""LoRA in the one loop: what a run changes, saves and depends on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from workshop import LORA, Workshop, same_weights

from indexlm.feed.loader import Feed
from indexlm.feed.packing import Batch
from indexlm.model.lora import adapter_state, merge, wrap
from indexlm.model.transformer import Transformer
from indexlm.train import checkpoint
from indexlm.train.loop import train
from indexlm.train.objectives.language import language_loss
from indexlm.train.objectives.preference import Pair, PairFeed, PreferenceLoss, reference_logprobs

STEPS = 24


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Its models are wrapped, with dropout."""
    return Workshop(tmp_path, LORA)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, Transformer]:
    """A finished run; no test changes its model."""
    workshop = Workshop(tmp_path_factory.mktemp("tuned"), LORA)
    return workshop, workshop.run("run", workshop.stage(STEPS))


def base_of(workshop: Workshop) -> dict[str, Tensor]:
    return dict(replace(workshop, lora=None).model().named_parameters())


def test_the_base_is_unchanged_to_the_bit_and_has_no_gradients(
    tuned: tuple[Workshop, Transformer],
) -> None:
    workshop, model = tuned
    after = dict(model.named_parameters())
    for name, before in base_of(workshop).items():
        assert torch.equal(after[name], before)
        assert after[name].grad is None
    fresh = adapter_state(workshop.model())
    changed = [name for name, value in adapter_state(model).items() if (value != fresh[name]).any()]
    assert len(changed) == len(fresh) == 2 * 7 * 2


def test_the_loss_falls_and_the_norms_are_of_the_adapted_layers(
    tuned: tuple[Workshop, Transformer],
) -> None:
    workshop, _ = tuned
    losses = workshop.losses("run")
    assert sum(losses[-4:]) / 4 < sum(losses[:4]) / 4 - 0.2
    assert set(workshop.entries("run")[0]["layers"]) == {"layer 0", "layer 1"}


def test_a_checkpoint_holds_the_adapter_and_its_moments_alone(
    tuned: tuple[Workshop, Transformer],
) -> None:
    workshop, model = tuned
    newest = checkpoint.last(workshop.folder / "run" / "checkpoints")
    size = sum(file.stat().st_size for file in newest.glob("*.distcp"))
    three = 3 * sum(4 * value.numel() for value in adapter_state(model).values())
    # Beside the numbers each of the 112 tensors has a header of about 1.5 kB in this format.
    assert three < size < three + 112 * 2048
    loaded = {f"weight.{name}": torch.zeros_like(v) for name, v in adapter_state(model).items()}
    assert checkpoint.load(newest, loaded) == STEPS
    assert all(torch.equal(loaded[f"weight.{n}"], v) for n, v in adapter_state(model).items())
    held = FileSystemReader(newest).read_metadata().state_dict_metadata
    parts = ("weight", "step", "exp_avg", "exp_avg_sq")
    assert set(held) == {f"{part}.{name}" for part in parts for name in adapter_state(model)}


def test_the_tuned_model_merged_is_a_plain_one_with_the_same_logits(workshop: Workshop) -> None:
    model = workshop.run("run", workshop.stage(STEPS)).eval()
    ids_BT = next(workshop.feed().micro_batches(99)).ids_BT
    with torch.no_grad():
        wrapped = model.logits(model(ids_BT))
        merge(model)
        plain = Transformer(model.config)
        plain.load_state_dict(model.state_dict())
        torch.testing.assert_close(plain.logits(plain(ids_BT)), wrapped, rtol=0, atol=1e-5)
        before = replace(workshop, lora=None).model()
        assert float((before.logits(before(ids_BT)) - wrapped).abs().max()) > 0.1


def test_dropout_is_a_function_of_the_seed_and_not_of_what_was_drawn_before(
    workshop: Workshop,
) -> None:
    one = workshop.run("one", workshop.stage(6))
    torch.manual_seed(99)
    torch.rand(17)
    again = workshop.run("again", workshop.stage(6))
    assert same_weights(one, again)
    other = workshop.run("other", workshop.stage(6, seed=1))
    assert not same_weights(one, other)


def test_every_step_and_micro_batch_has_masks_of_its_own(workshop: Workshop) -> None:
    """The same rows each time, at a learning rate of nothing: only the masks differ."""

    @dataclass(frozen=True)
    class SameRows:
        feed: Feed

        @property
        def names(self) -> list[str]:
            return self.feed.names

        def documents(self, step: int) -> list[str]:
            return self.feed.documents(0)

        def micro_batches(self, step: int, rank: int, ranks: int) -> Iterator[Batch]:
            return iter(2 * list(self.feed.micro_batches(0))[:1])

    def losses(lora: bool) -> list[float]:
        seen: list[float] = []

        def noted(model: Transformer, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
            loss, units, further = language_loss(model, batch)
            seen.append(float(loss.detach()))
            return loss, units, further

        chosen = workshop if lora else replace(workshop, lora=None)
        stage = chosen.stage(4, objective=noted, feed=SameRows(chosen.feed()), lr_share=still)
        model = chosen.model()
        for name, value in adapter_state(model).items():
            if name.endswith("lora_B"):
                value.fill_(0.1)
        train(model, stage, chosen.folder / f"lora {lora}")
        return seen

    assert len(set(losses(lora=True))) == 8
    assert len(set(losses(lora=False))) == 1


def still(step: int) -> float:
    return 0.0


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_without_dropout_a_split_batch_gives_the_same_adapter(
    workshop: Workshop, micro_batch: int
) -> None:
    dry = replace(workshop, lora=LORA.model_copy(update={"dropout": 0.0}))
    whole = dry.run("whole", dry.stage(6, micro_batch=8))
    split = dry.run("split", dry.stage(6, micro_batch=micro_batch))
    for name, value in adapter_state(whole).items():
        torch.testing.assert_close(value, adapter_state(split)[name], rtol=0, atol=1e-6)


def test_a_branch_of_an_adapter_goes_on_with_it(workshop: Workshop) -> None:
    def constant(step: int) -> float:
        return 1.0

    whole = workshop.run("whole", workshop.stage(12, lr_share=constant))
    workshop.run("trunk", workshop.stage(8, lr_share=constant))
    parent = checkpoint.last(workshop.folder / "trunk" / "checkpoints")
    branch = workshop.stage(12, lr_share=constant, first_step=8, parent=parent)
    assert same_weights(whole, workshop.run("branch", branch, seed=6))


def test_preferences_are_learned_by_an_adapter_alone(workshop: Workshop) -> None:
    generator = torch.Generator().manual_seed(3)

    def side(token: int) -> tuple[list[int], list[int]]:
        prompt = torch.randint(5, 160, (4,), generator=generator).tolist()
        return [*prompt, token, token], [-100] * 3 + [token, token, 2]

    pairs = [Pair(side(20), side(30)) for _ in range(16)]
    model = workshop.model().eval()
    reference = reference_logprobs(model, pairs, 4)
    feed = PairFeed(pairs, reference, batch=8, micro_batch=4, seed=1)
    train(
        model,
        workshop.stage(12, feed=feed, objective=PreferenceLoss(0.1)),
        workshop.folder / "prefer",
    )
    entries = workshop.entries("prefer")
    assert entries[-1]["margin"] > entries[0]["margin"] + 1
    assert model.lm_head.weight.grad is None


def test_the_reference_of_a_preference_is_drawn_without_dropout(workshop: Workshop) -> None:
    model = workshop.model()
    for name, value in adapter_state(model).items():
        if name.endswith("lora_B"):
            value.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    pairs = [Pair(([5, 6, 7], [-100, 7, 2]), ([5, 6, 8], [-100, 8, 2]))]
    still = reference_logprobs(model.eval(), pairs, 1)
    assert torch.equal(reference_logprobs(model.train(), pairs, 1), still)


def test_a_bfloat16_base_is_tuned_by_a_float32_adapter(workshop: Workshop) -> None:
    model = replace(workshop, lora=None).model().bfloat16()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrap(model, LORA, 1)
    train(model, workshop.stage(STEPS), workshop.folder / "half")
    losses = workshop.losses("half")
    assert sum(losses[-4:]) / 4 < sum(losses[:4]) / 4 - 0.2
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
