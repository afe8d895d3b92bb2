"""Train a classifier of quality or of instruction data."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from indexlm.cli.arguments import check_new


def classifier(
    good: Annotated[
        list[Path], typer.Option(help="text to keep: txt, jsonl, parquet, folders; may be repeated")
    ],
    out: Annotated[Path, typer.Option("--out", help="file to write, e.g. quality.safetensors")],
    task: Annotated[
        Literal["quality", "instructions"], typer.Option(help="the step that will use it")
    ] = "quality",
    bad: Annotated[
        list[Path] | None, typer.Option(help="text to drop, in the same forms; may be repeated")
    ] = None,
    conversations: Annotated[
        list[Path] | None,
        typer.Option(
            help="fine-tuning data, in any of its shapes: questions with their answers are bad "
            "text, the answers alone are good; may be repeated"
        ),
    ] = None,
    lose: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="share of good text that may be dropped")
    ] = 0.01,
    each_source: Annotated[
        bool, typer.Option(help="also train without each source in turn, and judge it unseen")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the order of training")] = 1234,
) -> None:
    """Train a classifier from good and bad text; says what it is worth on text it has not seen.

    Of every language that has 100 documents of both kinds: 80% train it, 10% set its threshold so
    that at most a set share of the good ones is dropped, 10% are measured. Give as good text all
    kinds that must be kept: what the files do not show, the classifier cannot know.
    """
    from indexlm.errors import UserError
    from indexlm.text.filters.classifier import read, table, train, unseen_sources

    if not bad and not conversations:
        raise UserError("give --bad, or --conversations, as well as --good")
    check_new(out)
    examples = read(good, bad or [], conversations or [])
    made = train(examples, task=task, max_lost=lose, seed=seed)
    made.save(out)
    typer.echo(table(made.header))
    if each_source:
        typer.echo(unseen_sources(examples, task=task, max_lost=lose, seed=seed))
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
