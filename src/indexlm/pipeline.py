"""A recipe's stages in order: finished ones are skipped, changed ones made anew.

A stage is a function of the recipe's sections it reads and of the stages before it; their
fingerprint is in its manifest. The same command therefore goes on where it stopped, and redoes
exactly what a changed setting touches. What was finished under other settings is set aside in
`superseded/`, never deleted.
"""

import json
import logging
import os
import resource
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic

from typing_extensions import TypeVar

from indexlm.config import AnyRecipe, Recipe
from indexlm.errors import DamagedError, UserError
from indexlm.plan import check_epochs, tokens_of_run
from indexlm.preflight import CONFIG, check_before, check_owner, check_text
from indexlm.records import (
    clock,
    fingerprint,
    only_writer,
    read_manifest,
    start_logging,
    write_json,
)
from indexlm.runtime import from_first, rank, ranks, start_threads
from indexlm.settings import decisive
from indexlm.stages import alignment, character, continuation, data, evaluation, pretraining

log = logging.getLogger("indexlm")


@dataclass(frozen=True)
class Step:
    """One stage: what it reads of the recipe, which stages it follows, the folders it finishes."""

    make: Callable[["Run[Any]"], None]
    sections: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: Callable[[Any], Any] | None = None
    """What else it depends on, given the recipe: files from outside the run above all."""
    obsolete: tuple[str, ...] = ()
    """Folders that it makes under other settings; they do not stay beside its own."""
    copies: bool = False
    """Whether it only copies what is elsewhere: a run with nothing else can be undone."""
    together: bool = False
    """Whether all processes work on it; else the first one does and the others wait."""


STEPS: dict[str, Step] = {
    "text": Step(data.text, ("text",), (), ("text",), data.input_state),
    "tokenizer": Step(data.tokenizer, ("tokenizer",), ("text",), ("tokenizer",)),
    "tokens": Step(data.tokens, (), ("tokenizer",), ("tokens",)),
    "trunk": Step(
        pretraining.trunk,
        ("model", "pretrain"),
        ("tokens",),
        ("trunk",),
        evaluation.curve_state,
        together=True,
    ),
    "base": Step(pretraining.base, ("base",), ("trunk",), ("base", "models/base"), together=True),
    "pure": Step(pretraining.pure, ("pure",), ("trunk",), ("pure", "models/pure"), together=True),
    "sft": Step(alignment.sft, ("sft",), ("base",), ("sft",), together=True),
    "pairs": Step(alignment.pairs, ("dpo",), ("sft",), ("pairs",)),
    "chat": Step(alignment.chat, ("dpo",), ("pairs",), ("chat", "models/chat"), together=True),
    "script": Step(character.script, ("character",), ("tokenizer",), ("script",)),
    "character-sft": Step(
        character.character_sft,
        ("character",),
        ("sft", "script"),
        ("character-sft",),
        together=True,
    ),
    "character-pairs": Step(
        character.character_pairs, ("character",), ("character-sft",), ("character-pairs",)
    ),
    "character": Step(
        character.character,
        ("character",),
        ("character-pairs",),
        ("character", "models/character"),
        together=True,
    ),
    "evals": Step(
        evaluation.evals,
        ("evals",),
        ("base", "pure", "chat", "character"),
        ("evals",),
        evaluation.evaluated_files,
        together=True,
    ),
    "report": Step(evaluation.report, (), ("evals",), ("report",)),
}


ADAPTER = "models/adapter"

CONTINUATION: dict[str, Step] = {
    "tokenizer": Step(
        continuation.tokenizer, (), (), ("tokenizer",), continuation.parent_state, copies=True
    ),
    "text": Step(data.text, ("text",), (), ("text",), data.input_state),
    "tokens": Step(data.tokens, (), ("text", "tokenizer"), ("tokens",)),
    "pretrain": Step(
        continuation.pretrain,
        ("window", "pretrain"),
        ("tokens",),
        ("pretrain", "models/pretrained"),
        together=True,
    ),
    "sft": Step(
        continuation.sft,
        ("window", "sft", "lora"),
        ("tokenizer", "pretrain"),
        ("sft", "models/tuned", ADAPTER),
        continuation.conversation_state,
        together=True,
    ),
}


def steps_of(recipe: AnyRecipe) -> dict[str, Step]:
    """The stages of a recipe in order; a continuation has those whose sections it sets."""
    if isinstance(recipe, Recipe):
        return STEPS
    left_out = {"text", "tokens", "pretrain"} if recipe.pretrain is None else set()
    left_out |= {"sft"} if recipe.sft is None else set()
    steps = {
        name: replace(step, after=tuple(each for each in step.after if each not in left_out))
        for name, step in CONTINUATION.items()
        if name not in left_out
    }
    if "sft" in steps and recipe.lora is None:
        outputs = tuple(each for each in steps["sft"].outputs if each != ADAPTER)
        steps["sft"] = replace(steps["sft"], outputs=outputs, obsolete=(ADAPTER,))
    return steps


