"""Tables of benchmark results: all scores, the report's manner, published scores, subjects.

`Models` is model -> its part of the results: of all tasks, of one task or of one prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from indexlm.evals.benchmark_table import WAY_NAMES, higher_of_both
from indexlm.report.markup import Html, both, element, join, number, sentence, table

CHINESE_WAYS = {
    "logprob": "对数似然",
    "per_token": "按词元",
    "per_character": "按字符",
    "unconditional": "减无条件",
}

Part = Mapping[str, Any]
Models = Mapping[str, Part]


def task_names(models: Models) -> list[str]:
    """All tasks of any model, each once."""
    return list(dict.fromkeys(task for tasks in models.values() for task in tasks))


def of_task(models: Models, task: str) -> dict[str, Part]:
    """The models that answered `task`, with their results of it."""
    return {name: tasks[task] for name, tasks in models.items() if task in tasks}


def of_prompt(models: Models, prompt: str) -> dict[str, Part]:
    """Of the models of one task, those that were asked with `prompt`."""
    asked = {name: task["prompts"].get(prompt) for name, task in models.items()}
    return {name: part for name, part in asked.items() if part is not None}


def prompt_names(models: Models) -> list[str]:
    """All prompts of one task."""
    return list(dict.fromkeys(name for task in models.values() for name in task["prompts"]))


def way_names(models: Models) -> list[str]:
    """All ways of choosing of one prompt."""
    ways = (way for part in models.values() for way in part["micro"]["scores"])
    return list(dict.fromkeys(ways))


def first(models: Mapping[str, Part]) -> Part:
    """What is the same for all models (title, chance, number of items) is read from this one."""
    return next(iter(models.values()))


def summary(models: Models) -> Html:
    """Every task, prompt and way: accuracy over all items and the mean of the subjects."""
    several = len(models) > 1
    rows = []
    for task in task_names(models):
        own = of_task(models, task)
        label: object = element("strong", first(own)["title"])
        for prompt in prompt_names(own):
            asked = of_prompt(own, prompt)
            for way in way_names(asked):
                cells = [c for name in models for c in _averages(asked.get(name), way, several)]
                micro = first(asked)["micro"]
                items = [number(micro["items"]), percent(micro["chance"])]
                rows.append([label, prompt, _unbroken(way_label(way)), *items, *cells])
                label = ""
        rows += _higher_row(own, list(models))
    averages = [both("All items, %", "全部题目，%"), both("Mean of subjects, %", "学科平均，%")]
    head = [
        both("Benchmark", "基准"),
        both("Prompt", "提示"),
        both("Score", "计分"),
        both("Items", "题数"),
        both("Chance, %", "随机，%"),
        *(models if several else averages),
    ]
    return join(table(head, rows, words=3), _summary_note(several))


def _summary_note(several: bool) -> Html:
    macro = "the small one below" if several else "the last column"
    return sentence(
        "p",
        "Accuracy ± one standard error over all items (micro average); the mean of the subjects, "
        f"in which each counts the same (macro average), is {macro}. ≈ marks what guessing "
        "explains (95%). Letters: the options are listed and their letters are scored; contents: "
        "the text of each option is scored, as a whole or by length. Higher of both: the report of "
        "Index-1.9B printed the higher of both styles by perplexity; the larger of two is too high "
        "on average, hence a row of its own.",
        "准确率 ± 一个标准误，按全部题目计（微平均）；各学科等权的平均（宏平均）另列。≈ 表示"
        "与随机猜测无异（95%）。letters：列出选项，对字母计分；contents：对选项文本整体或按长度计分。"
        "两式取高：技术报告取两种方式按困惑度的较高者；取高会偏高，故另列一行。",
        "note",
    )


def _averages(prompt: Part | None, way: str, several: bool) -> list[Html | str]:
    if prompt is None or way not in prompt["micro"]["scores"]:
        return ["–"] if several else ["–", "–"]
    micro = accuracy(prompt["micro"]["scores"][way])
    # Of one subject the mean of the subjects says nothing more.
    single = prompt["macro"]["subjects"] == 1
    macro = "–" if single else accuracy(prompt["macro"]["scores"][way])
    if several:
        return [micro if single else join(micro, element("small", macro))]
    return [micro, macro]


def _higher_row(own: Models, names: Sequence[str]) -> list[list[object]]:
    """The report's manner as a row of its own, said to be it; nothing where it cannot be."""
    chosen = {name: higher_of_both(task) for name, task in own.items()}
    if not any(chosen.values()):
        return []
    several = len(names) > 1
    cells: list[Html | str] = []
    for name in names:
        pair = chosen.get(name)
        if pair is None:
            cells += _averages(None, "", several)
            continue
        prompt, way = pair
        first_cell, *others = _averages(own[name]["prompts"][prompt], way, several)
        small = element("small", f"{prompt}, {WAY_NAMES[way]}")
        cells += [join(first_cell, small), *others]
    label = both("higher of both", "两式取高")
    return [["", label, _unbroken(both("as in the report", "同技术报告")), "", "", *cells]]


