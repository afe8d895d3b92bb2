"""What the models write: samples with their measures, and the character beside its memory."""

from typing import Any

from indexlm.report.markup import Html, both, element, join, sentence, table
from indexlm.report.run_files import MODELS, RunFiles, text_order

CONTINUING = ("base", "pure")
"""Models that go on with a text; the others answer a message."""
MEASURES = {
    "in_language": both("In the asked language", "语言一致"),
    "repetition": both("Repeated 4-grams", "四元组重复"),
    "distinct_2": both("Distinct 2-grams", "二元组多样"),
    "empty": both("Empty", "空回答"),
}


def samples(files: RunFiles) -> Html:
    """Measures of all models in one table, then the texts of each."""
    models = [name for name in MODELS if name in files.samples]
    if not models:
        return Html("")
    rows = []
    for name in models:
        found = files.samples[name]["measures"]
        for language in sorted(found, key=text_order):
            measures = found[language]
            rows.append([name, language, *(f"{measures[key]:.0%}" for key in MEASURES)])
    head = [both("Model", "模型"), both("Language", "语言"), *MEASURES.values()]
    parts = [table(head, rows, words=2)]
    for name in models:
        texts = files.samples[name]["texts"]
        languages = dict.fromkeys(sample["language"] for sample in texts)
        boxes = [
            element("div", *(_sample(name, s) for s in texts if s["language"] == each), lang=each)
            for each in languages
        ]
        parts += [element("h3", name), element("div", *boxes, class_="texts")]
    intro = sentence(
        "p",
        "One draw for each fixed prompt, none chosen; the prompt is grey.",
        "固定提示，各采样一次，未经挑选；灰色为提示。",
    )
    return join(intro, *parts)


def character(files: RunFiles) -> Html:
    """Each reply of the character beside the past lines that were put into its prompt."""
    answers = files.samples.get("role-play", [])
    if not answers:
        return Html("")
    boxes = []
    for answer in answers:
        past = [element("p", line, class_="past") for line in answer["past_lines"]]
        none = element("p", both("No past line was found.", "未检索到台词。"), class_="past")
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
    description = element("p", files.recipe.character.description, lang="zh", class_="lead")
    return join(description, element("div", *boxes, class_="texts"))


def _sample(model: str, sample: dict[str, Any]) -> Html:
    prompt = element("span", sample["prompt"], class_="prompt")
    return element("p", prompt, "" if model in CONTINUING else "\n", sample["text"])
