"""SFT with replay and DPO, for the chat model and, with other conversations, for characters."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from indexlm.config import DpoConfig, SftConfig, TrainConfig
from indexlm.errors import UserError
from indexlm.records import publish, verify
from indexlm.runtime import device_of
from indexlm.stages import inputs
from indexlm.stages.training import mixed_feed, train_stage

if TYPE_CHECKING:
    from indexlm.model.transformer import Transformer
    from indexlm.pipeline import Run
    from indexlm.tokens.chat_format import Conversation

log = logging.getLogger("indexlm")

SFT_RECORDS = 8000
"""Conversations offered to SFT; a few epochs of the laptop recipe's steps."""


def sft(run: "Run") -> None:
    from indexlm.stages import conversations as rows
    from indexlm.text.jsonl import read_jsonl

    verify(run.path("text"))
    records = list(read_jsonl(run.path("text") / "instruction.jsonl.zst"))
    conversations = rows.chat_conversations(records, SFT_RECORDS)
    model = inputs.new_model(run)
    finetune(run, "sft", model, run.recipe.sft, conversations, "base")


def pairs(run: "Run") -> None:
    from indexlm.stages import conversations as rows
    from indexlm.text.jsonl import read_jsonl

    records = list(read_jsonl(run.path("text") / "instruction.jsonl.zst"))
    config = run.recipe.dpo
    # Those after the ones that SFT has seen, where there are enough.
    conversations = rows.chat_conversations(records, SFT_RECORDS + 2 * config.prompts)
    unseen = rows.fitting(
        conversations[SFT_RECORDS:] or conversations,
        inputs.tokenizer_of(run),
        run.recipe.model.context - config.max_new_tokens,
    )
    sample_pairs(run, "pairs", "sft", config, unseen[: config.prompts])


def chat(run: "Run") -> None:
    model = prefer(run, "chat", run.recipe.dpo, "pairs", "sft")
    inputs.save_model(run, "chat", model, "models/chat")


def finetune(
    run: "Run",
    name: str,
    model: "Transformer",
    config: SftConfig,
    conversations: Sequence["Conversation"],
    parent: str,
) -> None:
    from indexlm.feed.mixture import Phase
    from indexlm.stages import conversations as rows
    from indexlm.train.objectives.language import language_loss

    length, seed = run.recipe.model.context, run.recipe.seed
    source = rows.conversation_source(conversations, inputs.tokenizer_of(run), length, seed)
    share = rows.row_share(source, length, config.response_share)
    replay = run.recipe.base.mixture
    shares = {k: v * (1 - share) for k, v in replay.items() if k != "instruction"}
    rest = sum(shares.values()) or 1.0
    shares = {k: v / rest * (1 - share) for k, v in shares.items()} | {"responses": share}
    sources = inputs.text_sources(run, length) | {"responses": source}
    feed = mixed_feed(run, sources, [Phase(0, shares)], config, length)
    log.info(
        f"{name}: {len(conversations)} conversations in {len(source.rows)} rows "
        f"({source.too_long} too long), {share:.0%} of the rows"
    )
    train_stage(
        run,
        name,
        model,
        config,
        language_loss,
        feed,
        _to_the_end(config),
        length=length,
        parent=inputs.last_checkpoint(run, parent),
        keep_optimiser=config.keep_optimiser,
        shares=shares,
    )


def sample_pairs(
    run: "Run", name: str, parent: str, config: DpoConfig, conversations: Sequence["Conversation"]
) -> None:
    from indexlm.serve.engine import Engine, Sampling
    from indexlm.stages import conversations as rows
    from indexlm.text.jsonl import write_jsonl
    from indexlm.tokens.chat_format import prompt_ids

    tokenizer = inputs.tokenizer_of(run)
    engine = Engine(inputs.model_at(run, parent), tokenizer)
    sampling = Sampling(
        temperature=0.8,
        top_k=40,
        top_p=0.95,
        max_new_tokens=config.max_new_tokens,
        seed=run.recipe.seed,
    )
    prompts = [prompt_ids(tokenizer, conversation) for conversation in conversations]
    answers = [tokenizer.decode(ids) for ids in engine.answers(prompts, sampling)]
    records = rows.pair_records(conversations, answers, config.worse_below)
    log.info(f"{name}: {len(records)} pairs of {len(conversations)} answers")
    if not records:
        raise UserError(f"{name}: no sampled answer was worse; raise dpo.worse_below")
    with publish(run.path(name), run.made_from(name), {"sampled": len(conversations)}) as folder:
        write_jsonl(folder / "pairs.jsonl.zst", records)


def prefer(run: "Run", name: str, config: DpoConfig, pairs_of: str, parent: str) -> "Transformer":
    from indexlm.stages import conversations as rows
    from indexlm.text.jsonl import read_jsonl
    from indexlm.train.objectives.preference import PairFeed, PreferenceLoss, reference_logprobs

    tokenizer = inputs.tokenizer_of(run)
    verify(run.path(pairs_of))
    context = run.recipe.model.context
    records = read_jsonl(run.path(pairs_of) / "pairs.jsonl.zst")
    found = [rows.pair_of(record, tokenizer, context) for record in records]
    usable = [pair for pair in found if pair is not None]
    model = inputs.model_at(run, parent)
    device = device_of(run.recipe.hardware.device)
    reference = reference_logprobs(model.to(device), usable, config.micro_batch)
    model.to("cpu")
    feed = PairFeed(
        usable,
        reference,
        batch=config.batch,
        micro_batch=config.micro_batch,
        seed=run.recipe.seed,
    )
    train_stage(
        run,
        name,
        model,
        config,
        PreferenceLoss(config.beta),
        feed,
        _to_the_end(config),
        length=context,
        parent=inputs.last_checkpoint(run, parent),
        keep_optimiser=False,
    )
    return model


def _to_the_end(config: TrainConfig) -> Any:
    from indexlm.train.schedules import lr_share

    return lambda step: lr_share(config.schedule, step, config.steps)
