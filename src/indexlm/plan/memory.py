"""Peak memory by part of training a shape, and whether a recipe's stages fit the machine."""

from collections.abc import Callable, Mapping

from indexlm.config import AnyRecipe, Continuation, DpoConfig, HardwareConfig, Recipe, TrainConfig
from indexlm.errors import UserError
from indexlm.model import communication, costs
from indexlm.model.communication import Layout
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.runtime import device_of, memory_for, ranks, threads_of

GIB = 2**30
IMPORTS = 450 * 2**20
"""Bytes that Python with torch holds before any tensor, with slack for a build of torch for
processors, which was seen to take 330 MiB; one for CUDA takes 700, which is not counted."""
CHUNK = 512
"""Positions whose logits the language loss holds at one time."""
CHUNK_ON_GPU = 2048
"""The same on a GPU."""
HEAD_COPIES = 3
"""Tensors of the head's shape that are there at the peak, beside its weight and gradient: the
normalised rows, their gradient, and one on the way back through the norm."""
HEAP_SHARE = 0.55
"""Of a processor's activations: freed blocks between kept ones, which the C library cannot give
back. Resident memory minus tensors and imports: training 12 x 512 0.47 of them, 12 x 64 0.40 to
0.43; LoRA 0.54 at 36 x 2048 with one row of 384 tokens, 0.26 at 12 x 64. With
MALLOC_MMAP_THRESHOLD_=262144 it is 0.00."""
MOST_ROWS = 2**20


