"""The verbs of the lab: what can be run, a run, and the pages of what has been run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from indexlm.cli.arguments import check_above
from indexlm.errors import StoppedError, UserError

ALL = "all"
PLACE = Path("lab")
"""Of results, in the current folder."""
FIRST_SEED = 100
"""`lab.study.FIRST_SEED`, which to import takes seconds that `--help` has not; a test compares."""


class Preset(StrEnum):
    """What `lab run --preset` takes."""

    QUICK = "quick"
    FULL = "full"
    GPU = "gpu"


def lab_list(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="results, whose verdicts are shown")
    ] = PLACE,
) -> None:
    """The studies, what each asks, and the verdicts of those that have been run."""
    from indexlm.lab.studies import STUDIES, study
    from indexlm.lab.suite import read_outcomes

    verdicts = {found["study"]: found["verdict"] for found in read_outcomes(folder)}
    width = max(map(len, STUDIES))
    for name in STUDIES:
        asked = study(name)
        presets = ", ".join(f"{preset} {seeds}" for preset, seeds in asked.seeds.items())
        typer.echo(f"{name:<{width}}  {asked.question.en}")
        typer.echo(f"{'':<{width}}  {asked.question.zh}")
        verdict = f"verdict: {verdicts[name]}; " if name in verdicts else ""
        typer.echo(f"{'':<{width}}  {verdict}seeds: {presets}\n")
    typer.echo(f"indexlm lab run {next(iter(STUDIES))}, or several, or: indexlm lab run {ALL}")


def lab_run(
    names: Annotated[
        list[str], typer.Argument(metavar="STUDY", help=f"as `lab list` names them, or {ALL}")
    ],
    preset: Annotated[
        Preset,
        typer.Option(
            help="quick: all ten studies in minutes; full: more seeds and finer lists, made for an "
            "hour on two cores; gpu: models of 10M parameters and more, on one GPU"
        ),
    ] = Preset.QUICK,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="runs of each arm; under three decide nothing [preset]"),
    ] = None,
    first_seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="another asks whether a verdict was luck; below 100 the studies were designed",
        ),
    ] = FIRST_SEED,
    out: Annotated[Path, typer.Option("--out", help="folder of results")] = PLACE,
    workers: Annotated[
        int | None, typer.Option(min=1, help="arms side by side [one for each core]")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="a folder that `data refine` made: norm-head, shape, learning-rate and schedules "
            "are then asked of real text too, in bits per byte; with --tokenizer"
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="its tokenizer: a folder, or a .model file")
    ] = None,
) -> None:
    """Run studies; leaves a page for each and an index of verdicts in the folder --out.

    Start with one study: indexlm lab run learning-rate, then open lab/index.html.

    An arm that several studies need is trained once, and none that is there is trained again:
    stopped, the same command goes on, and --seeds with a larger number adds to what there is.
    """
    _check_place(out)
    from indexlm.lab.studies import STUDIES
    from indexlm.lab.suite import Asked, run_studies

    asked = [each for name in names for each in (STUDIES if name == ALL else [name])]
    try:
        results = run_studies(
            asked, Asked(preset.value, out, seeds, first_seed, workers, text, tokenizer)
        )
    except StoppedError as error:
        raise StoppedError(f"{error}; the same command goes on in {out}") from error
    except KeyboardInterrupt as error:
        raise StoppedError(f"stopped; the same command goes on in {out}") from error
    for found in results:
        typer.echo(f"{found['study']}: {found['sentence']['en']}\n{found['sentence']['zh']}\n")
    typer.echo(f"the pages: {out / 'index.html'}")


def _check_place(out: Path) -> None:
    """Raises UserError where no folder can be, before the slow imports."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, not a folder; name another --out")
    check_above(out)


def lab_report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of results")] = PLACE,
) -> None:
    """Make the pages anew from the results in a folder."""
    from indexlm.lab.suite import write_pages

    typer.echo(f"the pages: {write_pages(folder)}")
