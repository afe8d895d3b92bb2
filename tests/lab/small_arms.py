"""Arms of a dozen steps in a world of 16 entities."""

import torch

from indexlm.config import HardwareConfig, OptimiserConfig, ScheduleConfig, TrainConfig
from indexlm.lab.arms import Arm, Watch
from indexlm.lab.reference import reference, shape, training
from indexlm.lab.world import WorldConfig

# One thread, so that sums come in one order.
torch.set_num_threads(1)

CPU = HardwareConfig(device="cpu")
SMALL = WorldConfig(entities=16, noise_words=16)
WATCH = Watch(items=16, rows=4)


def arm(seed: int = 0, name: str = "arm", **changed: object) -> Arm:
    fields: dict[str, object] = {
        "world": SMALL,
        "model": shape(SMALL, 16, 1),
        "train": training(12, schedule=ScheduleConfig(shape="wsd", warmup=3, final=0.1)),
        "watch": WATCH,
    }
    return reference(seed, name, **(fields | changed))


def wsd(steps: int, **changed: object) -> TrainConfig:
    schedule = ScheduleConfig(shape="wsd", warmup=3, final=0.1)
    return training(steps, schedule=schedule, **changed)


def exploding(**changed: object) -> Arm:
    return arm(train=wsd(12, optimiser=OptimiserConfig(lr=1e25)), **changed)
