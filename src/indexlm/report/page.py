"""The report of a run: one HTML page that needs nothing beside it.

No script, no outside file, no date: the same run gives the same bytes, the page can be mailed,
printed and read in ten years. A part of the run that does not exist yet leaves out its section.
"""

from pathlib import Path

from indexlm.records import clock
from indexlm.report import benchmarks, data, path, provenance, scores, training, writing
from indexlm.report.markup import (
    Html,
    both,
    document,
    element,
    fact,
    megabytes,
    number,
    sentence,
    short,
)
from indexlm.report.run_files import RunFiles, read_run, text_order

SECTIONS = (
    ("path", both("The path of the data", "数据之路"), path.path),
    ("scores", both("Scores", "成绩"), scores.scores),
    ("benchmarks", both("Benchmarks", "基准评测"), benchmarks.benchmarks),
    ("training", both("Training", "训练"), training.training),
    ("capabilities", both("Capabilities over tokens", "能力曲线"), training.capabilities),
    ("gradients", both("Gradients by layer", "各层梯度"), training.gradients),
    ("data", both("Data", "数据"), data.data),
    ("tokenizer", both("Tokenizer", "分词器"), data.tokenizer),
    ("samples", both("Samples", "样本"), writing.samples),
    ("character", both("The character", "角色"), writing.character),
    ("time", both("Time", "用时"), provenance.times),
    ("provenance", both("Provenance", "来历"), provenance.provenance),
)
"""Anchor, heading and maker of each part; what a maker leaves empty is left out."""


def write_report(run: Path, out: Path) -> None:
    """Read the run folder `run` and write the page to the file `out`, whose folder must exist.

    Raises UserError where `run` holds no valid `config.json`, DamagedError for a broken file.
    """
    out.write_text(report_page(read_run(run)), encoding="utf-8")


def report_page(files: RunFiles) -> str:
    """The whole document."""
    made = [(name, heading, make(files)) for name, heading, make in SECTIONS]
    parts = [part for part in made if part[2]]
    contents = [element("a", heading, href=f"#{name}") for name, heading, _ in parts]
    sections = [
        element("section", element("h2", heading), content, id=name)
        for name, heading, content in parts
    ]
    top = _header(files, element("nav", *contents))
    return document(f"indexlm · {files.recipe.name}", top, element("main", *sections), _footer())


def _header(files: RunFiles, contents: Html) -> Html:
    model = files.recipe.model
    lead = sentence(
        "p",
        f"A bilingual language model, from raw text to a character: {model.layers} layers of "
        f"width {model.hidden}, a window of {number(model.context)} tokens.",
        f"从原始文本到角色的双语语言模型：{model.layers} 层，宽 {model.hidden}，"
        f"窗口 {number(model.context)} 词元。",
        "lead",
    )
    title = element("h1", both(f"Run report: {files.recipe.name}", "运行报告"))
    return element("header", title, lead, _facts(files), contents)


def _facts(files: RunFiles) -> Html:
    """The headline figures that the run has."""
    model, metrics = files.recipe.model, files.metrics
    facts = [
        fact(
            both("Parameters", "参数量"),
            short(model.parameters),
            f"{short(model.non_embedding_parameters)} without embedding and head",
        )
    ]
    if files.funnel:
        kept = sum(size["bytes"] for size in files.funnel["kept"].values())
        read = files.funnel["steps"][0]["bytes"]
        facts.append(
            fact(
                both("Clean text", "清洗后文本"),
                f"{megabytes(kept)} MB",
                f"of {megabytes(read)} MB read",
            )
        )
    if metrics["base"]:
        trunk, decay = (sum(e["tokens"] for e in metrics[name]) for name in ("trunk", "base"))
        facts.append(
            fact(
                both("Pre-training tokens", "预训练词元"),
                short(trunk + decay),
                f"{short(trunk)} stable + {short(decay)} decay",
            )
        )
    if "base" in files.results:
        bits = files.results["base"]["bits_per_byte"]
        languages = sorted((name for name in bits if "_" not in name), key=text_order)
        facts.append(
            fact(
                both("Base, bits per byte", "base 每字节比特"),
                " / ".join(number(bits[name]["value"], 2) for name in languages),
                " / ".join(languages) + ", held-out text",
            )
        )
    if files.costs:
        seconds = sum(cost["seconds"] for name, cost in files.costs.items() if name != "report")
        facts.append(fact(both("Wall time", "总用时"), clock(seconds), "all stages"))
    return element("dl", *facts, class_="facts")


def _footer() -> Html:
    return sentence(
        "footer",
        "Written by indexlm from the files of the run folder; every number on this page is "
        "computed from them.",
        "由 indexlm 根据运行目录中的文件生成，页中数字均由其计算得出。",
        "note",
    )
