"""What a recipe will need before it starts: parameters, memory, tokens."""

from indexlm.config import DpoConfig, Recipe, TrainConfig
from indexlm.errors import UserError
from indexlm.records import clock
from indexlm.runtime import machine_memory

IMPORTS = 450 * 2**20
"""Bytes that Python with torch holds before any tensor."""


def training_bytes(recipe: Recipe, stage: TrainConfig) -> int:
    """Peak memory of a training stage in float32: weights, gradients and two moments, the
    activations of one micro-batch, one chunk of logits and the head's gradient."""
    model = recipe.model
    state = 16 * model.parameters
    # A pair is two rows.
    rows = stage.micro_batch * (2 if isinstance(stage, DpoConfig) else 1)
    tokens = rows * model.context
    # Per layer and token: two norms, q, k, v, rotated q and k, attention out and projection
    # (10 widths), gate, up, their product and the activation (4 FFN widths).
    activations = 4 * tokens * model.layers * (10 * model.hidden + 4 * model.ffn)
    masks = rows * model.context**2
    head = 4 * 3 * model.vocab_size * model.hidden + 4 * 512 * model.vocab_size
    return IMPORTS + state + activations + masks + head


def check_memory(recipe: Recipe) -> None:
    """Raises UserError where a stage needs more than the machine has."""
    have = machine_memory()
    stages: dict[str, TrainConfig] = {
        "pretrain": recipe.pretrain,
        "sft": recipe.sft,
        "dpo": recipe.dpo,
        "character.sft": recipe.character.sft,
        "character.dpo": recipe.character.dpo,
    }
    for name, stage in stages.items():
        need = training_bytes(recipe, stage)
        if need > have:
            raise UserError(
                f"{recipe.name}: {name} needs about {need / 2**30:.1f} GiB, the machine has "
                f"{have / 2**30:.1f} GiB; lower {name}.micro_batch={stage.micro_batch} or the "
                f"model (layers={recipe.model.layers}, hidden={recipe.model.hidden}, "
                f"context={recipe.model.context})"
            )


def describe(recipe: Recipe, flops_per_second: float) -> str:
    """The plan as aligned text; times assume the stated rate of useful arithmetic."""
    model = recipe.model
    rows = [
        ("parameters", f"{model.parameters:,}"),
        ("  without embedding and head", f"{model.non_embedding_parameters:,}"),
        ("training FLOPs per token", f"{model.training_flops_per_token:.3g}"),
    ]
    steps = {
        "trunk": recipe.pretrain.steps,
        "base decay": recipe.base.steps,
        "pure decay": recipe.pure.steps,
    }
    for name, count in steps.items():
        tokens = count * recipe.pretrain.batch * model.context
        seconds = tokens * model.training_flops_per_token / flops_per_second
        rows.append((name, f"{count:,} steps, {tokens:,} tokens, about {clock(seconds)}"))
    rows.append(("memory, training", f"{training_bytes(recipe, recipe.pretrain) / 2**30:.2f} GiB"))
    rows.append(("memory of this machine", f"{machine_memory() / 2**30:.2f} GiB"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
