"""A folder of refined text, as the rooms behind this one open it."""

from collections.abc import Iterator
from pathlib import Path

from indexlm.errors import UserError
from indexlm.records import Manifest, verify
from indexlm.text.document import FIELDS, Document
from indexlm.text.jsonl import read_jsonl

FUNNEL = "funnel.json"
"""All counts of how it was made; only a refined folder has it."""


def verify_refined(folder: Path) -> Manifest:
    """Check refined text against its manifest. Raises UserError for a folder of anything else."""
    if not (folder / FUNNEL).is_file():
        raise UserError(
            f"{folder} holds no refined text; give the --out of `indexlm data refine` or the text "
            "folder of a run"
        )
    return verify(folder)


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of one of its files, without what a step told of them."""
    for row in read_jsonl(path):
        yield Document(**{name: row[name] for name in FIELDS})
