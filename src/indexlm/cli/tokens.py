"""Verbs of the tokenizer: learn one, judge it beside others, encode text with it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexlm.cli.arguments import check_new
from indexlm.errors import StoppedError, UserError

if TYPE_CHECKING:
    from indexlm.text.document import Document

Refined = Annotated[Path, typer.Argument(help="a folder that `data refine` made")]
Out = Annotated[Path, typer.Option("--out", help="folder to make")]


def data_tokens(
    folder: Refined,
    tokenizer: Annotated[Path, typer.Option(help="folder of the tokenizer, or its .model")],
    out: Out,
    threads: Annotated[int, typer.Option(min=0, help="0 is one for each core")] = 0,
) -> None:
    """Encode refined text into memory-mapped shards.

    Stop it at any point; the same command goes on where it stopped, to the same files.
    """
    from indexlm.records import read_manifest
    from indexlm.runtime import threads_of
    from indexlm.text.refined import verify_refined
    from indexlm.tokens.encode import inputs_fingerprint, write_shards
    from indexlm.tokens.shards import CATALOGUE, training_files
    from indexlm.tokens.tokenizer import Tokenizer

    verify_refined(folder)
    if not (out / CATALOGUE).is_file():
        check_new(out)
    model = Tokenizer(tokenizer) if tokenizer.is_file() else Tokenizer.load(tokenizer)
    files = training_files(folder)
    made_from = inputs_fingerprint(files, model)
    finished = read_manifest(out)
    if finished is None or finished.fingerprint != made_from:
        check_new(out)
    try:
        catalogue = write_shards(files, model, out, made_from, threads=threads_of(threads))
    except KeyboardInterrupt as error:
        raise StoppedError("stopped; the same command goes on where it stopped") from error
    for name, row in catalogue["sources"].items():
        typer.echo(f"{name:<14} {row['documents']:>9,} documents {row['tokens']:>12,} tokens")


def tokenizer_train(
    folder: Refined,
    out: Out,
    vocab_size: Annotated[int, typer.Option(min=512, help="pieces, most of them learned")] = 8192,
    sample_bytes: Annotated[
        int, typer.Option(min=10_000, help="of each language, drawn from all of its text")
    ] = 3_000_000,
    seed: Annotated[int, typer.Option(min=0, help="of the sample")] = 1234,
) -> None:
    """Learn a bilingual BPE from refined text."""
    from indexlm.config import TokenizerConfig
    from indexlm.records import fingerprint, publish
    from indexlm.text.refined import verify_refined
    from indexlm.tokens.sample import draw
    from indexlm.tokens.shards import group_files
    from indexlm.tokens.tokenizer import FILE_NAME
    from indexlm.tokens.train_bpe import train

    check_new(out)
    manifest = verify_refined(folder)
    files = [path for paths in group_files(folder / "train").values() for path in paths]
    sample = draw(_documents(files), sample_bytes, seed)
    texts = {language: [each.text for each in some] for language, some in sample.items()}
    # Code is learned with the English half: its words are Latin.
    texts["en"] = [*texts.get("en", []), *texts.pop("code", [])]
    config = TokenizerConfig(vocab_size=vocab_size, sample_bytes=sample_bytes)
    settings = (vocab_size, sample_bytes, seed)
    with publish(out, fingerprint(manifest.fingerprint, *settings)) as made:
        model = train(texts, config, made / FILE_NAME)
        if model.vocab_size != vocab_size:
            raise UserError(
                f"{sample_bytes:,} bytes of each language of {folder} give only "
                f"{model.vocab_size} pieces, --vocab-size asks for {vocab_size}; ask for fewer, or "
                "raise --sample-bytes where there is more text"
            )
    typer.echo(f"{out / FILE_NAME}: {model.vocab_size} pieces")


def tokenizer_report(
    tokenizers: Annotated[
        list[Path],
        typer.Argument(
            help="folders of tokenizers or models, SentencePiece .model files, tokenizer.json "
            "files of the tokenizers library; by anybody"
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            help="a folder that `data refine` made, of which the held-out part is taken, or txt, "
            "jsonl and parquet; may be repeated"
        ),
    ],
    sample_bytes: Annotated[
        int, typer.Option(min=1, help="of each language, drawn from all of its text")
    ] = 20_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="all figures, for programs")] = False,
) -> None:
    """Compare tokenizers on the same text, by language.

    How much a token holds, how many tokens a word or a Chinese character takes, what the
    vocabulary does not have, how much of it is used, and what is lost on the way to ids and back.
    """
    from itertools import chain

    from indexlm.tokens.any_tokenizer import open_any
    from indexlm.tokens.report import compare, report_table
    from indexlm.tokens.sample import draw

    named = {str(path): open_any(path) for path in tokenizers}
    documents = chain.from_iterable(map(_judged, data))
    sample = draw(documents, sample_bytes, seed=0)
    if not sample:
        raise UserError(f"--data {' '.join(map(str, data))} holds no text")
    report = compare(named, chain.from_iterable(sample.values()))
    typer.echo(json.dumps(report, ensure_ascii=False) if as_json else report_table(report))


def _judged(path: Path) -> "Iterator[Document]":
    """Held-out documents of a refined folder; of anything else, what it holds as it stands."""
    from indexlm.text.refined import FUNNEL, verify_refined
    from indexlm.tokens.shards import group_files

    if (path / FUNNEL).is_file():
        verify_refined(path)
        for paths in group_files(path / "held_out").values():
            yield from _documents(paths)
    else:
        yield from _labelled(path)


def _documents(files: Iterable[Path]) -> "Iterator[Document]":
    from indexlm.text.refined import read_documents

    for path in files:
        yield from read_documents(path)


def _labelled(path: Path) -> "Iterator[Document]":
    from indexlm.text.reading.labelled import labelled
    from indexlm.text.reading.sources import input_files

    if not path.exists():
        raise UserError(f"--data {path} does not exist; name a refined folder or text files")
    for file in input_files([str(path)], Path("downloads")):
        yield from labelled(file)