def beside_published(models: Models, published: Mapping[str, Mapping[str, float]]) -> Html:
    """Our scores in the report's manner above published ones, `name -> {task: percent}`."""
    tasks = [name for name in task_names(models) if any(name in p for p in published.values())]
    if not tasks:
        return Html("")
    rows: list[list[object]] = []
    for model, own in models.items():
        cells = [_printed(own.get(task)) for task in tasks]
        rows.append([element("strong", model), *cells])
    for name, scores in published.items():
        rows.append([name, *(number(scores[t], 2) if t in scores else "–" for t in tasks)])
    titles = [first(of_task(models, task))["title"] for task in tasks]
    return table([both("Model", "模型"), *titles], rows)


def _printed(task: Part | None) -> Html | str:
    """The mean of the subjects in the report's manner; nothing where one style was not asked."""
    pair = None if task is None else higher_of_both(task)
    if task is None or pair is None:
        return "–"
    prompt, way = pair
    small = element("small", f"{prompt}, {WAY_NAMES[way]}")
    return join(accuracy(task["prompts"][prompt]["macro"]["scores"][way]), small)


def groups(models: Models, way: str) -> Html:
    """Scores of one prompt by category and by subset; nothing where the benchmark has none."""
    found = [*_merged(models, "categories"), *_merged(models, "subsets")]
    if not found:
        return Html("")
    return _parts_table(models, found, both("Group of subjects", "学科组"), way)


def subjects(models: Models, way: str) -> Html:
    """Scores of one prompt by subject."""
    return _parts_table(models, _merged(models, "subjects"), both("Subject", "学科"), way)


def _merged(models: Models, level: str) -> list[tuple[str, dict[str, Part]]]:
    """Name of each subject or group and model -> its part, in the order of the results."""
    merged: dict[str, dict[str, Part]] = {}
    for model, prompt in models.items():
        for name, part in prompt[level].items():
            merged.setdefault(name, {})[model] = part
    return list(merged.items())


def _parts_table(
    models: Models, parts: Sequence[tuple[str, Models]], label: Html, way: str
) -> Html:
    """A row each: all ways of one model, or one way of several."""
    ways = way_names(models)
    several = len(models) > 1
    rows = []
    for name, found in parts:
        if several:
            cells = [_cell(found.get(model), way) for model in models]
        else:
            cells = [_cell(first(found), each) for each in ways]
        size = first(found)
        rows.append([name, number(size["items"]), percent(size["chance"]), *cells])
    columns = list(models) if several else [way_label(each) for each in ways]
    head = [label, both("Items", "题数"), both("Chance, %", "随机，%"), *columns]
    note = sentence(
        "p",
        "Accuracy in % ± one standard error; in small type the mean margin of the right option "
        "over the best wrong one, in units of the score.",
        "准确率（%）± 一个标准误；小字为正确选项与最佳错误选项得分之差的均值。",
        "note",
    )
    return join(table(head, rows), note)


def _cell(part: Part | None, way: str) -> Html | str:
    """Accuracy, and the mean margin of the right option in small type."""
    if part is None:
        return "–"
    score = part["scores"][way]
    margin = f"{score['margin']:+.3f} ± {score['margin_standard_error']:.3f}"
    return join(accuracy(score), element("small", margin))


def accuracy(score: Part) -> Html:
    """`≈ 25.31 ± 0.36`, in percent; the mark where it is within chance."""
    told = f"{percent(score['accuracy'])} ± {percent(score['standard_error'])}"
    guessed = score["within_chance"]
    return element("span", "≈ " if guessed else "", told, class_="guess" if guessed else "told")


def way_label(way: str) -> Html:
    """A way of scoring an option, in both languages."""
    return both(WAY_NAMES[way], CHINESE_WAYS[way])


def _unbroken(label: Html) -> Html:
    return element("span", label, class_="unbroken")


def percent(share: float) -> str:
    """0.25314 -> `25.31`."""
    return number(100 * share, 2)
