"""Instruction data from the corpus's own entries, and the entries kept back for a test.

No outside instruction set is needed: a dictionary entry is a question with its answer, two turns
of a conversation are a prompt with its reply. Only entries of documents that are kept for
training are used, and the test of word knowledge only those of documents held out.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from indexlm.text.document import Document, Entry
from indexlm.text.normalise import normalise

Wordings = Sequence[tuple[str, str]]

# Question and answer; {word} and {told} are filled in. The answer begins differently too, so
# that a model does not learn one sentence by heart.
EXPLANATION: Wordings = (
    ("“{word}”是什么意思？", "“{word}”的意思是：{told}"),
    ("请解释成语“{word}”。", "{told}"),
    ("成语“{word}”怎么理解？", "{told}"),
    ("{word}是什么意思", "{told}"),
    ("我在书里读到“{word}”这个成语，它是什么意思？", "“{word}”是一个成语。{told}"),
    ("解释一下{word}", "{word}：{told}"),
)
ORIGIN: Wordings = (
    ("成语“{word}”出自哪里？", "出自{told}"),
    ("“{word}”的出处是什么？", "“{word}”出自{told}"),
    ("{word}这个成语是从哪儿来的？", "它出自{told}"),
    ("请说出成语“{word}”的来历。", "“{word}”的出处是{told}"),
)
EXAMPLE: Wordings = (
    ("请用“{word}”举一个例句。", "{told}"),
    ("“{word}”在句子里怎么用？", "例如：{told}"),
    ("给我一个含有成语“{word}”的句子。", "{told}"),
    ("成语“{word}”有什么例句？", "例句：{told}"),
)
SENSES: Wordings = (
    ("“{word}”是什么意思？", "{told}"),
    ("请解释词语“{word}”。", "“{word}”的意思是：{told}"),
    ("{word}是什么意思", "{told}"),
    ("词典里怎么解释“{word}”？", "{word}：{told}"),
    ("“{word}”这个词怎么理解？", "{told}"),
)

MIN_REPLY = 20
"""Characters of the shortest reply worth learning; shorter ones are haha, yes and ok."""
MIN_QUERY = 8
MAX_TURN = 800
MAX_HISTORY = 3
"""Pairs of turns before the query, for the half of the records that have a history."""

_ONLY_POINTS = re.compile(r"(?:[古亦也又]?[同见即作称]|犹|参见)“[^”]*”。?")
_POINTS_ELSEWHERE = re.compile(r"[亦也又]作|[亦也又]称|参[见看]|[同见即犹]“|^[同见即]|犹言|^犹|〖")


def instruction_records(document: Document, entry: Entry) -> Iterator[dict[str, Any]]:
    """The questions and answers that one entry gives. Deterministic: wording by hash of the id.

    A word that only points to another one (见“摘钞”) gives none: the answer would explain nothing.
    """
    if entry.kind == "chat":
        if document.tier == "ordinary":  # the well-rated ones
            yield from _chat_records(document, [normalise(turn) for turn in entry.turns])
        return
    if entry.kind == "word":
        told = entry.senses[0]
        if _ONLY_POINTS.fullmatch("".join(entry.senses)):
            return
        if len(entry.senses) > 1:
            told = "".join(f"{n}.{sense}" for n, sense in enumerate(entry.senses, start=1))
        yield _dictionary_record(document, "word_senses", SENSES, entry.word, told)
        return
    yield _dictionary_record(
        document, "idiom_explanation", EXPLANATION, entry.word, "".join(entry.senses)
    )
    if entry.origin:
        origin = re.sub("^(?:语|典)?[出本](?:自)?", "", entry.origin)
        yield _dictionary_record(document, "idiom_origin", ORIGIN, entry.word, origin)
    if entry.example:
        yield _dictionary_record(document, "idiom_example", EXAMPLE, entry.word, entry.example)


def held_out_entry(document: Document, entry: Entry) -> dict[str, str] | None:
    """One entry for a multiple-choice test, None where its explanation would not do.

    It must be one sense of 6 to 60 characters that neither points to another entry (亦作, 同“…”)
    nor repeats more than half of the word's characters, or two in a row: a model that only compares
    characters must not pass the test.
    """
    if entry.kind == "chat" or len(entry.senses) != 1:
        return None
    word, explanation = entry.word, normalise(entry.senses[0])
    if not 6 <= len(explanation) <= 60 or _POINTS_ELSEWHERE.search(explanation):
        return None
    pairs = {word[start : start + 2] for start in range(len(word) - 1)}
    shared = sum(character in explanation for character in word)
    if shared * 2 > len(word) or any(pair in explanation for pair in pairs):
        return None
    return {"id": document.id, "kind": entry.kind, "word": word, "explanation": explanation}


def _dictionary_record(
    document: Document, kind: str, wordings: Wordings, word: str, told: str
) -> dict[str, Any]:
    record_id = f"{document.id}/{kind}"
    question, answer = wordings[_draw(record_id) % len(wordings)]
    query, response = (normalise(part.format(word=word, told=told)) for part in (question, answer))
    return _record(record_id, document.language, kind, [], query, response)


def _chat_records(document: Document, turns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Who spoke first asks, the other answers: every second turn is a reply."""
    for at in range(0, len(turns) - 1, 2):
        query, response = turns[at], turns[at + 1]
        lengths_fit = MIN_QUERY <= len(query) <= MAX_TURN and MIN_REPLY <= len(response) <= MAX_TURN
        if not lengths_fit:
            continue
        record_id = f"{document.id}/chat-{at // 2 + 1}"
        pairs = [[turns[n], turns[n + 1]] for n in range(0, at, 2)]
        pairs = [pair for pair in pairs if pair[0] and pair[1]]
        history = pairs[-MAX_HISTORY:] if _draw(record_id) % 2 else []
        yield _record(record_id, document.language, "chat", history, query, response)


def _record(
    record_id: str,
    language: str,
    kind: str,
    history: list[list[str]],
    query: str,
    response: str,
) -> dict[str, Any]:
    return {
        "id": record_id,
        "language": language,
        "kind": kind,
        "system": "",
        "history": history,
        "query": query,
        "response": response,
    }


def _draw(record_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "big")
