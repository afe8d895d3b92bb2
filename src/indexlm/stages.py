"""What each stage of a run does: rooms called in the order of the data flow.

Every function takes the run, reads what earlier stages published and publishes its own folder.
"""

import json
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexlm.config import DpoConfig, Recipe, SftConfig, TrainConfig
from indexlm.errors import UserError
from indexlm.records import publish, verify

if TYPE_CHECKING:
    from indexlm.feed.packing import Source
    from indexlm.model.transformer import Transformer
    from indexlm.pipeline import Run
    from indexlm.tokens.chat_format import Conversation
    from indexlm.tokens.tokenizer import Tokenizer

log = logging.getLogger("indexlm")

SFT_RECORDS = 8000
"""Conversations offered to SFT; a few epochs of the laptop recipe's steps."""


def input_state(recipe: Recipe) -> list[Any]:
    """What tells one set of input files from another without reading them."""
    state: list[Any] = []
    for name in recipe.text.inputs:
        path = Path(name)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        state += [
            [str(f), f.stat().st_size, f.stat().st_mtime_ns] if f.is_file() else str(f)
            for f in files
        ]
    return state


def text(run: "Run") -> None:
    from indexlm.text.refine import funnel_table, refine

    with publish(run.path("text"), run.made_from("text")) as folder:
        log.info(funnel_table(refine(run.recipe.text, run.recipe.seed, folder)))


def tokenizer(run: "Run") -> None:
    from indexlm.tokens import train_bpe
    from indexlm.tokens.tokenizer import FILE_NAME

    verify(run.path("text"))
    texts = {language: _shuffled(run, language) for language in ("zh", "en")}
    with publish(run.path("tokenizer"), run.made_from("tokenizer")) as folder:
        made = train_bpe.train(texts, run.recipe.tokenizer, folder / FILE_NAME)
        if made.vocab_size != run.recipe.model.vocab_size:
            raise UserError(
                f"the text gives {made.vocab_size} pieces, model.vocab_size is "
                f"{run.recipe.model.vocab_size}; set both to the same number"
            )


def tokens(run: "Run") -> None:
    from indexlm.text.jsonl import read_jsonl
    from indexlm.text.refine import read_documents
    from indexlm.tokens.shards import write_shards

    verify(run.path("text"))
    files = sorted((run.path("text") / "train").iterdir())
    texts: dict[str, Iterable[str]] = {
        file.name.split(".")[0]: (document.text for document in read_documents(file))
        for file in files
    }
    records = run.path("text") / "instruction.jsonl.zst"
    texts["instruction"] = (f"{r['query']}\n{r['response']}" for r in read_jsonl(records))
    funnel = json.loads((run.path("text") / "funnel.json").read_text(encoding="utf-8"))
    size = sum(kept["bytes"] for kept in funnel["kept"].values())
    with publish(run.path("tokens"), run.made_from("tokens")) as folder:
        write_shards(texts, _tokenizer(run), folder, size)


def trunk(run: "Run") -> None:
    from indexlm.feed.mixture import Phase
    from indexlm.train.schedules import lr_share

    config = run.recipe.pretrain
    model = _new_model(run)
    model.initialise(run.recipe.seed)
    _pretrain(
        run,
        "trunk",
        model,
        [Phase(0, config.mixture)],
        lambda step: lr_share(config.schedule, step, config.steps),
        (0, config.steps),
        None,
    )


def base(run: "Run") -> None:
    _decay(run, "base", run.recipe.base.steps, run.recipe.base.mixture)


def pure(run: "Run") -> None:
    _decay(run, "pure", run.recipe.pure.steps, run.recipe.pure.mixture)


def _decay(run: "Run", name: str, steps: int, shares: Mapping[str, float]) -> None:
    from indexlm.feed.mixture import Phase
    from indexlm.train.schedules import lr_share

    config = run.recipe.pretrain
    last = config.steps + steps
    model = _new_model(run)
    _pretrain(
        run,
        name,
        model,
        [Phase(0, config.mixture), Phase(config.steps * config.batch, dict(shares))],
        lambda step: lr_share(config.schedule, step, last, steps),
        (config.steps, last),
        "trunk",
    )
    _save_model(run, name, model, f"models/{name}")


