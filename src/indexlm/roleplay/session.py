"""The prompt of a character within a token budget, the same for training and for use.

What may not be missing goes in first: who is played, and the newest message, which loses its middle
only where it does not fit beside that alone.
The description, then the past lines each take up to half of the room that is left, the history
all of the rest. The best past line stands last, nearest to the dialogue. Everything is counted
in tokens of the finished prompt. Text that is put in is never read again for placeholders, and
the markers of turns are ids that no text can produce.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from indexlm.errors import UserError
from indexlm.roleplay.card import Card
from indexlm.roleplay.memory import Hit, Memory
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.tokens.window import cut_middle, cut_notice

History = tuple[tuple[str, str], ...]
"""(user, character) turns, oldest first."""

_CHINESE = re.compile(r"[\u3400-\u9fff]")
_SENTENCE = re.compile(r"[^。！？.!?\n]*[。！？.!?\n]*")


@dataclass(frozen=True)
class Part:
    """A piece that was offered to the prompt: what went in (`used`) and, if not, why."""

    kind: Literal["description", "past lines", "history"]
    text: str
    tokens: int
    used: bool
    why: str


@dataclass(frozen=True)
class RolePrompt:
    """Ids to continue, and the account of what they hold."""

    ids: list[int]
    parts: tuple[Part, ...]
    message: int = 0
    """Tokens of the message as it was written."""
    left_out: int = 0
    """Of them, those in its middle that did not fit."""

    def notices(self) -> dict[str, str]:
        """What was cut that a user should know of, by kind. Past lines are always a choice."""
        told = {}
        if self.left_out:
            told["message"] = cut_notice(self.message, self.left_out)
        turns = sum(part.kind == "history" and not part.used for part in self.parts)
        if turns:
            told["history"] = f"the oldest {turns} turns no longer fit the window and are left out"
        if any(part.kind == "description" and not part.used for part in self.parts):
            told["description"] = "the description does not fit the window and is cut"
        return told

    def explain(self) -> str:
        """Every part of the prompt in order, for reading."""
        lines = [
            f"[{'+' if part.used else '-'}] {part.kind}, {part.tokens} tokens, {part.why}\n"
            + "\n".join(f"      {line}" for line in part.text.split("\n"))
            for part in self.parts
        ]
        return "\n".join(lines) or "nothing but the name and the message"


class CharacterPrompts:
    """Makes the prompt of each turn of a chat with one character."""

    def __init__(
        self, card: Card, tokenizer: Tokenizer, context: int, reserve: int, retrieve: int
    ) -> None:
        """`context` is the model's window in tokens, of which `reserve` are for the answer."""
        self.card, self.tokenizer = card, tokenizer
        self.context, self.reserve, self.retrieve = context, reserve, retrieve
        self.memory = Memory(card)

    @property
    def system(self) -> str:
        """The part of the system text that every turn has."""
        return _order(self.card) + self.card.description

    def prompt(self, history: History, query: str) -> RolePrompt:
        room = self.context - self.reserve

        def fits(text: str) -> bool:
            alone = Conversation(_order(self.card), (), text)
            return len(prompt_ids(self.tokenizer, alone)) <= room

        # Where no part of it fits, the prompt says so.
        kept = cut_middle(query, fits) or query
        conversation, parts = conversation_for(
            self.card, self.memory, self.tokenizer, history, kept, room, self.retrieve
        )
        ids = prompt_ids(self.tokenizer, conversation)
        message = len(self.tokenizer.encode(query))
        left_out = message - len(self.tokenizer.encode(kept))
        return RolePrompt(ids, parts, message, left_out)

    def set_system(self, text: str) -> None:
        raise UserError(f"{self.card.name} has its card for a system text; change the card instead")


def conversation_for(
    card: Card,
    memory: Memory,
    tokenizer: Tokenizer,
    history: History,
    query: str,
    room: int,
    retrieve: int,
    exclude_scene: str | None = None,
) -> tuple[Conversation, tuple[Part, ...]]:
    """System text, history and message in at most `room` tokens; a training row adds its answer.

    `exclude_scene` keeps the scene of a training row out of its own past lines.
    Raises UserError where the message does not fit beside the name.
    """

    def size(system: str, turns: History) -> int:
        return len(prompt_ids(tokenizer, Conversation(system, turns, query)))

    def half_left(system: str) -> int:
        used = size(system, ())
        return used + (room - used) // 2

    system = _order(card)
    if size(system, ()) > room:
        raise UserError(
            f"the message takes {size(system, ())} tokens with the name of {card.name}, "
            f"the window has room for {room}; shorten it"
        )
    system, described = _with_description(system, card.description, half_left(system), size)
    said = [line for turn in history for line in turn]
    hits = memory.search([*said, query], retrieve, exclude_scene)
    limit = half_left(system) if history else room
    system, recalled = _with_past_lines(card.name, system, hits, limit, size)
    turns, told = _with_history(system, history, room, size)
    parts = tuple(
        Part(kind, text, len(tokenizer.encode(text)), used, why)
        for kind, text, used, why in (*described, *recalled, *told)
    )
    return Conversation(system, turns, query), parts


def _order(card: Card) -> str:
    """Who is played, in the language of the card and as short as a small window asks."""
    chinese = _CHINESE.search(card.name + card.description)
    return f"你是{card.name}。" if chinese else f"You are {card.name}. "


_Entry = tuple[Literal["description", "past lines", "history"], str, bool, str]
_Size = Callable[[str, History], int]


def _with_description(
    system: str, description: str, limit: int, size: _Size
) -> tuple[str, list[_Entry]]:
    """As many whole sentences of the description, from its start, as `limit` tokens allow."""
    taken = ""
    for sentence in _SENTENCE.findall(description):
        if size(system + taken + sentence, ()) > limit:
            break
        taken += sentence
    entries: list[_Entry] = [("description", taken, True, "the card's")] if taken else []
    if taken != description:
        rest = description[len(taken) :]
        entries.append(("description", rest, False, "over half of the free room"))
    return system + taken, entries


def _with_past_lines(
    name: str, system: str, hits: list[Hit], limit: int, size: _Size
) -> tuple[str, list[_Entry]]:
    """Past lines that fit, best match last; one that does not fit is passed over."""
    chosen: list[str] = []
    entries: list[_Entry] = []
    for hit in hits:
        example = _example(hit, name)
        fits = size("\n".join([system, example, *chosen]), ()) <= limit
        if fits:
            chosen.insert(0, example)
        why = f"similarity {hit.score:.2f} by {' '.join(hit.matched_terms)}"
        entries.append(("past lines", example, fits, why if fits else f"does not fit, {why}"))
    return "\n".join([system, *chosen]), entries


def _example(hit: Hit, name: str) -> str:
    """The reply after the line it answers, which is never the character's own."""
    asked = [f"user0：{line.text}" for line in hit.context[-1:]]
    return "\n".join([*asked, f"{name}：{hit.reply}"])


def _with_history(
    system: str, history: History, room: int, size: _Size
) -> tuple[History, list[_Entry]]:
    """The newest turns without a gap: a chat with a hole in it reads as another chat."""
    start = len(history)
    while start > 0 and size(system, history[start - 1 :]) <= room:
        start -= 1
    entries: list[_Entry] = []
    for index, turn in enumerate(history):
        used = index >= start
        why = "recent" if used else "older than the window holds"
        entries.append(("history", "\n".join(turn), used, why))
    return history[start:], entries
