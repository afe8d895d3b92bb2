"""What can be refused before work is done: settings that name no source, a folder that is in use
for something else, text that lacks what later stages ask of it."""

import json
from collections.abc import Collection
from pathlib import Path

from indexlm.config import Recipe, load_recipe
from indexlm.errors import UserError
from indexlm.records import verify
from indexlm.text.document import LANGUAGES, TIERS
from indexlm.text.jsonl import read_jsonl

CONFIG = "config.json"
OF_A_START = (".lock", f".{CONFIG}.partial")
"""What is there when a run was stopped before its settings were saved."""
SOURCES = (*(f"{language}_{tier}" for language in LANGUAGES for tier in TIERS), "instruction")
"""What a mixture can name."""
SHOWN = 8
"""Names of a long list that a message shows."""


def check_owner(recipe: Recipe, folder: Path) -> None:
    """Raises UserError where `folder` is a file, another recipe's run, or no run at all."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file; name a folder with --out")
    saved = folder / CONFIG
    if saved.is_file():
        owner = load_recipe(saved).name
        if owner != recipe.name:
            raise UserError(
                f"{folder} belongs to recipe {owner!r}, not {recipe.name!r}; name another --out"
            )
    elif folder.is_dir() and any(p.name not in OF_A_START for p in folder.iterdir()):
        raise UserError(f"{folder} holds something else than a run; name another --out")


def check_source_names(recipe: Recipe) -> None:
    """Raises UserError where a mixture names what no text can be."""
    for section, mixture in _mixtures(recipe).items():
        for name, share in mixture.items():
            if share > 0 and name not in SOURCES:
                raise UserError(
                    f"{section}.mixture.{name}={share}: no text is of source {name!r}; the sources "
                    f"are {', '.join(SOURCES)}"
                )


def check_text(recipe: Recipe, text: Path, todo: Collection[str]) -> None:
    """What the stages `todo` ask of the refined folder `text`.

    Raises UserError with all that it does not have.
    """
    if not todo:
        return
    verify(text)
    funnel = json.loads((text / "funnel.json").read_text(encoding="utf-8"))
    records = read_jsonl(text / "instruction.jsonl.zst")
    has = [*funnel["kept"], *(["instruction"] if next(records, None) else [])]
    lacks = []
    for stage, (section, mixture) in zip(
        ("trunk", "base", "pure"), _mixtures(recipe).items(), strict=True
    ):
        missing = [name for name, share in mixture.items() if share > 0 and name not in has]
        if stage in todo and missing:
            lacks.append(f"{section}.mixture asks for {', '.join(missing)} (0 leaves one out)")
    if "sft" in todo and "instruction" not in has:
        lacks.append("sft asks for instruction data, which the starter corpus makes")
    origins = [row["source"] for row in funnel["sources"]]
    if "script" in todo and recipe.character.source not in origins:
        lacks.append(
            f"character.source={recipe.character.source} is none of its origins "
            f"({', '.join(origins[:SHOWN])}{', ...' if len(origins) > SHOWN else ''})"
        )
    if lacks:
        raise UserError(
            f"the text has only {', '.join(has)}, but {'; '.join(lacks)}; change that, add text, "
            "or make the stages before it alone with --only"
        )


def _mixtures(recipe: Recipe) -> dict[str, dict[str, float]]:
    return {
        "pretrain": recipe.pretrain.mixture,
        "base": recipe.base.mixture,
        "pure": recipe.pure.mixture,
    }
