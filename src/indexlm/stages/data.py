"""Raw text to documents, to a tokenizer, to tokens."""

import logging
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexlm.config import AnyRecipe
from indexlm.errors import UserError
from indexlm.records import publish, verify
from indexlm.runtime import threads_of
from indexlm.stages import inputs

if TYPE_CHECKING:
    from indexlm.pipeline import Run

log = logging.getLogger("indexlm")

WORK = ".text.work"
"""Folder of half-done text in the run folder; it goes when the text is there."""


def input_state(recipe: AnyRecipe) -> list[Any]:
    """What tells the text's input files from others."""
    assert recipe.text is not None
    text = recipe.text
    models = [path for path in (text.instructions.model, text.quality.model) if path]
    lists = [*text.contamination.benchmarks, *text.privacy.words]
    return files_state([*text.inputs, *models, *lists])


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
    from indexlm.text.engine import Engine
    from indexlm.text.refine import refine, working
    from indexlm.text.writing.funnel import funnel_table

    work = run.path("text").with_name(WORK)
    engine = Engine(workers=threads_of(run.recipe.threads))
    with working(work), publish(run.path("text"), run.made_from("text")) as folder:
        log.info(funnel_table(refine(run.recipe.text, run.recipe.seed, folder, work, engine)))
    shutil.rmtree(work)


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
    from indexlm.tokens.encode import write_shards
    from indexlm.tokens.shards import training_files

    verify(run.path("text"))
    threads = threads_of(run.recipe.threads)
    files, out = training_files(run.path("text")), run.path("tokens")
    write_shards(files, inputs.tokenizer_of(run), out, run.made_from("tokens"), threads=threads)


def _shuffled(run: "Run", language: str) -> list[str]:
    # Code is learned with the English half: its words are Latin.
    spoken = {language, "code"} if language == "en" else {language}
    texts = [d.text for d in inputs.documents(run, "train") if d.language in spoken]
    random.Random(run.recipe.seed).shuffle(texts)
    return texts
