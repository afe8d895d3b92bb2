"""A sample of a corpus that is too large to hold: drawn alike from all of it, in bounded memory."""

import hashlib
from collections.abc import Iterable
from heapq import heappop, heappush

from indexlm.text.document import Document


def draw(documents: Iterable[Document], size: int, seed: int) -> dict[str, list[Document]]:
    """Language -> documents of `size` bytes of text and a part of one more, or all that there are.

    Which they are, and in which order, depends on their ids and the seed alone: not on how the
    corpus is cut into files.
    """
    heaps: dict[str, list[tuple[float, int, Document]]] = {}
    sizes: dict[str, int] = {}
    for number, document in enumerate(documents):
        heap = heaps.setdefault(document.language, [])
        heappush(heap, (-_place(document.id, seed), number, document))
        held = sizes.get(document.language, 0) + _bytes(document)
        # The one at the top has the last place; it goes where the others are enough.
        while held - _bytes(heap[0][2]) >= size:
            held -= _bytes(heappop(heap)[2])
        sizes[document.language] = held
    return {
        language: [document for *_, document in sorted(heap, reverse=True)]
        for language, heap in sorted(heaps.items())
    }


def _place(name: str, seed: int) -> float:
    """A number in [0, 1) that looks random."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _bytes(document: Document) -> int:
    return len(document.text.encode())
