"""The page of a study, made of its stored result alone.

Plain HTML that needs no other file and no script, to be mailed and printed. What a verdict says is
the sentence that was computed with it; nobody writes one.
"""

import json
import re
from collections.abc import Mapping, Sequence

from indexlm.lab.arm_tables import arm_tables
from indexlm.lab.figures import differences, drawn
from indexlm.lab.outcome import Outcome
from indexlm.lab.pieces import (
    Plain,
    claimed_by,
    plain_number,
    reading,
    said,
    same_or_both,
    seeds_said,
    unended,
    verdict_word,
    wide,
)
from indexlm.lab.verdict import amount, signed
from indexlm.records import clock
from indexlm.report.markup import (
    Html,
    both,
    document,
    element,
    fact,
    join,
    number,
    sentence,
    short,
    table,
)

CLAIMED = {
    "higher": both("higher", "更高"),
    "lower": both("lower", "更低"),
    "same": both("alike", "相近"),
}
MEDIAN = both("of the median", "中位数的区间")
BOXES = {"reproduced": "verdict won", "opposite": "verdict lost"}

INTERVAL = re.compile(r"\[[^]]*\]")

REPORT_SIZES = ("0.1B to 1.9B", "1 亿至 19 亿")
"""Parameters of the models of the report's experiments."""


def study_page(found: Outcome) -> str:
    """The whole document of one study."""
    parts = [
        ("claim", both("What the report says", "报告的说法"), said("p", found["report"])),
        ("design", both("Design", "实验设计"), said("p", found["design"])),
        ("figures", both("Figures", "图表"), _shown(found)),
        ("claims", both("Declared before, found after", "事先声明与结果"), _claims(found)),
        ("arms", both("All arms", "全部运行"), arm_tables(found)),
        ("limits", both("Limits", "局限"), _limits(found)),
        ("reproduce", both("Reproduce", "复现"), _reproduce(found)),
    ]
    contents = [element("a", heading, href=f"#{name}") for name, heading, _ in parts]
    sections = [
        element("section", element("h2", heading), content, id=name)
        for name, heading, content in parts
    ]
    back = element("a", both("All studies", "全部研究"), href="index.html")
    header = element(
        "header",
        element("h1", both(found["title"]["en"], found["title"]["zh"])),
        said("p", found["question"], "lead"),
        _verdict(found),
        _facts(found),
        element("nav", back, *contents),
    )
    footer = sentence(
        "footer",
        f"Written by indexlm from {found['study']}.json; every number on this page is in it.",
        f"由 indexlm 根据 {found['study']}.json 生成，页中数字均出自该文件。",
        "note",
    )
    title = f"indexlm lab · {found['title']['en']}"
    return document(title, header, element("main", *sections), footer)


def _verdict(found: Outcome) -> Html:
    claim = found["claims"][0]
    english, chinese = claim["said"].values()
    named = element("p", verdict_word(found["verdict"]), class_="word")
    return element(
        "div",
        sentence(
            "p",
            f"The verdict is that of the first claim: {english}",
            f"判定取自第一条论断：{chinese}",
            "question said",
        ),
        named,
        said("p", found["sentence"]),
        _further(found),
        class_=BOXES.get(found["verdict"], "verdict"),
    )


def _further(found: Outcome) -> Html:
    """The verdicts of the claims after the first: controls often answer half of the question."""
    claims = found["claims"][1:]
    if not claims:
        return Html("")
    heading = sentence("p", "Further claims", "其余论断", "question said")
    lines = [
        element("li", both(*each["said"].values()), " – ", verdict_word(each["verdict"]))
        for each in claims
    ]
    return join(heading, element("ul", *lines, class_="further"))


def _facts(found: Outcome) -> Html:
    arms = found["arms"]
    sizes = sorted({arm["parameters"] for arm in arms})
    size = short(sizes[0]) if len(sizes) == 1 else f"{short(sizes[0])} – {short(sizes[-1])}"
    runs = sum(len(arm["seeds"]) for arm in arms)
    diverged = sum(bool(seed["diverged"]) for arm in arms for seed in arm["seeds"].values())
    kinds = both(f"{len(arms)} kinds, {diverged} diverged", f"{len(arms)} 种，{diverged} 次发散")
    seconds = found["made"]["cpu_seconds"]
    facts = [
        fact(both("Preset", "档位"), found["preset"], seeds_said(found)),
        fact(both("Arms", "运行"), str(runs), kinds),
        fact(both("Parameters", "参数量"), size, both("of each model", "每个模型")),
        fact(both("CPU time", "CPU 时间"), clock(seconds), both("of all arms", "全部运行合计")),
    ]
    return element("dl", *facts, class_="facts")


def _shown(found: Outcome) -> Html:
    parts = []
    for place, each in enumerate(found["shown"]):
        if each["kind"] == "figure":
            parts.append(drawn(each, f"{found['study']} {place}"))
        else:
            head = [both(said["en"], said["zh"]) for said in each["head"]]
            rows = [[_first(row[0]), *map(_cell, row[1:])] for row in each["rows"]]
            parts += [table(head, rows), said("p", each["caption"], "note")]
    return join(*parts)


def _cell(cell: str | Plain) -> Html | str:
    if not isinstance(cell, str):
        return both(cell["en"], cell["zh"])
    # A line may end before an interval and not inside it.
    return INTERVAL.sub(lambda found: found[0].replace(" ", "\u00a0"), cell)


