"""Characters kept in one SQLite file.

A character is found by an id that says nothing; its name is data and may hold anything. Making
an equal name again is refused, because overwriting somebody's character silently loses work.
Everything of a card is written in one transaction. The memory's index is not kept: it is made
from the lines in a fraction of a second and could only disagree with them.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexlm.errors import DamagedError, UserError
from indexlm.roleplay.card import Card, Dialogue, Line

APPLICATION_ID = 0x1D85C4A2
"""Marks the file as ours (SQLite's application_id), so that no other program's file is written."""
VERSION = 1

_SCHEMA = """
CREATE TABLE character (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, aliases TEXT NOT NULL,
    description TEXT NOT NULL
) STRICT;
CREATE TABLE dialogue (
    character_id TEXT NOT NULL REFERENCES character(id) ON DELETE CASCADE,
    position INTEGER NOT NULL, id TEXT NOT NULL, scene TEXT NOT NULL,
    PRIMARY KEY (character_id, position)
) STRICT;
CREATE TABLE line (
    character_id TEXT NOT NULL, dialogue INTEGER NOT NULL, position INTEGER NOT NULL,
    speaker TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (character_id, dialogue, position),
    FOREIGN KEY (character_id, dialogue)
        REFERENCES dialogue(character_id, position) ON DELETE CASCADE
) STRICT;
"""


@dataclass(frozen=True)
class Entry:
    """One character in a listing; `lines` counts its own lines."""

    id: str
    name: str
    description: str
    lines: int


class Store:
    """The characters of one file. Every method opens it, so that processes can share it."""

    def __init__(self, path: Path) -> None:
        """Nothing is written before the first `add`. Raises UserError for a file not ours."""
        self.path = path
        if path.is_dir():
            raise UserError(f"{path} is a folder; name a file for the characters")
        if self._started():
            with self._connection() as database:
                database.execute("BEGIN IMMEDIATE")
                self._check(database)

    def add(self, card: Card, replace: bool = False) -> str:
        """Keep a card and return its id; a replaced character keeps its id.

        Raises UserError where the name is taken and `replace` is off.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"{self.path} would lie in a file; name another --store") from error
        with self._connection() as database:
            if not self._started():
                database.execute("PRAGMA journal_mode = WAL")
            database.execute("BEGIN IMMEDIATE")
            self._check(database)
            row = database.execute(
                "SELECT id FROM character WHERE name = ?", (card.name,)
            ).fetchone()
            if row and not replace:
                raise UserError(
                    f"{self.path} already has a character {card.name!r} (id {row[0]}); "
                    "add --replace to put this one in its place"
                )
            identity = row[0] if row else secrets.token_hex(8)
            database.execute("DELETE FROM character WHERE id = ?", (identity,))
            database.execute(
                "INSERT INTO character VALUES (?, ?, ?, ?)",
                (
                    identity,
                    card.name,
                    json.dumps(card.aliases, ensure_ascii=False),
                    card.description,
                ),
            )
            for number, dialogue in enumerate(card.dialogues):
                database.execute(
                    "INSERT INTO dialogue VALUES (?, ?, ?, ?)",
                    (identity, number, dialogue.id, dialogue.scene),
                )
                database.executemany(
                    "INSERT INTO line VALUES (?, ?, ?, ?, ?)",
                    (
                        (identity, number, position, line.speaker, line.text)
                        for position, line in enumerate(dialogue.lines)
                    ),
                )
        return str(identity)

    def get(self, name_or_id: str) -> Card:
        """The character of that id, name or alias. Raises UserError naming those there are."""
        if not self._started():
            raise UserError(
                f"{self.path} has no character yet; make one with `indexlm character create`"
            )
        with self._connection() as database:
            found = [
                row
                for row in database.execute("SELECT * FROM character ORDER BY rowid")
                if name_or_id in (row[0], row[1], *json.loads(row[2]))
            ]
            if not found:
                names = [row[0] for row in database.execute("SELECT name FROM character")]
                there = f"it has {', '.join(names)}" if names else "it is empty"
                raise UserError(f"{self.path} has no character {name_or_id!r}; {there}")
            # An id or a name goes before an alias, which two characters may share.
            identity, name, aliases, description = min(
                found, key=lambda row: name_or_id not in row[:2]
            )
            lines: dict[int, list[Line]] = {}
            for dialogue, speaker, text in database.execute(
                "SELECT dialogue, speaker, text FROM line WHERE character_id = ? "
                "ORDER BY dialogue, position",
                (identity,),
            ):
                lines.setdefault(dialogue, []).append(Line(speaker, text))
            dialogues = tuple(
                Dialogue(id, scene, tuple(lines.get(position, ())))
                for position, id, scene in database.execute(
                    "SELECT position, id, scene FROM dialogue WHERE character_id = ? "
                    "ORDER BY position",
                    (identity,),
                )
            )
        return Card(name, tuple(json.loads(aliases)), description, dialogues)

    def list(self) -> list[Entry]:
        """All characters by name."""
        if not self._started():
            return []
        with self._connection() as database:
            rows = database.execute(
                "SELECT c.id, c.name, c.description, count(l.text) FROM character c "
                "LEFT JOIN line l ON l.character_id = c.id AND l.speaker = c.name "
                "GROUP BY c.id ORDER BY c.name"
            ).fetchall()
        return [Entry(*row) for row in rows]

    def _started(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def _check(self, database: sqlite3.Connection) -> None:
        """Make the tables in an empty database; refuse another program's."""
        mark = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if mark == 0 and version == 0 and tables == 0:
            for statement in _SCHEMA.split(";")[:-1]:
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {VERSION}")
        elif mark != APPLICATION_ID:
            raise UserError(f"{self.path} is a database of another program; name another file")
        elif version != VERSION:
            raise UserError(f"{self.path} has store version {version}, this program {VERSION}")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """What is begun in the body is kept where it ends well, and undone where it raises."""
        database = None
        try:
            database = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            database.execute("PRAGMA foreign_keys = ON")
            yield database
            if database.in_transaction:
                database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.path} cannot be used as a store: {error}") from error
        except sqlite3.DatabaseError as error:
            remedy = "put back a copy of it or name another file"
            raise DamagedError(f"{self.path} is not a whole store ({error}); {remedy}") from error
        finally:
            if database is not None:
                database.close()  # undoes a transaction that is still open
