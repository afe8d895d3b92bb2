"""People's own conversations for fine-tuning, as the records that the corpus's entries give.

A row's shape is told by its fields, so files of different makers need no flag:

    {"query", "response"[, "system"][, "history": [[user, assistant], ...]]}
    {"instruction", "output"[, "input"][, "system"][, "history"]}            Alpaca
    {"messages": [{"role", "content"}, ...][, "system"]}                     OpenAI
    {"conversations": [{"from", "value"}, ...][, "system"]}                  ShareGPT

A file is jsonl, or json that holds one list of rows, each also as .gz or .zst.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from indexlm.errors import UserError
from indexlm.records import log
from indexlm.text.document import LANGUAGES
from indexlm.text.languages import detect_language
from indexlm.text.normalise import normalise
from indexlm.text.reading.files import COMPRESSED, open_packed
from indexlm.text.reading.parsing import decode

SUFFIXES = (".jsonl", ".json")
CUT = "an unanswered last question cut off"
"""The one entry of the account that is no row left out: its conversation is kept."""

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_SHAPES = (
    'a row has "query" and "response", "instruction" and "output", "messages" of "role" and '
    '"content", or "conversations" of "from" and "value"'
)
# JSON can spell half of a character (a lone surrogate), which has no bytes in UTF-8.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")

_Turns = list[list[str]]
"""[user, assistant] texts, oldest first."""


class _LeftOutError(Exception):
    """Why a row cannot be used: a few words that rows are counted by, and in brackets a detail."""


def read_conversations(
    path: Path, left_out: Counter[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The conversations of one file, one record each: `id` (file name and row number), `language`
    (`zh` or `en`: the row's own where it is one of them, else `zh` where the last question or its
    answer is by script), `kind`, `system`, `history` of [user, assistant] texts, `query`,
    `response`.

    Texts are normalised like the corpus. A conversation that ends in a question without an answer
    ends before it. Rows that cannot be used are left out, counted by reason in `left_out` and told
    in one warning at the end. Raises UserError, naming the file and the line, for a line that is
    no JSON and where no row can be used.
    """
    account: Counter[str] = Counter() if left_out is None else left_out
    before = account.copy()
    first, kept = "", 0
    for number, (place, row) in enumerate(_rows(path), start=1):
        try:
            system, turns = _conversation(row)
        except _LeftOutError as reason:
            account[_short(reason)] += 1
            first = first or f"{place}: {reason}"
            continue
        if not turns[-1][1]:
            account[CUT] += 1
            turns = turns[:-1]
        kept += 1
        yield _record(f"{path.name.split('.')[0]}/{number}", row, system, turns)
    told = ", ".join(f"{reason} ({count})" for reason, count in (account - before).most_common())
    if not kept:
        seen = f"{first}; all its rows: {told}" if first else f"{path} has no row"
        raise UserError(f"{seen}; no conversation can be used; {_SHAPES}")
    if told:
        log.warning("%s: %d conversations; left out: %s", path, kept, told)


def _short(reason: _LeftOutError) -> str:
    """The reason without its detail."""
    return str(reason).split(" (")[0]


def _record(identity: str, row: dict[str, Any], system: str, turns: _Turns) -> dict[str, Any]:
    *history, (query, response) = turns
    language = row.get("language", row.get("lang"))
    if language not in LANGUAGES:
        # A Chinese question about code or for a translation has an answer in other letters.
        chinese = "zh" in (detect_language(query), detect_language(response))
        language = "zh" if chinese else "en"
    return {
        "id": identity,
        "language": language,
        "kind": "conversation",
        "system": system,
        "history": history,
        "query": query,
        "response": response,
    }


# A row as system text and turns


