"""Chat in a terminal: answers stream as they are made, Ctrl-C stops one and keeps the chat.

Answers go to stdout, everything else to stderr through the log, so that a pipe holds the answers
alone. What a model or a card says is shown without control characters: an escape sequence could
rewrite the screen or the clipboard.
"""

import json
import re
import readline  # noqa: F401  input() then has line editing and recalls earlier lines
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

from indexlm.errors import UserError
from indexlm.records import log
from indexlm.serve.chat import ChatSession

HELP = """/reset          forget the chat so far
/system TEXT    set the system text
/regenerate     answer the newest message anew
/why            show what the newest answer was made from
/save FILE      write the chat as JSON
/quit           leave (also Ctrl-D)
//...           a message that begins with a slash
Ctrl-C stops an answer."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNDECODED = re.compile(r"[\ud800-\udfff]")


def chat_loop(session: ChatSession) -> None:
    """Read messages and commands until /quit, Ctrl-D or Ctrl-C at the prompt."""
    log.info("/help lists the commands")
    while True:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            _write("\n")
            return
        if line == "/quit":
            return
        try:
            _handle(session, line)
        except UserError as error:
            log.error("%s", error)
        except KeyboardInterrupt:
            _write("\n")
            log.info("stopped")


def answer_once(session: ChatSession, prompt: str) -> None:
    """One answer, alone on stdout."""
    _show(session.reply(prompt))


def _handle(session: ChatSession, line: str) -> None:
    if _UNDECODED.search(line):
        raise UserError("the message is not UTF-8 text; check the terminal's encoding")
    if not line:
        return
    if not line.startswith("/") or line.startswith("//"):
        _show(session.reply(line.removeprefix("/")))
        return
    name, _, argument = line.partition(" ")
    commands: dict[str, Callable[[ChatSession, str], None]] = {
        "/help": lambda _session, _argument: log.info(HELP),
        "/reset": _reset,
        "/system": _system,
        "/regenerate": lambda session, _argument: _show(session.regenerate()),
        "/why": lambda session, _argument: log.info("%s", _printable(session.explain())),
        "/save": _save,
    }
    if name not in commands:
        raise UserError(f"{name} is not a command; /help lists them")
    commands[name](session, argument.strip())


def _reset(session: ChatSession, _argument: str) -> None:
    session.reset()
    log.info("the chat starts anew")


def _system(session: ChatSession, text: str) -> None:
    session.prompts.set_system(text)
    log.info("the system text is set" if text else "the system text is empty now")


def _save(session: ChatSession, name: str) -> None:
    if not name:
        raise UserError("/save needs a file name")
    path = Path(name).expanduser()
    text = json.dumps({"messages": session.messages()}, ensure_ascii=False, indent=1)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
    except FileExistsError as error:
        raise UserError(f"{path} exists and is not overwritten; name another file") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    log.info("saved to %s", path)


def _show(pieces: Generator[str, None, None]) -> None:
    """Write pieces as they come. Stopped in the middle, the session keeps what was said."""
    said = False
    with closing(pieces) as stream:
        for piece in stream:
            said = said or bool(piece.strip())
            _write(_printable(piece))
    _write("\n")
    if not said:
        log.warning("the answer is empty")


def _printable(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