def _pretrain(
    run: "Run",
    name: str,
    model: "Transformer",
    phases: list[Any],
    share: Any,
    between: tuple[int, int],
    parent: str | None,
) -> None:
    from indexlm.feed.loader import Feed
    from indexlm.feed.mixture import Mixture
    from indexlm.train.loop import Stage, train
    from indexlm.train.objectives.language import language_loss

    config, length = run.recipe.pretrain, run.recipe.model.context
    sources = _text_sources(run)
    wanted = {source for phase in phases for source, weight in phase.shares.items() if weight > 0}
    if missing := sorted(wanted - sources.keys()):
        raise UserError(
            f"{name}: the mixture asks for {', '.join(missing)}, the text has only "
            f"{', '.join(sorted(sources))}; change the mixture or add text"
        )
    feed = Feed(
        sources,
        Mixture(phases, run.recipe.seed),
        batch=config.batch,
        micro_batch=config.micro_batch,
        length=length,
    )
    stage = Stage(
        name,
        config,
        language_loss,
        feed,
        share,
        *between,
        run.made_from(name),
        _checkpoint(run, parent),
        evaluate=_curve(run),
    )
    train(model, stage, run.path(name))


def sft(run: "Run") -> None:
    from indexlm import alignment
    from indexlm.text.jsonl import read_jsonl

    verify(run.path("text"))
    records = list(read_jsonl(run.path("text") / "instruction.jsonl.zst"))
    if not records:
        raise UserError("the text holds no instruction data; the starter corpus makes some")
    conversations = alignment.chat_conversations(records, SFT_RECORDS)
    model = _new_model(run)
    _finetune(run, "sft", model, run.recipe.sft, conversations, "base")


def pairs(run: "Run") -> None:
    from indexlm import alignment
    from indexlm.text.jsonl import read_jsonl

    records = list(read_jsonl(run.path("text") / "instruction.jsonl.zst"))
    config = run.recipe.dpo
    # Those after the ones that SFT has seen, where there are enough.
    conversations = alignment.chat_conversations(records, SFT_RECORDS + 2 * config.prompts)
    unseen = alignment.fitting(
        conversations[SFT_RECORDS:] or conversations,
        _tokenizer(run),
        run.recipe.model.context - config.max_new_tokens,
    )
    _sample_pairs(run, "pairs", "sft", config, unseen[: config.prompts])


def chat(run: "Run") -> None:
    model = _prefer(run, "chat", run.recipe.dpo, "pairs", "sft")
    _save_model(run, "chat", model, "models/chat")


def script(run: "Run") -> None:
    """The dialogues of the novel and the card of the character, into a store."""
    from indexlm.roleplay.create import create_card, dialogues_of_novel
    from indexlm.roleplay.names import THREE_KINGDOMS
    from indexlm.roleplay.store import Store
    from indexlm.text.jsonl import write_jsonl

    config = run.recipe.character
    verify(run.path("text"))
    chapters = [
        (document.id, document.text)
        for document in _documents(run, "train")
        if document.source == config.source
    ]
    if not chapters:
        raise UserError(
            f"no text of source {config.source!r} to take a character from; "
            "set character.source to one of the text's sources"
        )
    dialogues = dialogues_of_novel(sorted(chapters))
    aliases = THREE_KINGDOMS.get(config.name, ())
    card = create_card(config.name, dialogues, config.description, aliases)
    with publish(run.path("script"), run.made_from("script")) as folder:
        Store(folder / "characters.sqlite").add(card)
        rows = [
            {
                "id": dialogue.id,
                "scene": dialogue.scene,
                "lines": [[line.speaker, line.text] for line in dialogue.lines],
            }
            for dialogue in dialogues
        ]
        write_jsonl(folder / "dialogues.jsonl.zst", rows)
    log.info(
        f"{len(dialogues)} dialogues, {sum(len(d.lines) for d in dialogues)} lines; "
        f"{len(card.dialogues)} dialogues with {card.name}"
    )


def character_sft(run: "Run") -> None:
    model = _new_model(run)
    conversations = _role_conversations(run)
    _finetune(run, "character-sft", model, run.recipe.character.sft, conversations, "sft")


def character_pairs(run: "Run") -> None:
    config = run.recipe.character.dpo
    conversations = _role_conversations(run)
    random.Random(run.recipe.seed).shuffle(conversations)
    _sample_pairs(run, "character-pairs", "character-sft", config, conversations[: config.prompts])