def _conversation(row: Any) -> tuple[str, _Turns]:
    """System text and turns; only the last answer may be empty, and never that of the only turn."""
    if isinstance(row, _LeftOutError):
        raise row
    if not isinstance(row, dict):
        raise _LeftOutError(f"not an object ({str(row)[:60]!r})")
    system = _text(row.get("system"))
    if "messages" in row or "conversations" in row:
        spoken, turns = _spoken(row["messages" if "messages" in row else "conversations"])
        if spoken and system and spoken != system:
            raise _LeftOutError("two system texts")
        system = system or spoken
    elif "query" in row and "response" in row:
        turns = [*_history(row), [_text(row["query"]), _text(row["response"])]]
    elif "instruction" in row and "output" in row:
        parts = (_text(row["instruction"]), _text(row.get("input")))
        asked = "\n".join(part for part in parts if part)
        turns = [*_history(row), [asked, _text(row["output"])]]
    else:
        fields = ", ".join(list(row)[:8]) or "none"
        raise _LeftOutError(f"unknown fields ({fields})")
    if not turns or (len(turns) == 1 and not turns[0][1]):
        raise _LeftOutError("no answer")
    if not all(asked for asked, _ in turns) or not all(said for _, said in turns[:-1]):
        raise _LeftOutError("an empty text")
    return system, turns


def _spoken(messages: Any) -> tuple[str, _Turns]:
    """The system text and the turns of a list of messages in either spelling of their fields."""
    if not isinstance(messages, list):
        raise _LeftOutError("messages that are no list")
    system = ""
    turns: _Turns = []
    expected: tuple[str, ...] = ("system", "user")
    for message in messages:
        if not isinstance(message, dict):
            raise _LeftOutError("a message that is no object")
        name = message.get("role", message.get("from"))
        role = _ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            raise _LeftOutError(f"an unknown role ({name!r})")
        if role not in expected:
            raise _LeftOutError(f"a wrong order of roles ({name} after {_before(system, turns)})")
        text = _text(message.get("content", message.get("value")))
        if role == "system":
            system = text
        elif role == "user":
            turns.append([text, ""])
        elif not text:
            raise _LeftOutError("no answer")
        else:
            turns[-1][1] = text
        expected = ("assistant",) if role == "user" else ("user",)
    return system, turns


def _before(system: str, turns: _Turns) -> str:
    if not turns:
        return "the system text" if system else "nothing"
    return "assistant" if turns[-1][1] else "user"


def _history(row: dict[str, Any]) -> _Turns:
    history = row.get("history") or []
    if not isinstance(history, list):
        raise _LeftOutError("a history that is no list")
    if not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise _LeftOutError("a history that is not made of pairs")
    return [[_text(said), _text(answered)] for said, answered in history]


def _text(value: Any) -> str:
    """A normalised text; what is absent or null is empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _LeftOutError(f"a text that is no string ({type(value).__name__})")
    if _HALF_CHARACTER.search(value):
        raise _LeftOutError("not UTF-8 (half of a character)")
    return normalise(value)


# Rows of a file


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, row) of a file; a line that cannot be decoded gives the reason for a row."""
    packed = path.suffix.lower() in COMPRESSED
    kind = (Path(path.stem) if packed else path).suffix.lower()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}; name the file that holds the conversations")
    if kind not in SUFFIXES:
        raise UserError(f"{path} is of an unknown kind; known are jsonl and json, also .gz or .zst")
    try:
        with open_packed(path) as file:
            content = file.read() if kind == ".json" else b""
            if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                yield from _list_rows(path, content)
            else:
                # Files named json often hold a row per line.
                yield from _line_rows(path, content.splitlines(keepends=True) or file)
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise UserError(
            f"{path} cannot be unpacked ({error}): it is damaged or cut short; copy it again"
        ) from error


def _line_rows(path: Path, lines: IO[bytes] | list[bytes]) -> Iterator[tuple[str, Any]]:
    offset = 0
    for number, line in enumerate(lines, start=1):
        place = f"{path}:{number}"
        try:
            text = decode(line, place, offset).lstrip("\ufeff").strip()
        except UserError as error:
            hint = str(error).split("; ")[-1]
            yield place, _LeftOutError(f"not UTF-8 ({hint})")
            continue
        finally:
            offset += len(line)
        if text:
            yield place, _parse(place, text, "a jsonl file has one JSON object per line")


def _list_rows(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    text = decode(content, str(path), 0).lstrip("\ufeff")
    for number, row in enumerate(_parse(str(path), text, "check it with a JSON editor"), start=1):
        yield f"{path}: row {number}", row


def _parse(place: str, text: str, remedy: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # the former also for numbers of 5,000 digits
        raise UserError(f"{place} is not JSON ({error}): {text[:60]!r}; {remedy}") from error
