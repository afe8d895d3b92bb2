"""One spelling for the same text: what differs only in bytes must not differ to a tokenizer.

Chinese punctuation stays as it is, because full-width marks are its ordinary form; full-width
Latin letters and digits become half-width, because they would double the vocabulary for nothing.
Traditional characters stay traditional. `normalise` is idempotent: a corpus that went through it
once does not change again.

Most text needs nothing done, so each substitution stands behind a test that is some ten times
quicker than the pass it saves.
"""

import re
import unicodedata

_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
# Full-width 0-9 A-Z a-z, odd spaces, and the small forms of Chinese marks that old dictionaries
# use beside the ordinary ones.
_SAME = str.maketrans(
    {chr(0xFEE0 + code): chr(code) for code in range(0x30, 0x7B) if chr(code).isalnum()}
    | dict.fromkeys([*map(chr, range(0x2000, 0x200B)), *"\u00a0\u1680\u202f\u205f\u3000"], " ")
    | dict(zip("﹐﹑﹒﹔﹕﹖﹗﹙﹚", "，、．；：？！（）"))
)
_ODD_SPACE = re.compile(f"[{_SPACES}]")
_ODD_FORM = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\ufe50-\ufe5a]")
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
    # No character of the patterns inside is printable, of which one pass in C is proof enough.
    if not text.replace("\n", " ").replace("\t", " ").isprintable():
        text = _LINE_END.sub("\n", text)
        text = _INVISIBLE.sub("", text)
        # Half of a UTF-16 pair, as a JSON escape can spell it, is no text and cannot be written.
        text = _SURROGATE.sub("\ufffd", text)
        if _ODD_SPACE.search(text):
            text = text.translate(_SAME)
    # Text in NFKC is in NFC and has no full-width form: Chinese mostly is not, for its commas.
    if not text.isascii() and not unicodedata.is_normalized("NFKC", text):
        if _ODD_FORM.search(text):
            text = text.translate(_SAME)
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
    if " \n" in text or ("\t" in text and "\t\n" in text):
        text = _TRAILING_BLANKS.sub("", text)
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip(" \t\n")
