"""What a recipe, a named size or a model folder needs before anything starts: memory, arithmetic,
time, learning rates, passes over the data, GPUs. GiB is 2**30 bytes."""

from indexlm.plan.description import Subject, describe, find, shape_of
from indexlm.plan.epochs import check_epochs, data_epochs, recipe_epochs, tokens_of_run
from indexlm.plan.learning_rates import check_schedules, learning_rate_charts
from indexlm.plan.memory import (
    GIB,
    IMPORTS,
    check_continuation_memory,
    check_memory,
    largest_micro_batch,
    lora_memory,
    training_bytes,
    training_memory,
)
from indexlm.plan.scaling import GPUS, Cluster, gpu_counts, scaling_table

__all__ = [
    "GIB",
    "GPUS",
    "IMPORTS",
    "Cluster",
    "Subject",
    "check_continuation_memory",
    "check_epochs",
    "check_memory",
    "check_schedules",
    "data_epochs",
    "describe",
    "find",
    "gpu_counts",
    "largest_micro_batch",
    "learning_rate_charts",
    "lora_memory",
    "recipe_epochs",
    "scaling_table",
    "shape_of",
    "tokens_of_run",
    "training_bytes",
    "training_memory",
]