def _first(cell: str | Plain) -> Html:
    """Of a row: its name, with room."""
    if isinstance(cell, str):
        return wide(cell)
    return wide(cell["en"] if cell["en"] == cell["zh"] else said("div", cell))


def _claims(found: Outcome) -> Html:
    claims = found["claims"]
    head = [
        both("Claim", "论断"),
        both("Claimed", "所称"),
        both("Margin", "容差"),
        both("Treatment", "前者"),
        both("Control", "后者"),
        both("Difference", "差值"),
        both("95%", "95% 区间"),
        both("Verdict", "判定"),
    ]
    told = [element("li", said("div", claim["sentence"])) for claim in claims]
    return join(
        differences(claims, f"{found['study']} differences"),
        table(head, [_claim_row(*each) for each in enumerate(claims, 1)]),
        element("ol", *told) if len(told) > 1 else "",
        reading(),
    )


def _claim_row(place: int, claim: Plain) -> list[Html | str]:
    interval, ends = claim["interval"], Html("–")
    centre = "–"
    if interval is not None:
        # An infinite one is a string in a result.
        centre, low, high = (signed(float(value)) for value in interval)
        kind = Html("") if claim["interval_by"] == "t" else element("small", MEDIAN)
        ends = join(element("span", f"[{low}, {high}]", class_="unbroken"), kind)
    whose = claimed_by(claim)
    source = element("small", both(*whose)) if whose else ""
    return [
        wide(
            f"{place}. ",
            both(*claim["said"].values()),
            element("small", _sides(claim)),
            element("small", both(*unended(claim["metric"]))),
            source,
        ),
        CLAIMED[claim["claimed"]],
        same_or_both(*(amount(claim["margin"], unit) for unit in claim["unit"].values())),
        plain_number(claim["means"]["treatment"]),
        plain_number(claim["means"]["control"]),
        centre,
        ends,
        verdict_word(claim["verdict"]),
    ]


def _sides(claim: Plain) -> Html:
    treatment, control = unended(claim["treatment"]), unended(claim["control"])
    return same_or_both(f"{treatment[0]} − {control[0]}", f"{treatment[1]} − {control[1]}")


def _limits(found: Outcome) -> Html:
    sizes = [arm["parameters"] for arm in found["arms"]]
    ends = list(dict.fromkeys((short(min(sizes)), short(max(sizes)))))
    size = sentence(
        "p",
        f"These models have {' to '.join(ends)} parameters, those of the report {REPORT_SIZES[0]}: "
        "the verdict is of this size.",
        f"此处模型的参数量为 {' 至 '.join(ends)}，报告中为 {REPORT_SIZES[1]}：判定只对此规模成立。",
    )
    larger = Html("")
    if "gpu" in found["presets"] and found["preset"] != "gpu":
        larger = sentence(
            "p",
            "A preset gpu with at least 10M parameters is declared for this study; this page is "
            "not of it.",
            "本研究另有 gpu 档位（至少 1000 万参数），本页并非该档位的结果。",
        )
    return join(said("p", found["limits"]), size, larger)


def _reproduce(found: Outcome) -> Html:
    made = found["made"]
    rows = [
        [both("Finished", "完成日期"), made["date"]],
        [both("Code", "代码指纹"), element("code", made["code"])],
        [both("Versions", "版本"), _versions(made)],
        [both("Real text", "真实文本"), element("code", made["corpus"] or "–")],
        [both("Device", "设备"), made["device"]],
        [both("CPU-seconds", "CPU 秒"), number(made["cpu_seconds"], 1)],
    ]
    head = [both("", ""), ""]
    return join(
        element("pre", made["command"]),
        table(head, rows, words=2),
        element(
            "details",
            element("summary", both("Settings of every arm", "全部运行的设置")),
            _settings(found["arms"]),
        ),
    )


def _settings(arms: Sequence[Plain]) -> Html:
    """All of the first arm, and of every other one what differs from it."""
    first, *others = [_flat(arm["settings"]) for arm in arms]
    rows = [
        [wide(arm["name"]), element("code", ", ".join(_changes(first, other)) or "–")]
        for arm, other in zip(arms[1:], others)
    ]
    head = [
        both("Arm", "运行"),
        both(f"Other than {arms[0]['name']}", f"与 {arms[0]['name']} 的不同"),
    ]
    return join(
        element("h4", arms[0]["name"]),
        element("pre", "\n".join(f"{name} = {value}" for name, value in first.items())),
        table(head, rows, words=2) if rows else "",
    )


def _flat(settings: Plain, before: str = "") -> dict[str, str]:
    """`train.optimiser.lr` -> `0.005`."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = json.dumps(value, ensure_ascii=False)
    return found


def _changes(first: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """A trunk, which has all settings again, is told by its steps alone."""
    named = {*first, *other}
    trunks = {name for name in named if name.startswith("trunk") and name != "trunk.train.steps"}
    ordered = [name for name in (*other, *first) if name in named - trunks]
    return [
        f"{name} = {other.get(name, '–')}"
        for name in dict.fromkeys(ordered)
        if first.get(name) != other.get(name)
    ]


def _versions(made: Plain) -> str:
    return f"indexlm {made['indexlm']}, Python {made['python']}, PyTorch {made['torch']}"
