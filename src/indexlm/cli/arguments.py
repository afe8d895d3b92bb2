"""What several verbs share: arguments, and checks of what they were given."""

from pathlib import Path
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
    """Raises UserError where a folder at `out` would lie in a file."""
    above = next(each for each in out.absolute().parents if each.exists())
    if not above.is_dir():
        raise UserError(f"{above} is a file, not a folder; name another --out")


def check_model(folder: Path) -> None:
    """Raises UserError for what is no model folder, before the slow imports."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a model folder; a run keeps its models below itself, e.g. in "
            "runs/tiny/models/chat"
        )
