"""The sections about the data: the funnel from raw text to tiers, and the tokenizer."""

from indexlm.report.markup import Html, both, element, join, megabytes, number, sentence, table
from indexlm.report.run_files import RunFiles, text_order

DOCUMENTS = both("Documents", "文档")
MB = both("MB", "兆字节")
NOT_FILTERS = ("read", "normalise", "cut_passages", "mask", "hold_out")
"""Steps of the funnel that drop nothing."""
NOTHING = {"documents": 0, "bytes": 0}


def data(files: RunFiles) -> Html:
    """What came in, what each step left and dropped, what is trained on and held out."""
    funnel = files.funnel
    if not funnel:
        return Html("")
    return join(
        element("h3", both("Sources", "来源")),
        _sources_table(files),
        element("h3", both("Funnel", "逐步过滤")),
        _steps_table(files),
        element("h3", both("Kept for training and held out", "训练集与留出集")),
        _tiers_table(files),
    )


def tokenizer(files: RunFiles) -> Html:
    """Tokens per source, and what a token holds, on training and on held-out text."""
    if not files.sources:
        return Html("")
    held_out = files.compression.get("held_out", {})
    rows = []
    for name in sorted(files.sources, key=text_order):
        size = files.sources[name]
        unseen = held_out.get(name)
        rows.append(
            [
                name,
                number(size["documents"]),
                number(size["tokens"]),
                number(size["bytes"] / max(size["tokens"], 1), 3),
                number(unseen["bytes_per_token"], 3) if unseen else "–",
                number(unseen["characters_per_token"], 3) if unseen else "–",
            ]
        )
    total = sum(size["tokens"] for size in files.sources.values())
    head = [
        both("Source", "来源"),
        DOCUMENTS,
        both("Tokens", "词元"),
        both("Bytes per token", "字节／词元"),
        both("Bytes per token, held out", "字节／词元（留出）"),
        both("Characters per token, held out", "字符／词元（留出）"),
    ]
    vocabulary = files.recipe.tokenizer.vocab_size
    english, chinese = _by_language(held_out)
    line = sentence(
        "p",
        f"{number(vocabulary)} pieces, {number(total)} tokens of text. {english}",
        f"词表 {number(vocabulary)}，共 {number(total)} 个词元。{chinese}",
    )
    return join(line, table(head, rows))


def _by_language(held_out: dict[str, dict[str, float]]) -> tuple[str, str]:
    """What a token of each whole language holds, as a sentence in English and in Chinese."""
    if not {"zh", "en"} <= held_out.keys():
        return "", ""
    zh, en = held_out["zh"], held_out["en"]
    english = (
        f"On held-out text a token holds {number(zh['characters_per_token'], 2)} Chinese "
        f"characters ({number(zh['bytes_per_token'], 2)} bytes) or "
        f"{number(en['characters_per_token'], 2)} English ones; "
        f"{zh['byte_share']:.2%} and {en['byte_share']:.2%} of the tokens are bytes."
    )
    chinese = (
        f"在留出文本上，每个词元平均含 {number(zh['characters_per_token'], 2)} 个中文字符"
        f"（{number(zh['bytes_per_token'], 2)} 字节）或 {number(en['characters_per_token'], 2)} 个"
        f"英文字符；字节回退分别占 {zh['byte_share']:.2%} 与 {en['byte_share']:.2%}。"
    )
    return english, chinese


def _sources_table(files: RunFiles) -> Html:
    rows = [
        [s["source"], s["license"], number(s["documents"]), megabytes(s["bytes"])]
        for s in files.funnel["sources"]
    ]
    head = [both("Source", "来源"), both("Licence", "许可证"), DOCUMENTS, MB]
    return table(head, rows, words=2)


def _steps_table(files: RunFiles) -> Html:
    rows = []
    steps, dropped = files.funnel["steps"], files.funnel["dropped"]
    for step in steps:
        gone = dropped.get(step["step"], NOTHING)
        share = gone["documents"] / steps[0]["documents"]
        filtered = step["step"] not in NOT_FILTERS
        rows.append(
            [
                step["step"].replace("_", " "),
                number(gone["documents"]) if filtered else "–",
                megabytes(gone["bytes"]) if filtered else "–",
                f"{share:.2%}" if filtered else "–",
                number(step["documents"]),
                megabytes(step["bytes"]),
            ]
        )
    head = [
        both("Step, or reason of dropping", "步骤／丢弃原因"),
        both("Dropped", "丢弃文档"),
        both("Dropped MB", "丢弃兆字节"),
        both("Of all documents", "占比"),
        both("Documents left", "剩余文档"),
        both("MB left", "剩余兆字节"),
    ]
    return table(head, rows)


def _tiers_table(files: RunFiles) -> Html:
    kept, held_out = files.funnel["kept"], files.funnel["held_out"]
    rows = []
    for name in sorted(kept.keys() | held_out.keys(), key=text_order):
        train, unseen = kept.get(name, NOTHING), held_out.get(name, NOTHING)
        language, _, tier = name.partition("_")
        rows.append(
            [
                language,
                tier,
                number(train["documents"]),
                megabytes(train["bytes"]),
                number(unseen["documents"]),
                megabytes(unseen["bytes"]),
            ]
        )
    head = [
        both("Language", "语言"),
        both("Tier", "层级"),
        both("Training documents", "训练文档"),
        both("Training MB", "训练兆字节"),
        both("Held-out documents", "留出文档"),
        both("Held-out MB", "留出兆字节"),
    ]
    return table(head, rows, words=2)
