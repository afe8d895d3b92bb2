"""Raw text to documents, to a tokenizer, to tokens."""

import json
import logging
import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexlm.config import AnyRecipe
from indexlm.errors import UserError
from indexlm.records import publish, verify
from indexlm.stages import inputs

if TYPE_CHECKING:
    from indexlm.pipeline import Run

log = logging.getLogger("indexlm")


def input_state(recipe: AnyRecipe) -> list[Any]:
    """What tells the text's input files from others."""
    assert recipe.text is not None
    return files_state(recipe.text.inputs)


def files_state(names: Iterable[str]) -> list[Any]:
    """What tells one set of files and folders from another without reading them."""
    state: list[Any] = []
    for name in names:
        path = Path(name)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        state += [
            [str(f), f.stat().st_size, f.stat().st_mtime_ns] if f.is_file() else str(f)
            for f in files
        ]
    return state


def text(run: "Run[Any]") -> None:
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
                f"{run.recipe.model.vocab_size}; lower both to {made.vocab_size} or "
                "add text"
            )


def tokens(run: "Run[Any]") -> None:
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
        write_shards(texts, inputs.tokenizer_of(run), folder, size)


def _shuffled(run: "Run", language: str) -> list[str]:
    texts = [d.text for d in inputs.documents(run, "train") if d.language == language]
    random.Random(run.recipe.seed).shuffle(texts)
    return texts
