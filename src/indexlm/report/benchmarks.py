"""The page of an evaluation: one model's scores, or several models' side by side.

As self-contained as the page of a run. The text of a benchmark is not on it: results hold scores,
places in files and ids. What a model itself wrote is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexlm.evals.benchmark_table import WAY_NAMES
from indexlm.evals.task import LETTERS
from indexlm.records import clock
from indexlm.report import behaviour, choices
from indexlm.report import benchmark_figures as figures
from indexlm.report import benchmark_tables as tables
from indexlm.report.benchmark_tables import Models, Part, first, of_prompt, of_task, percent
from indexlm.report.markup import (
    Html,
    both,
    document,
    element,
    fact,
    figure,
    join,
    number,
    sentence,
    short,
    table,
    text,
)
from indexlm.report.result_files import Answers, Evaluated, read_answers, read_results
from indexlm.report.run_files import MODELS, RunFiles

HEADLINE = {"letters": "logprob", "contents": "per_character"}
"""Style -> the way of its figures by subject and of tables of several models; lm-eval's `acc` of
MMLU, C-Eval and CMMLU, its `acc_norm` of ARC and HellaSwag."""


def write_benchmark_page(folders: Sequence[Path], out: Path) -> None:
    """Write the page of one result folder of `eval --out`, or of several, to the file `out`.

    The folder of `out` must exist. Raises UserError for a folder with nothing that a page shows or
    for models that answered other items, DamagedError for a file that is missing or cannot be read.
    """
    out.write_text(benchmark_page(read_results(folders)), encoding="utf-8")


def benchmark_page(evaluated: Sequence[Evaluated]) -> str:
    """The whole document."""
    models = {each.name: each.results["tasks"] for each in evaluated}
    parts = []
    if any(models.values()):
        scores = join(tables.summary(models), _beside(evaluated))
        parts.append(("scores", both("Scores", "成绩"), scores))
    for task in tables.task_names(models):
        title = first(of_task(models, task))["title"]
        parts.append((f"task-{task}", text(title), _task(evaluated, task)))
    if judged := _of_text(evaluated, "safety"):
        heading = both("Refusals", "拒绝与过度拒绝")
        parts.append(("safety", heading, behaviour.safety(judged)))
    if written := _of_text(evaluated, "generation"):
        heading = both("What it writes", "文本生成")
        parts.append(("generation", heading, behaviour.generation(written)))
    parts.append(("settings", both("How it was measured", "测量方式"), _settings(evaluated)))
    contents = [element("a", heading, href=f"#{name}") for name, heading, _ in parts]
    sections = [
        element("section", element("h2", heading), content, id=name)
        for name, heading, content in parts
    ]
    names = ", ".join(models)
    title = element("h1", both(f"Evaluation: {names}", "评测"))
    lead = _lead() if any(models.values()) else ""
    header = element("header", title, lead, _facts(evaluated), element("nav", *contents))
    footer = sentence(
        "footer",
        "Written by indexlm from a folder of results; every score of a model here is computed from "
        "the answers in it.",
        "由 indexlm 根据结果目录生成，模型的成绩均由其中的作答算出。",
        "note",
    )
    return document(f"indexlm · {names}", header, element("main", *sections), footer)


def _lead() -> Html:
    return sentence(
        "p",
        "Multiple choice by likelihood: of the options of an item, the most likely one is the "
        "answer. Chance stands beside every score.",
        "以似然作答的选择题：每题取似然最高的选项。每项成绩旁都列出随机水平。",
        "lead",
    )


def _of_text(evaluated: Sequence[Evaluated], test: str) -> dict[str, Any]:
    """The models that took a test of text, with their results of it."""
    return {e.name: e.results["text"][test] for e in evaluated if test in e.results["text"]}


def benchmarks(files: RunFiles) -> Html:
    """What a run's own page says of benchmarks; nothing where its models answered none."""
    found = {name: files.results.get(name, {}).get("tasks") for name in MODELS}
    models = {name: tasks for name, tasks in found.items() if tasks}
    if not models:
        return Html("")
    parts = [tables.summary(models)]
    for task in tables.task_names(models):
        own = of_task(models, task)
        parts += [element("h3", first(own)["title"]), _by_way(task, own)]
    return join(*parts)


