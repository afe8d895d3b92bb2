"""The evaluation stage: four models and two baselines on the same held-out text, and samples."""

import json
import logging
from typing import TYPE_CHECKING, Any

from indexlm.records import publish, verify, write_json
from indexlm.stages import inputs

if TYPE_CHECKING:
    from indexlm.pipeline import Run

log = logging.getLogger("indexlm")

MODELS = ("base", "pure", "chat", "character")
ROLE_QUERIES = ("先生有何妙计？", "曹操兴兵来犯，如何是好？", "丞相近来安好？")


def evals(run: "Run") -> None:
    """Write `results.json` (scores) and `samples.json` (texts) into the run's `evals`."""
    from indexlm.evals.baselines import train_bigram
    from indexlm.evals.runner import baseline_results, evaluate, results_table
    from indexlm.serve.engine import Engine
    from indexlm.tokens.shards import read_shards

    verify(run.path("text"))
    verify(run.path("tokens"))
    held_out = inputs.held_out_texts(run.path("text"))
    entries = inputs.held_out_entries(run.path("text"))
    results: dict[str, Any] = {}
    samples: dict[str, Any] = {}
    for name in MODELS:
        engine = Engine.load(run.path(f"models/{name}"))
        results[name] = evaluate(
            engine.model,
            engine.tokenizer,
            held_out,
            entries,
            run.recipe.evals.items,
            run.recipe.seed,
        )
        samples[name] = _samples(engine, name, run.recipe.seed)
        log.info(f"evals: {name} done")
    shards = read_shards(run.path("tokens"), engine.tokenizer)
    documents = (
        shard.ids[start:stop]
        for name, shard in shards.items()
        if name != "instruction"
        for start, stop in zip(shard.offsets, shard.offsets[1:])
    )
    bigram = train_bigram(documents, engine.tokenizer.vocab_size)
    results |= baseline_results(bigram, engine.tokenizer, held_out)
    samples["role-play"] = _role_samples(run)
    log.info(results_table(results))
    with publish(run.path("evals"), run.made_from("evals")) as folder:
        write_json(folder / "results.json", results)
        write_json(folder / "samples.json", samples)
        write_json(folder / "compression.json", _compression(run, held_out))


def _samples(engine: Any, name: str, seed: int) -> dict[str, Any]:
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