def character(run: "Run") -> None:
    config = run.recipe.character.dpo
    model = _prefer(run, "character", config, "character-pairs", "character-sft")
    _save_model(run, "character", model, "models/character")


def evals(run: "Run") -> None:
    from indexlm import evaluation

    evaluation.evaluate_run(run)


def report(run: "Run") -> None:
    from indexlm.report.page import write_report

    with publish(run.path("report"), run.made_from("report")) as folder:
        write_report(run.folder, folder / "index.html")
    log.info(f"report: {run.path('report') / 'index.html'}")


def _finetune(
    run: "Run",
    name: str,
    model: "Transformer",
    config: SftConfig,
    conversations: Sequence["Conversation"],
    parent: str,
) -> None:
    from indexlm import alignment
    from indexlm.feed.loader import Feed
    from indexlm.feed.mixture import Mixture, Phase
    from indexlm.train.loop import Stage, train
    from indexlm.train.objectives.language import language_loss

    length, seed = run.recipe.model.context, run.recipe.seed
    source = alignment.conversation_source(conversations, _tokenizer(run), length, seed)
    share = alignment.row_share(source, length, config.response_share)
    replay = run.recipe.base.mixture
    shares = {k: v * (1 - share) for k, v in replay.items() if k != "instruction"}
    rest = sum(shares.values()) or 1.0
    shares = {k: v / rest * (1 - share) for k, v in shares.items()} | {"responses": share}
    sources = _text_sources(run) | {"responses": source}
    feed = Feed(
        sources,
        Mixture([Phase(0, shares)], seed),
        batch=config.batch,
        micro_batch=config.micro_batch,
        length=length,
    )
    log.info(
        f"{name}: {len(conversations)} conversations in {len(source.rows)} rows "
        f"({source.too_long} too long), {share:.0%} of the rows"
    )
    stage = Stage(
        name,
        config,
        language_loss,
        feed,
        _to_the_end(config),
        0,
        config.steps,
        run.made_from(name),
        _checkpoint(run, parent),
        config.keep_optimiser,
    )
    train(model, stage, run.path(name))


def _sample_pairs(
    run: "Run", name: str, parent: str, config: DpoConfig, conversations: Sequence["Conversation"]
) -> None:
    from indexlm import alignment
    from indexlm.serve.engine import Engine, Sampling
    from indexlm.text.jsonl import write_jsonl
    from indexlm.tokens.chat_format import prompt_ids

    tokenizer = _tokenizer(run)
    engine = Engine(_model_at(run, parent), tokenizer)
    sampling = Sampling(
        temperature=0.8,
        top_k=40,
        top_p=0.95,
        max_new_tokens=config.max_new_tokens,
        seed=run.recipe.seed,
    )
    prompts = [prompt_ids(tokenizer, conversation) for conversation in conversations]
    answers = [tokenizer.decode(ids) for ids in engine.answers(prompts, sampling)]
    records = alignment.pair_records(conversations, answers, config.worse_below)
    log.info(f"{name}: {len(records)} pairs of {len(conversations)} answers")
    if not records:
        raise UserError(f"{name}: no sampled answer was worse; raise dpo.worse_below")
    with publish(run.path(name), run.made_from(name), {"sampled": len(conversations)}) as folder:
        write_jsonl(folder / "pairs.jsonl.zst", records)


def _prefer(run: "Run", name: str, config: DpoConfig, pairs_of: str, parent: str) -> "Transformer":
    from indexlm import alignment
    from indexlm.text.jsonl import read_jsonl
    from indexlm.train.loop import Stage, train
    from indexlm.train.objectives.preference import PairFeed, PreferenceLoss, reference_logprobs

    tokenizer = _tokenizer(run)
    verify(run.path(pairs_of))
    context = run.recipe.model.context
    records = read_jsonl(run.path(pairs_of) / "pairs.jsonl.zst")
    found = [alignment.pair_of(record, tokenizer, context) for record in records]
    usable = [pair for pair in found if pair is not None]
    model = _model_at(run, parent)
    reference = reference_logprobs(model, usable, config.micro_batch)
    feed = PairFeed(
        usable,
        reference,
        batch=config.batch,
        micro_batch=config.micro_batch,
        seed=run.recipe.seed,
    )
    stage = Stage(
        name,
        config,
        PreferenceLoss(config.beta),
        feed,
        _to_the_end(config),
        0,
        config.steps,
        run.made_from(name),
        _checkpoint(run, parent),
        keep_optimiser=False,
    )
    train(model, stage, run.path(name))
    return model


