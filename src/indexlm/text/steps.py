"""What is asked of every document by itself: the steps, in order, and their answers for a shard.

The answers of each step lie in a file of their own, made from the shard, the settings of that step
and its code: a changed filter is asked again, the others are not. A document is dropped for the
first reason in the order of the steps; every step is asked of every document, because what one
step says must not hang on another's settings.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from indexlm.config import TextConfig
from indexlm.records import fingerprint, sha256_file
from indexlm.runtime import code_behind
from indexlm.text.block import blocks
from indexlm.text.copies import ids, minhash, passages
from indexlm.text.document import Step
from indexlm.text.engine import Job
from indexlm.text.filters import contamination, heuristics, instructions, privacy
from indexlm.text.filters import quality as qualities
from indexlm.text.shards import open_shard, write_columns
from indexlm.text.work import finished, make, once, output

CODE = {
    "rules": "heuristics",
    "instructions": "instructions",
    "quality": "quality",
    "contamination": "contamination",
    "privacy": "privacy",
}
COLUMNS = tuple(CODE)
"""Steps that answer with a reason; the others look across documents."""
INDEX = "benchmarks.arrow"
"""Where in the work folder the n-grams of all items lie."""


def made_from(config: TextConfig, seed: int) -> dict[str, str]:
    """What each output is made from beside the shard, by its name: the steps that answer with
    columns, in order, then what is compared across shards.

    Raises UserError where a file that a step needs cannot be used.
    """
    files: dict[str, list[str | None]] = {
        "instructions": [config.instructions.model],
        "quality": [config.quality.model],
        "privacy": list(config.privacy.words),
    }
    found = {"names": fingerprint("names", code_behind("text/copies/ids.py"))}
    for name in asked(config):
        if name != "contamination":
            loaded(name, config.model_dump_json(), "")
        used = [sha256_file(Path(file)) for file in files.get(name, []) if file]
        if name == "contamination":
            used.append(contamination.made_from(config.contamination))
        settings = config.model_dump(mode="json")[name]
        found[name] = fingerprint(
            name, settings, used, code_behind(f"text/filters/{CODE[name]}.py")
        )
    if {"copies", "near_copies"} & set(config.steps):
        code = code_behind("text/copies/minhash.py")
        found["signatures"] = fingerprint("signatures", seed, config.copies.jaccard, code)
    if "passages" in config.steps:
        code = code_behind("text/copies/passages.py")
        found["stretches"] = fingerprint("stretches", config.copies.passage_bytes, code)
    return found


def asked(config: TextConfig) -> list[str]:
    """Steps that answer with columns, in order: those that are chosen and have what they need."""
    without = {
        "quality": config.quality.model is None,
        "contamination": not config.contamination.benchmarks,
    }
    return [name for name in COLUMNS if name in config.steps and not without.get(name, False)]


def ask(job: Job) -> dict[str, Any]:
    """Task: make whatever outputs of one shard are not there yet, all in one pass over its text."""
    config = TextConfig.model_validate(job["config"])
    work, shard = Path(job["work"]), Path(job["shard"])
    wanted = {name: fingerprint(job["sha256"], why) for name, why in job["made_from"].items()}
    there = {name: finished(output(work, name, shard), why) for name, why in wanted.items()}
    missing = {name: wanted[name] for name, made in there.items() if made is None}
    hashes = {name: made.sha256 for name, made in there.items() if made is not None}
    if missing:
        hashes |= _make(config, job["seed"], work, shard, missing)
    return {"hashes": {name: hashes[name] for name in wanted}, "made": sorted(missing)}


def _make(
    config: TextConfig, seed: int, work: Path, shard: Path, missing: Mapping[str, str]
) -> dict[str, str]:
    documents = list(open_shard(shard).documents())
    answers: dict[str, dict[str, list[Any]]] = {name: {} for name in missing if name in COLUMNS}
    steps = {name: loaded(name, config.model_dump_json(), str(work)) for name in answers}
    parts: list[Any] = []
    for block in blocks(documents):
        for name, step in steps.items():
            for column, values in step(block).items():
                answers[name].setdefault(column, []).append(values)
        if "signatures" in missing:
            parts.append(minhash.signatures(block, seed, config.copies.jaccard))
    writers: dict[str, Callable[[Path], None]] = {
        name: (lambda path, name=name: write_columns(path, _joined(answers[name])))  # type: ignore[misc]
        for name in answers
    }
    writers["names"] = lambda path: ids.write_hashes(path, [d.id for d in documents])
    writers["signatures"] = lambda path: minhash.write_signatures(path, parts)
    writers["stretches"] = lambda path: passages.write_stretches(
        path, [document.text.encode() for document in documents], config.copies.passage_bytes
    )
    return {
        name: make(output(work, name, shard), made_from, writers[name]).sha256
        for name, made_from in missing.items()
    }


def _joined(parts: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The columns of several blocks as those of all their documents."""
    return {name: [v for values in several for v in values] for name, several in parts.items()}


def index_jobs(config: TextConfig, work: Path) -> list[dict[str, Any]]:
    """A job for `build_index`, or none where no benchmark is asked for."""
    if "contamination" not in asked(config):
        return []
    why = contamination.made_from(config.contamination)
    return [
        {"config": config.model_dump(mode="json"), "index": str(work / INDEX)}
        | {"made_from": why, "size": 1}
    ]


def build_index(job: Job) -> dict[str, Any]:
    """Task: the n-grams of all items of the benchmarks, once for all processes."""
    config = TextConfig.model_validate(job["config"]).contamination
    made = once(
        Path(job["index"]),
        job["made_from"],
        lambda path: contamination.build_index(config, path),
    )
    return dict(made.notes)


@lru_cache(maxsize=len(COLUMNS))
def loaded(name: str, settings: str, work: str) -> Step:
    """A step with its model or index at hand, once in a process."""
    config = TextConfig.model_validate_json(settings)
    if name == "rules":
        return heuristics.rules(config.rules)
    if name == "instructions":
        return instructions.instructions(config.instructions)
    if name == "quality":
        return qualities.quality(config.quality)
    if name == "contamination":
        return contamination.contamination(config.contamination, Path(work) / INDEX)
    assert name == "privacy"
    return privacy.privacy(config.privacy)
