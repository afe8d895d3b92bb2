"""The evaluation stage: four models and two baselines on the same held-out text, and samples."""

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from indexlm.config import EvalConfig, Recipe
from indexlm.errors import UserError
from indexlm.records import publish, verify, write_json
from indexlm.runtime import device_of, from_first, wait_for_all
from indexlm.stages import inputs
from indexlm.stages.data import files_state

if TYPE_CHECKING:
    from indexlm.evals.curves import Curve
    from indexlm.evals.task import Task
    from indexlm.pipeline import Run
    from indexlm.serve.engine import Engine
    from indexlm.tokens.tokenizer import Tokenizer

log = logging.getLogger("indexlm")

MODELS = ("base", "pure", "chat", "character")
WORK = "evals.work"
"""Folder of a run: finished parts of benchmarks."""
ROLE_QUERIES = ("先生有何妙计？", "曹操兴兵来犯，如何是好？", "丞相近来安好？")


def benchmarks_of(
    config: EvalConfig, part: Literal["tasks", "curve_tasks"]
) -> "list[tuple[Task, Path]]":
    """The tasks that are set, each with the folder of its files.

    Raises UserError for a task that is none or is named twice, and for files that are not there.
    """
    from indexlm.evals.sources import find_source
    from indexlm.evals.task import read_task

    found: dict[str, tuple[Task, Path]] = {}
    for name in config.tasks if part == "tasks" else config.curve_tasks:
        task = read_task(name)
        if task.name in found:
            raise UserError(f"evals.{part} names {task.name!r} twice; leave one out")
        assert config.benchmarks is not None
        find_source(task, Path(config.benchmarks))
        found[task.name] = task, Path(config.benchmarks)
    return list(found.values())


def check_benchmarks(config: EvalConfig) -> None:
    """Raises UserError for a task that is none, files that are not there, and a bad row in them."""
    if not config.tasks and not config.curve_tasks:
        return
    from indexlm.evals.items import read_subjects

    for part in ("tasks", "curve_tasks"):
        for task, folder in benchmarks_of(config, part):
            read_subjects(task, folder)


def evaluated_files(recipe: Recipe) -> list[Any]:
    """What tells the files that the end of a recipe is evaluated on from others."""
    return _files_of(recipe.evals, "tasks")


def curve_state(recipe: Recipe) -> list[Any]:
    """What tells the capability curve of one trunk from another's; its weights are the same."""
    config = recipe.evals
    state: list[Any] = [config.curve_items]
    if config.curve_tasks:
        state += [config.curve_tasks, config.curve_limit, config.overflow]
        state += _files_of(config, "curve_tasks")
    return state


def _files_of(config: EvalConfig, part: Literal["tasks", "curve_tasks"]) -> list[Any]:
    """What tells the files that the tasks read from others, whatever else lies beside them."""
    from indexlm.evals.sources import benchmark_files, holds
    from indexlm.evals.task import read_task

    folder, names = (
        Path(config.benchmarks or ""),
        config.tasks if part == "tasks" else config.curve_tasks,
    )
    tasks = [read_task(name) for name in names]
    return [
        files_state(map(str, benchmark_files(task, folder))) if holds(task, folder) else task.name
        for task in tasks
    ]


def curve_of(recipe: Recipe, text: Path, tokenizer: "Tokenizer") -> "Curve":
    """What a point of the capability curve is made of; `text` is a refined folder."""
    from indexlm.evals.curves import Curve, read_questions

    config = recipe.evals
    return Curve(
        tokenizer,
        inputs.held_out_texts(text),
        inputs.held_out_entries(text),
        config.curve_items,
        recipe.seed,
        read_questions(
            benchmarks_of(config, "curve_tasks"),
            tokenizer,
            recipe.model.context,
            config.curve_limit,
            config.overflow,
        ),
    )


def evals(run: "Run") -> None:
    """Write `results.json` (scores) and `samples.json` (texts) into the run's `evals`.

    Processes share the scoring; texts are written by the first one. Parts of benchmarks are kept in
    `evals.work` until then: a stop costs one of them.
    """
    from_first(lambda: verify(run.path("text")))
    from_first(lambda: verify(run.path("tokens")))
    held_out = inputs.held_out_texts(run.path("text"))
    entries = inputs.held_out_entries(run.path("text"))
    results: dict[str, Any] = {}
    samples: dict[str, Any] = {}
    for name in MODELS:
        results[name], samples[name] = _judged(run, name, held_out, entries)
        log.info(f"evals: {name} done")
    # Nobody takes the parts away from under the others.
    wait_for_all()
    from_first(lambda: _finish(run, held_out, results, samples))


