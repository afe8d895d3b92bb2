"""A recipe's stages in order: finished ones are skipped, changed ones made anew.

A stage is a function of the recipe's sections it reads and of the stages before it; their
fingerprint is in its manifest. The same command therefore goes on where it stopped, and redoes
exactly what a changed setting touches. What was finished under other settings is set aside in
`superseded/`, never deleted.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from indexlm import stages
from indexlm.config import Recipe, load_recipe
from indexlm.errors import UserError
from indexlm.plan import check_memory
from indexlm.records import (
    clock,
    fingerprint,
    only_writer,
    read_manifest,
    start_logging,
    verify,
    write_json,
)
from indexlm.runtime import start_threads
from indexlm.text.document import LANGUAGES, TIERS
from indexlm.text.jsonl import read_jsonl

log = logging.getLogger("indexlm")

CONFIG = "config.json"
SOURCES = (*(f"{language}_{tier}" for language in LANGUAGES for tier in TIERS), "instruction")
"""What a mixture can name."""
SHOWN = 8
"""Names of a long list that a message shows."""


@dataclass(frozen=True)
class Step:
    """One stage: what it reads of the recipe, which stages it follows, the folders it finishes."""

    make: Callable[["Run"], None]
    sections: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]


STEPS: dict[str, Step] = {
    "text": Step(stages.text, ("text",), (), ("text",)),
    "tokenizer": Step(stages.tokenizer, ("tokenizer",), ("text",), ("tokenizer",)),
    "tokens": Step(stages.tokens, (), ("tokenizer",), ("tokens",)),
    "trunk": Step(stages.trunk, ("model", "pretrain", "evals"), ("tokens",), ("trunk",)),
    "base": Step(stages.base, ("base",), ("trunk",), ("base", "models/base")),
    "pure": Step(stages.pure, ("pure",), ("trunk",), ("pure", "models/pure")),
    "sft": Step(stages.sft, ("sft",), ("base",), ("sft",)),
    "pairs": Step(stages.pairs, ("dpo",), ("sft",), ("pairs",)),
    "chat": Step(stages.chat, ("dpo",), ("pairs",), ("chat", "models/chat")),
    "script": Step(stages.script, ("character",), ("tokenizer",), ("script",)),
    "character-sft": Step(
        stages.character_sft, ("character",), ("sft", "script"), ("character-sft",)
    ),
    "character-pairs": Step(
        stages.character_pairs, ("character",), ("character-sft",), ("character-pairs",)
    ),
    "character": Step(
        stages.character,
        ("character",),
        ("character-pairs",),
        ("character", "models/character"),
    ),
    "evals": Step(stages.evals, ("evals",), ("base", "pure", "chat", "character"), ("evals",)),
    "report": Step(stages.report, (), ("evals",), ("report",)),
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
            inputs = stages.input_state(self.recipe) if name == "text" else None
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
    _check_source_names(recipe)
    _check_owner(recipe, folder)
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
        finished = 0
        try:
            for number, name in enumerate(STEPS, start=1):
                if only in (None, name):
                    finished += _run_step(run, name, f"[{number}/{len(STEPS)}] {name}")
                    if only is None and name == "text":
                        _check_text(run)
        except UserError:
            if not finished:
                _undo_start(folder, before, made)
            raise


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
    _record_time(run.folder / "times.json", name, seconds)
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


def _check_owner(recipe: Recipe, folder: Path) -> None:
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
    elif folder.is_dir() and any(p.name not in _OF_A_START for p in folder.iterdir()):
        raise UserError(f"{folder} holds something else than a run; name another --out")


_OF_A_START = (".lock", f".{CONFIG}.partial")
"""What is there when a run was stopped before its settings were saved."""


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


def _mixtures(recipe: Recipe) -> dict[str, dict[str, float]]:
    return {
        "pretrain": recipe.pretrain.mixture,
        "base": recipe.base.mixture,
        "pure": recipe.pure.mixture,
    }


def _check_source_names(recipe: Recipe) -> None:
    for section, mixture in _mixtures(recipe).items():
        for name, share in mixture.items():
            if share > 0 and name not in SOURCES:
                raise UserError(
                    f"{section}.mixture.{name}={share}: no text is of source {name!r}; the sources "
                    f"are {', '.join(SOURCES)}"
                )


def _check_text(run: Run) -> None:
    """What later stages ask of the text. Raises UserError with all that it does not have."""
    todo = {name for name in STEPS if not run.finished(name)}
    if not todo:
        return
    verify(run.path("text"))
    funnel = json.loads((run.path("text") / "funnel.json").read_text(encoding="utf-8"))
    records = read_jsonl(run.path("text") / "instruction.jsonl.zst")
    has = [*funnel["kept"], *(["instruction"] if next(records, None) else [])]
    lacks = []
    for stage, (section, mixture) in zip(
        ("trunk", "base", "pure"), _mixtures(run.recipe).items(), strict=True
    ):
        missing = [name for name, share in mixture.items() if share > 0 and name not in has]
        if stage in todo and missing:
            lacks.append(f"{section}.mixture asks for {', '.join(missing)} (0 leaves one out)")
    if "sft" in todo and "instruction" not in has:
        lacks.append("sft asks for instruction data, which the starter corpus makes")
    origins = [row["source"] for row in funnel["sources"]]
    if "script" in todo and run.recipe.character.source not in origins:
        lacks.append(
            f"character.source={run.recipe.character.source} is none of its origins "
            f"({', '.join(origins[:SHOWN])}{', ...' if len(origins) > SHOWN else ''})"
        )
    if lacks:
        raise UserError(
            f"the text has only {', '.join(has)}, but {'; '.join(lacks)}; change that, add text, "
            "or make the stages before it alone with --only"
        )


def _record_time(path: Path, name: str, seconds: float) -> None:
    times: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    times[name] = round(times.get(name, 0.0) + seconds, 1)
    write_json(path, times)
