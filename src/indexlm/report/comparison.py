"""The page of a comparison: differences of two models with intervals and p-values."""

from collections.abc import Mapping, Sequence
from typing import Any

from indexlm.report.markup import Html, both, document, element, number, sentence, table

SIGNIFICANT = 0.05
MEASURES = ("A", "B", "B − A", "95%", "p", "p (Holm)")


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """The whole document, of what `evals.compare.compare` gives."""
    models = comparison["models"]
    sides = [
        element("li", f"{side.upper()}: {model['name']}, {model['fingerprint'][:12]}")
        for side, model in models.items()
    ]
    header = element(
        "header",
        element("h1", both("Two models on the same items", "两个模型的配对比较")),
        sentence("p", "What B gains over A.", "B 相对于 A 的变化。", "lead"),
        element("ul", *sides),
    )
    tests = sentence(
        "p",
        "Accuracies by McNemar's exact test, margins and bits per byte by the paired t-test. Bold: "
        "p below 0.05 after Holm's correction over the rows of the table.",
        "准确率用 McNemar 精确检验，间隔与每字节比特数用配对 t 检验；"
        "粗体：经 Holm 校正（按表中各行）后 p < 0.05。",
        "note",
    )
    notes = element("ul", *(element("li", note) for note in _notes(comparison)))
    main = element("main", element("section", *_tables(comparison), tests, notes))
    names = f"{models['a']['name']} · {models['b']['name']}"
    return document(f"indexlm · {names}", header, main)


def _tables(comparison: Mapping[str, Any]) -> list[Html]:
    """Of accuracies, of margins and of bits per byte, those that there are."""
    rows, text = comparison["rows"], comparison["text"]
    tables = []
    if rows:
        counts = [
            both("Both", "都对"),
            both("Only A", "仅 A"),
            both("Only B", "仅 B"),
            both("Neither", "都错"),
        ]
        head = [both("Accuracy, %", "准确率（%）"), both("Items", "题数"), *MEASURES, *counts]
        body = [
            [_name(row), number(row["items"]), *_cells(row["accuracy"], 100, 1), *_counts(row)]
            for row in rows
        ]
        tables.append(table(head, body))
    if margins := [row for row in rows if row["margin"] is not None]:
        head = [both("Margin, nats", "间隔（奈特）"), both("Items", "题数"), *MEASURES]
        body = [[_name(row), number(row["items"]), *_cells(row["margin"], 1, 3)] for row in margins]
        tables.append(table(head, body))
    if text:
        lower = both("Bits per byte, lower is better", "每字节比特数，越低越好")
        head = [lower, both("Documents", "文档"), *MEASURES]
        body = [[row["name"], number(row["documents"]), *_cells(row, 1, 4)] for row in text]
        tables.append(table(head, body))
    return tables


def _name(row: Mapping[str, Any]) -> str:
    return " ".join(part for part in (row["task"], row["prompt"], row["way"]) if part)


def _counts(row: Mapping[str, Any]) -> list[str]:
    return [number(row[count]) for count in ("both", "only_a", "only_b", "neither")]


def _notes(comparison: Mapping[str, Any]) -> Sequence[str]:
    left_out = [
        f"{stem}: {count} items not in both" for stem, count in comparison["left_out"].items()
    ]
    return [*left_out, *comparison["notes"]]


def _cells(measure: Mapping[str, Any], factor: int, places: int) -> list[Html | str]:
    interval, p, p_holm = measure["interval"], measure["p"], measure["p_holm"]
    ends = "–"
    if interval is not None:
        ends = ", ".join(f"{factor * end:+.{places}f}" for end in interval)
    difference = f"{factor * measure['difference']:+.{places}f}"
    told = p_holm is not None and p_holm < SIGNIFICANT
    return [
        number(factor * measure["a"], places),
        number(factor * measure["b"], places),
        element("strong", difference) if told else difference,
        ends,
        "–" if p is None else f"{p:.2g}",
        "–" if p_holm is None else f"{p_holm:.2g}",
    ]
