"""The only place where a conversation becomes ids and a loss mask.

`[0] system [3] user [4] assistant [3] user [4] assistant ...`: no beginning-of-sequence id, no
spaces, no line ends, and no end-of-sequence id between past turns, as the published chat models
were trained and are prompted. Prompts are built as ids, never by rendering a string: text from a
user, a card or a retrieved line cannot forge a turn because `Tokenizer.encode` has no way to give
a control id.
"""

from dataclasses import dataclass

from indexlm.tokens.tokenizer import ASSISTANT, EOS, SYSTEM, USER, Tokenizer

IGNORED = -100
"""Label of a position whose prediction is not trained."""


@dataclass(frozen=True)
class Conversation:
    """One exchange with what came before it; an empty `system` leaves the system turn out."""

    system: str
    history: tuple[tuple[str, str], ...]
    query: str
    response: str = ""


def prompt_ids(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """Everything up to the marker after which the assistant speaks."""
    ids = [SYSTEM, *tokenizer.encode(conversation.system)] if conversation.system else []
    for said, answered in conversation.history:
        ids += [USER, *tokenizer.encode(said), ASSISTANT, *tokenizer.encode(answered)]
    return [*ids, USER, *tokenizer.encode(conversation.query), ASSISTANT]


def training_ids(tokenizer: Tokenizer, conversation: Conversation) -> tuple[list[int], list[int]]:
    """Inputs and labels of equal length; IGNORED wherever the assistant is not speaking.

    Every assistant turn is supervised up to its end: the label at its last token is `</s>`, though
    the next *input* of a past turn is the user marker, which is what inference puts there.
    """
    ids = [SYSTEM, *tokenizer.encode(conversation.system)] if conversation.system else []
    labels = [IGNORED] * len(ids)
    turns = (*conversation.history, (conversation.query, conversation.response))
    for said, answered in turns:
        asked = [USER, *tokenizer.encode(said)]
        answer = tokenizer.encode(answered)
        ids += [*asked, ASSISTANT, *answer]
        labels += [IGNORED] * len(asked) + [*answer, EOS]
    return ids, labels
