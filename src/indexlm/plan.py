"""What a recipe, a named size or a model folder needs before anything starts: memory, arithmetic,
time. GiB is 2**30 bytes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from indexlm import recipes
from indexlm.config import AnyRecipe, Continuation, DpoConfig, Recipe, TrainConfig
from indexlm.errors import UserError
from indexlm.model import costs
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.sizes import SIZES
from indexlm.records import clock
from indexlm.runtime import machine_memory

GIB = 2**30
IMPORTS = 450 * 2**20
"""Bytes that Python with torch holds before any tensor."""
DAY = 24 * 60 * 60
CHUNK = 512
"""Positions whose logits the language loss holds at one time."""
HEAD_COPIES = 3
"""Tensors of the head's shape that are there at the peak, beside its weight and gradient: the
normalised rows, their gradient, and one on the way back through the norm."""
HEAP_SHARE = 0.55
"""Of LoRA's activations: freed blocks between kept ones, which the C library cannot give back.
Resident memory minus tensors and imports: 0.54 of them at 36 x 2048 with one row of 384 tokens,
0.26 at 12 x 64 with 24 rows of 256; full training showed none."""
MOST_ROWS = 2**20

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


def training_memory(
    model: ModelConfig, rows: int, length: int, *, mixed: bool = False
) -> dict[str, int]:
    """Peak bytes by part of training all weights on micro-batches of `rows` rows.

    `mixed` is bfloat16 arithmetic with float32 master weights and moments. The parts are counted
    as if all were there at once, which they are from the second micro-batch of a step on.
    """
    size = costs.BFLOAT16 if mixed else costs.FLOAT32
    kept = costs.activation_bytes(model, length, number_bytes=size)
    head = model.vocab_size * model.hidden
    return {
        "weights": size * model.parameters,
        "float32 master weights": costs.FLOAT32 * model.parameters if mixed else 0,
        "gradients": size * model.parameters,
        "moments of AdamW": 2 * costs.FLOAT32 * model.parameters,
        "activations": rows * length * sum(kept.values()),
        "logits of one chunk": _chunk_bytes(model, rows * length),
        "head: normalised rows, gradient": size * HEAD_COPIES * head,
        "Python and torch": IMPORTS,
    }


def lora_memory(
    model: ModelConfig, rows: int, length: int, lora: LoraConfig, *, base_bytes: int = costs.FLOAT32
) -> dict[str, int]:
    """Peak bytes by part of LoRA fine-tuning: the base is frozen, the adapter float32."""
    kept = costs.lora_activation_bytes(model, length, lora, number_bytes=base_bytes)
    adapter = costs.FLOAT32 * costs.lora_parameters(model, lora)
    activations = rows * length * sum(kept.values())
    return {
        "frozen weights": base_bytes * model.parameters,
        "adapter": adapter,
        "gradients": adapter,
        "moments of AdamW": 2 * adapter,
        "activations": activations,
        "unused between activations": round(HEAP_SHARE * activations),
        "logits of one chunk": _chunk_bytes(model, rows * length),
        "head: normalised rows": base_bytes * model.vocab_size * model.hidden,
        "Python and torch": IMPORTS,
    }


def _chunk_bytes(model: ModelConfig, tokens: int) -> int:
    """The logits and, inside log-sum-exp, their exponentials."""
    return 2 * costs.FLOAT32 * min(CHUNK, tokens) * model.vocab_size


def training_bytes(recipe: Recipe, stage: TrainConfig) -> int:
    """Peak memory of a stage of a recipe, float32."""
    model = recipe.model
    if not isinstance(stage, DpoConfig):
        return sum(training_memory(model, stage.micro_batch, model.context).values())
    # A pair is two rows, and its logits are held whole: as they are, as log-probabilities, and as
    # the gradient of either. A rejected answer has at most max_new_tokens labels.
    parts = training_memory(model, 2 * stage.micro_batch, model.context)
    labels = stage.micro_batch * (model.context + min(stage.max_new_tokens, model.context))
    parts["logits of one chunk"] = 3 * costs.FLOAT32 * labels * model.vocab_size
    return sum(parts.values())


def check_memory(recipe: Recipe) -> None:
    """Raises UserError where a stage needs more than the machine has."""
    stages: dict[str, TrainConfig] = {
        "pretrain": recipe.pretrain,
        "sft": recipe.sft,
        "dpo": recipe.dpo,
        "character.sft": recipe.character.sft,
        "character.dpo": recipe.character.dpo,
    }
    for name, stage in stages.items():
        _check(
            f"{recipe.name}: {name}",
            training_bytes(recipe, stage),
            f"{name}.micro_batch={stage.micro_batch} or the model (layers={recipe.model.layers}, "
            f"hidden={recipe.model.hidden}, context={recipe.model.context})",
        )


def check_continuation_memory(recipe: Continuation, parent: ModelConfig) -> None:
    """Raises UserError where a stage from a model of shape `parent` on needs more than the machine
    has."""
    model = windowed(recipe, parent)
    if recipe.pretrain is not None:
        rows, length = recipe.pretrain.micro_batch, recipe.pretrain.length or model.context
        need = sum(training_memory(model, rows, length).values())
        lower = f"pretrain.micro_batch={rows} or pretrain.length={length}"
        _check(f"{recipe.name}: pretrain", need, lower)
    if recipe.sft is not None:
        rows, length = recipe.sft.micro_batch, recipe.sft.length or model.context
        if recipe.lora is None:
            need = sum(training_memory(model, rows, length).values())
            lower = f"sft.micro_batch={rows} or sft.length={length}, or set lora"
        else:
            need = sum(lora_memory(model, rows, length, recipe.lora).values())
            lower = f"sft.micro_batch={rows} or sft.length={length}"
        _check(f"{recipe.name}: sft", need, lower)


def windowed(recipe: Continuation, parent: ModelConfig) -> ModelConfig:
    """The shape of the parent in the recipe's window."""
    return parent.model_copy(update={"context": recipe.window.context or parent.context})


