"""The arm that studies vary: a model of about 50,000 weights that learns the world in 400 steps.

Width 32 with the report's FFN ratio, rows of 32 tokens, batches of 16 rows. Its Norm-Head has scale
3: normalised rows bound a logit by scale x |gain|, which at width 32 and scale 1 is 5.7, too little
for a fact among some 470 words (ln 470 = 6.2). Its learning rate is near its optimum.
"""

from typing import Any, Literal

from indexlm.config import OptimiserConfig, ScheduleConfig, TrainConfig
from indexlm.lab.arms import Arm, TextData, TextPhase
from indexlm.lab.world import World, WorldConfig
from indexlm.model.config import ModelConfig

Shape = Literal["wsd", "cosine", "linear"]

STEPS, BATCH, LENGTH, LR, WARMUP = 400, 16, 32, 5e-3, 40
HEAD_WIDTH = 16
FFN_RATIO = 2.6875


def shape(world: WorldConfig, hidden: int = 32, layers: int = 2, **changed: Any) -> ModelConfig:
    """`changed` are other fields of the configuration."""
    heads = max(1, hidden // HEAD_WIDTH)
    fields: dict[str, Any] = {
        "vocab_size": len(World(world).words),
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": heads,
        "ffn": round(FFN_RATIO * hidden),
        "context": LENGTH,
        "head_scale": 3.0,
        "init_std": 0.02,
    }
    return ModelConfig(**(fields | changed))


def heads_that_fill(width: int, head_width: int) -> int:
    """The most heads that are at least `head_width` wide and, together, as wide as the model; 0
    where they would have to be twice as wide. Their width is even, as RoPE needs it."""
    found = next((n for n in range(width // head_width, 0, -1) if width % (2 * n) == 0), 0)
    return found if found and width // found < 2 * head_width else 0


def training(
    steps: int = STEPS, lr: float = LR, shape: Shape = "cosine", **changed: Any
) -> TrainConfig:
    """Nothing but what is not finite is skipped: a spike is a result here."""
    fields: dict[str, Any] = {
        "steps": steps,
        "batch": BATCH,
        "micro_batch": BATCH,
        "optimiser": OptimiserConfig(lr=lr),
        "schedule": ScheduleConfig(shape=shape, warmup=WARMUP, final=0.1),
        "skip_above": 0,
        "save_every": steps,
    }
    return TrainConfig(**(fields | changed))


def text(**shares: float) -> TextData:
    """One phase with these shares of rows."""
    return TextData(phases=(TextPhase(shares=shares),))


def reference(seed: int, name: str = "reference", **changed: Any) -> Arm:
    """`changed` are other fields of the arm."""
    world = changed.get("world", WorldConfig())
    fields: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "world": world,
        "model": shape(world),
        "train": training(),
        "data": text(hq=0.6, web=0.4),
    }
    return Arm(**(fields | changed))
