"""Questions with options, put to a model: how likely is each option after the question?

What is computed is what lm-eval computes: ids of context and continuation as one text, cut after
those of the context (`pairs`), the log-likelihood of what comes after the cut, its number of ids,
and the number of characters of the option. Which option that makes the answer is said in `results`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from indexlm.errors import UserError, shown
from indexlm.evals.items import Item
from indexlm.evals.pairs import PairIds, encode_pairs
from indexlm.evals.prompts import Asked
from indexlm.evals.scoring import BATCH_TOKENS, Row, score_rows
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import EOS, Tokenizer

Start = Literal["none", "end-mark"]
"""What stands before a prompt: nothing, as in lm-eval, or the end mark of a document before it, as
in training here."""
Overflow = Literal["refuse", "cut", "fewer"]
"""What becomes of a prompt longer than the window: an error; its left end is cut off, as lm-eval
does; the last of its examples are left out until it fits, as OpenCompass does."""


@dataclass(frozen=True)
class Answered:
    """An item with what the model says of each of its options, in their order."""

    item: Item
    prompt_sha256: str
    """Of the context and the continuations, a NUL between them."""
    logprobs: tuple[float, ...]
    """Natural logarithm of the probability of the whole continuation."""
    tokens: tuple[int, ...]
    characters: tuple[int, ...]
    """Of the option, without the delimiter before it."""
    unconditional: tuple[float, ...] | None
    """`logprobs` after the context that says nothing of the question."""
    cut: bool
    """Whether the prompt was longer than the window."""


@dataclass(frozen=True)
class Encoded:
    """An item as ids: what is asked of a model, whatever its weights are."""

    asked: Asked
    rows: list[Row]
    """One for each option."""
    alone: list[Row]
    """The options after the neutral context; none where the prompt has none."""
    cut: bool

    @property
    def all_rows(self) -> list[Row]:
        return [*self.rows, *self.alone]

    def answered(self, logprobs: Sequence[float]) -> Answered:
        """With the log-probability of each of `all_rows`."""
        count = len(self.rows)
        return Answered(
            self.asked.item,
            prompt_sha256(self.asked),
            tuple(logprobs[:count]),
            tuple(len(row.ids) - row.first for row in self.rows),
            tuple(map(_characters, self.asked.continuations, self.asked.item.options)),
            tuple(logprobs[count:]) if self.alone else None,
            self.cut,
        )


@dataclass(frozen=True)
class Answers:
    """`computed` positions went through the network; `naive` would have, each option by itself."""

    answered: list[Answered]
    computed: int
    naive: int


def answer(
    model: Transformer,
    tokenizer: Tokenizer,
    asked: Sequence[Asked],
    *,
    start: Start = "none",
    overflow: Overflow = "refuse",
    fewer: Iterable[Sequence[Asked]] = (),
    share: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[float], None] | None = None,
) -> Answers:
    """Score every option of every item.

    `share` and `advance` are those of `score_rows`: where options, questions and examples are the
    same text they are computed once. All else, and what is raised, as in `encode`; UserError also
    for a tokenizer that is not the model's.
    """
    if tokenizer.vocab_size != model.config.vocab_size:
        raise UserError(
            f"{tokenizer.path} has {tokenizer.vocab_size} pieces, the model vocab_size="
            f"{model.config.vocab_size}; take the tokenizer that the model was trained with"
        )
    context = model.config.context
    encoded = encode(tokenizer, asked, context, start=start, overflow=overflow, fewer=fewer)
    rows = [row for each in encoded for row in each.all_rows]
    scored = score_rows(model, rows, batch_tokens, share=share, advance=advance)
    sums = iter([float(score.logprobs.sum()) for score in scored.scores])
    answered = [each.answered([next(sums) for _ in each.all_rows]) for each in encoded]
    return Answers(answered, scored.computed, scored.naive)


def encode(
    tokenizer: Tokenizer,
    asked: Sequence[Asked],
    context: int,
    *,
    start: Start = "none",
    overflow: Overflow = "refuse",
    fewer: Iterable[Sequence[Asked]] = (),
) -> list[Encoded]:
    """Ids for a window of `context` tokens.

    `fewer` gives the same items asked with ever fewer examples; it is taken from where a prompt is
    too long and `overflow` is "fewer".
    Raises UserError, naming the item's file and line, for a prompt that does not fit in the window
    and an option that leaves nothing to score, and for text that the tokenizer cannot spell.
    """
    # A row is read without its last id: it is only a target.
    room = context + 1
    asked = list(asked)
    rows = _rows(tokenizer, asked, start)
    long = [number for number, options in enumerate(rows) if _longest(options) > room]
    if overflow == "fewer":
        _ask_with_fewer(tokenizer, asked, rows, long, fewer, start, room)
    for number in long:
        if overflow == "cut":
            rows[number] = [_cut(row, room) for row in rows[number]]
        if _longest(rows[number]) > room or any(row.first < 1 for row in rows[number]):
            raise UserError(_too_long(asked[number], rows[number], room, overflow))
    neutral = [each for each in asked if each.neutral is not None]
    alone = iter(_neutral_rows(tokenizer, neutral, start, room))
    cut = set(long)
    return [
        Encoded(each, options, [] if each.neutral is None else next(alone), number in cut)
        for number, (each, options) in enumerate(zip(asked, rows))
    ]


def prompt_sha256(asked: Asked) -> str:
    """What tells one prompt from another: the very text that the model is given."""
    text = "\0".join((asked.context, *asked.continuations))
    return hashlib.sha256(text.encode()).hexdigest()


def _rows(tokenizer: Tokenizer, asked: Sequence[Asked], start: Start) -> list[list[Row]]:
    """A row for each option of each item."""
    pairs = [(each.context, option) for each in asked for option in each.continuations]
    ids = iter(encode_pairs(tokenizer, pairs))
    return [[_row(each, next(ids), start) for _ in each.continuations] for each in asked]


def _neutral_rows(
    tokenizer: Tokenizer, asked: Sequence[Asked], start: Start, room: int
) -> list[list[Row]]:
    pairs = [(each.neutral or "", option) for each in asked for option in each.continuations]
    ids = iter(encode_pairs(tokenizer, pairs))
    # What fits in the window after a question fits after less.
    return [[_cut(_row(a, next(ids), start), room) for _ in a.continuations] for a in asked]


def _row(asked: Asked, pair: PairIds, start: Start) -> Row:
    # Joined to the option, the prompt may even have fewer ids than alone.
    if len(pair.ids) <= pair.context:
        raise UserError(
            f"{asked.item.place}: the tokenizer joins the end of the prompt "
            f"{shown(asked.context[-20:])} with an option and leaves nothing to score; give the "
            "prompt a delimiter that it keeps apart, such as a space or a new line"
        )
    # Something has to stand before the first id that is scored.
    if start == "end-mark" or not pair.context:
        return Row([EOS, *pair.ids], 1 + pair.context)
    return Row(pair.ids, pair.context)


def _ask_with_fewer(
    tokenizer: Tokenizer,
    asked: list[Asked],
    rows: list[list[Row]],
    long: Sequence[int],
    fewer: Iterable[Sequence[Asked]],
    start: Start,
    room: int,
) -> None:
    """Put in the place of each long prompt the longest one of `fewer` that fits."""
    for shorter in fewer:
        long = [number for number in long if _longest(rows[number]) > room]
        if not long:
            return
        again = _rows(tokenizer, [shorter[number] for number in long], start)
        for number, options in zip(long, again):
            asked[number], rows[number] = shorter[number], options


def _cut(row: Row, room: int) -> Row:
    gone = max(0, len(row.ids) - room)
    return Row(row.ids[gone:], row.first - gone)


def _longest(options: Sequence[Row]) -> int:
    return max(len(row.ids) for row in options)


def _characters(continuation: str, option: str) -> int:
    """Of what is scored, in a prompt of contents the option itself, in one of letters a letter."""
    return len(option) if continuation.endswith(option) else len(continuation.strip())


def _too_long(asked: Asked, options: Sequence[Row], room: int, overflow: Overflow) -> str:
    said = f"{asked.item.place}: "
    if overflow == "cut":
        scored = max(len(row.ids) - row.first for row in options)
        return said + f"an option of {scored} tokens is longer than the window of {room - 1}"
    said += f"a prompt of {_longest(options) - 1} tokens does not fit in the window of {room - 1}"
    if overflow == "fewer":
        return f"{said} without any example; --overflow cut cuts its left end off, as lm-eval does"
    return (
        f"{said}; ask with fewer examples (--shots), or for such prompts only: --overflow fewer "
        "leaves out examples as OpenCompass does, --overflow cut cuts the left end off as lm-eval "
        "does"
    )
