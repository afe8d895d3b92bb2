"""The two ways a command ends badly.

`UserError` is a mistake in what was asked: the message names the value, where it stood and the
remedy, and the process leaves with exit code 2. `DamagedError` is a file that is not what its
manifest says: it names the file, nothing is loaded, and the process leaves with exit code 1.
Messages quote what stands in files through `shown`.
"""

from typing import Any


class UserError(ValueError):
    """What was asked cannot be done; the message says what, where and what to do instead."""


class DamagedError(RuntimeError):
    """A file on disk differs from its manifest, is cut short, or is missing."""


class StoppedError(Exception):
    """A stop was asked for (Ctrl-C, SIGTERM) and the state is saved; exit code 130."""


def shown(value: Any) -> str:
    """A value that a file holds, for a message: of any length, and on one line.

    A text is quoted, its control characters are spelled out: a name in a download cannot move the
    cursor or write a line that looks like ours.
    """
    if isinstance(value, dict | list):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