def _facts(evaluated: Sequence[Evaluated]) -> Html:
    """Headline figures: of the model where it is one, and of all that was asked."""
    prompts = [
        prompt
        for each in evaluated
        for task in each.results["tasks"].values()
        for prompt in task["prompts"].values()
    ]
    facts = []
    if len(evaluated) == 1:
        model = evaluated[0].results["model"]
        window = f"window {number(model['window'])}, vocabulary {number(model['vocab_size'])}"
        facts.append(fact(both("Parameters", "参数量"), short(model["parameters"]), window))
    if not prompts:
        return element("dl", *facts, class_="facts") if facts else Html("")
    computed, naive = (sum(prompt[key] for prompt in prompts) for key in ("computed", "naive"))
    seconds = sum(prompt["seconds"] for prompt in prompts)
    answered = sum(prompt["micro"]["items"] for prompt in prompts)
    facts += [
        fact(both("Answers", "作答"), number(answered), "items × prompts"),
        fact(
            both("Tokens computed", "计算的词元"),
            short(computed),
            f"of {short(naive)} without sharing, {computed / max(naive, 1):.0%}",
        ),
        fact(
            both("Wall time", "用时"),
            clock(seconds),
            f"{answered / max(seconds, 1e-9):,.1f} answers/s",
        ),
    ]
    return element("dl", *facts, class_="facts")


def _beside(evaluated: Sequence[Evaluated]) -> Html:
    """Published scores, where the evaluation was asked to put them beside."""
    published: dict[str, Mapping[str, float]] = {}
    sources: list[str] = []
    for each in evaluated:
        published |= each.results.get("beside", {})
        sources += [each.results["beside_source"]] if "beside_source" in each.results else []
    models = {each.name: each.results["tasks"] for each in evaluated}
    shown = tables.beside_published(models, published)
    if not shown:
        return Html("")
    note = sentence(
        "p",
        "Mean of the subjects in %. In bold the models of this page in the report's manner: the "
        "higher of both styles by perplexity. Published scores are as printed, by tools and "
        f"prompts of their authors: {'; '.join(dict.fromkeys(sources)) or 'source not given'}.",
        "学科平均准确率（%）。粗体为本页模型按技术报告的做法（两种方式按困惑度取高）所得；公布的成绩"
        "照录，其工具与提示各异。",
        "note",
    )
    return join(element("h3", both("Beside published scores", "与公布成绩对照")), shown, note)


def _task(evaluated: Sequence[Evaluated], task: str) -> Html:
    models = {
        each.name: each.results["tasks"][task]
        for each in evaluated
        if task in each.results["tasks"]
    }
    parts = [_by_way(task, models)]
    for prompt in tables.prompt_names(models):
        asked = of_prompt(models, prompt)
        folders = {each.name: each.folder for each in evaluated if each.name in asked}
        answers = {
            name: read_answers(folders[name], task, prompt, part["micro"])
            for name, part in asked.items()
        }
        parts += [element("h3", prompt), _prompt(f"{task} {prompt}", asked, answers)]
    return join(*parts)


def _by_way(task: str, models: Models) -> Html:
    return figure(
        figures.by_way(task, models),
        "Error bars are 95% intervals, dashed lines chance; a faint bar is what guessing "
        "explains (95%).",
        "误差线为 95% 区间，虚线为随机水平；淡色为猜测可解释的成绩（95%）。",
    )


def _prompt(name: str, models: Models, answers: Mapping[str, Answers]) -> Html:
    """All that is shown of one prompt of one task."""
    way = HEADLINE[first(models)["style"]]
    parts = [tables.groups(models, way)]
    if len({subject for part in models.values() for subject in part["subjects"]}) > 1:
        drawn = figure(
            figures.by_subject(name, models, way),
            "Best first within a category; lines are 95% intervals, dashed is chance, faint is "
            "what guessing explains. Of a guesser's subjects one in twenty is not faint.",
            "类别内由高到低；线为 95% 区间，虚线为随机水平，淡色为猜测可解释的成绩；纯猜测时也约有"
            "二十分之一的学科不显淡色。",
        )
        told = element(
            "details",
            element("summary", both("The numbers of every subject", "各学科数字")),
            tables.subjects(models, way),
        )
        parts += [drawn, told]
    parts.append(
        figure(
            figures.answers(name, answers, way),
            f"By {WAY_NAMES[way]}: how often each letter is chosen (bars) and right "
            "(diamonds), in grey what 95% of models of this accuracy without a liking for letters "
            "would choose; which letters are taken for which. By log-likelihood: accuracy against "
            "the probability of the chosen option among its item's options, with the count of "
            "items, ECE the expected calibration error over 10 bins; log-likelihood of the right "
            "option less that of the best wrong one, dotted the mean, the outer 1% at either "
            "end in its last bar.",
            "左二图：各字母被选（柱）与正确（菱形）的比例，灰带为同等准确率而无字母偏好的模型的"
            " 95% 范围；混淆矩阵。右二图按对数似然：所选选项的概率与准确率（附题数，ECE 为 10 档"
            "期望校准误差）；正确选项与最佳错误选项的对数似然之差，点线为均值，"
            "两端各 1% 计入末柱。",
        )
    )
    parts += [_preferences(answers, way), _surely_wrong(answers)]
    return join(*parts)


