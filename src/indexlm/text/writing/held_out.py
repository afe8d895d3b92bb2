"""Which documents no training stage sees: chosen by a hash of the name behind the source.

A word stays unseen although two dictionaries explain it, and the choice does not change with the
seed, the engine or the documents around it.
"""

import hashlib
import heapq
import re
from collections.abc import Iterable, Mapping

from indexlm.text.document import LANGUAGES, Document

Firsts = dict[str, list[tuple[float, str]]]
"""Language -> the two keys with the lowest places, fewer where there are fewer."""


def split_key(document_id: str) -> str:
    """What decides on which side of the split a document falls: `word/晨风#2` -> `晨风`."""
    name = document_id.partition("/")[2] or document_id
    return re.sub(r"(?:#\d+)+$", "", name)


def place(key: str) -> float:
    """A number in [0, 1) that looks random and depends on the key alone; below the share asked, the
    key is held out."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def firsts(documents: Iterable[Document]) -> Firsts:
    """What `forced` has to know of some documents."""
    keys: dict[str, set[str]] = {}
    for document in documents:
        keys.setdefault(document.language, set()).add(split_key(document.id))
    return {
        language: heapq.nsmallest(2, ((place(key), key) for key in found))
        for language, found in sorted(keys.items())
    }


def merged(several: Iterable[Mapping[str, Iterable[tuple[float, str]]]]) -> Firsts:
    """The firsts of all documents from those of their parts."""
    found: dict[str, set[tuple[float, str]]] = {}
    for one in several:
        for language, keys in one.items():
            both = found.get(language, set()) | {(at, key) for at, key in keys}
            found[language] = set(sorted(both)[:2])
    return {language: sorted(keys) for language, keys in sorted(found.items())}


def forced(keys: Mapping[str, Iterable[tuple[float, str]]], share: float) -> list[str]:
    """Keys to hold out beyond the share: a language with two of them has one held out."""
    chosen = []
    for language in LANGUAGES:
        two = list(keys.get(language, ()))
        if len(two) == 2 and two[0][0] >= share:
            chosen.append(two[0][1])
    return sorted(set(chosen))
