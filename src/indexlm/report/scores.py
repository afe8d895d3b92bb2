"""The scores of the models beside their baselines: a verdict, tables and bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexlm.evals.starter import CHANCE, KINDS, STYLES, within_chance
from indexlm.report.curves import STYLE_NAMES
from indexlm.report.figures import PALETTE, chance_band, drawing
from indexlm.report.markup import (
    Html,
    both,
    element,
    figure,
    join,
    megabytes,
    number,
    sentence,
    table,
)
from indexlm.report.run_files import MODELS, RunFiles, text_order

BIGRAM, XZ = "bigram", "xz -9e"
COLUMNS = (*MODELS, BIGRAM, XZ)
COMPARED = {BIGRAM: ("held-out tiers", "个留出层级"), XZ: ("languages", "种语言")}

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """One question of the verdict: has base fewer bits per byte than `baseline` on `text`?"""

    baseline: str
    text: str
    base: float
    other: float

    @property
    def won(self) -> bool:
        return self.base < self.other


def comparisons(results: Results) -> list[Comparison]:
    """Base against the bigram on every held-out tier, and against xz on every language."""
    base = results["base"]["bits_per_byte"]
    asked = [(BIGRAM, name) for name in base if "_" in name]
    asked += [(XZ, name) for name in base if "_" not in name]
    return [
        Comparison(baseline, name, base[name]["value"], found[name]["value"])
        for baseline, name in asked
        if baseline in results and name in (found := results[baseline]["bits_per_byte"])
    ]


def verdict(results: Results) -> Html:
    """The comparisons in one line, with the closest of them or the ones that were lost."""
    made = comparisons(results)
    lost = [c for c in made if not c.won]
    counts = {
        baseline: (sum(c.won for c in made if c.baseline == baseline), total)
        for baseline in (BIGRAM, XZ)
        if (total := sum(c.baseline == baseline for c in made))
    }
    if not counts:
        return Html("")
    english = " and ".join(
        f"{name} on {won} of {total} {COMPARED[name][0]}" for name, (won, total) in counts.items()
    )
    chinese = "，".join(
        f"在 {total} {COMPARED[name][1]}中有 {won} 个优于 {name}"
        for name, (won, total) in counts.items()
    )
    told = lost or [min(made, key=lambda c: c.other - c.base)]
    listed = "; ".join(
        f"{c.text} {number(c.base, 3)} against {number(c.other, 3)} ({c.baseline})" for c in told
    )
    question = sentence(
        "p",
        "Does base beat the bigram on every held-out tier, and xz on each language?",
        "base 是否在每个留出层级上胜过二元模型，并在每种语言上胜过 xz？",
        "said question",
    )
    answer = element("strong", "No: " if lost else "Yes: ", f"base beats {english}.")
    return element(
        "div",
        question,
        sentence("p", answer, f"{'否' if lost else '是'}：base {chinese}。"),
        element(
            "p",
            both("Not beaten", "未胜") if lost else both("Closest", "最接近"),
            f": {listed}, bits per byte.",
        ),
        class_="verdict lost" if lost else "verdict won",
    )


def scores(files: RunFiles) -> Html:
    """All scores, or nothing before the run is evaluated."""
    results = {name: files.results[name] for name in COLUMNS if name in files.results}
    if not results:
        return Html("")
    parts: list[Html] = []
    if "base" in results:
        parts.append(verdict(results))
    parts += [
        element("h3", both("Bits per byte of held-out text", "留出文本的每字节比特数")),
        figure(
            _bits_figure(results),
            "Bits per byte by tier; lower is better. Every byte of the held-out text is scored, "
            "the ends of documents are paid for. xz sees a whole language at once.",
            "各层级每字节比特数，越低越好；留出文本逐字节计分，xz 按整种语言压缩。",
        ),
        _bits_table(results),
    ]
    if any(results[name]["starter"] for name in results):
        parts += [
            element("h3", both("Starter test: one meaning of four", "入门测试：四选一释义")),
            figure(
                _choice_figure(results),
                "Accuracy on dictionary entries that no stage has seen. Error bars are one "
                "standard error, the dashed line is chance, the grey band what guessing explains "
                "in 19 of 20 runs.",
                "未见词条的四选一准确率；误差线为一个标准误，虚线为随机水平，"
                "灰带为随机猜测 95% 范围。",
            ),
            _choice_table(results),
        ]
    return join(*parts)


def _text_names(results: Results) -> list[str]:
    names = {name for result in results.values() for name in result["bits_per_byte"]}
    return sorted(names, key=text_order)


def _bits_table(results: Results) -> Html:
    rows = []
    for name in _text_names(results):
        found = {model: results[model]["bits_per_byte"].get(name) for model in results}
        values = [part["value"] for part in found.values() if part is not None]
        cells = [_bits_cell(part, min(values)) for part in found.values()]
        sizes = next(part for part in found.values() if part is not None and "documents" in part)
        label = element("strong", name) if "_" not in name else join("\u2003", name)
        rows.append([label, *cells, number(sizes["documents"]), megabytes(sizes["bytes"])])
    head = [both("Text", "文本"), *results, both("Documents", "文档"), both("MB", "兆字节")]
    note = sentence("p", "The lowest value of each row is bold.", "每行最低值为粗体。", "note")
    return join(table(head, rows), note)


def _bits_cell(part: Mapping[str, float] | None, best: float) -> Html | str:
    if part is None:
        return "–"
    value = number(part["value"], 3)
    return element("strong", value) if part["value"] == best else value


def _bits_figure(results: Results) -> Html:
    names = _text_names(results)
    languages = list(dict.fromkeys(name.split("_")[0] for name in names))
    with drawing("bits per byte", 3.3) as page:
        panels = page.figure.subplots(1, len(languages), squeeze=False, sharey=True)[0]
        for axes, language in zip(panels, languages):
            own = [name for name in names if name.split("_")[0] == language]
            for place, model in enumerate(results):
                parts = results[model]["bits_per_byte"]
                xs, ys = _bars(place, len(results), [parts.get(n, {}).get("value") for n in own])
                axes.bar(xs, ys, 0.8 / len(results) * 0.9, color=PALETTE[model], label=model)
            labels = [name.partition("_")[2] or f"all {language}" for name in own]
            axes.set_xticks(range(len(own)), labels)
            axes.tick_params(axis="x", length=0)
            axes.set_title(f"Bits per byte, {language}")
        page.legend(panels[0])
        return page.svg("Bits per byte of models and baselines on each held-out tier")


def _choice_figure(results: Results) -> Html:
    tested = {name: result["starter"] for name, result in results.items() if result["starter"]}
    kinds = [kind for kind in KINDS if any(kind in scores for scores in tested.values())]
    with drawing("starter test", 3.1) as page:
        panels = page.figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
        for axes, kind in zip(panels, kinds):
            for place, (model, scores) in enumerate(tested.items()):
                parts = [scores[kind][style] for style in STYLES]
                xs, ys = _bars(place, len(tested), [part["accuracy"] for part in parts])
                errors = [part["standard_error"] for part in parts]
                axes.bar(xs, ys, 0.8 / len(tested) * 0.9, color=PALETTE[model], label=model)
                style = {"fmt": "none", "ecolor": PALETTE["ink"], "elinewidth": 0.9, "capsize": 2}
                axes.errorbar(xs, ys, yerr=errors, **style)
            items = next(scores[kind]["items"] for scores in tested.values())
            axes.set_xticks(range(len(STYLES)), [STYLE_NAMES[style] for style in STYLES])
            axes.tick_params(axis="x", length=0)
            axes.set_title(f"Accuracy, {kind} ({items} items)")
            chance_band(axes, items)
        page.legend(panels[0])
        return page.svg("Accuracy of each model on the starter test, with chance")


def _bars(place: int, of: int, values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Where the bars of one model stand in each group, and how high; no bar without a value."""
    known = [(group, value) for group, value in enumerate(values) if value is not None]
    offset = (place - (of - 1) / 2) * 0.8 / of
    return [group + offset for group, _ in known], [value for _, value in known]


