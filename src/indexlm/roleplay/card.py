"""A character: who it is, and the dialogues that show how it speaks.

A dialogue keeps every speaker's line, because a reply is worth little without what it answers.
Names are data: they never become a path or a key of storage.
"""

from collections.abc import Iterator
from dataclasses import dataclass

TURN_LINES = 2
"""Lines of other speakers that make one user turn, the newest ones: in a scene of many people
the character answers what was said last, and one turn must leave room in a small window."""


@dataclass(frozen=True)
class Line:
    """One line of a script. An unknown speaker, or narration, is the empty string."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Dialogue:
    """Lines in order. `scene` says where they stand in their source; the memory excludes by it."""

    id: str
    scene: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Card:
    """A character. In its dialogues the character's own lines carry `name`, never an alias."""

    name: str
    aliases: tuple[str, ...]
    description: str
    dialogues: tuple[Dialogue, ...]


@dataclass(frozen=True)
class Exchange:
    """A reply of the character and the lines before it in its dialogue, oldest first.

    Neighbouring lines of the character are one reply (and one context line), because a chat
    alternates between its two sides.
    """

    dialogue_index: int
    context: tuple[Line, ...]
    reply: str


def exchanges(card: Card) -> Iterator[Exchange]:
    """Every reply of the character: what the memory stores and what a training row teaches."""
    for index, dialogue in enumerate(card.dialogues):
        context: list[Line] = []
        for line in joined(dialogue.lines):
            if line.speaker == card.name:
                yield Exchange(index, tuple(context), line.text)
            context.append(line)


def joined(lines: tuple[Line, ...]) -> list[Line]:
    """Merge neighbouring lines of one speaker; lines of unknown speakers stay apart."""
    merged: list[Line] = []
    for line in lines:
        if merged and line.speaker and merged[-1].speaker == line.speaker:
            merged[-1] = Line(line.speaker, f"{merged[-1].text}\n{line.text}")
        else:
            merged.append(line)
    return merged


def chat_turns(
    context: tuple[Line, ...], name: str
) -> tuple[tuple[tuple[str, str], ...], str] | None:
    """Script lines as a chat: (user, character) turns and the newest user turn.

    What others say in a row is one user turn, cut to its last two lines. None where nobody speaks
    to the character: then there is nothing to answer. Lines of the character at the start are
    left out, because a chat begins with the user.
    """
    turns: list[tuple[str, str]] = []
    query: list[str] = []
    for line in context:
        if line.speaker != name:
            query.append(line.text)
        elif query:
            turns.append(("\n".join(query[-TURN_LINES:]), line.text))
            query = []
    return (tuple(turns), "\n".join(query[-TURN_LINES:])) if query else None
