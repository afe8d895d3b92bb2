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
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from indexlm.config import Recipe
from indexlm.errors import UserError
from indexlm.plan import check_memory
from indexlm.preflight import CONFIG, check_owner, check_source_names, check_text
from indexlm.records import (
    clock,
    fingerprint,
    only_writer,
    read_manifest,
    start_logging,
    write_json,
)
from indexlm.runtime import start_threads
from indexlm.stages import alignment, character, data, evaluation, pretraining

log = logging.getLogger("indexlm")


@dataclass(frozen=True)
class Step:
    """One stage: what it reads of the recipe, which stages it follows, the folders it finishes."""

    make: Callable[["Run"], None]
    sections: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]


STEPS: dict[str, Step] = {
    "text": Step(data.text, ("text",), (), ("text",)),
    "tokenizer": Step(data.tokenizer, ("tokenizer",), ("text",), ("tokenizer",)),
    "tokens": Step(data.tokens, (), ("tokenizer",), ("tokens",)),
    "trunk": Step(pretraining.trunk, ("model", "pretrain", "evals"), ("tokens",), ("trunk",)),
    "base": Step(pretraining.base, ("base",), ("trunk",), ("base", "models/base")),
    "pure": Step(pretraining.pure, ("pure",), ("trunk",), ("pure", "models/pure")),
    "sft": Step(alignment.sft, ("sft",), ("base",), ("sft",)),
    "pairs": Step(alignment.pairs, ("dpo",), ("sft",), ("pairs",)),
    "chat": Step(alignment.chat, ("dpo",), ("pairs",), ("chat", "models/chat")),
    "script": Step(character.script, ("character",), ("tokenizer",), ("script",)),
    "character-sft": Step(
        character.character_sft, ("character",), ("sft", "script"), ("character-sft",)
    ),
    "character-pairs": Step(
        character.character_pairs, ("character",), ("character-sft",), ("character-pairs",)
    ),
    "character": Step(
        character.character,
        ("character",),
        ("character-pairs",),
        ("character", "models/character"),
    ),
    "evals": Step(evaluation.evals, ("evals",), ("base", "pure", "chat", "character"), ("evals",)),
    "report": Step(evaluation.report, (), ("evals",), ("report",)),
}


class Run:
    """A run folder and the recipe in it; what a stage function is given."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        settings = self.recipe.model_dump(mode="json")
        found: dict[str, str] = {}
        for name, step in STEPS.items():
            read = {section: settings[section] for section in step.sections}
            before = [found[each] for each in step.after]
            inputs = data.input_state(self.recipe) if name == "text" else None
            found[name] = fingerprint(name, self.recipe.seed, read, before, inputs)
        return found

    def made_from(self, name: str) -> str:
        """Fingerprint of all that stage `name` depends on."""
        return self._fingerprints[name]

    def path(self, name: str) -> Path:
        """A folder of the run, e.g. `trunk` or `models/base`."""
        return self.folder / name

    def finished(self, name: str) -> bool:
        manifests = [read_manifest(self.path(output)) for output in STEPS[name].outputs]
        return all(m is not None and m.fingerprint == self.made_from(name) for m in manifests)


def run_recipe(recipe: Recipe, folder: Path, only: str | None = None) -> None:
    """Run every stage that is not finished, or stage `only`.

    Raises UserError for a folder of another recipe, a recipe too large for the machine, an unknown
    stage or one whose forerunners are missing. A mistake that shows before a stage was finished
    leaves `folder` as it was.
    """
    if only is not None and only not in STEPS:
        raise UserError(f"no stage {only!r}; the stages are {', '.join(STEPS)}")
    check_memory(recipe)
    check_source_names(recipe)
    check_owner(recipe, folder)
    run = Run(recipe, folder)
    if only is not None:
        _check_forerunners(run, only)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with only_writer(folder):
        saved = folder / CONFIG
        before = json.loads(saved.read_text(encoding="utf-8")) if saved.is_file() else None
        write_json(saved, recipe.model_dump(mode="json"))
        start_logging(folder / "log.txt")
        threads = start_threads(recipe.threads)
        log.info(f"{recipe.name} in {folder}, {threads} threads")
        todo = STEPS.keys() if only is None else {only}
        finished = 0
        try:
            for number, name in enumerate(STEPS, start=1):
                if name in todo:
                    finished += _run_step(run, name, f"[{number}/{len(STEPS)}] {name}")
                if name == "text":
                    left = {each for each in todo if not run.finished(each)}
                    check_text(recipe, run.path("text"), left)
        except UserError:
            if not finished:
                _undo_start(folder, before, made)
            raise


def branch_run(recipe: Recipe, parent: Path, folder: Path) -> None:
    """Start run folder `folder` with the finished stages of `parent` that `recipe` does not change.

    The files are hard links, so a branch costs no disk. `parent.json` says where it comes from.
    Raises UserError for a recipe that cannot be run and for a `folder` on another file system;
    it must not exist.
    """
    assert not folder.exists(), folder
    check_memory(recipe)
    check_source_names(recipe)
    old, new = Run(recipe, parent), Run(recipe, folder)
    shared = [name for name in STEPS if old.finished(name)]
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name in shared:
            for output in STEPS[name].outputs:
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


def _run_step(run: Run, name: str, label: str) -> bool:
    """Whether the stage was made; False where it was finished before."""
    if run.finished(name):
        log.info(f"{label}: finished before")
        return False
    moved = [pair for output in STEPS[name].outputs if (pair := _set_aside(run, name, output))]
    log.info(f"{label} ...")
    started = time.monotonic()
    try:
        STEPS[name].make(run)
    finally:
        for folder, kept in moved:
            if not folder.exists():
                kept.rename(folder)
                if not any(kept.parent.iterdir()):
                    kept.parent.rmdir()
    seconds = time.monotonic() - started
    _record_cost(run.folder / "times.json", name, seconds)
    log.info(f"{label}: done in {clock(seconds)}")
    return True


def _set_aside(run: Run, name: str, output: str) -> tuple[Path, Path] | None:
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


def _undo_start(folder: Path, config: dict[str, Any] | None, made: list[Path]) -> None:
    """Put the old settings back; in a new folder remove what a start writes, and the folder."""
    if config is not None:
        write_json(folder / CONFIG, config)
        return
    for name in (CONFIG, "log.txt", ".lock"):
        (folder / name).unlink(missing_ok=True)
    for each in made:
        each.rmdir()


def _check_forerunners(run: Run, name: str) -> None:
    missing: set[str] = set()
    asked = [name]
    while asked:
        before = {each for each in STEPS[asked.pop()].after if not run.finished(each)}
        asked += before - missing
        missing |= before
    if missing:
        needed = ", ".join(each for each in STEPS if each in missing)
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
