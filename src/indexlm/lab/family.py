"""Arms that several studies start from: a stable trunk, its decays, and a chat model.

Of one preset and seed they are equal to the last digit, so that they are trained once for all
studies that are run together. Trunk and decays stand for the report's stable phase and its two
branches; the chat model for its SFT.
"""

from dataclasses import dataclass

from indexlm.config import ScheduleConfig, TrainConfig
from indexlm.lab import reference
from indexlm.lab.arms import Arm, ChatData, TextData, TextPhase, Watch
from indexlm.lab.study import PresetName
from indexlm.lab.world import WorldConfig
from indexlm.model.config import ModelConfig


@dataclass(frozen=True)
class Size:
    """What a preset makes of the same design."""

    world: WorldConfig
    model: ModelConfig
    lr: float
    """Peak, near the optimum of the size."""
    batch: int
    stable: int
    decay: int
    """Steps of the trunk and of a decay of it."""
    tuning: int
    """Steps of SFT, and of DPO."""


SMALL = WorldConfig()
LARGE = WorldConfig(entities=1024)
"""4,096 facts; a name is still one token."""

CPU = Size(SMALL, reference.shape(SMALL), reference.LR, reference.BATCH, 400, 100, 100)
GPU = Size(LARGE, reference.shape(LARGE, 384, 6, head_scale=2.3), 1e-3, 128, 3200, 800, 400)
"""10.7M weights outside the embeddings. `head_scale` is sqrt(2048 / hidden), which gives logits the
ceiling that they have at the report's width; rate and lengths are scaled up and not tuned."""


def size(preset: PresetName) -> Size:
    return GPU if preset == "gpu" else CPU


WATCHED = Watch(
    sets=(
        ("cloze", "held-out"),
        ("qa", "held-out"),
        ("qa", "trained"),
        ("letters", "held-out"),
    ),
    every=25,
)


def _watch(preset: PresetName) -> Watch:
    """As often for its length as that of the small presets."""
    each = size(preset)
    return WATCHED.model_copy(update={"every": WATCHED.every * each.stable // CPU.stable})


def stable(preset: PresetName, seed: int) -> Arm:
    """Curated and ordinary text, half of the rows each, and no question at all; checkpoints at
    each quarter."""
    each = size(preset)
    return reference.reference(
        seed,
        "stable",
        world=each.world,
        model=each.model,
        train=training(each, each.stable, keep_every=each.stable // 4),
        data=reference.text(hq=0.5, web=0.5),
        watch=_watch(preset),
    )


def decayed(preset: PresetName, seed: int, name: str, instructions: float = 0, age: int = 4) -> Arm:
    """A decay of the stable trunk, from `age` quarters of it on, whose only difference from others
    of that age is the share of instruction data."""
    each, plain = size(preset), (1 - instructions) / 2
    first = each.stable * age // 4
    trunk = stable(preset, seed)
    assert isinstance(trunk.data, TextData)
    phases = trunk.data.phases
    if instructions:
        # The trunk's phase stays: rows go on where the trunk has stopped reading.
        shares = {"hq": plain, "web": plain, "instr": instructions}
        phases = (*phases, TextPhase(first_step=first, shares=shares))
    return trunk.model_copy(
        update={
            "name": name,
            "train": training(each, first + each.decay),
            "data": TextData(phases=phases),
            "decay_steps": each.decay,
            "trunk": trunk,
            "from_step": first,
        }
    )


TUNED = Watch(
    sets=(("chat", "held-out"), ("chat", "trained"), ("cloze", "held-out")),
    every=20,
    refusals=256,
)
"""What SFT and DPO are watched by."""


def tuned_watch(preset: PresetName) -> Watch:
    each = size(preset)
    return TUNED.model_copy(update={"every": TUNED.every * each.tuning // CPU.tuning})


def fine_tuned(
    preset: PresetName,
    seed: int,
    name: str,
    *,
    lr: float,
    keep_optimiser: bool,
    response_share: float,
) -> Arm:
    """SFT of the decayed model that saw no instruction data: what the report calls pure."""
    each, base = size(preset), decayed(preset, seed, "pure")
    return Arm(
        name=name,
        seed=seed,
        world=each.world,
        model=each.model,
        train=tuning(each, lr),
        data=ChatData(
            answers=max(2000, each.tuning * each.batch),
            response_share=response_share,
            replay={"hq": 0.5, "web": 0.5},
        ),
        watch=tuned_watch(preset),
        trunk=base,
        keep_optimiser=keep_optimiser,
    )


CHAT_LR = 0.2
"""Of the peak: an SFT that comes to its end, for DPO to start from."""


def chat(preset: PresetName, seed: int) -> Arm:
    """With the optimiser's state and 40% replay, the report's best."""
    return fine_tuned(
        preset,
        seed,
        "SFT",
        lr=CHAT_LR * size(preset).lr,
        keep_optimiser=True,
        response_share=0.6,
    )


def training(each: Size, steps: int, keep_every: int = 0) -> TrainConfig:
    return reference.training(
        steps,
        each.lr,
        "wsd",
        batch=each.batch,
        micro_batch=each.batch,
        keep_every=keep_every,
    )


def tuning(each: Size, lr: float) -> TrainConfig:
    return reference.training(
        each.tuning,
        lr,
        batch=each.batch,
        micro_batch=each.batch,
        schedule=ScheduleConfig(shape="cosine", warmup=each.tuning // 20, final=0.1),
    )
