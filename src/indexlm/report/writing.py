"""What the models write: samples with their measures, and the character beside its memory."""

from typing import Any

from indexlm.report.markup import Html, both, element, join, section, table
from indexlm.report.run_files import MODELS, RunFiles

MEASURES = {
    "in_language": both("In the asked language", "语言一致"),
    "repetition": both("Repeated 4-grams", "四元组重复"),
    "distinct_2": both("Distinct 2-grams", "二元组多样"),
    "empty": both("Empty", "空回答"),
}


def samples_section(files: RunFiles) -> Html:
    """Measures of all models in one table, then the texts of each."""
    models = [name for name in MODELS if name in files.samples]
    if not models:
        return Html("")
    rows = []
    for name in models:
        for language, measures in files.samples[name]["measures"].items():
            rows.append([name, language, *(f"{measures[key]:.0%}" for key in MEASURES)])
    head = [both("Model", "模型"), both("Language", "语言"), *MEASURES.values()]
    parts = [table(head, rows, words=2)]
    for name in models:
        texts = files.samples[name]["texts"]
        parts += [element("h3", name), element("div", *map(_text_box, texts), class_="texts")]
    intro = element(
        "p",
        "The first draw for each fixed prompt, none chosen; the prompt is grey. ",
        element("span", "固定提示的首次采样，未经挑选；灰色为提示。", lang="zh", class_="zh"),
    )
    return section("samples", both("Samples", "样本"), intro, *parts)


def character_section(files: RunFiles) -> Html:
    """Each reply of the character beside the past lines that were put into its prompt."""
    answers = files.samples.get("role-play", [])
    if not answers:
        return Html("")
    boxes = []
    for answer in answers:
        past = [element("p", line, class_="said") for line in answer["past_lines"]]
        none = element("p", both("No past line was found.", "未检索到台词。"), class_="said")
        boxes += [
            element(
                "div",
                element("p", answer["query"], class_="prompt"),
                element("p", element("strong", f"{answer['character']}："), answer["text"]),
                lang="zh",
            ),
            element(
                "div",
                element("small", both("Past lines in the prompt", "提示中的过往台词")),
                *(past or [none]),
                lang="zh",
            ),
        ]
    names = "、".join(dict.fromkeys(answer["character"] for answer in answers))
    description = element("p", files.recipe.character.description, lang="zh", class_="lead")
    heading = join(both("The character", "角色"), element("span", f" · {names}", lang="zh"))
    return section("character", heading, description, element("div", *boxes, class_="texts"))


def _text_box(sample: dict[str, Any]) -> Html:
    prompt = element("span", sample["prompt"], class_="prompt")
    return element("div", element("p", prompt, " ", sample["text"]), lang=sample["language"])
