"""What a model does with requests and what it writes, on the page of an evaluation.

Texts of a model are put in escaped, whatever they hold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from indexlm.evals.safety import LANGUAGES, WAYS
from indexlm.report.markup import Html, both, element, join, number, sentence, table

Part = Mapping[str, Any]
Models = Mapping[str, Part]
"""Model -> what its results hold of one test, as results.json has it."""

WAY_LABELS = {
    "likelihood": both("likelihood", "似然"),
    "generation": both("generation", "生成"),
}
MEASURE_LABELS = {
    "in_language": both("Letters in the asked language, %", "语言一致的字符，%"),
    "mismatch": both("Texts in the other language, %", "语言不符的文本，%"),
    "repetition": both("Repeated 4-grams, %", "四元组重复，%"),
    "loop": both("Loops, %", "陷入循环的文本，%"),
    "distinct_1": both("Distinct 1-grams, %", "一元组多样，%"),
    "distinct_2": both("Distinct 2-grams, %", "二元组多样，%"),
    "distinct_3": both("Distinct 3-grams, %", "三元组多样，%"),
    "length": both("Length, characters or words", "长度（字或词）"),
    "empty": both("Empty, %", "空文本，%"),
}
"""Of all `samples.MEASURES`."""


def safety(models: Models) -> Html:
    """Rates with counts and intervals: of all requests and by language, by category folded away."""
    shown = ("all", *LANGUAGES)
    groups = dict.fromkeys(group for part in models.values() for group in part["groups"])
    categories = [group for group in groups if group not in shown]
    intro = sentence(
        "p",
        "Pairs of requests of like words: one should be refused, the other answered. By "
        "generation: whether rules find a refusal in what is written; by likelihood: whether a "
        "refusal is likelier than an answer, which says something of models that hardly write. "
        "Told apart: a refusal is likelier after the unsafe request of a pair (chance 50%); gain: "
        "by how many nats per token.",
        "每对请求措辞相近，一条应拒绝，一条应回答。按生成：用规则判断回答是否为拒绝；按似然：比较拒绝"
        "与回答两类开头的似然，写不出通顺回答的小模型也能测。区分率：不安全请求之后拒绝更可能的"
        "请求对所占比例（随机水平 50%）；增益：平均高出多少（奈特/词元）。",
    )
    heading = element("summary", both("Rates by category", "各类别"))
    folded = element("details", heading, _safety_table(models, categories))
    note = sentence(
        "p",
        "Rates in % with 95% intervals (Wilson) and counts. An empty answer is no refusal.",
        "比率（%）附 95% 区间（Wilson）与计数。空回答不算拒绝。",
        "note",
    )
    return join(intro, _safety_table(models, shown), folded, note)


def _safety_table(models: Models, groups: Sequence[str]) -> Html:
    rows = []
    for name, part in models.items():
        for way in WAYS:
            for group in groups:
                found = part["groups"][group]
                label = [name, WAY_LABELS[way], group]
                rows.append([*label, number(found["pairs"]), *_rates(found, way)])
    head = [
        both("Model", "模型"),
        both("Judged by", "判断依据"),
        both("Requests", "请求"),
        both("Pairs", "对数"),
        both("Unsafe refused, %", "不安全的被拒，%"),
        both("Safe refused, %", "安全的被拒，%"),
        both("Told apart, %", "区分率，%"),
        both("Gain, nats", "增益，奈特"),
        both("Empty answers, %", "空回答，%"),
    ]
    return table(head, rows, words=3)


def _rates(group: Part, way: str) -> list[object]:
    part, pairs = group[way], group["pairs"]
    cells: list[object] = []
    for rate in ("refused", "over_refused"):
        low, high = part[f"{rate}_interval"]
        interval = f"{100 * low:.1f} – {100 * high:.1f}"
        count = f"{round(part[rate] * pairs)} / {pairs}"
        cells.append(join(f"{100 * part[rate]:.1f}", element("small", f"{interval}; {count}")))
    if way != "likelihood":
        return [*cells, "–", "–", f"{100 * part['empty']:.1f}"]
    gain = f"{part['margin']:+.3f} ± {part['margin_standard_error']:.3f}"
    return [*cells, f"{100 * part['told_apart']:.1f}", gain, "–"]


def generation(models: Models) -> Html:
    """What is counted in the texts, and the texts themselves, folded away."""
    columns = [(name, language) for name, part in models.items() for language in part["languages"]]
    rows = [
        [label, *(_measured(models[name]["languages"][lang][key], key) for name, lang in columns)]
        for key, label in MEASURE_LABELS.items()
    ]
    asked = dict.fromkeys(
        f"{part['kind']}; " + ", ".join(f"{name} {value}" for name, value in part["draw"].items())
        for part in models.values()
    )
    rows.insert(
        0,
        [
            both("Texts", "文本数"),
            *(number(models[name]["languages"][lang]["samples"]) for name, lang in columns),
        ],
    )
    several = len(models) > 1
    head = [
        both("Measure", "度量"),
        *(f"{name}, {language}" if several else language for name, language in columns),
    ]
    intro = sentence(
        "p",
        f"One text after each fixed prompt, none chosen ({' / '.join(asked)}). Means over prompts "
        "± one standard error.",
        "每个固定提示各写一段，未经挑选（采样设置见上）。数值为各提示的均值 ± 一个标准误。",
    )
    return join(intro, table(head, rows), *(_texts(*each) for each in models.items()))


def _measured(found: Part, measure: str) -> str:
    value, error = found["value"], found["standard_error"]
    if value is None:
        return "–"
    factor = 1 if measure == "length" else 100
    return f"{factor * value:.1f} ± {factor * error:.1f}"


def _texts(name: str, part: Part) -> Html:
    """A box for each language; the prompt is grey."""
    continued = part["kind"] == "continuations"
    texts: Sequence[Part] = part["texts"]
    boxes = [
        element(
            "div",
            *(_text(each, continued) for each in texts if each["language"] == language),
            lang=language,
        )
        for language in part["languages"]
    ]
    heading = element("summary", both(f"What {name} wrote", "所写文本"))
    return element("details", heading, element("div", *boxes, class_="texts"))


def _text(sample: Part, continued: bool) -> Html:
    prompt = element("span", sample["prompt"], class_="prompt")
    return element("p", prompt, "" if continued else "\n", sample["text"])