def _choice_table(results: Results) -> Html:
    tested = {name: result["starter"] for name, result in results.items() if result["starter"]}
    rows = []
    for kind in KINDS:
        known = {name: scores[kind] for name, scores in tested.items() if kind in scores}
        for style in STYLES if known else ():
            items = next(iter(known.values()))["items"]
            cells = [_choice_cells(tested[name].get(kind), style) for name in tested]
            rows.append([f"{kind}, {STYLE_NAMES[style]}", number(items), *cells])
    head = [both("Kind, score", "题型，计分"), both("Items", "题数"), *tested]
    note = sentence(
        "p",
        f"Accuracy in % ± one standard error, margin in nats below; chance is {CHANCE:.0%}. "
        "≈ marks what guessing explains (95%).",
        "准确率（%）± 一个标准误，下行为间隔（奈特）；≈ 表示与随机猜测无异（95%）。",
        "note",
    )
    return join(table(head, rows), note)


def _choice_cells(score: Mapping[str, Any] | None, style: str) -> Html | str:
    if score is None:
        return "–"
    part = score[style]
    guessed = within_chance(part["accuracy"], score["items"])
    accuracy = f"{100 * part['accuracy']:.1f} ± {100 * part['standard_error']:.1f}"
    margin = f"{part['margin']:+.3f} ± {part['margin_standard_error']:.3f}"
    return join(
        element("span", "≈ " if guessed else "", accuracy, class_="guess" if guessed else "told"),
        element("small", margin),
    )
