"""Verbs that run a recipe or a part of it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexlm.cli.arguments import Out, RecipeName, Settings, check_new, resolved
from indexlm.errors import StoppedError, UserError

if TYPE_CHECKING:
    from indexlm.config import AnyRecipe


def run(
    recipe: RecipeName,
    settings: Settings = None,
    only: Annotated[str | None, typer.Option("--only", help="this stage alone")] = None,
    out: Out = None,
) -> None:
    """Run a recipe from raw text to four models; run it again to go on where it stopped."""
    run_stages(recipe, settings, out, only)


def resume(folder: Annotated[Path, typer.Argument(help="a run folder, e.g. runs/tiny")]) -> None:
    """Go on with a run folder under the settings saved in it."""
    run_stages(str(folder / "config.json"), None, folder, None)


def branch(
    parent: Annotated[Path, typer.Argument(help="a run folder, e.g. runs/tiny")],
    out: Annotated[Path, typer.Option("--out", help="run folder of the branch")],
    settings: Settings = None,
) -> None:
    """Run a recipe again under changed settings, sharing the stages that they do not touch."""
    from indexlm.pipeline import branch_run
    from indexlm.runtime import launched

    recipe = resolved(str(parent / "config.json"), settings)

    def begin() -> None:
        # What torchrun starts again has made it the first time.
        if not (launched() and (out / "parent.json").is_file()):
            check_new(out)
            branch_run(recipe, parent, out)

    run_resolved(recipe, None, out, None, begin)


def plan(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="a recipe (as for `run`), a model folder, or a size: 1m, 3m, 10m, 30m, 100m, "
            "300m, 600m, 1b, 1.9b; several also with -deep and -shallow",
        ),
    ],
    settings: Settings = None,
    gflops: Annotated[
        float, typer.Option(min=0.001, help="useful arithmetic of the machine per second, 1e9")
    ] = 80.0,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="GiB to fit into; default: this machine's")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="tokens of a row; default: the whole window")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="predict step time and memory on so many GPUs, e.g. 1,8,64,512,1024"),
    ] = None,
    gpu_tflops: Annotated[
        float, typer.Option(min=0.001, help="dense bfloat16 peak of one GPU, 1e12 FLOPs a second")
    ] = 989.0,
    gpu_mfu: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            help="share of the peak that one GPU was measured at; without it 0.4 is assumed",
        ),
    ] = None,
    link: Annotated[
        float, typer.Option(min=0.001, help="GB/s each way between GPUs of a node")
    ] = 450.0,
    internode: Annotated[
        float, typer.Option(min=0.001, help="GB/s each way of one GPU's network card")
    ] = 50.0,
    gpu_memory: Annotated[
        float, typer.Option(min=0.1, help="GiB of one GPU; 90% is filled")
    ] = 80.0,
    global_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="tokens of a step over all GPUs; default: one row for each of 1,024"
        ),
    ] = None,
    head_parallel: Annotated[
        int, typer.Option(min=1, help="GPUs that share the rows of the LM head")
    ] = 1,
) -> None:
    """Parameters, arithmetic, memory, learning rates and time, before anything starts.

    With --gpus: step time, memory and communication on that many GPUs instead.
    """
    from indexlm.config import Continuation, Recipe
    from indexlm.plan import (
        GIB,
        Cluster,
        describe,
        find,
        gpu_counts,
        scaling_table,
        shape_of,
        tokens_of_run,
    )
    from indexlm.settings import with_overrides

    subject = find(what)
    if isinstance(subject, Recipe | Continuation):
        subject = with_overrides(subject, settings or [])
    elif settings:
        raise UserError(f"{settings[0]!r}: only a recipe has settings, {what} is none")
    if gpus is not None:
        cluster = Cluster(gpu_tflops, gpu_mfu or 0.4, link, internode, gpu_memory)
        typer.echo(
            scaling_table(
                shape_of(subject),
                gpu_counts(gpus),
                cluster=cluster,
                global_batch=global_batch,
                length=length,
                head_ranks=head_parallel,
                measured=gpu_mfu is not None,
            )
        )
        return
    fit = None if memory is None else round(memory * GIB)
    saved = Path(what).parent if Path(what).name == "config.json" else None
    tokens = None if saved is None else tokens_of_run(saved)
    typer.echo(describe(subject, gflops * 1e9, fit, length, tokens))


def report(folder: Annotated[Path, typer.Argument(help="a run folder, e.g. runs/tiny")]) -> None:
    """Write the page of a run anew: report/index.html."""
    run_stages(str(folder / "config.json"), None, folder, "report")


def pretrain(recipe: RecipeName, settings: Settings = None, out: Out = None) -> None:
    """The stable trunk and both decay branches."""
    for stage in ("trunk", "base", "pure"):
        run_stages(recipe, settings, out, stage)


def sft(recipe: RecipeName, settings: Settings = None, out: Out = None) -> None:
    """Supervised fine-tuning of base, pre-training text replayed."""
    run_stages(recipe, settings, out, "sft")


def dpo(recipe: RecipeName, settings: Settings = None, out: Out = None) -> None:
    """Sample rejected answers and train on the pairs."""
    for stage in ("pairs", "chat"):
        run_stages(recipe, settings, out, stage)


def finetune(
    model: Annotated[Path, typer.Argument(help="model folder to start from")],
    data: Annotated[
        list[Path], typer.Option(help="conversations, .jsonl or .json; may be given several times")
    ],
    out: Annotated[Path, typer.Option("--out", help="run folder to make or to go on with")],
    settings: Settings = None,
    full: Annotated[bool, typer.Option("--full", help="all weights instead of LoRA")] = False,
) -> None:
    """Fine-tune a model on conversations: the recipe `lora` for this model and these files.

    Leaves the tuned model in OUT/models/tuned and, with LoRA, the update alone in
    OUT/models/adapter, in PEFT's layout.
    """
    from indexlm.export import hf
    from indexlm.recipes import lora

    length = min(lora.ROW, hf.read_config(model).context)
    recipe = lora.recipe(str(model), tuple(map(str, data)), length)
    run_resolved(recipe.model_copy(update={"lora": None}) if full else recipe, settings, out, None)


def run_stages(name: str, settings: list[str] | None, out: Path | None, only: str | None) -> None:
    """Run a recipe given by name, or one stage of it."""
    from indexlm.recipes import find

    run_resolved(find(name), settings, out, only)


def run_resolved(
    recipe: "AnyRecipe",
    settings: list[str] | None,
    out: Path | None,
    only: str | None,
    begin: Callable[[], None] | None = None,
) -> None:
    """`begin` is done once, by the first process, before the run."""
    from indexlm.pipeline import run_recipe, steps_of
    from indexlm.runtime import device_of, first_of_machine, from_first, processes
    from indexlm.settings import with_overrides

    recipe = with_overrides(recipe, settings or [])
    folder = out or Path("runs") / recipe.name
    hardware = recipe.hardware
    try:
        with processes(device_of(hardware.device), group=hardware.dtype == "bfloat16"):
            if begin is not None:
                from_first(begin)
            run_recipe(recipe, folder, only)
    except KeyboardInterrupt as error:
        raise StoppedError(f"stopped; the same command goes on in {folder}") from error
    if only is None and first_of_machine():
        typer.echo("\n" + _what_next(folder, list(steps_of(recipe))))


def _what_next(folder: Path, steps: list[str]) -> str:
    """The commands that show what a run has made."""
    # As it was called, so that the line can be copied where no environment is active.
    called = Path(sys.argv[0])
    command = str(called) if called.name == "indexlm" else "python -m indexlm.cli"
    if "report" in steps:
        return (
            f"the report:             {folder}/report/index.html\n"
            f"talk to the chat model: {command} chat {folder}/models/chat\n"
            f"talk to the character:  {command} character chat {folder}/models/character"
        )
    made = folder / "models" / ("tuned" if "sft" in steps else "pretrained")
    return (
        f"talk to the model: {command} chat {made}\n"
        f"take it elsewhere: {command} export {made} --to gguf --out DIR"
    )
