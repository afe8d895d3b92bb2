"""Finished pieces of an evaluation: what a kill leaves, and what the next start goes on from.

Each piece is a JSON file whose name is the fingerprint of all that it depends on: the model, the
text, the settings, the code. Nothing has to be checked on reading it: what has changed since has
another name. A file appears whole or not at all.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from indexlm.records import fingerprint, sha256_file, write_json
from indexlm.runtime import code_fingerprint, from_first

TEXTS = [sha256_file(path) for path in sorted(Path(__file__).parent.glob("*.toml"))]
"""Requests and prompts that the tests of this room are made of."""


class Kept:
    """Pieces of one model in `folder`; `made_from` tells the model, its device and the like."""

    def __init__(self, folder: Path, made_from: Any) -> None:
        self.folder, self.made_from = folder, fingerprint(made_from, code_fingerprint(), TEXTS)

    def path(self, *key: Any) -> Path:
        """Where the piece lies that depends on the plain values `key`."""
        return self.folder / f"{fingerprint(self.made_from, key)}.json"

    def read(self, *key: Any) -> Any:
        """A piece, None where it is not finished."""
        path = self.path(*key)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write(self, content: Any, *key: Any) -> None:
        write_json(self.path(*key), content)

    def made(self, make: Callable[[], Any], *key: Any) -> Any:
        """A piece that all processes make together, or have made before: plain values."""
        found = from_first(lambda: self.read(*key))
        if found is None:
            found = make()
            from_first(lambda: self.write(found, *key))
        return found
