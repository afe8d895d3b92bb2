"""From instruction records and scripts to rows: SFT conversations, preference pairs, role-play.

The measure behind a preference pair is the character-bigram F1 of an answer against the reference
answer: it needs no judge, works for both languages, and 1 is the reference itself.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from indexlm.feed.packing import ConversationSource
from indexlm.records import fingerprint
from indexlm.roleplay.card import Card, Dialogue, chat_turns, exchanges
from indexlm.roleplay.create import create_card
from indexlm.roleplay.memory import Memory
from indexlm.roleplay.session import conversation_for
from indexlm.tokens.chat_format import Conversation, prompt_ids, training_ids
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.train.objectives.preference import Pair

SYSTEMS = {"zh": "你是一个乐于助人的助手。", "en": "You are a helpful assistant."}


def chat_conversations(records: Iterable[dict[str, Any]], limit: int) -> list[Conversation]:
    """Up to `limit` records, in an order by hash that mixes kinds and takes the languages in turn;
    every second one is given a system text, so that both forms are learned."""
    by_language: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda record: fingerprint(record["id"])):
        by_language.setdefault(record["language"], []).append(record)
    chosen = [
        record
        for group in zip(*(by_language[name][:limit] for name in sorted(by_language)))
        for record in group
    ][:limit]
    return [
        Conversation(
            record["system"] or (SYSTEMS[record["language"]] if number % 4 < 2 else ""),
            tuple((said, answered) for said, answered in record["history"]),
            record["query"],
            record["response"],
        )
        for number, record in enumerate(chosen)
    ]


def fitting(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, room: int
) -> list[Conversation]:
    """Those whose prompt takes at most `room` tokens."""
    return [c for c in conversations if len(prompt_ids(tokenizer, c)) <= room]


def role_cards(dialogues: Sequence[Dialogue], min_lines: int) -> list[Card]:
    """A card without description for every speaker with enough lines, the most talkative first."""
    lines = Counter(line.speaker for d in dialogues for line in d.lines if line.speaker)
    return [
        create_card(name, dialogues, "")
        for name, count in lines.most_common()
        if count >= min_lines
    ]


def role_conversations(
    card: Card, tokenizer: Tokenizer, context: int, reserve: int, retrieve: int
) -> Iterator[Conversation]:
    """Every line of a character that answers somebody, with the prompt that use would give it.

    Its own scene is hidden from its past lines. Answers longer than `reserve` are left out: they
    would teach to stop in the middle.
    """
    memory = Memory(card)
    for exchange in exchanges(card):
        turns = chat_turns(exchange.context, card.name)
        if turns is None or len(tokenizer.encode(exchange.reply)) >= reserve:
            continue
        history, query = turns
        if len(tokenizer.encode(query)) > context // 3:
            continue
        scene = card.dialogues[exchange.dialogue_index].scene
        conversation, _ = conversation_for(
            card, memory, tokenizer, history, query, context - reserve, retrieve, scene
        )
        yield Conversation(
            conversation.system, conversation.history, conversation.query, exchange.reply
        )


def conversation_source(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, length: int, seed: int
) -> ConversationSource:
    return ConversationSource([training_ids(tokenizer, c) for c in conversations], length, seed)


def row_share(source: ConversationSource, length: int, response_share: float) -> float:
    """Share of rows that makes `response_share` of the loss tokens response tokens, when every
    token of a replayed row counts."""
    asked = response_share * length
    return asked / (asked + (1 - response_share) * source.labels_per_row)


def bigram_f1(answer: str, reference: str) -> float:
    """F1 of character bigrams as multisets; 1 for equal texts, 0 for nothing in common."""
    if answer == reference:
        return 1.0
    ours, theirs = (Counter(pairwise(text)) for text in (answer, reference))
    common = (ours & theirs).total()
    return 2 * common / max(ours.total() + theirs.total(), 1)


def pair_records(
    conversations: Sequence[Conversation], answers: Sequence[str], worse_below: float
) -> list[dict[str, Any]]:
    """One record for each sampled answer that is worse than the reference by the measure."""
    records = []
    for conversation, answer in zip(conversations, answers):
        score = bigram_f1(answer.strip(), conversation.response)
        if answer.strip() and score < worse_below:
            records.append(
                {
                    "system": conversation.system,
                    "history": [list(turn) for turn in conversation.history],
                    "query": conversation.query,
                    "chosen": conversation.response,
                    "rejected": answer.strip(),
                    "bigram_f1": round(score, 4),
                }
            )
    return records


def pair_of(record: dict[str, Any], tokenizer: Tokenizer, context: int) -> Pair | None:
    """Ids of a pair record, supervised on the last answer alone; None where it is too long."""
    history = tuple((said, answered) for said, answered in record["history"])
    sides = []
    for answer in (record["chosen"], record["rejected"]):
        conversation = Conversation(record["system"], history, record["query"], answer)
        ids, labels = training_ids(tokenizer, conversation)
        own = len(tokenizer.encode(answer)) + 1
        if len(ids) > context:
            return None
        sides.append((ids, [-100] * (len(ids) - own) + labels[-own:]))
    return Pair(*sides)
