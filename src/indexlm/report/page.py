"""The report of a run: one HTML page that needs nothing beside it.

No script, no outside file, no date: the same run gives the same bytes, the page can be mailed,
printed and read in ten years. A part of the run that does not exist yet leaves out its section.
"""

from pathlib import Path

from indexlm.records import clock
from indexlm.report.data import data_section, tokenizer_section
from indexlm.report.markup import Html, both, element, join, megabytes, number, short
from indexlm.report.path import path_section
from indexlm.report.provenance import provenance_section, time_section
from indexlm.report.run_files import RunFiles, read_run
from indexlm.report.scores import scores_section
from indexlm.report.training import capability_section, gradient_section, training_section
from indexlm.report.writing import character_section, samples_section

SECTIONS = (
    path_section,
    scores_section,
    training_section,
    capability_section,
    gradient_section,
    data_section,
    tokenizer_section,
    samples_section,
    character_section,
    time_section,
    provenance_section,
)


def write_report(run: Path, out: Path) -> None:
    """Read the run folder `run` and write the page to the file `out`, whose folder must exist.

    Raises UserError where `run` holds no valid `config.json`, DamagedError for a broken file.
    """
    out.write_text(report_page(read_run(run)), encoding="utf-8")


def report_page(files: RunFiles) -> str:
    """The whole document."""
    sections = [made for make in SECTIONS if (made := make(files))]
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", f"indexlm · {files.recipe.name}"),
        element("style", Html(style)),
    )
    body = element("body", _header(files), element("main", *sections), _footer())
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _header(files: RunFiles) -> Html:
    model = files.recipe.model
    lead = both(
        f"A bilingual language model from raw text to a character: {model.layers} layers of width "
        f"{model.hidden}, a window of {number(model.context)} tokens.",
        f"从原始文本到角色的双语语言模型：{model.layers} 层，宽 {model.hidden}，"
        f"窗口 {number(model.context)} 词元。",
    )
    title = join(
        f"Run report: {files.recipe.name} ", element("span", "运行报告", lang="zh", class_="zh")
    )
    return element("header", element("h1", title), element("p", lead, class_="lead"), _facts(files))


def _facts(files: RunFiles) -> Html:
    """The headline figures that the run has."""
    model, metrics = files.recipe.model, files.metrics
    facts = [
        _fact(
            both("Parameters", "参数量"),
            short(model.parameters),
            f"{short(model.non_embedding_parameters)} without embedding and head",
        )
    ]
    if files.funnel:
        kept = sum(size["bytes"] for size in files.funnel["kept"].values())
        read = files.funnel["steps"][0]["bytes"]
        facts.append(
            _fact(
                both("Clean text", "清洗后文本"),
                f"{megabytes(kept)} MB",
                f"of {megabytes(read)} MB read",
            )
        )
    if metrics["base"]:
        trunk, decay = (sum(e["tokens"] for e in metrics[name]) for name in ("trunk", "base"))
        facts.append(
            _fact(
                both("Pre-training tokens", "预训练词元"),
                short(trunk + decay),
                f"{short(trunk)} stable + {short(decay)} decay",
            )
        )
    if "base" in files.results:
        bits = files.results["base"]["bits_per_byte"]
        languages = [name for name in bits if "_" not in name]
        facts.append(
            _fact(
                both("Base, bits per byte", "base 每字节比特"),
                " / ".join(number(bits[name]["value"], 2) for name in languages),
                " / ".join(languages) + ", held-out text",
            )
        )
    if files.times:
        seconds = sum(seconds for name, seconds in files.times.items() if name != "report")
        facts.append(_fact(both("Wall time", "总用时"), clock(seconds), "all stages"))
    return element("dl", *facts, class_="facts")


def _fact(label: Html, value: str, more: str) -> Html:
    small = element("small", more)
    return element("div", element("dt", label), element("dd", value, small))


def _footer() -> Html:
    return element(
        "footer",
        both(
            "Written by indexlm from the files of the run folder; every number on this page is "
            "computed from them.",
            "由 indexlm 根据运行目录中的文件生成，页中数字均由其计算得出。",
        ),
    )