def training_memory(
    model: ModelConfig,
    rows: int,
    length: int,
    *,
    mixed: bool = False,
    recomputed: bool = False,
    lanes: int = 1,
) -> dict[str, int]:
    """Peak bytes by part of training all weights on micro-batches of `rows` rows.

    `mixed` is bfloat16 arithmetic with float32 weights, gradients and moments; `recomputed` makes
    the activations of each block again in the backward pass; `lanes` are the processor cores that
    share the rows, each with gradients of its own. The parts are counted as if all were there at
    once, which they are from the second micro-batch of a step on.
    """
    if mixed:
        parts = gpu_memory(model, Layout(1, rows * length), rows, length, recomputed=recomputed)
        return parts | {"Python and torch": IMPORTS}
    kept = costs.activation_bytes(model, length, checkpointed=recomputed)
    activations = rows * length * sum(kept.values())
    head = model.vocab_size * model.hidden
    return {
        "weights": costs.FLOAT32 * model.parameters,
        "gradients": lanes * costs.FLOAT32 * model.parameters,
        "moments of AdamW": 2 * costs.FLOAT32 * model.parameters,
        "activations": activations,
        "unused between activations": round(HEAP_SHARE * activations),
        "logits of one chunk": lanes * _chunk_bytes(model, rows * length // lanes),
        "head: normalised rows, gradient": lanes * costs.FLOAT32 * HEAD_COPIES * head,
        "Python and torch": IMPORTS,
    }


def gpu_memory(
    model: ModelConfig, layout: Layout, rows: int, length: int, *, recomputed: bool
) -> dict[str, int]:
    """Peak bytes by part on one of `layout.ranks` GPUs: float32 weights, gradients and moments are
    sharded, what is gathered is in `layout.compute_bytes`. The parts are counted as if all were
    there at once."""
    ranks, size, float32 = layout.ranks, layout.compute_bytes, costs.FLOAT32
    in_fsdp = layout.head_ranks == 1
    block = communication.block_numbers(model, ranks)
    embedding = communication.embedding_numbers(model, ranks)
    whole_head = communication.head_numbers(model, ranks) if in_fsdp else 0
    head = communication.head_rows(model, layout.head_ranks) * model.hidden
    sharded = (model.layers * block + embedding + whole_head) // ranks
    numbers = sharded + (0 if in_fsdp else head)
    kept = costs.activation_bytes(
        model, length, number_bytes=size, checkpointed=recomputed, fused=True
    )
    tokens = rows * length
    group_tokens = layout.head_ranks * tokens
    chunk = min(CHUNK_ON_GPU, group_tokens) * head // model.hidden
    return {
        "weights": float32 * numbers,
        "gradients": float32 * numbers,
        "moments of AdamW": 2 * float32 * numbers,
        # The block that is computed and the one that is fetched.
        "gathered weights": size * (2 * block + embedding) + float32 * whole_head,
        "gradients on their way": (size + float32) * (block + embedding) + 2 * float32 * whole_head,
        "activations": tokens * sum(kept.values()),
        "head: normalised rows, gradient": float32 * HEAD_COPIES * head,
        "logits of one chunk": 2 * float32 * chunk,
        "hidden states of the group": 0 if in_fsdp else 2 * size * group_tokens * model.hidden,
    }


def lora_memory(
    model: ModelConfig,
    rows: int,
    length: int,
    lora: LoraConfig,
    *,
    base_bytes: int = costs.FLOAT32,
    lanes: int = 1,
) -> dict[str, int]:
    """Peak bytes by part of LoRA fine-tuning: the base is frozen, the adapter float32. With dropout
    there is one lane."""
    lanes = 1 if lora.dropout else lanes
    kept = costs.lora_activation_bytes(model, length, lora, number_bytes=base_bytes)
    adapter = costs.FLOAT32 * costs.lora_parameters(model, lora)
    activations = rows * length * sum(kept.values())
    return {
        "frozen weights": base_bytes * model.parameters,
        "adapter": adapter,
        "gradients": lanes * adapter,
        "moments of AdamW": 2 * adapter,
        "activations": activations,
        "unused between activations": round(HEAP_SHARE * activations),
        "logits of one chunk": lanes * _chunk_bytes(model, rows * length // lanes),
        "head: normalised rows": lanes * base_bytes * model.vocab_size * model.hidden,
        "Python and torch": IMPORTS,
    }


def _chunk_bytes(model: ModelConfig, tokens: int) -> int:
    """The logits and, inside log-sum-exp, their exponentials."""
    return 2 * costs.FLOAT32 * min(CHUNK, tokens) * model.vocab_size


def training_bytes(recipe: Recipe, stage: TrainConfig) -> int:
    """Peak memory of a stage of a recipe in each of the processes that work on it."""
    model = recipe.model
    # A pair is two rows.
    rows = stage.micro_batch * (2 if isinstance(stage, DpoConfig) else 1)
    return sum(_of_hardware(recipe, model, rows, model.context, stage.micro_batch).values())


def _of_hardware(
    recipe: AnyRecipe, model: ModelConfig, rows: int, length: int, units: int
) -> dict[str, int]:
    """`units` are what lanes share: rows, or pairs of them."""
    hardware = recipe.hardware
    mixed = hardware.dtype == "bfloat16"
    if ranks() == 1:
        cores = threads_of(recipe.threads) if device_of(hardware.device) == "cpu" else 1
        return training_memory(
            model,
            rows,
            length,
            mixed=mixed,
            recomputed=hardware.recompute,
            lanes=min(cores, units),
        )
    layout = Layout(
        ranks(),
        rows * length,
        head_ranks=hardware.head_parallel,
        compute_bytes=costs.BFLOAT16 if mixed else costs.FLOAT32,
    )
    parts = gpu_memory(model, layout, rows, length, recomputed=hardware.recompute)
    return parts | {"Python and torch": IMPORTS}


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
            recipe.hardware,
        )


def check_continuation_memory(recipe: Continuation, parent: ModelConfig) -> None:
    """Raises UserError where a stage from a model of shape `parent` on needs more than the machine
    has."""
    model = windowed(recipe, parent)
    if recipe.pretrain is not None:
        rows, length = recipe.pretrain.micro_batch, recipe.pretrain.length or model.context
        need = sum(_of_hardware(recipe, model, rows, length, rows).values())
        lower = f"pretrain.micro_batch={rows} or pretrain.length={length}"
        _check(f"{recipe.name}: pretrain", need, lower, recipe.hardware)
    if recipe.sft is not None:
        rows, length = recipe.sft.micro_batch, recipe.sft.length or model.context
        if recipe.lora is None:
            need = sum(_of_hardware(recipe, model, rows, length, rows).values())
            lower = f"sft.micro_batch={rows} or sft.length={length}, or set lora"
        else:
            lanes = min(threads_of(recipe.threads), rows)
            need = sum(lora_memory(model, rows, length, recipe.lora, lanes=lanes).values())
            lower = f"sft.micro_batch={rows} or sft.length={length}"
        _check(f"{recipe.name}: sft", need, lower, recipe.hardware)


def windowed(recipe: Continuation, parent: ModelConfig) -> ModelConfig:
    """The shape of the parent in the recipe's window."""
    return parent.model_copy(update={"context": recipe.window.context or parent.context})


def _check(what: str, need: int, lower: str, hardware: HardwareConfig) -> None:
    device = device_of(hardware.device)
    have = memory_for(device)
    if need > have:
        who = "the GPU" if device == "cuda" else "the machine"
        raise UserError(
            f"{what} needs about {need / GIB:.1f} GiB, {who} has {have / GIB:.1f} GiB"
            f"{' for each process' if ranks() > 1 else ''}; lower {lower}, or set "
            "hardware.recompute=true"
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
