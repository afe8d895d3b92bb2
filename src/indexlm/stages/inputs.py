"""What a stage reads: what earlier ones left in a run, checked on the way, and a user's folders."""

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexlm.errors import UserError
from indexlm.records import verify
from indexlm.runtime import from_first, rank

if TYPE_CHECKING:
    from indexlm.feed.packing import Source
    from indexlm.model.transformer import Transformer
    from indexlm.pipeline import Run
    from indexlm.tokens.tokenizer import Tokenizer

log = logging.getLogger("indexlm")


def documents(run: "Run[Any]", part: str) -> Iterator[Any]:
    from indexlm.text.refined import read_documents

    for file in sorted((run.path("text") / part).iterdir()):
        yield from read_documents(file)


def held_out_texts(text: Path) -> dict[str, list[str]]:
    """`<language>_<tier>` -> documents that no stage trains on; `text` is a refined folder."""
    from indexlm.text.refined import read_documents

    return {
        file.name.split(".")[0]: [document.text for document in read_documents(file)]
        for file in sorted((text / "held_out").iterdir())
    }


def held_out_entries(text: Path) -> list[Any]:
    """Dictionary entries that no stage trains on, for the starter test; a warning where none."""
    from indexlm.text.jsonl import read_jsonl

    entries = list(read_jsonl(text / "entries.jsonl.zst"))
    if not entries and rank() == 0:
        log.warning(f"{text} holds out no dictionary entries: there is no starter test of it")
    return entries


def apart(folders: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """Of the folders that `--data` names, the one of refined text and the others.

    Raises UserError where two are refined text.
    """
    from indexlm.text.refined import FUNNEL

    refined = [folder for folder in folders if (folder / FUNNEL).is_file()]
    if len(refined) > 1:
        raise UserError(
            f"{refined[0]} and {refined[1]} are both refined text; evaluate on one at a time"
        )
    others = [folder for folder in folders if folder not in refined]
    return (refined[0] if refined else None), others


def refuse_unused(folders: Sequence[Path], used: Collection[Path | None]) -> None:
    """Raises UserError for a folder of `--data` that no task reads: a typing error, or a task that
    is missing."""
    if unused := [folder for folder in folders if folder not in used]:
        raise UserError(f"--data {unused[0]} holds nothing for these tasks; leave it out")


def tokenizer_of(run: "Run[Any]") -> "Tokenizer":
    from indexlm.tokens.tokenizer import Tokenizer

    from_first(lambda: verify(run.path("tokenizer")))
    return Tokenizer.load(run.path("tokenizer"))


def text_sources(run: "Run[Any]", length: int) -> dict[str, "Source"]:
    """Rows of `length` tokens of every source."""
    from indexlm.feed.packing import TextSource
    from indexlm.tokens.shards import read_shards

    from_first(lambda: verify(run.path("tokens")))
    shards = read_shards(run.path("tokens"), tokenizer_of(run))
    return {name: TextSource(shard, length, run.recipe.seed) for name, shard in shards.items()}


def new_model(run: "Run") -> "Transformer":
    from indexlm.model.transformer import Transformer

    return Transformer(run.recipe.model)


def model_at(run: "Run", stage: str) -> "Transformer":
    """The model in which a finished stage ended."""
    from indexlm.train import checkpoint

    model = new_model(run)
    weights = {f"weight.{name}": p.detach() for name, p in model.named_parameters()}
    checkpoint.load(checkpoint.last(run.path(stage) / "checkpoints"), weights)
    return model


def last_checkpoint(run: "Run", stage: str | None) -> Path | None:
    from indexlm.train import checkpoint

    return checkpoint.last(run.path(stage) / "checkpoints") if stage else None


def save_model(run: "Run[Any]", stage: str, model: "Transformer", output: str) -> None:
    from indexlm import __version__
    from indexlm.export import hf
    from indexlm.text.refined import FUNNEL
    from indexlm.tokens.tokenizer import FILE_NAME

    card: dict[str, Any] = {
        "recipe": run.recipe.name,
        "stage": stage,
        "made_from": run.made_from(stage),
        "indexlm": __version__,
    }
    if "text" in run.steps:
        card["text"] = run.made_from("text")
        funnel = json.loads((run.path("text") / FUNNEL).read_text(encoding="utf-8"))
        card["sources"] = [
            {"source": row["source"], "license": row["license"]} for row in funnel["sources"]
        ]
    tokenizer, made_from = run.path("tokenizer") / FILE_NAME, run.made_from(stage)
    from_first(lambda: hf.save(model, tokenizer, run.path(output), made_from, card))
