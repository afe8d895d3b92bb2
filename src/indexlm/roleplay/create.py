"""A character from a script: dialogues out of a file, and the card of one of its speakers.

Scripts come from spreadsheets and text editors, so a bad row is reported by its number and left
out; a file is refused only where nothing in it can be used.
"""

import csv
import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from indexlm.errors import UserError
from indexlm.records import log
from indexlm.roleplay.card import Card, Dialogue, Line
from indexlm.roleplay.novel import dialogues_of_novel

__all__ = ["create_card", "dialogues_of_novel", "read_dialogues"]

MAX_BYTES = 64 * 2**20
MAX_NAME = 40
SHOWN_ROWS = 10
SHOWN_SPEAKERS = 8

_SHAPES = {
    ".csv": "a row has its lines, written `name：text`, in column 2",
    ".jsonl": 'a line is {"turns": [{"speaker": ..., "text": ...}]}',
    ".txt": "a line of one is written `name：text`",
}

_SPOKEN = re.compile(r"\s*([^：:，。！？,.!?“”]{1,40}?)\s*[：:]\s*(\S.*)")
# 孔明笑曰：“…” is prose and 12:30 a clock: neither is a line of a script.
_NOT_A_SPEAKER = re.compile(r"[\d\s]+|https?|.*[曰道云]")
_CHAPTER = re.compile(r"^\s*第[〇零一二三四五六七八九十百千\d]+[回章节].*$", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
# JSON can spell half of a character (a lone surrogate), which no file can hold.
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


def read_dialogues(path: Path) -> list[Dialogue]:
    """Dialogues of a .csv, .jsonl or .txt file in UTF-8 or GB18030.

    CSV: a header, then one dialogue per row in column 2, lines written `name：text`. JSONL: one
    `{"turns": [{"speaker": ..., "text": ...}]}` per line. TXT: `name：text` lines with blank
    lines between dialogues, or a novel with quoted speech. Raises UserError naming the file.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".txt": _read_txt}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise UserError(f"{path}: a script is one of {', '.join(readers)}, not {suffix!r}")
    dialogues = readers[suffix](_read_text(path), path)
    if not dialogues:
        raise UserError(f"{path} holds no dialogue; {_SHAPES[suffix]}")
    return dialogues


def create_card(
    name: str, dialogues: Sequence[Dialogue], description: str, aliases: Sequence[str] = ()
) -> Card:
    """The card of one speaker: the dialogues it speaks in, its lines under `name`.

    Equal dialogues are kept once. Raises UserError where no line is the character's, naming the
    speakers there are.
    """
    name = name.strip()
    if not name or len(name) > MAX_NAME or _CONTROL.search(name):
        raise UserError(f"name {name!r}: one line of 1 to {MAX_NAME} characters is needed")
    own = {name, *(alias.strip() for alias in aliases)}
    kept: dict[tuple[Line, ...], Dialogue] = {}
    for dialogue in dialogues:
        lines = tuple(
            Line(name, line.text) if line.speaker in own else line for line in dialogue.lines
        )
        if any(line.speaker == name for line in lines):
            kept.setdefault(lines, Dialogue(dialogue.id, dialogue.scene, lines))
    if not kept:
        raise UserError(f"no line is spoken by {name!r}; {_speakers(name, dialogues)}")
    return Card(name, tuple(sorted(own - {name, ""})), description.strip(), tuple(kept.values()))


def _speakers(name: str, dialogues: Sequence[Dialogue]) -> str:
    counts = Counter(line.speaker for each in dialogues for line in each.lines if line.speaker)
    if not counts:
        return "no line of these dialogues has a speaker"
    near = difflib.get_close_matches(name, counts, n=3, cutoff=0.4)
    often = [speaker for speaker, _ in counts.most_common(SHOWN_SPEAKERS)]
    names = ", ".join(f"{each} ({counts[each]})" for each in dict.fromkeys([*near, *often]))
    return f"speakers here, with their lines: {names}; name one of them, or add it as an alias"


def _read_text(path: Path) -> str:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}; name the file that holds the script")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES:,} bytes; split it")
    raw = path.read_bytes()
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text.replace("\r\n", "\n").replace("\r", "\n")
    raise UserError(f"{path} is neither UTF-8 nor GB18030 text; save it as UTF-8")


def _read_csv(text: str, path: Path) -> list[Dialogue]:
    dialogues, bad = [], []
    for number, row in _rows(text, path):
        lines = _script_lines(row[1]) if len(row) > 1 else ()
        if any(line.speaker for line in lines):
            dialogues.append(Dialogue(f"{number:05}", f"row {number}", lines))
        elif number > 1 and row:  # row 1 is the header, unless it speaks
            bad.append(number)
    if dialogues:
        _report(path, "row", bad, "no `name：text` line in column 2")
    return dialogues


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        yield from enumerate(reader, start=1)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not a CSV file ({error})") from error


def _read_jsonl(text: str, path: Path) -> list[Dialogue]:
    dialogues, bad = [], []
    for number, row in enumerate(text.split("\n"), start=1):
        lines = _turns(row)
        if lines:
            dialogues.append(Dialogue(f"{number:05}", f"line {number}", lines))
        elif row.strip():
            bad.append(number)
    if dialogues:
        _report(path, "line", bad, 'not {"turns": [{"speaker": ..., "text": ...}]}')
    return dialogues


def _turns(row: str) -> tuple[Line, ...]:
    """The lines of one JSON row, none where it has another shape."""
    try:
        content = json.loads(row)
    except (json.JSONDecodeError, RecursionError):
        return ()
    turns = content.get("turns") if isinstance(content, dict) else None
    lines = []
    for turn in turns if isinstance(turns, list) else []:
        if not isinstance(turn, dict):
            return ()
        speaker, text = turn.get("speaker", ""), turn.get("text")
        if not isinstance(speaker, str) or not isinstance(text, str):
            return ()
        if _HALF_CHARACTER.search(speaker + text):
            return ()
        lines.append(Line(_CONTROL.sub(" ", speaker).strip(), text.strip()))
    return tuple(line for line in lines if line.text)


def _read_txt(text: str, path: Path) -> list[Dialogue]:
    rows = [row for row in text.split("\n") if row.strip()]
    spoken = sum(bool(line.speaker) for line in _script_lines(text))
    if 2 * spoken < len(rows):
        return dialogues_of_novel(_chapters(text, path))
    dialogues = []
    for number, block in enumerate(re.split(r"\n\s*\n", text), start=1):
        lines = _script_lines(block)
        if lines:
            dialogues.append(Dialogue(f"{number:05}", f"dialogue {number}", lines))
    return dialogues


def _chapters(text: str, path: Path) -> Iterable[tuple[str, str]]:
    starts = [match.start() for match in _CHAPTER.finditer(text)]
    if not starts:
        return [(path.stem, text)]
    pieces = [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)])]
    return [(piece.strip().split("\n")[0], piece) for piece in pieces if piece.strip()]


def _script_lines(text: str) -> tuple[Line, ...]:
    """`name：text` lines; a line without a speaker is narration and has the empty name."""
    lines = []
    for row in text.splitlines():
        match = _SPOKEN.fullmatch(row)
        if match and not _NOT_A_SPEAKER.fullmatch(match[1]):
            lines.append(Line(match[1], match[2].strip()))
        elif row.strip():
            lines.append(Line("", row.strip()))
    return tuple(lines)


def _report(path: Path, unit: str, bad: list[int], reason: str) -> None:
    if bad:
        shown = ", ".join(map(str, bad[:SHOWN_ROWS])) + (", ..." if len(bad) > SHOWN_ROWS else "")
        log.warning("%s: %d of its %ss left out (%s): %s", path, len(bad), unit, reason, shown)
