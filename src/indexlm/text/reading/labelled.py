"""Text as it comes, with its language, for what looks at text without refining it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from indexlm.config import TextConfig
from indexlm.records import log
from indexlm.text.block import blocks
from indexlm.text.document import Document
from indexlm.text.languages import label
from indexlm.text.reading.files import InputFile
from indexlm.text.reading.quarantine import Quarantined
from indexlm.text.reading.sources import read_records


def labelled(file: InputFile, change: Callable[[str], str] = str) -> Iterator[Document]:
    """The documents of a file that hold text after `change`, with the language that they state or
    have. Records that cannot be read are counted in a warning."""
    config, unread = TextConfig(), 0

    def documents() -> Iterator[Document]:
        nonlocal unread
        for record, _ in read_records(file, config, config.reading):
            if isinstance(record, Quarantined):
                unread += 1
            elif text := change(record.text):
                yield record.with_text(text)

    for block in blocks(documents()):
        languages, _ = label(block)
        for document, language in zip(block.documents, languages):
            yield replace(document, language=document.language or language)
    if unread:
        log.warning(f"{file.path}: {unread:,} records cannot be read and are left out")
