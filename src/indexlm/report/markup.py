"""HTML from plain values, safe by default.

A model may write `<script>`. Therefore a string is text and is escaped wherever it is put in;
only `Html`, which the functions here return, goes in as it is.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path


class Html(str):
    """Finished markup."""

    __slots__ = ()


def text(value: object) -> Html:
    """Escape anything that is not markup already."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(*parts: object) -> Html:
    """The parts one after the other, each escaped where it must be."""
    return Html("".join(text(part) for part in parts))


def element(tag: str, *content: object, **attributes: str) -> Html:
    """`element("p", "a < b", class_="note")` -> `<p class="note">a &lt; b</p>`."""
    named = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{tag}{named}>{join(*content)}</{tag}>")


def sentence(tag: str, english: object, chinese: str, class_: str = "said") -> Html:
    """The same said in both languages, each on its own line."""
    return element(tag, english, element("span", chinese, lang="zh", class_="zh"), class_=class_)


def both(english: object, chinese: str) -> Html:
    """A heading or label in both languages, the Chinese one beside the English one."""
    return join(english, " ", element("span", chinese, lang="zh", class_="zh"))


def table(head: Sequence[object], rows: Sequence[Sequence[object]], words: int = 1) -> Html:
    """A table in a box that scrolls by itself; columns after the first `words` are numbers."""
    kinds = ["word" if column < words else "number" for column in range(len(head))]
    top = [element("th", cell, scope="col", class_=kind) for cell, kind in zip(head, kinds)]
    body = []
    for row in rows:
        assert len(row) == len(head), (head, row)
        first = element("th", row[0], scope="row", class_=kinds[0])
        rest = [element("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:])]
        body.append(element("tr", first, *rest))
    whole = element("table", element("thead", element("tr", *top)), element("tbody", *body))
    return element("div", whole, class_="scroll")


def figure(svg: Html, english: str, chinese: str) -> Html:
    """A drawing with its caption in both languages."""
    caption = sentence("figcaption", english, chinese)
    return element("figure", element("div", svg, class_="scroll"), caption)


def fact(label: Html, value: str, more: str) -> Html:
    """One headline figure, for a `<dl class="facts">`."""
    small = element("small", more)
    return element("div", element("dt", label), element("dd", value, small))


def document(title: str, *body: Html) -> str:
    """A whole page with its style inside."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(style)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', *body), lang='en')}\n"


def number(value: float, places: int = 0) -> str:
    """12345.6 -> `12,346`; with places=2, `12,345.60`."""
    return f"{value:,.{places}f}"


def short(count: float) -> str:
    """Three digits: 1146880 -> `1.15 M`, 368640 -> `369 k`, 900 -> `900`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # What rounds up to the next unit belongs to it: 999,600 is 1 M, not 1e+03 k.
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def megabytes(size: float) -> str:
    """Bytes as MB with two places."""
    return f"{size / 1e6:,.2f}"
