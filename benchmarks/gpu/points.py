"""What is measured, most wanted first: a run that is out of time leaves the last ones out."""

from dataclasses import dataclass

SHAPES = ("toy", "100m", "1b", "1.9b")


@dataclass(frozen=True)
class Point:
    """One process: a shape, who trains it, and what is changed."""

    shape: str
    row: str
    batch: int
    """Rows of a step."""
    micro_batch: int
    steps: int
    """Timed ones; two more warm up."""
    recompute: bool = False
    dtype: str = "bfloat16"
    plain_causal: bool = False
    """Documents of a row see each other, as the peers have it: no mask."""
    fused_adamw: bool = True
    head_chunk: int | None = None
    """Positions whose logits exist at one time, instead of what the loop takes."""


def points() -> dict[str, Point]:
    """By name, `<shape>/<row>` and for a lever `<shape>/indexlm_compiled, <lever>`.

    All train in bfloat16 with float32 weights; `hf` is transformers' Llama under autocast in a
    plain loop, `hf_layers_compiled` compiles its decoder layers, `hf_compiled` the whole of it.
    `attention` times the attention of one layer of 1.9b in each of the kernels that PyTorch has.
    A micro-batch of two rows is what 80 GB hold at 1.9b without recompute.
    """
    ours = "indexlm_compiled"
    big = {
        f"1.9b/{row}": Point("1.9b", row, 8, 2, 5)
        for row in (ours, "hf_layers_compiled", "indexlm", "hf")
    }
    small = {
        f"100m/{row}": Point("100m", row, 64, 32, 20)
        for row in (ours, "hf_layers_compiled", "indexlm", "hf")
    }
    middle = {
        f"1b/{row}": Point("1b", row, 8, 2, 6)
        for row in (ours, "hf_layers_compiled", "indexlm", "hf")
    }
    levers = {
        "1.9b/{}, plain causal": Point("1.9b", ours, 8, 2, 5, plain_causal=True),
        "1.9b/{}, recompute": Point("1.9b", ours, 8, 2, 5, recompute=True),
        "1.9b/{}, recompute, micro-batch 8": Point("1.9b", ours, 8, 8, 5, recompute=True),
        "100m/{}, plain causal": Point("100m", ours, 64, 32, 20, plain_causal=True),
        "100m/{}, unfused AdamW": Point("100m", ours, 64, 32, 20, fused_adamw=False),
        "100m/{}, micro-batch 8": Point("100m", ours, 64, 8, 20),
        "100m/{}, micro-batch 64": Point("100m", ours, 64, 64, 20),
        "100m/{}, head chunk 512": Point("100m", ours, 64, 32, 20, head_chunk=512),
        "100m/{}, head chunk 8192": Point("100m", ours, 64, 32, 20, head_chunk=8192),
        "100m/{}, float32": Point("100m", ours, 64, 32, 6, dtype="float32"),
    }
    levers = {name.format(ours): point for name, point in levers.items()}
    first = dict(list(levers.items())[:3])
    whole = {
        f"{shape}/hf_compiled": Point(shape, "hf_compiled", batch, micro, steps)
        for shape, batch, micro, steps in (("100m", 64, 32, 20), ("1.9b", 8, 2, 5))
    }
    toy = {f"toy/{row}": Point("toy", row, 4, 2, 2) for row in ("indexlm", "hf")}
    attention = {"attention": Point("1.9b", "attention", 2, 2, 20)}
    return big | small | attention | first | middle | levers | whole | toy


def default_points() -> list[str]:
    return [name for name in points() if not name.startswith("toy/")]
