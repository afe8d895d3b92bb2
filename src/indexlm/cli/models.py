"""Verbs of a model folder: check it, bring it into another form."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from indexlm.cli.arguments import check_model, check_new
from indexlm.errors import UserError

GROUP_SIZE = 128
"""What torchao's kernels are tuned for."""


class Form(StrEnum):
    """What `export --to` takes."""

    INDEX = "index"
    LLAMA = "llama"
    GGUF = "gguf"


class Number(StrEnum):
    """What `export --dtype` takes; the last two are for GGUF."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"


class Bits(StrEnum):
    """What `quantise --to` takes."""

    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"
    INT8 = "int8"
    INT4 = "int4"


def verify(
    folder: Annotated[Path, typer.Argument(help="a model folder, or any finished folder of a run")],
) -> None:
    """Check a model folder (also a downloaded one) or the files of a finished folder.

    Of a model it says what decides how it must be read (shapes, effective RoPE base, head rows,
    special ids) and what is unusual. Of anything else, whether each file still has the SHA-256 of
    its manifest.
    """
    from indexlm.errors import DamagedError
    from indexlm.export import inspect
    from indexlm.records import MANIFEST
    from indexlm.records import verify as check

    if inspect.is_model(folder):
        found = inspect.describe(folder)
        typer.echo(str(found))
        if found.wrong:
            raise DamagedError(f"{folder} cannot be used as a model: {len(found.wrong)} wrong")
        return
    if not (folder / MANIFEST).is_file():
        finished = sorted(str(path.parent) for path in folder.glob(f"**/{MANIFEST}"))
        raise UserError(
            f"{folder} is neither a model folder nor a finished folder of a run; "
            + (f"verify one in it: {', '.join(finished)}" if finished else "name one of them")
        )
    manifest = check(folder)
    typer.echo(f"{folder}: {len(manifest.files)} files are what they were")


def export(
    model: Annotated[Path, typer.Argument(help="model folder, made here or downloaded")],
    to: Annotated[Form, typer.Option("--to", help="published layout, Llama layout, or GGUF")],
    out: Annotated[Path, typer.Option("--out", help="folder to make, or a .gguf file")],
    adapter: Annotated[
        Path | None, typer.Option(help="merge this LoRA adapter (PEFT's layout) first")
    ] = None,
    dtype: Annotated[
        Number | None, typer.Option(help="of the weights; default: as they are stored")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="gguf: system text of the Ollama Modelfile")
    ] = None,
) -> None:
    """Write a model in another form, read it back and compare logits before it is there.

    index: the published layout, raw head rows. llama: the head folded, for transformers, vLLM and
    SGLang. gguf: for llama.cpp and Ollama, with a Modelfile beside it.
    """
    from indexlm.export import forms

    check_model(model)
    check_new(out)
    made = forms.export(model, to.value, out, adapter, dtype and dtype.value, system)
    typer.echo(f"{made.path}: {made.bytes / 1e6:,.1f} MB, read back: {made.agreement}")
    for note in made.notes:
        typer.echo(f"  {note}")


def quantise(
    model: Annotated[Path, typer.Argument(help="model folder, made here or downloaded")],
    to: Annotated[
        Bits, typer.Option("--to", help="q8_0, q4_k_m: GGUF for CPUs; int8, int4: for GPUs")
    ],
    text: Annotated[
        Path,
        typer.Option("--data", help="a folder that `data refine` made: the loss is told on it"),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder to make, or a .gguf file")],
    group_size: Annotated[
        int | None, typer.Option(min=16, help="int4: weights per scale, 128 by default")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="items of each kind of the starter test")] = 300,
    size: Annotated[
        int, typer.Option("--bytes", min=1000, help="held-out text of each tier that is read")
    ] = 200_000,
    seed: Annotated[int, typer.Option(help="draws the items and the text")] = 1234,
) -> None:
    """Make a model smaller and say what that costs.

    Prints bits per byte, how often the next token stays the same, the divergence of predictions and
    the change of the starter test, each with its standard error.
    """
    from indexlm.evals.fidelity import fidelity, fidelity_table
    from indexlm.evals.runner import sample_text
    from indexlm.export import forms, hf
    from indexlm.records import write_json
    from indexlm.stages.inputs import held_out_entries, held_out_texts
    from indexlm.text.refined import verify_refined

    check_model(model)
    check_new(out)
    loss = out.with_name(f"{out.name}.loss.json")
    check_new(loss)
    if group_size is not None and to is not Bits.INT4:
        raise UserError(f"--group-size {group_size} is for --to int4, not for --to {to.value}")
    verify_refined(text)
    entries = held_out_entries(text)
    held_out = {
        name: sample_text(documents, size, f"{seed}/{name}")
        for name, documents in held_out_texts(text).items()
    }
    made = forms.quantised(model, to.value, out, group_size or GROUP_SIZE)
    typer.echo(f"{made.path}: {made.bytes / 1e6:,.1f} MB, read back: {made.agreement}")
    for note in made.notes:
        typer.echo(f"  {note}")
    original = hf.load(model)
    tokenizer = hf.load_tokenizer(model, original.config)
    result = fidelity(
        original, forms.read_back(made.path), tokenizer, held_out, entries, limit, seed
    )
    typer.echo(fidelity_table(result))
    write_json(loss, result)
