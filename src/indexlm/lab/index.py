"""The index of all studies of a folder: every verdict on one page."""

from collections import Counter
from collections.abc import Sequence

from indexlm.lab.outcome import Outcome
from indexlm.lab.pieces import WORD_ZH, further, reading, said, seeds_said, verdict_word
from indexlm.lab.verdict import WORDS
from indexlm.records import clock
from indexlm.report.markup import Html, both, document, element, fact, join, sentence, table


def index_page(results: Sequence[Outcome]) -> str:
    """All verdicts, with a link to each page."""
    counts = Counter(found["verdict"] for found in results)
    of_all = both(f"of {len(results)}", f"共 {len(results)} 项")
    facts = [
        fact(both(word.capitalize(), WORD_ZH[word]), str(counts[word]), of_all) for word in WORDS
    ]
    header = element(
        "header",
        element("h1", both("The lab", "实验室")),
        sentence(
            "p",
            "The experiments of the Index-1.9B report, run again on models that fit this machine: "
            "which findings hold at this size, and which do not.",
            "在本机可承受的规模上重做 Index-1.9B 报告的实验：哪些结论在此规模下成立，哪些不成立。",
            "lead",
        ),
        element("dl", *facts, class_="facts"),
    )
    head = [
        both("Study", "研究"),
        both("Verdict", "判定"),
        both("What was found", "结果"),
        both("Preset", "档位"),
        both("CPU time", "CPU 时间"),
    ]
    body = [_index_row(found) for found in results]
    heading = element("h2", both("Verdicts", "判定"))
    verdicts = element("section", heading, table(head, body, words=4), reading(), id="verdicts")
    footer = sentence(
        "footer",
        "Written by indexlm from the JSON of each study. A verdict holds for the size and the data "
        "of its page, not for larger models.",
        "由 indexlm 根据各研究的 JSON 生成。判定只对该页的规模与数据成立，不可外推至更大的模型。",
        "note",
    )
    return document("indexlm lab", header, element("main", verdicts), footer)


def _index_row(found: Outcome) -> list[Html | str]:
    return [
        element("a", said("div", found["title"]), href=f"{found['study']}.html"),
        verdict_word(found["verdict"]),
        join(said("div", found["sentence"]), further(found)),
        join(found["preset"], element("small", seeds_said(found), class_="unbroken")),
        clock(found["made"]["cpu_seconds"]),
    ]