def _judged(
    run: "Run", name: str, held_out: dict[str, list[str]], entries: list[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of model `name`, and what it writes."""
    from indexlm.evals.runner import evaluate
    from indexlm.serve.engine import Engine

    config, device = run.recipe.evals, device_of(run.recipe.hardware.device)
    engine = Engine.load(run.path(f"models/{name}"))
    engine.model.to(device)
    asked = held_out, entries, config.items, run.recipe.seed
    results = evaluate(engine.model, engine.tokenizer, *asked)
    if config.tasks:
        results["tasks"] = benchmark_scores(run, name, engine, device)
    # Answers are written on the processor.
    engine.model.to("cpu")
    return results, from_first(lambda: _samples(engine, name, run.recipe.seed))


def _finish(
    run: "Run",
    held_out: dict[str, list[str]],
    results: dict[str, Any],
    samples: dict[str, Any],
) -> None:
    """Put the baselines and the character beside the scores of the models, and write them all."""
    from indexlm.evals.baselines import train_bigram
    from indexlm.evals.runner import baseline_results, results_table
    from indexlm.tokens.shards import read_shards

    tokenizer = inputs.tokenizer_of(run)
    shards = read_shards(run.path("tokens"), tokenizer)
    documents = (
        shard.ids[start:stop]
        for name, shard in shards.items()
        if name != "instruction"
        for start, stop in zip(shard.offsets, shard.offsets[1:])
    )
    bigram = train_bigram(documents, tokenizer.vocab_size)
    results = results | baseline_results(bigram, tokenizer, held_out)
    samples = samples | {"role-play": _role_samples(run)}
    log.info(results_table(results))
    with publish(run.path("evals"), run.made_from("evals")) as folder:
        write_json(folder / "results.json", results)
        write_json(folder / "samples.json", samples)
        write_json(folder / "compression.json", _compression(run, held_out))
    shutil.rmtree(run.path(WORK), ignore_errors=True)


def benchmark_scores(run: "Run", name: str, engine: "Engine", device: str) -> dict[str, Any]:
    """The scores of model `name` on all tasks, as `indexlm eval` has them in its results; without
    the seconds, so that the same run leaves the same bytes.

    Raises UserError where a subject could not be scored; what is finished is kept in `evals.work`.
    """
    from indexlm.evals.benchmark import Settings, run_benchmarks
    from indexlm.evals.benchmark_table import benchmark_table
    from indexlm.evals.kept import Kept
    from indexlm.export import forms

    config, work = run.recipe.evals, run.path(WORK)
    from_first(lambda: work.mkdir(exist_ok=True))
    kept = Kept(work, [forms.identity(run.path(f"models/{name}")), device])
    settings = Settings(limit=config.limit, overflow=config.overflow)
    tasks = benchmarks_of(config, "tasks")
    outcome = run_benchmarks(engine.model, engine.tokenizer, tasks, settings, kept)
    if outcome.failed:
        subject, why = next(iter(outcome.failed.items()))
        raise UserError(
            f"evals: {len(outcome.failed)} subjects could not be scored, {subject} first: {why}; "
            "put it right, and the same command goes on"
        )
    log.info(f"evals: {name}\n{benchmark_table(outcome.tasks)}")
    for task in outcome.tasks.values():
        for prompt in task["prompts"].values():
            del prompt["seconds"]
    return outcome.tasks


def _samples(engine: "Engine", name: str, seed: int) -> dict[str, Any]:
    from indexlm.evals.samples import CONTINUATIONS, QUERIES, draw_samples, measure_samples
    from indexlm.serve.engine import Sampling
    from indexlm.tokens.chat_format import Conversation, prompt_ids
    from indexlm.tokens.tokenizer import EOS

    plain = name in ("base", "pure")
    sampling = Sampling(temperature=0.6, top_k=20, top_p=0.9, max_new_tokens=60, seed=seed)

    def generate(text: str) -> str:
        if plain:
            prompt = [EOS, *engine.tokenizer.encode(text)]
        else:
            prompt = prompt_ids(engine.tokenizer, Conversation("", (), text))
        return "".join(engine.stream(prompt, sampling))

    drawn = draw_samples(generate, CONTINUATIONS if plain else QUERIES)
    texts = [
        {"language": s.prompt.language, "prompt": s.prompt.text, "text": s.text} for s in drawn
    ]
    return {"texts": texts, "measures": measure_samples(drawn)}


def _role_samples(run: "Run") -> list[dict[str, Any]]:
    """Answers of the character, with the past lines that were found for each."""
    from indexlm.roleplay.session import CharacterPrompts
    from indexlm.roleplay.store import Store
    from indexlm.serve.engine import Engine, Sampling

    config = run.recipe.character
    engine = Engine.load(run.path("models/character"))
    card = Store(run.path("script") / "characters.sqlite").get(config.name)
    room = (engine.context, config.reserve, config.retrieve)
    prompts = CharacterPrompts(card, engine.tokenizer, *room)
    sampling = Sampling(
        0.85, repetition_penalty=1.1, max_new_tokens=config.reserve, seed=run.recipe.seed
    )
    answers = []
    for query in ROLE_QUERIES:
        prompt = prompts.prompt((), query)
        past = [p.text for p in prompt.parts if p.kind == "past lines" and p.used]
        text = "".join(engine.stream(prompt.ids, sampling))
        answers.append({"character": card.name, "query": query, "past_lines": past, "text": text})
    return answers


def _compression(run: "Run", held_out: dict[str, list[str]]) -> dict[str, Any]:
    from indexlm.tokens.report import compression

    catalogue = json.loads((run.path("tokens") / "sources.json").read_text(encoding="utf-8"))
    languages = {
        language: [
            text for name in held_out if name.startswith(language) for text in held_out[name]
        ]
        for language in ("zh", "en")
    }
    rows = compression(inputs.tokenizer_of(run), held_out | languages)
    return {"held_out": rows, "sources": catalogue["sources"]}


def report(run: "Run") -> None:
    from indexlm.report.page import write_report

    with publish(run.path("report"), run.made_from("report")) as folder:
        write_report(run.folder, folder / "index.html")
    log.info(f"report: {run.path('report') / 'index.html'}")
