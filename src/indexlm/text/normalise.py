"""One spelling for the same text: what differs only in bytes must not differ to a tokenizer.

Chinese punctuation stays as it is, because full-width marks are its ordinary form; full-width
Latin letters and digits become half-width, because they would double the vocabulary for nothing.
`normalise` is idempotent: a corpus that went through it once does not change again.
"""

import re
import unicodedata

# Full-width 0-9 A-Z a-z, odd spaces, and the small forms of Chinese marks that old dictionaries
# use beside the ordinary ones.
_SAME = str.maketrans(
    {chr(0xFEE0 + code): chr(code) for code in range(0x30, 0x7B) if chr(code).isalnum()}
    | dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " ")
    | dict(zip("﹐﹑﹒﹔﹕﹖﹗﹙﹚", "，、．；：？！（）"))
)
_ODD = re.compile("[\u00a0\u2002\u2003\u2009\u202f\u3000\ufe50-\ufe5a\uff10-\uff5a]")
_LINE_END = re.compile("\r\n?|[\u0085\u2028\u2029]")
# Controls but tab and line feed; zero-width, direction and soft-hyphen marks.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_TRAILING_BLANKS = re.compile(r"[ \t]+(?=\n)")
_BLANK_LINES = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """NFC, no invisible characters, `\\n` line ends, no trailing blanks, one blank line at most."""
    text = _LINE_END.sub("\n", text)
    text = _INVISIBLE.sub("", text)
    # Half of a UTF-16 pair, as a JSON escape can spell it, is no text and cannot be written.
    text = _SURROGATE.sub("\ufffd", text)
    if _ODD.search(text):
        text = text.translate(_SAME)
    text = unicodedata.normalize("NFC", text)
    text = _TRAILING_BLANKS.sub("", text)
    return _BLANK_LINES.sub("\n\n", text).strip(" \t\n")