def _to_the_end(config: TrainConfig) -> Any:
    from indexlm.train.schedules import lr_share

    return lambda step: lr_share(config.schedule, step, config.steps)


def _role_conversations(run: "Run") -> list["Conversation"]:
    from indexlm import alignment
    from indexlm.roleplay.card import Dialogue, Line
    from indexlm.text.jsonl import read_jsonl

    verify(run.path("script"))
    config = run.recipe.character
    dialogues = [
        Dialogue(row["id"], row["scene"], tuple(Line(*line) for line in row["lines"]))
        for row in read_jsonl(run.path("script") / "dialogues.jsonl.zst")
    ]
    window = (run.recipe.model.context, config.reserve, config.retrieve)
    tokenizer = _tokenizer(run)
    return [
        conversation
        for card in alignment.role_cards(dialogues, config.min_lines)
        for conversation in alignment.role_conversations(card, tokenizer, *window)
    ]


def _tokenizer(run: "Run") -> "Tokenizer":
    from indexlm.tokens.tokenizer import Tokenizer

    verify(run.path("tokenizer"))
    return Tokenizer.load(run.path("tokenizer"))


def _text_sources(run: "Run") -> dict[str, "Source"]:
    from indexlm.feed.packing import TextSource
    from indexlm.tokens.shards import read_shards

    verify(run.path("tokens"))
    shards = read_shards(run.path("tokens"), _tokenizer(run))
    length, seed = run.recipe.model.context, run.recipe.seed
    return {name: TextSource(shard, length, seed) for name, shard in shards.items()}


def _new_model(run: "Run") -> "Transformer":
    from indexlm.model.transformer import Transformer

    return Transformer(run.recipe.model)


def _model_at(run: "Run", stage: str) -> "Transformer":
    """The model in which a finished stage ended."""
    from indexlm.train import checkpoint

    model = _new_model(run)
    weights = {f"weight.{name}": p.detach() for name, p in model.named_parameters()}
    checkpoint.load(checkpoint.last(run.path(stage) / "checkpoints"), weights)
    return model


def _checkpoint(run: "Run", stage: str | None) -> Path | None:
    from indexlm.train import checkpoint

    return checkpoint.last(run.path(stage) / "checkpoints") if stage else None


def _save_model(run: "Run", stage: str, model: "Transformer", output: str) -> None:
    from indexlm import __version__
    from indexlm.export import hf
    from indexlm.tokens.tokenizer import FILE_NAME

    card = {
        "recipe": run.recipe.name,
        "stage": stage,
        "made_from": run.made_from(stage),
        "text": run.made_from("text"),
        "indexlm": __version__,
    }
    hf.save(
        model,
        run.path("tokenizer") / FILE_NAME,
        run.path(output),
        run.made_from(stage),
        card,
    )


def _curve(run: "Run") -> Any:
    """The capability evaluation inside pre-training: a fixed small subset."""
    from indexlm.evals.runner import curve_point

    held_out, entries = held_out_texts(run), held_out_entries(run)
    tokenizer = _tokenizer(run)
    settings = run.recipe.evals
    return lambda model: curve_point(
        model, tokenizer, held_out, entries, settings.curve_items, run.recipe.seed
    )


def held_out_texts(run: "Run") -> dict[str, list[str]]:
    """`<language>_<tier>` -> documents that no stage trains on."""
    from indexlm.text.refine import read_documents

    folder = run.path("text") / "held_out"
    return {
        file.name.split(".")[0]: [document.text for document in read_documents(file)]
        for file in sorted(folder.iterdir())
    }


def held_out_entries(run: "Run") -> list[Any]:
    from indexlm.text.jsonl import read_jsonl

    return list(read_jsonl(run.path("text") / "entries.jsonl.zst"))


def _documents(run: "Run", part: str) -> Iterator[Any]:
    from indexlm.text.refine import read_documents

    for file in sorted((run.path("text") / part).iterdir()):
        yield from read_documents(file)


def _shuffled(run: "Run", language: str) -> list[str]:
    texts = [d.text for d in _documents(run, "train") if d.language == language]
    random.Random(run.recipe.seed).shuffle(texts)
    return texts
