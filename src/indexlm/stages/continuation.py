"""From a model folder on: its tokenizer, further pre-training in another window, fine-tuning."""

import logging
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexlm.config import Continuation, ConversationConfig, TrainConfig
from indexlm.records import publish
from indexlm.runtime import from_first
from indexlm.stages import inputs
from indexlm.stages.data import files_state
from indexlm.stages.training import mixed_feed, train_stage

if TYPE_CHECKING:
    from indexlm.feed.packing import Source
    from indexlm.model.transformer import Transformer
    from indexlm.pipeline import Run
    from indexlm.tokens.chat_format import Conversation

log = logging.getLogger("indexlm")


def parent_state(recipe: Continuation) -> Any:
    """What tells one parent model from another without reading its weights."""
    from indexlm.export import forms

    return forms.identity(Path(recipe.parent))


def conversation_state(recipe: Continuation) -> Any:
    assert recipe.sft is not None
    return files_state(recipe.sft.files)


def tokenizer(run: "Run[Continuation]") -> None:
    """The parent's, which the rest of the run reads as its own."""
    from indexlm.export import hf
    from indexlm.tokens.tokenizer import FILE_NAME

    parent = Path(run.recipe.parent)
    found = hf.load_tokenizer(parent, hf.read_config(parent))
    with publish(run.path("tokenizer"), run.made_from("tokenizer")) as folder:
        shutil.copyfile(found.path, folder / FILE_NAME)


def pretrain(run: "Run[Continuation]") -> None:
    """Further pre-training on refined text."""
    config = run.recipe.pretrain
    assert config is not None
    model = _model(run, Path(run.recipe.parent))
    length = config.length or model.config.context
    sources = inputs.text_sources(run, length)
    _train(run, "pretrain", model, config, sources, config.mixture, length)
    inputs.save_model(run, "pretrain", model, "models/pretrained")


def sft(run: "Run[Continuation]") -> None:
    """Fine-tuning of all weights, or of low-rank updates, on the conversations of files."""
    from indexlm.export import peft
    from indexlm.model import lora
    from indexlm.stages import conversations as rows

    config = run.recipe.sft
    assert config is not None
    continued = "pretrain" in run.steps
    base = run.path("models/pretrained") if continued else Path(run.recipe.parent)
    model = _model(run, base)
    length = config.length or model.config.context
    conversations = _conversations(config, run.recipe.seed)
    source = rows.conversation_source(
        conversations, inputs.tokenizer_of(run), length, run.recipe.seed
    )
    log.info(
        f"sft: {len(conversations) - source.too_long} conversations in {len(source.rows)} rows of "
        f"{length} tokens ({source.too_long} are longer and left out)"
    )
    settings = run.recipe.lora
    if settings is not None:
        lora.wrap(model, settings, run.recipe.seed)
    stage = config.as_stage(len(source.rows))
    _train(run, "sft", model, stage, {"conversations": source}, {"conversations": 1.0}, length)
    if settings is not None:
        adapter = run.path("models/adapter")
        from_first(
            lambda: peft.save_adapter(model, settings, adapter, str(base), run.made_from("sft"))
        )
        lora.merge(model)
    inputs.save_model(run, "sft", model, "models/tuned")


def _model(run: "Run[Continuation]", folder: Path) -> "Transformer":
    """The model of a folder, in the window of the recipe."""
    from indexlm.export import hf
    from indexlm.model.transformer import with_window

    model = hf.load(folder)
    window = run.recipe.window
    return with_window(model, window.context or model.config.context, window.rope_base)


def _conversations(config: ConversationConfig, seed: int) -> list["Conversation"]:
    """Of all files, or as many as `limit`, drawn by the seed."""
    from indexlm.text.conversations import read_conversations
    from indexlm.tokens.chat_format import Conversation

    found = []
    for name in config.files:
        for record in read_conversations(Path(name)):
            history = tuple((said, answered) for said, answered in record["history"])
            found.append(
                Conversation(record["system"], history, record["query"], record["response"])
            )
    if config.limit is not None and config.limit < len(found):
        return random.Random(seed).sample(found, config.limit)
    return found


def _train(
    run: "Run[Continuation]",
    name: str,
    model: "Transformer",
    config: TrainConfig,
    sources: dict[str, "Source"],
    shares: dict[str, float],
    length: int,
) -> None:
    from indexlm.feed.mixture import Phase
    from indexlm.train.objectives.language import language_loss
    from indexlm.train.schedules import lr_share

    schedule = config.schedule
    if schedule.warmup:
        log.info(
            f"{name}: the learning rate rises over {schedule.warmup} steps to "
            f"{config.optimiser.lr:g}, then {schedule.shape} to {schedule.final:g} of it"
        )
    train_stage(
        run,
        name,
        model,
        config,
        language_loss,
        mixed_feed(run, sources, [Phase(0, shares)], config, length),
        # The cosine ends after the last step: a run of one step would train nothing at its end.
        lambda step: lr_share(schedule, step, config.steps + 1),
        length=length,
        shares=shares,
    )
