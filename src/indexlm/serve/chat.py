"""A chat that goes on: history, answers that can be stopped or made again, and what was cut.

How a prompt is made is asked of a `PromptMaker`, so that a plain chat and a role-play chat are
the same session. `PlainPrompts` is the plain one: one window of tokens, the oldest turns go first.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

from indexlm.errors import UserError
from indexlm.records import log
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.tokens.window import cut_middle, cut_notice

History = tuple[tuple[str, str], ...]
"""(user, assistant) turns, oldest first."""


class Prompt(Protocol):
    """Ids to continue, and an account of them."""

    @property
    def ids(self) -> list[int]: ...

    def notices(self) -> dict[str, str]:
        """What was cut, by kind: each kind is told once, `message` every time."""

    def explain(self) -> str:
        """What the prompt holds, for reading."""


class PromptMaker(Protocol):
    @property
    def system(self) -> str: ...

    def prompt(self, history: History, query: str) -> Prompt: ...

    def set_system(self, text: str) -> None: ...


class ChatSession:
    """One chat in memory. `answer` continues prompt ids as pieces of text."""

    def __init__(self, prompts: PromptMaker, answer: Callable[[list[int]], Iterator[str]]) -> None:
        self.prompts, self.answer = prompts, answer
        self.history: History = ()
        self._last: Prompt | None = None
        self._told: set[str] = set()

    def reply(self, text: str) -> Generator[str, None, None]:
        """Answer a message. The turn is kept with what was said so far, however it ends.

        Raises UserError for an empty message and for what the window cannot hold.
        """
        if not text.strip():
            raise UserError("the message is empty; write something")
        return self._turn(self.history, text)

    def regenerate(self) -> Generator[str, None, None]:
        """Answer the newest message anew; the old answer stays where the new one is empty."""
        if not self.history:
            raise UserError("there is no answer to make again; write a message first")
        return self._turn(self.history[:-1], self.history[-1][0])

    def reset(self) -> None:
        """Forget all turns; the system text stays."""
        self.history, self._last = (), None
        self._told.clear()

    def messages(self) -> list[dict[str, str]]:
        """The chat in the common form of role and content."""
        system = self.prompts.system
        messages = [{"role": "system", "content": system}] if system else []
        for user, assistant in self.history:
            messages.append({"role": "user", "content": user})
            messages.append({"role": "assistant", "content": assistant})
        return messages

    def explain(self) -> str:
        """What the newest answer was made from. Raises UserError before the first."""
        if self._last is None:
            raise UserError("nothing was answered yet")
        return self._last.explain()

    def _turn(self, history: History, text: str) -> Generator[str, None, None]:
        prompt = self.prompts.prompt(history, text)
        self._last = prompt
        for kind, notice in prompt.notices().items():
            # What the history lost stays lost; each cut message is news.
            if kind == "message" or kind not in self._told:
                log.warning("%s", notice)
                self._told.add(kind)
        said: list[str] = []
        try:
            for piece in self.answer(prompt.ids):
                said.append(piece)
                yield piece
        finally:  # also where the reader stops in the middle
            answer = "".join(said).strip()
            if answer:
                self.history = (*history, (text, answer))


@dataclass(frozen=True)
class PlainPrompt:
    ids: list[int]
    turns: int
    dropped: int
    message: int
    """Tokens of the message as it was written."""
    left_out: int
    """Of them, those in its middle that did not fit."""

    @property
    def cut(self) -> bool:
        return self.left_out > 0

    def notices(self) -> dict[str, str]:
        told = {}
        if self.dropped:
            told["history"] = f"the oldest {self.dropped} turns no longer fit and are left out"
        if self.cut:
            told["message"] = cut_notice(self.message, self.left_out)
        return told

    def explain(self) -> str:
        cut = f" without {self.left_out} of its {self.message} tokens" if self.cut else ""
        return (
            f"{len(self.ids)} tokens: the system text, {self.turns} earlier turns "
            f"({self.dropped} left out) and the message{cut}"
        )


class PlainPrompts:
    """A plain chat: system text, as many of the newest turns as fit, and the message."""

    def __init__(self, tokenizer: Tokenizer, context: int, reserve: int, system: str = "") -> None:
        """`context` is the model's window in tokens, of which `reserve` are for the answer.

        Raises UserError where the system text leaves no room for a message.
        """
        self.tokenizer, self.context, self.reserve = tokenizer, context, reserve
        self.system = ""
        self.set_system(system)

    @property
    def room(self) -> int:
        """Tokens of a prompt."""
        return self.context - self.reserve

    def set_system(self, text: str) -> None:
        """Raises UserError where the text leaves no room for a message."""
        if text and self._size(text, (), "") >= self.room:
            raise UserError(
                f"the system text has {len(self.tokenizer.encode(text))} tokens and leaves no room "
                f"for a message: a prompt may have {self.room} (a window of {self.context}, "
                f"{self.reserve} of it for the answer); shorten the system text"
            )
        self.system = text

    def prompt(self, history: History, query: str) -> PlainPrompt:
        """Drop the oldest turns; a message longer than the window loses its middle.

        Raises UserError where the system text leaves room for no part of the message.
        """
        kept = self._cut_middle(query)
        start = len(history)
        while start and self._size(self.system, history[start - 1 :], kept) <= self.room:
            start -= 1
        conversation = Conversation(self.system, history[start:], kept)
        ids = prompt_ids(self.tokenizer, conversation)
        message = len(self.tokenizer.encode(query))
        left_out = message - len(self.tokenizer.encode(kept))
        return PlainPrompt(ids, len(history) - start, start, message, left_out)

    def _cut_middle(self, query: str) -> str:
        kept = cut_middle(query, lambda text: self._size(self.system, (), text) <= self.room)
        if kept is None:
            raise UserError(
                f"the message has {len(self.tokenizer.encode(query))} tokens; beside the system "
                f"text of {len(self.tokenizer.encode(self.system))} a prompt may have {self.room} "
                f"(a window of {self.context}, {self.reserve} of it for the answer) and has no "
                "room for any part of it; shorten the system text or keep less for the answer"
            )
        return kept

    def _size(self, system: str, history: History, query: str) -> int:
        return len(prompt_ids(self.tokenizer, Conversation(system, history, query)))
