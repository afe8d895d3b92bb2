"""From a novel to a character: its dialogues and card, role-play SFT and DPO."""

import logging
import random
from typing import TYPE_CHECKING

from indexlm.errors import UserError
from indexlm.records import publish, verify
from indexlm.stages import alignment, inputs

if TYPE_CHECKING:
    from indexlm.pipeline import Run
    from indexlm.tokens.chat_format import Conversation

log = logging.getLogger("indexlm")


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
        for document in inputs.documents(run, "train")
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
    model = inputs.new_model(run)
    conversations = _role_conversations(run)
    alignment.finetune(run, "character-sft", model, run.recipe.character.sft, conversations, "sft")


def character_pairs(run: "Run") -> None:
    config = run.recipe.character.dpo
    conversations = _role_conversations(run)
    random.Random(run.recipe.seed).shuffle(conversations)
    alignment.sample_pairs(
        run, "character-pairs", "character-sft", config, conversations[: config.prompts]
    )


def character(run: "Run") -> None:
    config = run.recipe.character.dpo
    model = alignment.prefer(run, "character", config, "character-pairs", "character-sft")
    inputs.save_model(run, "character", model, "models/character")


def _role_conversations(run: "Run") -> list["Conversation"]:
    from indexlm.roleplay.card import Dialogue, Line
    from indexlm.stages import conversations as rows
    from indexlm.text.jsonl import read_jsonl

    verify(run.path("script"))
    config = run.recipe.character
    dialogues = [
        Dialogue(row["id"], row["scene"], tuple(Line(*line) for line in row["lines"]))
        for row in read_jsonl(run.path("script") / "dialogues.jsonl.zst")
    ]
    window = (run.recipe.model.context, config.reserve, config.retrieve)
    tokenizer = inputs.tokenizer_of(run)
    return [
        conversation
        for card in rows.role_cards(dialogues, config.min_lines)
        for conversation in rows.role_conversations(card, tokenizer, *window)
    ]
