"""A context and its continuation as ids, the way lm-eval does it, without encoding text twice.

The ids are those of the whole text, cut after as many as the context has by itself; spaces at the
end of the context go to the continuation. Where the tokenizer can join the two, the continuation
loses characters to the context: that is part of the convention, and kept.

Contexts are long and much alike (five examples of 700 characters, then one question), options are
short. Encoding each pair whole costs a tokenizer several times what a small model costs; so a text
is encoded in parts where the vocabulary proves that this gives the same ids.

Byte pair encoding joins neighbours as long as the vocabulary has the joined piece. Two characters
that stand side by side in no piece are never joined, and what happens on either side of such a
border depends on that side alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from indexlm.tokens.tokenizer import Tokenizer

SPACE = "\u2581"
"""How SentencePiece writes a space, and what it takes this character for in a text."""


class PairIds(NamedTuple):
    """Ids of context and continuation as one text, of which the first `context` are given."""

    ids: list[int]
    context: int


@dataclass(frozen=True)
class Borders:
    """Where texts may be cut: between characters that are no pair of `joined`.

    `prefix` says that the tokenizer puts a space before every text. A part that follows another
    has to begin with one then, which it is encoded without.
    """

    joined: frozenset[str]
    prefix: bool

    def between(self, before: str, behind: str) -> bool:
        """Whether a text may be cut between two parts, neither of them empty."""
        pair = (before[-1] + behind[0]).replace(" ", SPACE)
        # A prefix is put before something only.
        return pair not in self.joined and (not self.prefix or (behind[0] == " " != behind))

    def last(self, text: str) -> int:
        """The last place where a text may be cut; 0 where there is none."""
        at = len(text) - 1
        while at > 0 and not self.between(text[at - 1], text[at : at + 2]):
            at -= 1
        return max(at, 0)


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[PairIds]:
    """Ids of each (context, continuation), equal to those of `encode_pairs_whole`.

    Raises UserError for a character that the tokenizer cannot spell.
    """
    borders = read_borders(tokenizer)
    if borders is None:
        return encode_pairs_whole(tokenizer, pairs)
    moved = [_with_spaces_moved(*pair) for pair in pairs]
    cuts = {context: borders.last(context) for context in {context for context, _ in moved}}
    shared = borders.last(_common_start([context[:cut] for context, cut in cuts.items()]))

    parts: dict[str, list[int]] = {"": []}
    wanted: dict[str, None] = {}

    def part(text: str, begins: bool) -> str:
        text = text[1:] if borders.prefix and not begins else text
        wanted[text] = None
        return text

    recipes = []
    for context, continuation in moved:
        cut = cuts[context]
        given = [part(context[:shared], True), part(context[shared:cut], not shared)]
        tail = part(context[cut:], not cut)
        if context and continuation and borders.between(context, continuation):
            recipes.append(([*given, tail], [*given, tail, part(continuation, False)]))
        else:
            recipes.append(([*given, tail], [*given, part(context[cut:] + continuation, not cut)]))
    texts = [text for text in wanted if text]
    parts.update(zip(texts, tokenizer.encode_whole(texts)))
    return [
        PairIds(_joined([parts[text] for text in whole]), sum(len(parts[text]) for text in given))
        for given, whole in recipes
    ]


def encode_pairs_whole(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[PairIds]:
    """The definition: each text encoded whole, and its context by itself."""
    moved = [_with_spaces_moved(*pair) for pair in pairs]
    texts = list(dict.fromkeys(text for c, after in moved for text in (c, c + after)))
    ids = dict(zip(texts, tokenizer.encode_whole(texts)))
    return [PairIds(ids[context + after], len(ids[context])) for context, after in moved]


@lru_cache(maxsize=1)
def read_borders(tokenizer: Tokenizer) -> Borders | None:
    """The borders that a vocabulary proves; None where its tokenizer does more than join pairs."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(tokenizer.processor.serialized_model_proto())
    rules, made = model.normalizer_spec, model.trainer_spec
    if (
        made.model_type != made.BPE
        or made.treat_whitespace_as_suffix
        or rules.precompiled_charsmap
        or rules.remove_extra_whitespaces
        or not rules.escape_whitespaces
    ):
        return None
    pieces = (piece.piece.replace(" ", SPACE) for piece in model.pieces)
    joined = frozenset(text[at : at + 2] for text in pieces for at in range(len(text) - 1))
    return Borders(joined, bool(rules.add_dummy_prefix))


def _with_spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _common_start(texts: Sequence[str]) -> str:
    # What the first and the last in order have in common, all between them have too.
    first, last = min(texts, default=""), max(texts, default="")
    for at, (one, other) in enumerate(zip(first, last)):
        if one != other:
            return first[:at]
    return first


def _joined(rows: Sequence[list[int]]) -> list[int]:
    # Not one by one: a loop over the 60 million ids of MMLU takes as long as the tokenizer.
    ids: list[int] = []
    for row in rows:
        ids += row
    return ids
