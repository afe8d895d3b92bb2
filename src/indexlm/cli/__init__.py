"""The table of verbs. What each does stands in the file of its kind, in a function of its name.

Each imports what it needs when it runs, so that `--help` answers at once.
"""

import atexit
import os
import sys

import typer

from indexlm.cli import (
    classifier,
    compare,
    curves,
    evaluation,
    lab,
    models,
    runs,
    talk,
    text,
    tokens,
)
from indexlm.errors import DamagedError, StoppedError, UserError

app = typer.Typer(
    help="Make a small bilingual (Chinese/English) language model, from raw text to a character "
    "you talk to. Start with: indexlm run tiny",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Raw text to clean, tiered documents.", no_args_is_help=True)
tokenizer = typer.Typer(help="Learn and judge a tokenizer.", no_args_is_help=True)
train = typer.Typer(help="The training stages of a recipe, one by one.", no_args_is_help=True)
studies = typer.Typer(
    help="The experiments of the report again, with a computed verdict each. Start with: "
    "indexlm lab run learning-rate",
    no_args_is_help=True,
)
character = typer.Typer(help="Make a character and talk to it.", no_args_is_help=True)

app.command("run")(runs.run)
app.command("resume")(runs.resume)
app.command("branch")(runs.branch)
app.command("plan")(runs.plan)
app.command("verify")(models.verify)
app.command("report")(runs.report)
app.add_typer(data, name="data")
data.command("fetch")(text.fetch)
data.command("refine")(text.refine)
data.command("inspect")(text.inspect)
data.command("classifier")(classifier.classifier)
data.command("tokens")(tokens.data_tokens)
app.add_typer(tokenizer, name="tokenizer")
tokenizer.command("train")(tokens.tokenizer_train)
tokenizer.command("report")(tokens.tokenizer_report)
app.add_typer(train, name="train")
train.command("pretrain")(runs.pretrain)
train.command("sft")(runs.sft)
train.command("dpo")(runs.dpo)
app.command("finetune")(runs.finetune)
app.command("eval")(evaluation.evaluate)
app.command("compare")(compare.compare)
app.command("curve")(curves.curve)
app.add_typer(studies, name="lab")
studies.command("list")(lab.lab_list)
studies.command("run")(lab.lab_run)
studies.command("report")(lab.lab_report)
app.command("chat")(talk.chat)
app.add_typer(character, name="character")
character.command("create")(talk.character_create)
character.command("list")(talk.character_list)
character.command("chat")(talk.character_chat)
app.command("export")(models.export)
app.command("quantise")(models.quantise)


def main() -> None:
    """Entry of the `indexlm` command; turns the two kinds of bad ends into exit codes."""
    from indexlm.records import start_logging

    start_logging()
    try:
        app()
    except UserError as error:
        sys.exit(_complain(str(error), 2))
    except StoppedError as error:
        sys.exit(_complain(str(error), 130))
    except (DamagedError, FloatingPointError, OSError) as error:
        sys.exit(_complain(str(error), 1))


def command() -> None:
    """`main` in a process of its own, which ends at once where it ends badly.

    Threads of Daft may still be at work then, and abort a process whose Python ends under them: on
    Ctrl-C one time in five, and the exit code would be a crash's.
    """
    try:
        main()
    except SystemExit as end:
        if not end.code or "daft" not in sys.modules:
            raise
        assert isinstance(end.code, int)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


def _complain(message: str, code: int) -> int:
    from indexlm.runtime import first_of_machine

    # Processes that were started together make the same mistake; one of them says it.
    if code == 1 or first_of_machine():
        typer.echo(f"indexlm: {message}", err=True)
    return code