R = TypeVar("R", bound=AnyRecipe, default=Recipe)


class Run(Generic[R]):
    """A run folder and the recipe in it; what a stage function is given."""

    def __init__(self, recipe: R, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.steps = steps_of(recipe)

    @cached_property
    def _parts(self) -> dict[str, dict[str, str]]:
        settings = decisive(self.recipe.model_dump(mode="json"))
        found: dict[str, dict[str, str]] = {}
        for name, step in self.steps.items():
            parts = {"seed": fingerprint(self.recipe.seed)}
            parts |= {f"settings {each}": fingerprint(settings[each]) for each in step.sections}
            parts |= {f"stage {each}": fingerprint(each, found[each]) for each in step.after}
            if step.reads is not None:
                parts["files read"] = fingerprint(step.reads(self.recipe))
            found[name] = parts
        return found

    def parts(self, name: str) -> dict[str, str]:
        """What stage `name` depends on, each part by its name and fingerprint."""
        return self._parts[name]

    def made_from(self, name: str) -> str:
        """Fingerprint of all that stage `name` depends on."""
        return fingerprint(name, self._parts[name])

    def path(self, name: str) -> Path:
        """A folder of the run, e.g. `trunk` or `models/base`."""
        return self.folder / name

    def finished(self, name: str) -> bool:
        manifests = [read_manifest(self.path(output)) for output in self.steps[name].outputs]
        return all(m is not None and m.fingerprint == self.made_from(name) for m in manifests)


def run_recipe(recipe: AnyRecipe, folder: Path, only: str | None = None) -> None:
    """Run every stage that is not finished, or stage `only`.

    Raises UserError for a folder of another recipe, a recipe too large for the machine, an unknown
    stage or one whose forerunners are missing. A mistake or damage that shows before a stage was
    finished leaves `folder` as it was.
    """
    steps = steps_of(recipe)
    if only is not None and only not in steps:
        raise UserError(f"no stage {only!r}; the stages are {', '.join(steps)}")
    check_before(recipe)
    from_first(lambda: check_owner(recipe, folder))
    run = Run(recipe, folder)
    if only is not None:
        from_first(lambda: _check_forerunners(run, only))
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with ExitStack() as held:
        from_first(lambda: held.enter_context(only_writer(folder)))
        todo = steps.keys() if only is None else {only}
        from_first(lambda: _check_half_made(run, todo))
        before = from_first(lambda: _save_settings(recipe, folder))
        start_logging(folder / "log.txt" if rank() == 0 else None, quiet=rank() > 0)
        threads = start_threads(recipe.threads)
        log.info(f"{recipe.name} in {folder}, {ranks()} x {threads} threads")
        made_now: list[str] = []
        try:
            for number, name in enumerate(steps, start=1):
                if name in todo and _run_step(run, name, f"[{number}/{len(steps)}] {name}"):
                    made_now.append(name)
                if name == "text":
                    from_first(lambda: _check_text(run, todo))
                if name == "tokens" and isinstance(recipe, Recipe):
                    tokens = from_first(lambda: tokens_of_run(folder) or {})
                    check_epochs(recipe, tokens)
        except (UserError, DamagedError):
            if rank() == 0 and all(steps[name].copies for name in made_now):
                copied = [folder / output for name in made_now for output in steps[name].outputs]
                _undo_start(folder, before, made, copied)
            raise


def _check_text(run: Run[Any], todo: Collection[str]) -> None:
    left = {each for each in todo if not run.finished(each)}
    check_text(run.recipe, run.path("text"), left)


def _check_half_made(run: Run[Any], todo: Collection[str]) -> None:
    """Raises UserError, before anything is made anew, where a stage is half trained under other
    settings or is to branch from a step that the trunk does not keep."""
    for name in todo:
        saved = run.path(name) / "checkpoints"
        # A finished stage of other settings is set aside, one that is half made is not.
        half_made = saved.is_dir() and read_manifest(run.path(name)) is None
        if run.steps[name].together and half_made:
            from indexlm.train.checkpoint import check_settings

            check_settings(saved, run.parts(name))
    if isinstance(run.recipe, Recipe):
        _check_branches(run, [name for name in ("base", "pure") if name in todo])


def _check_branches(run: Run[Any], names: Sequence[str]) -> None:
    trunk = run.recipe.pretrain
    for name in names:
        step = getattr(run.recipe, name).from_step
        if step is None or run.finished(name):
            continue
        if run.finished("trunk"):
            from indexlm.train.checkpoint import at_step

            at_step(run.path("trunk") / "checkpoints", step)
        elif step != trunk.steps and (not trunk.keep_every or step % trunk.keep_every):
            raise UserError(
                f"{name}.from_step={step} is no step that the trunk will keep; name its end, "
                f"{trunk.steps}, or a multiple of pretrain.keep_every={trunk.keep_every}"
            )


def _save_settings(recipe: AnyRecipe, folder: Path) -> dict[str, Any] | None:
    """Write the settings; returns those that were there."""
    saved = folder / CONFIG
    before = json.loads(saved.read_text(encoding="utf-8")) if saved.is_file() else None
    write_json(saved, recipe.model_dump(mode="json"))
    return before


def branch_run(recipe: AnyRecipe, parent: Path, folder: Path) -> None:
    """Start run folder `folder` with the finished stages of `parent` that `recipe` does not change.

    The files are hard links, so a branch costs no disk. `parent.json` says where it comes from.
    Raises UserError for a recipe that cannot be run and for a `folder` on another file system;
    it must not exist.
    """
    assert not folder.exists(), folder
    check_before(recipe)
    old, new = Run(recipe, parent), Run(recipe, folder)
    if isinstance(recipe, Recipe):
        _check_branches(old, ("base", "pure"))
    shared = [name for name in old.steps if old.finished(name)]
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name in shared:
            for output in old.steps[name].outputs:
                shutil.copytree(old.path(output), partial / output, copy_function=os.link)
    except shutil.Error as error:
        shutil.rmtree(partial)
        raise UserError(
            f"{folder} cannot share files with {parent}: {error.args[0][0][2]}; "
            "name an --out on the same file system"
        ) from error
    write_json(partial / CONFIG, recipe.model_dump(mode="json"))
    write_json(partial / "parent.json", {"parent": str(parent.resolve()), "stages": shared})
    partial.rename(new.folder)
    log.info(f"{folder} branches from {parent} with {', '.join(shared) or 'no finished stage'}")


def _run_step(run: Run[Any], name: str, label: str) -> bool:
    """Whether the stage was made; False where it was finished before."""
    if from_first(lambda: run.finished(name)):
        log.info(f"{label}: finished before")
        return False
    step = run.steps[name]
    moved = from_first(lambda: _set_all_aside(run, name))
    log.info(f"{label} ...")
    started = time.monotonic()
    try:
        if step.together:
            step.make(run)
        else:
            from_first(lambda: step.make(run))
    except BaseException:
        for folder, kept in moved if rank() == 0 else ():
            if not folder.exists():
                kept.rename(folder)
                if not any(kept.parent.iterdir()):
                    kept.parent.rmdir()
        raise
    seconds = time.monotonic() - started
    from_first(lambda: _record_cost(run.folder / "times.json", name, seconds))
    log.info(f"{label}: done in {clock(seconds)}")
    return True


def _set_all_aside(run: Run[Any], name: str) -> list[tuple[Path, Path]]:
    step = run.steps[name]
    return [
        pair
        for output in (*step.outputs, *step.obsolete)
        if (pair := _set_aside(run, name, output))
    ]


def _set_aside(run: Run[Any], name: str, output: str) -> tuple[Path, Path] | None:
    """Move what other settings finished out of the way; unfinished folders of ours stay.

    Returns where it was and where it is, None where there was nothing to move.
    """
    folder = run.path(output)
    manifest = read_manifest(folder)
    if manifest is None or manifest.fingerprint == run.made_from(name):
        return None
    kept = run.folder / "superseded" / f"{output.replace('/', '-')}-{manifest.fingerprint[:12]}"
    log.info(f"{name}: settings changed since it was made; the old {output} is kept in {kept}")
    kept.parent.mkdir(exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)
    return folder, kept


def _undo_start(
    folder: Path, config: dict[str, Any] | None, made: list[Path], copied: list[Path]
) -> None:
    """Put the old settings back; in a new folder remove what a start writes, and the folder."""
    if config is not None:
        write_json(folder / CONFIG, config)
        return
    for each in copied:
        shutil.rmtree(each)
    for name in (CONFIG, "times.json", "log.txt", ".lock"):
        (folder / name).unlink(missing_ok=True)
    for each in made:
        each.rmdir()


def _check_forerunners(run: Run[Any], name: str) -> None:
    missing: set[str] = set()
    asked = [name]
    while asked:
        before = {each for each in run.steps[asked.pop()].after if not run.finished(each)}
        asked += before - missing
        missing |= before
    if missing:
        needed = ", ".join(each for each in run.steps if each in missing)
        raise UserError(
            f"stage {name} needs {needed} first, which {run.folder} does not have under these "
            "settings; make each with `indexlm run ... --only STAGE`, or all without --only"
        )


def _record_cost(path: Path, name: str, seconds: float) -> None:
    """Add to the stage's seconds, over all attempts, and keep the process's peak memory."""
    costs: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    before = costs.get(name, {"seconds": 0.0, "peak_bytes": 0})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    costs[name] = {
        "seconds": round(before["seconds"] + seconds, 1),
        "peak_bytes": max(before["peak_bytes"], peak),
    }
    write_json(path, costs)
