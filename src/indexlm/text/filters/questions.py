"""Questions with answers by their layout: labelled lines, and options to choose from.

Most lines are passed over by their first characters, and most texts by what they lack.
"""

import re
from itertools import pairwise

# Roles of labels: what asks, what answers it, and whom each answers.
_NAMES = {
    "ask": "question problem query quiz exercise task "
    "问题 问 提问 题目 问答 例题 习题 试题 题干 任务",
    "q": "q",
    "user": "user human prompt 用户 人类 指令 提示词 提问者",
    "input": "input 输入",
    "self": "you me 我 你",
    "instruction": "instruction instructions instruct 任务描述 任务说明",
    "answer": "answer ans solution explanation 答案 答 回答 解答 解析 解",
    "a": "a",
    "assistant": "assistant ai bot gpt chatgpt claude bard gemini chatbot "
    "助手 助理 机器人 智能助手",
    "output": "model response output completion reply 回复 输出 模型",
    "result": "译文 结果",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
_ASKED_BY: dict[str, set[str]] = {
    "answer": {"ask", "q", "instruction", "user"},
    "a": {"ask", "q"},
    "assistant": {"user", "self", "ask", "instruction"},
    "output": {"user", "input", "ask", "instruction"},
    "result": set(),
}
_FORMS = {"ask": "question_answer", "q": "question_answer", "instruction": "template"}
# Names that are also headings of a section.
_SECTIONS = {"input", "output", "task", "exercise", "problem", "quiz"}
_SECTIONS |= {"输入", "输出", "任务", "例题", "习题", "试题"}

_DECORATION = " \t>*#【[「《（(-•"
_NUMBERED = _DECORATION + "0123456789.、)）"
_NAME = "|".join(sorted(map(re.escape, _ROLES), key=len, reverse=True))
_ATTRIBUTES = r"(?:(?:The|Correct|Final|Model|Sample) |正确|参考|标准)*"
_LABEL = re.compile(
    rf"(?P<open>[{re.escape(_DECORATION)}]*)(?:\d{{1,3}}[.、)）][ \t]*)?{_ATTRIBUTES}"
    rf"(?P<name>{_NAME})[ \t]*(?:\d{{1,3}}|[一二三四五六七八九十]{{1,3}})?[ \t]*"
    r"(?P<close>[】\]」》*）)#]*)[ \t]*(?P<mark>[:：.]?)[*]*[ \t]*",
    re.IGNORECASE,
)
_INLINE = re.compile(
    rf"(?<![^\s.。？！?!；;）)”\"]){_ATTRIBUTES}(?P<name>{_NAME})[ \t]*[:：]", re.IGNORECASE
)
# What a labelled line begins with, decoration and number aside: three letters, or what there is of
# a shorter name.
_HEADS = {name[:3] for name in _ROLES if name.isascii() and len(name) > 2}
_HEADS |= {name[0] for name in _ROLES if not name.isascii()} | {"正", "参", "标", "ai"}
_HEADS |= {f"{name}{mark}" for name in "qa" for mark in ":：.*0123456789 "}
_HEADS |= {"the", "cor", "fin", "mod", "sam"}

_DEVICE = re.compile(r"[^\n\d]{0,40}\d")
_LETTER_ALONE = re.compile(r"[（(\[]?(?:[A-E]|[1-5])[)）\]]?[.。]?[ \t]*$")
_ASKS = re.compile(r"(?:[?？_＿…]|[（(][ \t]*[）)]|的是|的有)[.。:：]?[ \t*]*$|_{3}|＿{2}")
_REQUEST = re.compile(
    r"[ \t\d.、]*请(?:你|您)?(?:用[^，。]{1,12})?(?:简要|详细|简单|根据.{0,30}[，,]?)?"
    r"(?:解释|回答|翻译|写一?[篇首段个封]|列出|列举|总结|概括|描述|判断|计算|选出|选择"
    r"|说明|改写|续写|生成|分析|比较|给出|提供|完成|将[下以])"
    r"|[ \t\d.]*(?:Please )?(?:Explain|Describe|Summari[sz]e|Translate|Rewrite"
    r"|Classify|Generate|Write an?|List|Identify|Give (?:me )?(?:an?|\w+)|Compose"
    r"|Calculate|Complete|Answer) .{4}"
)
NEAR = 3
"""Lines above an answer in which its question needs no label but a question mark or a blank."""
FAQ = 3
"""Labelled questions from which a page is a list of them, whatever its answers are called."""


def labelled(text: str) -> str:
    """The form of a text in which what asks stands above a label that answers it; else empty."""
    if not any(map(text.__contains__, ":：】*#Q")):
        return ""
    asked: set[str] = set()
    questions = searched = 0
    requested = False
    lines = text.split("\n")
    for number, line in enumerate(lines):
        label = _label_of(line)
        if not label:
            form = _inline(line, 0, asked) if asked else ""
        elif (role := _ROLES[label["name"].lower()]) in _ASKED_BY:
            requested = requested or any(map(_REQUEST.match, lines[searched:number]))
            searched = number
            form = _answered(label, role, asked, requested, lines[max(0, number - NEAR) : number])
        elif role == "input" and _DEVICE.match(line, label.end()):
            form = ""  # What goes into a device or a program is no question.
        else:
            asked.add(role)
            questions += role in ("ask", "q") and ("?" in line or "？" in line)
            form = "faq" if questions == FAQ else _inline(line, label.end(), asked)
        if form:
            return form
    return ""


def _label_of(line: str) -> re.Match[str] | None:
    head = line.lstrip(_NUMBERED)[:3].lower()
    if head not in _HEADS and head[:2] not in _HEADS and head[:1] not in _HEADS:
        return None
    label = _LABEL.match(line)
    return label if label and _is_label(line, label) else None


def _is_label(line: str, label: re.Match[str]) -> bool:
    """Behind the name a colon, or around it brackets, or it is set off alone in its line; a point
    will do for Q and A."""
    opened, closed, mark = label["open"], label["close"], label["mark"]
    bracketed = ("【" in opened and "】" in closed) or ("[" in opened and "]" in closed)
    if bracketed or mark in (":", "："):
        return True
    if mark == ".":
        return label["name"] in ("Q", "A")
    alone = label.end() == len(line) and label["name"].lower() not in _SECTIONS
    return alone and ("#" in opened or ("*" in opened and "*" in label[0][1:]))


def _inline(line: str, start: int, asked: set[str]) -> str:
    """The form of an answering label in the middle of a line."""
    label = _INLINE.search(line, start)
    partners = asked & _ASKED_BY.get(_ROLES[label["name"].lower()], set()) if label else None
    return _FORMS.get(min(partners), "roles") if partners else ""


def _answered(
    label: re.Match[str], role: str, asked: set[str], requested: bool, above: list[str]
) -> str:
    """The form that an answering label makes with what stands above it."""
    if role == "answer" and _LETTER_ALONE.match(label.string, label.end()):
        return "chosen"
    # "A." is also the first of a list.
    listed = role == "a" and label["mark"] == "."
    partners = asked & ({"q"} if listed else _ASKED_BY[role])
    if partners:
        return _FORMS.get(min(partners), "roles")
    # The bare A is also the first speaker of a talk.
    if requested and role in ("answer", "output", "result"):
        return "request"
    return "question_answer" if role == "answer" and any(map(_ASKS.search, above)) else ""


# Options: A to D (or C, behind a question), marked alike and in order.

_THIRD = re.compile(r"C\**([.．、)）:：])")
_LONGEST = 500
# The letter is the end of a word, or stands as in f(A).
_INSIDE = re.compile(r"[A-Za-z0-9}][（(]?\Z")
_INITIAL_BEFORE = re.compile(r"[A-Z][.．]\s?\Z")
_INITIAL_BEHIND = re.compile(r"\s?[A-Z][.．]")
# What parts the items of an enumeration in running text, which options are not.
_ENUMERATED = re.compile(r"(?:[,，;；、]|\b(?:and|or)|[和及或与])\Z")
_ENUMERATED_LINES = re.compile(r"(?:[,，;；、:：]|\b(?:and|or)|[和及或与]|[^\n]{120})[ \t]*\n")
_OPENERS = " \t\n（([*-"
_BETWEEN = r"[^\n]++\n{1,2}[ \t>*_-]*[（(\[]?"
_OPTION_LINES = re.compile(
    r"\n[ \t>*_-]*[（(\[]?(?:(A)|a)(?P<mark>\**[.．、)）\]:：]\**|[ \t])"
    rf"{_BETWEEN}(?(1)B|b)(?P=mark){_BETWEEN}(?(1)C|c)(?P=mark)"
    rf"(?P<more>{_BETWEEN}(?(1)D|d)(?P=mark))?"
)


def has_options(text: str) -> bool:
    """Options to choose from, in one line or one to a line."""
    speakers = ""
    for third in _THIRD.finditer(text):
        mark = third[1]
        if mark in speakers or not _around(text, third):
            continue
        if mark not in ":：" or text.count(f"A{mark}") == text.count(f"D{mark}"):
            return True
        speakers += mark
    return any(_are_options(text, lines) for lines in _OPTION_LINES.finditer(text))


def _around(text: str, third: re.Match[str]) -> bool:
    """Whether a C is the third option: A and B stand before it, marked like it, and D behind."""
    mark, at = third[1], [0, 0, third.start()]
    for index, letter in ((1, "B"), (0, "A")):
        following = at[index + 1]
        at[index] = text.rfind(letter + mark, max(0, following - _LONGEST), following)
        if at[index] < 0 or _INSIDE.search(text, max(0, at[index] - 2), at[index]):
            return False
    told = [text[begin + 2 : end].rstrip(_OPENERS) for begin, end in pairwise(at)]
    last = text.find(f"D{mark}", third.end(), third.end() + _LONGEST)
    if last >= 0:
        told.append(text[third.end() : last].rstrip(_OPENERS))
    if not all(told) or _INITIAL_BEFORE.search(text, max(0, at[0] - 3), at[0]):
        return False
    if _ASKS.search(text[max(0, at[0] - 40) : at[0]].rstrip(_OPENERS)):
        return True
    enumerated = any(map(_ENUMERATED.search, told))
    return last >= 0 and not enumerated and not _INITIAL_BEHIND.match(text, last + 2)


def _are_options(text: str, lines: re.Match[str]) -> bool:
    """Whether lines that begin with a, b, c (and d) are a choice, not an enumeration."""
    before = text[max(0, lines.start() - 40) : lines.start()].rstrip()
    if _ASKS.search(before):
        return True
    if not lines["more"]:
        return False
    enumerated = before.endswith((":", "：")) or _ENUMERATED_LINES.search(lines[0])
    return lines[1] is not None or not enumerated
