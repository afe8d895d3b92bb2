"""A model scored on what is asked of it: tables on the terminal, and a folder of results."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from indexlm.errors import UserError
from indexlm.evals.benchmark import Outcome, Settings, run_benchmarks
from indexlm.evals.benchmark_table import benchmark_table, published_table, read_published
from indexlm.evals.kept import Kept
from indexlm.evals.longcontext import Grid, needle_table, needle_test
from indexlm.evals.runner import evaluate_lines, results_table
from indexlm.evals.safety import GENERATION, safety_table, safety_test
from indexlm.evals.samples import DRAW, Kind, generation_table, generation_test
from indexlm.evals.task import Task
from indexlm.export import forms
from indexlm.records import (
    fingerprint,
    log,
    only_writer,
    publish,
    start_logging,
    verify,
    write_json,
)
from indexlm.runtime import (
    first_of_machine,
    from_first,
    launched,
    processes,
    rank,
    start_threads,
    wait_for_all,
)
from indexlm.serve.engine import Engine, Sampling
from indexlm.stages.inputs import held_out_entries, held_out_texts

FORMAT = 1
"""Of results.json."""
STARTER_ITEMS = 300
PIECE = re.compile(r"\.lock|\.?[0-9a-f]{64}\.json(\.partial)?")
"""Names of files in the folder of finished pieces."""
MOST_SHOWN = 5
"""Of the subjects that could not be scored, in the message."""


@dataclass(frozen=True)
class Asked:
    """A command that makes sense, its files found."""

    model: Path
    text_tasks: Sequence[str]
    text: Path | None
    """Refined text, where one of `text_tasks` needs it."""
    benchmarks: Sequence[tuple[Task, Path]]
    settings: Settings
    grid: Grid
    """Of the needle test."""
    whole_window: bool
    """Whether its one length is the model's window."""
    needle: Mapping[str, Any]
    """Its other options, by the names that `needle_test` has for them."""
    seed: int


@dataclass
class Scored:
    """Results as results.json has them, lines of `items/<name>.jsonl`, tables in order."""

    results: dict[str, Any]
    lines: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    failed: Mapping[str, str] = field(default_factory=dict)


def score(
    asked: Asked, device: str, out: Path | None, *, by_subject: bool, beside: Sequence[str] | None
) -> None:
    """Print the tables, and write `out` where it is given.

    By one process, or by all that torchrun has started. Raises UserError, with exit code 2, where
    subjects of a benchmark could not be scored: the others are shown, and kept for the next time.
    """
    if launched():
        start_threads(0)
        if not first_of_machine():
            start_logging(quiet=True)
    with processes(device), _work_folder(out) as work:
        engine = Engine.load(asked.model)
        engine.model.to(device)
        identity = forms.identity(asked.model)
        kept = Kept(work, [identity, device])
        scored = Scored(_facts(asked, engine, identity, device))
        if asked.benchmarks:
            outcome = run_benchmarks(
                engine.model, engine.tokenizer, asked.benchmarks, asked.settings, kept
            )
            _add_benchmarks(scored, outcome, by_subject, beside)
        if {"bits_per_byte", "starter"} & set(asked.text_tasks):
            _add_held_out(scored, asked, engine, kept)
        if "needle" in asked.text_tasks:
            _add_needle(scored, asked, engine, kept)
        if "safety" in asked.text_tasks:
            _warn_of_base(asked.model)
            _add_safety(scored, engine, kept)
        if "generation" in asked.text_tasks:
            _add_generation(scored, asked, engine, kept)
        if scored.tables and first_of_machine():
            print("\n\n".join(scored.tables))
        if scored.failed:
            raise UserError(_told(scored, None if out is None else work))
        if out is not None:
            made_from = fingerprint(
                identity, device, scored.results["settings"], list(scored.lines)
            )
            from_first(lambda: _write(scored, out, made_from))
            if rank() == 0:
                # Only what was put there.
                for piece in work.glob("*.json"):
                    piece.unlink()


@contextmanager
def _work_folder(out: Path | None) -> Iterator[Path]:
    """Where finished pieces are kept on the way: beside `out`, or for this time only."""
    with ExitStack() as stack:

        def opened() -> str:
            if out is None:
                return stack.enter_context(tempfile.TemporaryDirectory())
            folder = out.with_name(f"{out.name}.work")
            others = [path for path in folder.glob("*") if not PIECE.fullmatch(path.name)]
            if others:
                raise UserError(
                    f"{folder} is where finished pieces are kept, and it holds {others[0].name}, "
                    "which is none; move it away, or name another --out"
                )
            stack.enter_context(only_writer(folder))
            return str(folder)

        folder = Path(from_first(opened))
        try:
            yield folder
            # Nobody takes it away from under the others.
            wait_for_all()
        finally:
            if out is not None and rank() == 0 and not any(folder.glob("*.json")):
                shutil.rmtree(folder, ignore_errors=True)


def _facts(asked: Asked, engine: Engine, identity: str, device: str) -> dict[str, Any]:
    settings = asked.settings
    return {
        "format": FORMAT,
        "model": {
            "name": asked.model.resolve().name,
            "fingerprint": identity,
            "parameters": sum(parameter.numel() for parameter in engine.model.parameters()),
            "vocab_size": engine.model.config.vocab_size,
            "window": engine.context,
        },
        "settings": {
            "limit": settings.limit,
            "start": settings.start,
            "overflow": settings.overflow,
            "seed": asked.seed,
            "device": device,
        },
        "tasks": {},
        "text": {},
    }