def _preferences(answers: Mapping[str, Answers], way: str) -> Html:
    """Letter bias and calibration as numbers, a row a model."""
    rows = []
    for name, found in answers.items():
        bias = choices.letter_bias(found, way)
        told = [
            f"{LETTERS[place]} {percent(chosen)} ({percent(right)})"
            for place, (chosen, right) in enumerate(zip(bias.chosen_K, bias.right_K))
        ]
        numbers = [percent(bias.distance), percent(choices.calibration(found).error)]
        rows.append([name, " · ".join(told), *numbers, f"{found.margin_N.mean():+.3f}"])
    head = [
        both("Model", "模型"),
        both("Letters chosen (right), %", "各字母被选（正确），%"),
        both("Letter bias, %", "字母偏好，%"),
        both("ECE, %", "校准误差，%"),
        both("Margin, nats", "间隔，奈特"),
    ]
    note = sentence(
        "p",
        "Letter bias: the share of answers that would have to change for no letter to be "
        "preferred.",
        "字母偏好：要使任何字母都不被偏好，须改变的作答比例。",
        "note",
    )
    return join(table(head, rows, words=2), note)


def _surely_wrong(answers: Mapping[str, Answers]) -> Html:
    rows = []
    for name, found in answers.items():
        probability_NK = choices.probabilities(found)
        for at in choices.surely_wrong(found):
            chosen, right = found.chosen["logprob"][at], found.answer_N[at]
            place = [found.subjects[at], found.ids[at], element("code", found.places[at])]
            letters = [LETTERS[chosen], LETTERS[right], percent(probability_NK[at, chosen])]
            rows.append([name, *place, *letters, f"{found.margin_N[at]:+.2f}"])
    if not rows:
        return Html("")
    head = [
        both("Model", "模型"),
        both("Subject", "学科"),
        both("Item", "题号"),
        both("File and line", "文件与行"),
        both("Chosen", "所选"),
        both("Right", "正确"),
        both("Probability, %", "概率，%"),
        both("Margin, nats", "间隔，奈特"),
    ]
    return element(
        "details",
        element("summary", both("Most surely wrong, by log-likelihood", "错得最肯定的题目")),
        table(head, rows, words=4),
    )


def _settings(evaluated: Sequence[Evaluated]) -> Html:
    """Everything that a repetition needs."""
    models = []
    for each in evaluated:
        model, settings = each.results["model"], each.results["settings"]
        told = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
        size = [number(model["parameters"]), number(model["vocab_size"]), number(model["window"])]
        models.append([each.name, element("code", model["fingerprint"][:16]), told, *size])
    head = [
        both("Model", "模型"),
        both("Fingerprint", "指纹"),
        both("Settings", "设置"),
        both("Parameters", "参数量"),
        both("Vocabulary", "词表"),
        both("Window", "窗口"),
    ]
    return join(table(head, models, words=3), _prompts(evaluated))


def _prompts(evaluated: Sequence[Evaluated]) -> Html:
    """Of the benchmarks, where there are some."""
    rows = []
    for each in evaluated:
        for name, task in each.results["tasks"].items():
            files = join(f"{name} v{task['version']} ", element("code", task["data_sha256"][:12]))
            for prompt, part in task["prompts"].items():
                rows.append([each.name, files, prompt, *_prompt_facts(part)])
    if not rows:
        return Html("")
    head = [
        both("Model", "模型"),
        both("Benchmark, files (SHA-256)", "基准与文件"),
        both("Prompt", "提示"),
        both("As in", "与何一致"),
        both("Examples", "示例数"),
        both("Too long", "超出窗口"),
        both("Tokens computed", "计算词元"),
        both("Without sharing", "不共享时"),
        both("Seconds", "秒"),
    ]
    note = sentence(
        "p",
        "Examples and questions that prompts share are computed once; without sharing each option "
        "of each item would be computed by itself.",
        "各提示共有的示例与题目只计算一次；不共享时每题每个选项单独计算。",
        "note",
    )
    heading = element("h3", both("Prompts", "提示"))
    return join(heading, table(head, rows, words=4), note)


def _prompt_facts(part: Part) -> list[Any]:
    numbers = [number(part[key]) for key in ("shots", "cut", "computed", "naive")]
    return [part["harness"] or "–", *numbers, number(part["seconds"], 1)]