def _check(what: str, need: int, lower: str) -> None:
    have = machine_memory()
    if need > have:
        raise UserError(
            f"{what} needs about {need / GIB:.1f} GiB, the machine has {have / GIB:.1f} GiB; "
            f"lower {lower}"
        )


def largest_micro_batch(parts_of: Callable[[int], Mapping[str, int]], memory: int) -> int:
    """Rows that fit `memory` bytes, 0 where one does not; `parts_of` gives the parts for a number
    of rows."""
    most, step = 0, MOST_ROWS
    while step:
        if sum(parts_of(most + step).values()) <= memory:
            most += step
        step //= 2
    return most


def describe(
    subject: Subject,
    flops_per_second: float,
    memory: int | None = None,
    length: int | None = None,
) -> str:
    """The plan as aligned text.

    Times assume `flops_per_second` of useful arithmetic. Micro-batches are fitted to `memory`
    bytes (default: this machine's). Rows have `length` tokens (default: the recipe's rows, else
    the window). Raises UserError for a length that the window does not hold.
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
    return "\n\n".join(blocks)


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
    return _table(title, rows)


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

    return _table(
        f"arithmetic, rows of {length:,} tokens, at {rate}",
        [
            ("training", f"{training:.4g} FLOPs a token", pace(training)),
            (f"LoRA, rank {lora.rank}", f"{tuning:.4g} FLOPs a token", pace(tuning)),
            ("reading a prompt", f"{prompt / length:.4g} FLOPs a token", pace(prompt / length)),
            ("writing the last token", f"{last:.4g} FLOPs", pace(last)),
        ],
    )


def _training_table(model: ModelConfig, rows: int, length: int) -> str:
    full = training_memory(model, rows, length)
    mixed = training_memory(model, rows, length, mixed=True)
    kept = costs.activation_bytes(model, length)
    again = costs.activation_bytes(model, length, checkpointed=True)
    tokens = rows * length
    table = _memory_table(
        f"memory of training, GiB, micro-batch of {rows} x {length:,} tokens",
        {"float32": full, "mixed": mixed},
    )
    activations = _memory_table(
        "of it activations, GiB",
        {"kept": _times(kept, tokens), "recomputed": _times(again, tokens)},
    )
    note = (
        "training here is float32 and keeps its activations; `mixed` (bfloat16, float32 master\n"
        "weights) and `recomputed` (each block again in the backward pass) are for comparison"
    )
    return f"{table}\n\n{activations}\n{note}"


def _lora_table(model: ModelConfig, rows: int, length: int, lora: LoraConfig) -> str:
    return _memory_table(
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
    return _table("memory of generating", rows)


def _fit_table(model: ModelConfig, length: int, lora: LoraConfig, memory: int) -> str:
    ways: dict[str, Callable[[int], Mapping[str, int]]] = {
        "training, float32": lambda rows: training_memory(model, rows, length),
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
    return _table(f"largest micro-batch in {memory / GIB:.2f} GiB, rows of {length:,} tokens", rows)


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
    return _table(f"time of {recipe.name}", rows)


def _memory_table(title: str, columns: Mapping[str, Mapping[str, int]]) -> str:
    """Parts as rows, where any column has them, and the sum."""
    names = [n for n in next(iter(columns.values())) if any(c[n] for c in columns.values())]
    rows = [("", *columns)]
    rows += [(n, *(f"{column[n] / GIB:.3f}" for column in columns.values())) for n in names]
    rows.append(("all", *(f"{sum(column.values()) / GIB:.3f}" for column in columns.values())))
    return _table(title, rows)


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """First column left, the others right."""
    widths = [
        max(len(row[at]) for row in rows if at < len(row)) for at in range(len(max(rows, key=len)))
    ]
    lines = [title]
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:])]
        lines.append("  ".join([f"  {first:<{widths[0]}}", *cells]))
    return "\n".join(lines)


def _times(parts: Mapping[str, int], count: int) -> dict[str, int]:
    return {name: count * each for name, each in parts.items()}
