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

from indexlm.config import Recipe, load_recipe
from indexlm.errors import UserError
from indexlm.plan import check_memory
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
    stage or one whose forerunners are missing.
    """
    if only is not None and only not in STEPS:
        raise UserError(f"no stage {only!r}; the stages are {', '.join(STEPS)}")
    check_memory(recipe)
    _check_owner(recipe, folder)
    with only_writer(folder):
        start_logging(folder / "log.txt")
        threads = start_threads(recipe.threads)
        write_json(folder / "config.json", recipe.model_dump(mode="json"))
        run = Run(recipe, folder)
        log.info(f"{recipe.name} in {folder}, {threads} threads")
        for number, name in enumerate(STEPS, start=1):
            if only in (None, name):
                _run_step(run, name, f"[{number}/{len(STEPS)}] {name}")


def branch_run(recipe: Recipe, parent: Path, folder: Path) -> None:
    """Start run folder `folder` with the finished stages of `parent` that `recipe` does not change.

    The files are hard links, so a branch costs no disk. `parent.json` says where it comes from.
    Raises UserError where `folder` is in use or on another file system.
    """
    if folder.exists():
        raise UserError(f"{folder} exists; name another --out for the branch")
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
    write_json(partial / "config.json", recipe.model_dump(mode="json"))
    write_json(partial / "parent.json", {"parent": str(parent.resolve()), "stages": shared})
    partial.rename(new.folder)
    log.info(f"{folder} branches from {parent} with {', '.join(shared) or 'no finished stage'}")


def _run_step(run: Run, name: str, label: str) -> None:
    if run.finished(name):
        log.info(f"{label}: finished before")
        return
    for before in STEPS[name].after:
        if not run.finished(before):
            raise UserError(f"stage {name} needs stage {before} first; run it with --only {before}")
    for output in STEPS[name].outputs:
        _set_aside(run, name, output)
    log.info(f"{label} ...")
    started = time.monotonic()
    STEPS[name].make(run)
    seconds = time.monotonic() - started
    _record_cost(run.folder / "times.json", name, seconds)
    log.info(f"{label}: done in {clock(seconds)}")


def _set_aside(run: Run, name: str, output: str) -> None:
    """Move what other settings finished out of the way; unfinished folders of ours stay."""
    folder = run.path(output)
    manifest = read_manifest(folder)
    if manifest is None or manifest.fingerprint == run.made_from(name):
        return
    kept = run.folder / "superseded" / f"{output.replace('/', '-')}-{manifest.fingerprint[:12]}"
    log.info(f"{name}: settings changed since it was made; the old {output} is kept in {kept}")
    kept.parent.mkdir(exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)


def _check_owner(recipe: Recipe, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with --out")
    saved = folder / "config.json"
    if saved.is_file():
        owner = load_recipe(saved).name
        if owner != recipe.name:
            raise UserError(
                f"{folder} belongs to recipe {owner!r}, not {recipe.name!r}; name another --out"
            )
    elif folder.is_dir() and any(p.name != ".lock" for p in folder.iterdir()):
        raise UserError(f"{folder} holds something else than a run; name another --out")


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
