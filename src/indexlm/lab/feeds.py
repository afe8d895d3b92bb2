"""What an arm trains on: the product's feeds over rows of the world."""

from collections.abc import Mapping
from pathlib import Path

from indexlm.config import HardwareConfig
from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.feed.packing import ConversationSource, Source
from indexlm.lab.arms import Arm, ChatData, PreferenceData, TextData
from indexlm.lab.corpus import WorldSource
from indexlm.lab.dialogues import Dialogues
from indexlm.lab.texts import text_sources
from indexlm.lab.world import World
from indexlm.model.transformer import Transformer
from indexlm.runtime import device_of
from indexlm.train import checkpoint
from indexlm.train.lanes import Objective
from indexlm.train.loop import Feed as AnyFeed
from indexlm.train.objectives.language import language_loss
from indexlm.train.objectives.preference import PairFeed, PreferenceLoss, reference_logprobs

RESPONSES = "responses"
"""Name, in a mixture, of the answers that SFT trains on."""

HELD_OUT_TEXT = 0
"""Seed of the rows that losses are measured on; those of an arm are of its seed + 1."""


def objective_and_feed(
    arm: Arm, world: World, model: Transformer, parent: Path | None, hardware: HardwareConfig
) -> tuple[Objective, AnyFeed]:
    """Of any kind of data; `parent` is the checkpoint that `model` will start from."""
    data, length = arm.data, arm.model.context
    match data:
        case TextData():
            phases = [
                Phase(phase.first_step * arm.train.batch, phase.shares) for phase in data.phases
            ]
            names = {name for phase in data.phases for name in phase.shares}
            return language_loss, _mixed(arm, _texts(arm, world, names), phases)
        case ChatData():
            answers = Dialogues(world, arm.seed).answers(data.answers)
            responses = ConversationSource(answers, length, arm.seed)
            share = _row_share(responses.labels_per_row, length, data.response_share)
            whole = sum(data.replay.values())
            shares = {name: each / whole * (1 - share) for name, each in data.replay.items()}
            sources = {**_texts(arm, world, set(shares)), RESPONSES: responses}
            shares = {name: each for name, each in shares.items() if each} | {RESPONSES: share}
            return language_loss, _mixed(arm, sources, [Phase(0, shares)])
        case PreferenceData():
            assert parent is not None
            return PreferenceLoss(data.beta), _pairs(arm, data, world, model, parent, hardware)


def _mixed(arm: Arm, sources: Mapping[str, Source], phases: list[Phase]) -> Feed:
    return Feed(
        sources,
        Mixture(phases, arm.seed),
        batch=arm.train.batch,
        micro_batch=arm.train.micro_batch,
        length=arm.model.context,
    )


def _texts(arm: Arm, world: World, kinds: set[str]) -> Mapping[str, Source]:
    seed, length = HELD_OUT_TEXT + 1 + arm.seed, arm.model.context
    if arm.corpus is not None:
        return text_sources(arm.corpus, sorted(kinds), length, seed)
    return {kind: WorldSource(world, kind, seed, length) for kind in sorted(kinds)}


def _pairs(
    arm: Arm,
    data: PreferenceData,
    world: World,
    model: Transformer,
    parent: Path,
    hardware: HardwareConfig,
) -> PairFeed:
    """The model that training starts from writes own refusals and is the reference."""
    named = model.named_parameters()
    checkpoint.load(parent, {f"weight.{name}": weight.detach() for name, weight in named})
    model.to(device_of(hardware.device))
    talk = Dialogues(world, arm.seed)
    pairs = [pair for group in data.groups for pair in talk.pairs(group, data.pairs, model)]
    reference = reference_logprobs(model, pairs, arm.train.micro_batch)
    model.to("cpu")
    return PairFeed(
        pairs,
        reference,
        batch=arm.train.batch,
        micro_batch=arm.train.micro_batch,
        seed=arm.seed,
    )


def _row_share(labels_per_row: float, length: int, response_share: float) -> float:
    """Share of rows that makes `response_share` of the loss tokens response tokens, when every
    token of a replayed row counts."""
    asked = response_share * length
    return asked / (asked + (1 - response_share) * labels_per_row)