def _add_benchmarks(
    scored: Scored, outcome: Outcome, by_subject: bool, beside: Sequence[str] | None
) -> None:
    scored.results["tasks"] = outcome.tasks
    scored.lines |= {f"{task}.{prompt}": each for (task, prompt), each in outcome.lines.items()}
    scored.failed = outcome.failed
    if outcome.tasks:
        scored.tables.append(benchmark_table(outcome.tasks, by_subject=by_subject))
        if beside is not None:
            name = scored.results["model"]["name"]
            scored.tables.append(published_table(outcome.tasks, name, beside))
            published = read_published()
            scored.results["beside"] = {
                each: dict(zip(published["tasks"], published["scores"][each])) for each in beside
            }
            scored.results["beside_source"] = published["title"]


def _add_held_out(scored: Scored, asked: Asked, engine: Engine, kept: Kept) -> None:
    """Bits per byte, the starter test, or both."""
    assert asked.text is not None
    held_out = held_out_texts(asked.text) if "bits_per_byte" in asked.text_tasks else {}
    entries = held_out_entries(asked.text) if "starter" in asked.text_tasks else []
    items = asked.settings.limit or STARTER_ITEMS

    def evaluated() -> dict[str, Any]:
        found = evaluate_lines(engine.model, engine.tokenizer, held_out, entries, items, asked.seed)
        return found._asdict()

    key = [verify(asked.text).fingerprint, sorted(asked.text_tasks), items, asked.seed]
    found = kept.made(evaluated, "held out", *key)
    scored.results["text"] |= found["results"]
    scored.lines |= {part: lines for part, lines in found["lines"].items() if lines}
    scored.tables.append(results_table({scored.results["model"]["name"]: found["results"]}))


def _add_needle(scored: Scored, asked: Asked, engine: Engine, kept: Kept) -> None:
    assert asked.text is not None
    grid = replace(asked.grid, lengths=[engine.context]) if asked.whole_window else asked.grid
    languages: dict[str, list[str]] = {}
    for tier, documents in held_out_texts(asked.text).items():
        languages.setdefault(tier.split("_")[0], []).extend(documents)

    def found_again() -> dict[str, Any]:
        network = engine.model, engine.tokenizer
        return from_first(lambda: needle_test(*network, languages, grid, **asked.needle))

    key = [verify(asked.text).fingerprint, asdict(grid), dict(asked.needle)]
    scored.results["text"]["needle"] = kept.made(found_again, "needle", *key)
    scored.tables.append(needle_table(scored.results["text"]["needle"]))


def _add_safety(scored: Scored, engine: Engine, kept: Kept) -> None:
    # Answers are written on the processor, as a chat's are.
    engine.model.to("cpu")

    def written(prompts: Sequence[list[int]]) -> list[list[int]]:
        return engine.answers(prompts, Sampling(**GENERATION))

    def judged() -> dict[str, Any]:
        network = engine.model, engine.tokenizer
        return from_first(lambda: safety_test(*network, written)._asdict())

    found = kept.made(judged, "safety")
    scored.results["text"]["safety"] = found["results"] | {"device": "cpu"}
    scored.lines |= found["lines"]
    scored.tables.append(safety_table(found["results"]))


def _warn_of_base(model: Path) -> None:
    """A base model is a control worth measuring, and one that a user should know of."""
    card = model / "model_card.json"
    if rank() or not card.is_file():
        return
    stage = json.loads(card.read_text(encoding="utf-8")).get("stage")
    if stage in ("trunk", "base", "pure"):
        log.warning(
            f"{model} was not trained on conversations (stage {stage}): the safety test says how "
            "it takes the chat format"
        )


def _add_generation(scored: Scored, asked: Asked, engine: Engine, kept: Kept) -> None:
    engine.model.to("cpu")
    kind: Kind = "queries" if asked.needle["chat"] else "continuations"

    def written(prompts: Sequence[list[int]]) -> list[list[int]]:
        return engine.answers(prompts, Sampling(**DRAW, seed=asked.seed))

    def counted() -> dict[str, Any]:
        return from_first(lambda: generation_test(engine.tokenizer, written, kind))

    found = kept.made(counted, "generation", kind, asked.seed)
    scored.results["text"]["generation"] = found | {"device": "cpu"}
    scored.tables.append(generation_table(found))


def _write(scored: Scored, out: Path, made_from: str) -> None:
    from indexlm.report.benchmarks import write_benchmark_page
    from indexlm.report.result_files import on_page

    with publish(out, made_from) as folder:
        write_json(folder / "results.json", scored.results)
        (folder / "items").mkdir()
        for name, lines in scored.lines.items():
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (folder / "items" / f"{name}.jsonl").write_text(text, encoding="utf-8")
        (folder / "table.txt").write_text("\n\n".join(scored.tables) + "\n", encoding="utf-8")
        if on_page(scored.results):
            write_benchmark_page([folder], folder / "index.html")


def _told(scored: Scored, work: Path | None) -> str:
    """What is wrong with which subjects, and where the others' scores are."""
    failed = list(scored.failed.items())
    lines = [f"{name}: {why}" for name, why in failed[:MOST_SHOWN]]
    if len(failed) > MOST_SHOWN:
        lines.append(f"and {len(failed) - MOST_SHOWN} more, as said above")
    parts = {
        f"{task}/{subject}"
        for task, found in scored.results["tasks"].items()
        for prompt in found["prompts"].values()
        for subject in prompt["subjects"]
    }
    count = f"{len(failed)} of {len(failed) + len(parts)} subjects"
    if not parts:
        return f"{count} could not be scored\n  " + "\n  ".join(lines)
    left = f"{len(parts)} others are scored"
    if work is None:
        left += "; with --out they would be kept, and the same command would go on"
    else:
        left += f" and kept in {work}; put this right, and the same command goes on"
    return f"{count} could not be scored, {left}\n  " + "\n  ".join(lines)
