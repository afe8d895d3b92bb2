"""What can be refused before work is done: settings that name no source, a parent that is no model,
a recipe that the machine cannot hold, a folder that is in use for something else, text that lacks
what later stages ask of it."""

import importlib.util
import json
from collections.abc import Collection
from pathlib import Path

from indexlm.config import AnyRecipe, Continuation, ConversationConfig, Recipe, TrainConfig
from indexlm.errors import UserError
from indexlm.plan import check_continuation_memory, check_memory, check_schedules
from indexlm.records import verify
from indexlm.settings import load_recipe
from indexlm.stages.evaluation import check_benchmarks
from indexlm.text.conversations import read_conversations
from indexlm.text.document import LABELS, TIERS
from indexlm.text.jsonl import read_jsonl
from indexlm.text.refined import FUNNEL

CONFIG = "config.json"
OF_A_START = (".lock", f".{CONFIG}.partial")
"""What is there when a run was stopped before its settings were saved."""
SOURCES = (*(f"{language}_{tier}" for language in LABELS for tier in TIERS), "instruction")
"""What a mixture can name."""
SHOWN = 8
"""Names of a long list that a message shows."""


def check_before(recipe: AnyRecipe) -> None:
    """Raises UserError for what cannot work whatever is in the run folder."""
    check_source_names(recipe)
    check_schedules(recipe)
    check_processes(recipe)
    if recipe.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "tensorboard=true needs a package of its own: pip install 'indexlm[tensorboard]'"
        )
    if isinstance(recipe, Recipe):
        check_memory(recipe)
        # What is wrong with a benchmark must not show after days of training.
        check_benchmarks(recipe.evals)
    else:
        check_parent(recipe)


def check_processes(recipe: AnyRecipe) -> None:
    """Raises UserError where the processes cannot share a step of some stage or the head."""
    from indexlm.train.loop import check_split

    stages: dict[str, TrainConfig | ConversationConfig | None] = {
        "pretrain": recipe.pretrain,
        "sft": recipe.sft,
    }
    if isinstance(recipe, Recipe):
        stages |= {"dpo": recipe.dpo, "character.sft": recipe.character.sft}
        stages |= {"character.dpo": recipe.character.dpo}
    for name, stage in stages.items():
        if stage is not None:
            check_split(name, stage.batch, stage.micro_batch, recipe.hardware.head_parallel)


def check_parent(recipe: Continuation) -> None:
    """Raises UserError where the parent is no model folder, a file of conversations is missing,
    rows are longer than the window, or the machine cannot hold the training."""
    from indexlm.export import hf

    config = hf.read_config(Path(recipe.parent))
    window = recipe.window.context or config.context
    for name, stage in (("pretrain", recipe.pretrain), ("sft", recipe.sft)):
        if stage is not None and stage.length is not None and stage.length > window:
            raise UserError(
                f"{name}.length={stage.length} is longer than the window of {window}; lower it or "
                f"set window.context={stage.length}"
            )
    for name in recipe.sft.files if recipe.sft is not None else ():
        if not Path(name).is_file():
            what = "is a folder" if Path(name).is_dir() else "does not exist"
            raise UserError(f"sft.files: {name} {what}; name a .jsonl or .json file")
        # A file of another kind must not show after days of pre-training.
        next(read_conversations(Path(name)), None)
    check_continuation_memory(recipe, config)


def check_owner(recipe: AnyRecipe, folder: Path) -> None:
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


def check_source_names(recipe: AnyRecipe) -> None:
    """Raises UserError where a mixture names what no text can be."""
    for _, section, mixture in _mixtures(recipe):
        for name, share in mixture.items():
            if share > 0 and name not in SOURCES:
                raise UserError(
                    f"{section}.mixture.{name}={share}: no text is of source {name!r}; the sources "
                    f"are {', '.join(SOURCES)}"
                )


def check_text(recipe: AnyRecipe, text: Path, todo: Collection[str]) -> None:
    """What the stages `todo` ask of the refined folder `text`.

    Raises UserError with all that it does not have.
    """
    if not todo:
        return
    verify(text)
    funnel = json.loads((text / FUNNEL).read_text(encoding="utf-8"))
    records = read_jsonl(text / "instruction.jsonl.zst")
    has = [*funnel["kept"], *(["instruction"] if next(records, None) else [])]
    lacks = []
    for stage, section, mixture in _mixtures(recipe):
        missing = [name for name, share in mixture.items() if share > 0 and name not in has]
        if stage in todo and missing:
            lacks.append(f"{section}.mixture asks for {', '.join(missing)} (0 leaves one out)")
    if isinstance(recipe, Recipe):
        lacks += _alignment_lacks(recipe, has, [row["source"] for row in funnel["sources"]], todo)
    if lacks:
        raise UserError(
            f"the text has only {', '.join(has)}, but {'; '.join(lacks)}; change that, add text, "
            "or make the stages before it alone with --only"
        )


def _alignment_lacks(
    recipe: Recipe, has: Collection[str], origins: list[str], todo: Collection[str]
) -> list[str]:
    lacks = []
    if "sft" in todo and "instruction" not in has:
        lacks.append("sft asks for instruction data, which the starter corpus makes")
    if "script" in todo and recipe.character.source not in origins:
        lacks.append(
            f"character.source={recipe.character.source} is none of its origins "
            f"({', '.join(origins[:SHOWN])}{', ...' if len(origins) > SHOWN else ''})"
        )
    return lacks


def _mixtures(recipe: AnyRecipe) -> list[tuple[str, str, dict[str, float]]]:
    """(stage, section of the recipe, the mixture in it)"""
    if isinstance(recipe, Continuation):
        pretrain = recipe.pretrain
        return [] if pretrain is None else [("pretrain", "pretrain", pretrain.mixture)]
    return [
        ("trunk", "pretrain", recipe.pretrain.mixture),
        ("base", "base", recipe.base.mixture),
        ("pure", "pure", recipe.pure.mixture),
    ]
