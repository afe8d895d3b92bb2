"""A text too long for its room keeps its first and its last half, as the report's 32K model was
evaluated."""

from collections.abc import Callable


def cut_middle(text: str, fits: Callable[[str], bool]) -> str | None:
    """`text` where it fits, else the longest first and last half that do, found by bisection.

    None where not even a character of either end fits. The halves are equal in characters: a cut
    between tokens could fall inside a character.
    """
    if fits(text):
        return text
    half, too_long = 0, len(text) // 2
    while too_long - half > 1:
        middle = (half + too_long) // 2
        if fits(_ends(text, middle)):
            half = middle
        else:
            too_long = middle
    return _ends(text, half) if half else None


def cut_notice(tokens: int, left_out: int) -> str:
    """What a user is told of a message of `tokens` tokens that lost `left_out` of them."""
    return (
        f"the message has {tokens} tokens, more than the window has room for: {left_out} in its "
        "middle are left out, its first and last half are kept"
    )


def _ends(text: str, half: int) -> str:
    return f"{text[:half]}…{text[-half:]}"
