"""What several verbs share: arguments, and checks of what they were given."""

from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from indexlm.errors import UserError

if TYPE_CHECKING:
    from indexlm.config import AnyRecipe

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="tiny, lora, long32k, long-tiny, a recipe's .py file, or a saved config.json",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="SECTION.KEY=VALUE", help="e.g. pretrain.steps=50"),
]
Out = Annotated[Path | None, typer.Option("--out", help="run folder; default runs/<recipe>")]


class Device(StrEnum):
    """What `--device` takes; auto is a GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def chosen_device(device: Device) -> str:
    """`cpu` or `cuda`. Raises UserError for a GPU that is not there."""
    import torch

    there = torch.cuda.is_available()
    if device is Device.CUDA and not there:
        raise UserError("--device cuda: this PyTorch sees no GPU; use --device cpu")
    return "cuda" if there and device is not Device.CPU else "cpu"


def resolved(name: str, settings: list[str] | None) -> "AnyRecipe":
    from indexlm.recipes import find
    from indexlm.settings import with_overrides

    return with_overrides(find(name), settings or [])


def check_new(out: Path) -> None:
    """Raises UserError where a folder cannot be made at `out` without touching what is there."""
    if out.exists():
        raise UserError(f"{out} exists; name another --out or remove it")
    check_above(out)


def check_above(out: Path) -> None:
    """Raises UserError where a folder at `out` would lie in a file, or could not be written."""
    above = out.absolute().parent
    try:
        above = next(each for each in out.absolute().parents if each.exists())
        if not above.is_dir():
            raise UserError(f"{above} is a file, not a folder; name another --out")
        # Permissions say little of a disk that is read-only, and nothing to root.
        with TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise UserError(
            f"nothing can be written to {above} ({error.strerror}); name another --out, or make "
            "that folder writable"
        ) from error


def check_model(folder: Path) -> None:
    """Raises UserError for what is no model folder, before the slow imports."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a model folder; a run keeps its models below itself, e.g. in "
            "runs/tiny/models/chat"
        )
