"""Verbs that talk: a chat, and characters."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexlm.cli.arguments import check_model
from indexlm.errors import UserError

if TYPE_CHECKING:
    from indexlm.serve.chat import PromptMaker
    from indexlm.serve.engine import Engine

Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest token")]
OnePrompt = Annotated[str | None, typer.Option("--prompt", help="answer this once, on stdout")]
StoreFile = Annotated[Path, typer.Option("--store", help="file that holds the characters")]
DEFAULT_STORE = Path("characters.sqlite")
NewTokens = Annotated[
    int | None,
    typer.Option(min=1, help="longest answer; default: a fourth of the window, at most 1,024"),
]
ANSWER_SHARE = 4
LONGEST_ANSWER = 1024
"""As in the demos published with Index-1.9B; a fourth of 32,768 would be kept for nothing."""


def chat(
    model: Annotated[Path, typer.Argument(help="model folder, e.g. runs/tiny/models/chat")],
    prompt: OnePrompt = None,
    system: Annotated[str, typer.Option(help="system text")] = "",
    temperature: Temperature = 0.3,
    max_new_tokens: NewTokens = None,
) -> None:
    """Talk to a model in the terminal; /help lists the commands there."""
    check_model(model)
    from indexlm.serve.chat import PlainPrompts
    from indexlm.serve.engine import Engine

    engine = Engine.load(model)
    reserve = _reserve(engine, max_new_tokens)
    prompts = PlainPrompts(engine.tokenizer, engine.context, reserve, system)
    _talk(engine, prompts, prompt, temperature, reserve, 1.1)


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


def character_list(store: StoreFile = DEFAULT_STORE) -> None:
    """The characters of a store."""
    from indexlm.roleplay.store import Store

    entries = Store(store).list()
    if not entries:
        typer.echo(f"{store} has no character yet", err=True)
    for entry in entries:
        typer.echo(f"{entry.id}  {entry.name}  {entry.lines} lines  {entry.description}")


def character_chat(
    model: Annotated[Path, typer.Argument(help="model folder, e.g. runs/tiny/models/character")],
    name: Annotated[str, typer.Option("--name", help="name or id of the character")] = "诸葛亮",
    store: Annotated[
        Path | None, typer.Option("--store", help="default: the one of the model's run")
    ] = None,
    prompt: OnePrompt = None,
    retrieve: Annotated[int, typer.Option(min=0, help="past lines asked for in each turn")] = 4,
    temperature: Temperature = 0.85,
    max_new_tokens: NewTokens = None,
) -> None:
    """Talk to a character; /why shows the past lines behind an answer."""
    check_model(model)
    from indexlm.roleplay.session import CharacterPrompts
    from indexlm.roleplay.store import Store
    from indexlm.serve.engine import Engine

    if store is None:
        store = model.parent.parent / "script" / "characters.sqlite"
    card = Store(store).get(name)
    engine = Engine.load(model)
    reserve = _reserve(engine, max_new_tokens)
    prompts = CharacterPrompts(card, engine.tokenizer, engine.context, reserve, retrieve)
    _talk(engine, prompts, prompt, temperature, reserve, 1.0)


def _reserve(engine: "Engine", asked: int | None) -> int:
    """Tokens of the window that are kept for the answer."""
    if asked is None:
        return min(engine.context // ANSWER_SHARE, LONGEST_ANSWER)
    if asked >= engine.context:
        raise UserError(
            f"--max-new-tokens {asked} leaves no room for a message in a window of "
            f"{engine.context}; lower it"
        )
    return asked


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
