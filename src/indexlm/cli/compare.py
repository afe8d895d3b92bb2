"""The verb that says whether one model is better than another."""

from pathlib import Path
from typing import Annotated

import typer

from indexlm.cli.arguments import check_new


def compare(
    a: Annotated[Path, typer.Argument(metavar="RESULTS_A", help="folder of `eval --out`")],
    b: Annotated[Path, typer.Argument(metavar="RESULTS_B", help="the same of another model")],
    common: Annotated[
        bool, typer.Option("--common", help="compare the items that are the same in both")
    ] = False,
    tasks: Annotated[str, typer.Option(help="of these alone; several with a comma")] = "",
    ways: Annotated[str, typer.Option(help="of choosing: these alone, e.g. logprob")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="folder for comparison.json and a page")
    ] = None,
) -> None:
    """Compare two models on the same items: differences with intervals and p-values.

    p-values are corrected over the rows that are shown: name the --tasks and --ways that the
    question is about before looking at all of them.
    """
    from indexlm.evals.compare import compare as compared
    from indexlm.evals.compare import comparison_table, read_results
    from indexlm.records import fingerprint, publish, write_json
    from indexlm.report.comparison import comparison_page

    if out is not None:
        check_new(out)
    asked = {
        name: [each.strip() for each in listed.split(",") if each.strip()]
        for name, listed in (("tasks", tasks), ("ways", ways))
    }
    one, other = read_results(a), read_results(b)
    comparison = compared(one, other, common=common, **asked)
    typer.echo(comparison_table(comparison))
    if out is not None:
        made_from = fingerprint(one.fingerprint, other.fingerprint, common, asked)
        with publish(out, made_from) as folder:
            write_json(folder / "comparison.json", comparison)
            (folder / "index.html").write_text(comparison_page(comparison), encoding="utf-8")
