"""The verb that makes capability curves of what has been trained, or is being trained."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from indexlm.cli.arguments import Device, check_above, chosen_device
from indexlm.errors import StoppedError, UserError


class Overflow(StrEnum):
    """What `curve --overflow` takes."""

    CUT = "cut"
    FEWER = "fewer"


Folder = Annotated[
    Path, typer.Argument(metavar="RUN", help="a run folder, or a folder of model folders")
]
Tasks = Annotated[
    str,
    typer.Option(
        help="several with a comma: bits_per_byte, starter; mmlu, ceval, cmmlu, arc_easy, "
        "arc_challenge, hellaswag; or a .toml file with a benchmark of your own [of a run: "
        "what it evaluates itself]"
    ),
]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        help="folder of benchmark files (DATA/mmlu/test/...), or one that `data refine` made; "
        "may be given several times [of a run: its own]"
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1, help="items of each task, of all its subjects in turn [of a run: its own; 100]"
    ),
]
OverflowOption = Annotated[
    Overflow | None,
    typer.Option(
        help="prompts longer than the window: cut their left end off as lm-eval does, or leave "
        "out examples [of a run: its own; cut]"
    ),
]
Stages = Annotated[
    str, typer.Option(help="of a run: which of trunk, base, pure, with commas [all]")
]
Watch = Annotated[
    bool,
    typer.Option("--watch", help="wait for new checkpoints until the stages are finished"),
]
DeviceOption = Annotated[
    Device | None, typer.Option(help="where the models are run [of a run: its own; auto]")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="folder for points.jsonl and index.html [RUN/curves]"),
]


def curve(
    folder: Folder,
    tasks: Tasks = "",
    data: Data = None,
    limit: Limit = None,
    overflow: OverflowOption = None,
    stages: Stages = "",
    watch: Watch = False,
    device: DeviceOption = None,
    out: Out = None,
) -> None:
    """Scores of every kept checkpoint of a run, or of every model in a folder, and a page of them.

    Each point is of the same items and text as in the evaluations inside the run. Points that are
    there are not made again; stopped, the same command goes on. The page shows accuracy beside
    margin and probability of the right option, the decay, and what in them is a jump.
    """
    from indexlm.stages.curve_points import Asked, make_points
    from indexlm.stages.snapshots import Source, models_in, run_in

    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name a run folder or a folder of model folders")
    place = out or folder / "curves"
    file = place / "points.jsonl"
    check_above(file)
    where = None if device is None else chosen_device(device)
    if stages and not _is_run(folder):
        raise UserError(f"--stages {stages}: {folder} is no run folder")
    source: Source = (
        run_in(folder, _listed(stages), where) if _is_run(folder) else models_in(folder, where)
    )
    asked = Asked(_listed(tasks), data or [], limit, None if overflow is None else overflow.value)
    try:
        count = make_points(source, asked, place, watch=watch)
    except KeyboardInterrupt as error:
        raise StoppedError(
            f"stopped; what was scored is in {file}, and the same command goes on"
        ) from error
    typer.echo(f"{count} points in {file}\nthe page: {file.with_name('index.html')}")


def _is_run(folder: Path) -> bool:
    """A model folder has a config.json as well; a folder of models has none."""
    return (folder / "config.json").is_file()


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
