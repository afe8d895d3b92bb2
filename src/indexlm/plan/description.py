"""What `indexlm plan` shows of a recipe, a named size or a model folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from indexlm import recipes
from indexlm.config import AnyRecipe, Continuation, Recipe
from indexlm.errors import UserError
from indexlm.model import costs
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.sizes import SIZES
from indexlm.plan.epochs import recipe_epochs
from indexlm.plan.layout import memory_table, table, times
from indexlm.plan.learning_rates import learning_rate_charts
from indexlm.plan.memory import (
    GIB,
    largest_micro_batch,
    lora_memory,
    training_memory,
    windowed,
)
from indexlm.records import clock
from indexlm.runtime import machine_memory, threads_of

DAY = 24 * 60 * 60
Subject = AnyRecipe | ModelConfig
"""What can be planned."""


def find(name: str) -> Subject:
    """A named size, the shape of a model folder, or a recipe. Raises UserError for none of them."""
    if name in SIZES:
        return SIZES[name]
    path = Path(name)
    if path.is_dir():
        from indexlm.export import hf

        return hf.read_config(path)
    if name in recipes.RECIPES or path.suffix in (".py", ".json"):
        return recipes.find(name)
    raise UserError(
        f"nothing to plan is called {name!r}; name a size ({', '.join(SIZES)}), a model folder, "
        f"or a recipe ({', '.join(recipes.RECIPES)}, a .py file or a saved config.json)"
    )


def describe(
    subject: Subject,
    flops_per_second: float,
    memory: int | None = None,
    length: int | None = None,
    tokens: Mapping[str, int] | None = None,
) -> str:
    """The plan as aligned text.

    Times assume `flops_per_second` of useful arithmetic. Micro-batches are fitted to `memory`
    bytes (default: this machine's). Rows have `length` tokens (default: the recipe's rows, else
    the window). `tokens` by source, where they are known, give the passes over them. Raises
    UserError for a length that the window does not hold.
    """
    model, rows, lora = _resolved(subject)
    longest = model.context
    stated = _row_length(subject)
    if length is None and stated is not None and stated > longest:
        raise UserError(
            f"sft.length={stated} is longer than the window of {longest}; lower it or set "
            f"window.context={stated}"
        )
    length = length or stated or longest
    if not 1 <= length <= longest:
        raise UserError(
            f"--length {length}: the window has {longest} positions; name at most those"
        )
    have = machine_memory() if memory is None else memory
    blocks = [
        _shape_table(model),
        _arithmetic_table(model, length, lora, flops_per_second),
        _training_table(model, rows, length),
        _lora_table(model, rows, length, lora),
        _generation_table(model),
        _fit_table(model, length, lora, have),
    ]
    if isinstance(subject, Recipe):
        blocks.append(_time_table(subject, flops_per_second))
    if isinstance(subject, Recipe | Continuation):
        blocks += learning_rate_charts(subject)
        if tokens is not None and subject.pretrain is not None:
            blocks.append(_epochs_table(subject, tokens, longest))
    return "\n\n".join(blocks)


def shape_of(subject: Subject) -> ModelConfig:
    """A recipe's model, a continuation's parent in its window, or the shape itself."""
    return _resolved(subject)[0]


def _resolved(subject: Subject) -> tuple[ModelConfig, int, LoraConfig]:
    """(shape, rows of a micro-batch, adapter)"""
    if isinstance(subject, Recipe):
        return subject.model, subject.pretrain.micro_batch, LoraConfig()
    if isinstance(subject, Continuation):
        from indexlm.export import hf

        model = windowed(subject, hf.read_config(Path(subject.parent)))
        stage = subject.sft or subject.pretrain
        assert stage is not None
        return model, stage.micro_batch, subject.lora or LoraConfig()
    return subject, 1, LoraConfig()


def _row_length(subject: Subject) -> int | None:
    """What a continuation asks for in the stage that is shown: fine-tuning, where it has one."""
    stage = (subject.sft or subject.pretrain) if isinstance(subject, Continuation) else None
    return None if stage is None else stage.length


def _shape_table(model: ModelConfig) -> str:
    parts = costs.parameters_by_part(model)
    rows = [(name, f"{count:,}") for name, count in parts.items()]
    rows.append(("all", f"{model.parameters:,}"))
    rows.append(("without embedding and head", f"{model.non_embedding_parameters:,}"))
    title = (
        f"parameters: {model.layers} layers x {model.hidden}, {model.heads} heads of "
        f"{model.head_dim}, feed-forward {model.ffn}, vocabulary {model.vocab_size:,}, window "
        f"{model.context:,}"
    )
    return table(title, rows)


def _arithmetic_table(
    model: ModelConfig, length: int, lora: LoraConfig, flops_per_second: float
) -> str:
    training = costs.training_flops_per_token(model, length)
    tuning = costs.lora_flops_per_token(model, length, lora)
    prompt = costs.prefill_flops(model, length)
    last = costs.decode_flops(model, length - 1)
    rate = f"{flops_per_second / 1e9:g} GFLOPs a second"

    def pace(flops: float) -> str:
        return f"{DAY * flops_per_second / flops:.3g} tokens a day"

    return table(
        f"arithmetic, rows of {length:,} tokens, at {rate}",
        [
            ("training", f"{training:.4g} FLOPs a token", pace(training)),
            (f"LoRA, rank {lora.rank}", f"{tuning:.4g} FLOPs a token", pace(tuning)),
            ("reading a prompt", f"{prompt / length:.4g} FLOPs a token", pace(prompt / length)),
            ("writing the last token", f"{last:.4g} FLOPs", pace(last)),
        ],
    )


def _training_table(model: ModelConfig, rows: int, length: int) -> str:
    lanes = min(threads_of(0), rows)
    full = training_memory(model, rows, length, lanes=lanes)
    mixed = training_memory(model, rows, length, mixed=True)
    kept = costs.activation_bytes(model, length)
    again = costs.activation_bytes(model, length, checkpointed=True)
    tokens = rows * length
    table = memory_table(
        f"memory of training, GiB, micro-batch of {rows} x {length:,} tokens, on {lanes} cores",
        {"float32": full, "bfloat16": mixed},
    )
    activations = memory_table(
        "of it activations, GiB",
        {"kept": times(kept, tokens), "recomputed": times(again, tokens)},
    )
    note = (
        "bfloat16 is hardware.dtype=bfloat16: weights, gradients and moments stay float32;\n"
        "recomputed is hardware.recompute=true: each block again in the backward pass"
    )
    return f"{table}\n\n{activations}\n{note}"


def _lora_table(model: ModelConfig, rows: int, length: int, lora: LoraConfig) -> str:
    return memory_table(
        f"memory of LoRA, GiB, rank {lora.rank}, dropout {lora.dropout:g}, micro-batch of {rows} x "
        f"{length:,} tokens, base in",
        {
            "float32": lora_memory(model, rows, length, lora),
            "bfloat16": lora_memory(model, rows, length, lora, base_bytes=costs.BFLOAT16),
        },
    )


def _generation_table(model: ModelConfig) -> str:
    rows: list[tuple[str, ...]] = [
        (f"weights, {name}", f"{size / GIB:.3f} GiB")
        for name, size in costs.weight_bytes(model).items()
    ]
    head = costs.FLOAT32 * model.vocab_size * model.hidden
    if model.norm_head:
        rows.append(("normalised head, float32", f"{head / GIB:.3f} GiB"))
    for name, size in (("float32", costs.FLOAT32), ("16 bits", costs.BFLOAT16)):
        token = costs.cache_bytes_per_token(model, size)
        rows.append(
            (
                f"keys and values, {name}",
                f"{token * model.context / GIB:.3f} GiB a row of {model.context:,}",
                f"{token:,} bytes a token",
            )
        )
    return table("memory of generating", rows)


def _fit_table(model: ModelConfig, length: int, lora: LoraConfig, memory: int) -> str:
    ways: dict[str, Callable[[int], Mapping[str, int]]] = {
        "training, float32": lambda rows: training_memory(
            model, rows, length, lanes=min(threads_of(0), rows)
        ),
        "LoRA, float32 base": lambda rows: lora_memory(model, rows, length, lora),
        "LoRA, bfloat16 base": lambda rows: lora_memory(
            model, rows, length, lora, base_bytes=costs.BFLOAT16
        ),
    }
    rows = []
    for name, parts_of in ways.items():
        most = largest_micro_batch(parts_of, memory)
        needs = sum(parts_of(max(most, 1)).values()) / GIB
        rows.append((name, f"{most:,} rows" if most else "none fits", f"{needs:.2f} GiB"))
    return table(f"largest micro-batch in {memory / GIB:.2f} GiB, rows of {length:,} tokens", rows)


def _time_table(recipe: Recipe, flops_per_second: float) -> str:
    flops = costs.training_flops_per_token(recipe.model, recipe.model.context)
    steps = {
        "trunk": recipe.pretrain.steps,
        "base decay": recipe.base.steps,
        "pure decay": recipe.pure.steps,
    }
    rows = []
    for name, count in steps.items():
        tokens = count * recipe.pretrain.batch * recipe.model.context
        about = clock(tokens * flops / flops_per_second)
        rows.append((name, f"{count:,} steps", f"{tokens:,} tokens", f"about {about}"))
    return table(f"time of {recipe.name}", rows)


def _epochs_table(recipe: AnyRecipe, tokens: Mapping[str, int], window: int) -> str:
    paths = recipe_epochs(recipe, tokens, window)
    names = sorted({name for sources in paths.values() for name in sources})
    rows: list[tuple[str, ...]] = [("", "tokens", *paths)]
    for name in names:
        read = (f"{sources.get(name, 0):.2f}" for sources in paths.values())
        rows.append((name, f"{tokens.get(name, 0):,}", *read))
    return table("times that pre-training reads each source", rows)
