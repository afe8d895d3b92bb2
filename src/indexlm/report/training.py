"""The sections about training: losses, capabilities, gradients, preference pairs."""

import statistics
from collections.abc import Sequence
from typing import Any

from indexlm.evals.starter import KINDS
from indexlm.report import curves, emergence
from indexlm.report.markup import Html, both, element, figure, join, number, sentence
from indexlm.report.run_files import PAIRS, RunFiles

SHOWN_PAIRS = 2


def training(files: RunFiles) -> Html:
    """Loss and learning rate of every stage that has begun."""
    metrics = files.metrics
    parts = []
    if metrics["trunk"]:
        parts += [
            element(
                "h3", both("Pre-training: one trunk, two decays", "预训练：一条主干，两个退火分支")
            ),
            figure(
                curves.pretraining(metrics),
                "base and pure branch from the same step of the trunk with its optimiser state; "
                "base decays with instruction data in the mixture, pure without.",
                "base 与 pure 从主干的同一步分出，继承优化器状态；"
                "base 的退火配比含指令数据，pure 不含。",
            ),
            *_shares(files, ("trunk", "base", "pure")),
        ]
    tuned = [name for name in ("sft", "character-sft") if metrics[name]]
    if tuned:
        parts += [
            element("h3", both("Supervised fine-tuning", "有监督微调")),
            figure(
                curves.finetuning(metrics, tuned),
                "Mean loss over response tokens and replayed pre-training text together.",
                "损失为回答与回放的预训练文本的合并均值。",
            ),
        ]
    preferred = [name for name in ("chat", "character") if metrics[name]]
    if preferred:
        parts += [
            element("h3", both("Direct preference optimisation", "直接偏好优化（DPO）")),
            figure(
                curves.preference(metrics, preferred),
                "Log-ratios are to the model that the stage starts from; the margin is chosen "
                "minus rejected. The dashed line is an even chance of the right order.",
                "对数比以起始模型为参照；间隔为优选减劣选。虚线为随机排序。",
            ),
        ]
    return join(*parts, *_pairs(files))


def _shares(files: RunFiles, stages: Sequence[str]) -> list[Html]:
    """Shares of the tokens that each finished stage read, beside those that were asked for."""
    found = []
    for stage in stages:
        notes = files.manifests[stage].notes if stage in files.manifests else {}
        asked = {name: share for name, share in notes.get("asked", {}).items() if share}
        whole = sum(asked.values())
        told = ", ".join(
            f"{name} {notes['shares'].get(name, 0):.1%} ({share / whole:.1%})"
            for name, share in sorted(asked.items())
        )
        if told:
            found.append(
                sentence(
                    "p",
                    f"{stage}, shares of {number(notes['tokens'])} tokens, in brackets as asked: "
                    f"{told}.",
                    f"{stage}：{number(notes['tokens'])} 词元的来源份额（括号内为要求）：{told}。",
                )
            )
    return found


def capabilities(files: RunFiles) -> Html:
    """What the model could do after how many tokens, from the evaluations inside pre-training."""
    scored = curves.scored(files.metrics)
    known = {key for each in scored.lines for key in each["scores"]}
    if not known:
        return Html("")
    parts = [
        figure(
            curves.capability_bits(files.metrics),
            "Bits per byte on a fixed part of the held-out text; lower is better. Shaded: the "
            "decay phase, in which base and pure differ by their mixture alone.",
            "固定留出文本上的每字节比特数，越低越好；阴影为退火阶段，base 与 pure 仅配比不同。",
        )
    ]
    if any(key.startswith("starter/") for key in known):
        items = _curve_items(files)
        told = " + ".join(f"{count} {kind}" for kind, count in items.items())
        parts += [
            figure(
                curves.capability_choice(files.metrics, "accuracy", items),
                f"Starter-test accuracy on {told} items. The grey band is what guessing "
                "explains in 19 of 20 runs.",
                f"{told} 题的四选一准确率；灰带为随机猜测 95% 范围。",
            ),
            figure(
                curves.capability_choice(files.metrics, "margin", items),
                "Score of the right option less the best wrong one: it moves before accuracy does.",
                "正确项得分减最强错误项得分，先于准确率变化。",
            ),
        ]
    judged = emergence.judge(scored, starter=False)
    parts += [emergence.choices(scored, judged, starter=False), emergence.jumps(scored, judged)]
    return join(*parts)


def gradients(files: RunFiles) -> Html:
    """Gradient norms by layer, where they were recorded."""
    entries = [entry for name in ("trunk", "base") for entry in files.metrics[name]]
    layers = [entry["layers"] for entry in entries if "layers" in entry]
    if not layers:
        return Html("")
    median = statistics.median(curves.head_share(each) for each in layers)
    largest = sum(each["head"] == max(each.values()) for each in layers)
    skipped = sum("skipped" in entry for entry in entries)
    return join(
        sentence(
            "p",
            f"The head holds {median:.0%} of the squared norm in the median step and the largest "
            f"norm of all in {largest} of {len(layers)} recorded steps. Updates skipped for a "
            f"value that was not finite: {skipped}.",
            f"输出头占梯度平方范数的 {median:.0%}（中位步），在 {len(layers)} 步记录中"
            f"有 {largest} 步为各层最大；因非有限值跳过的更新：{skipped} 次。",
        ),
        figure(
            curves.gradients(files.metrics),
            "Norms before clipping, every tenth step; the colour of a layer is its depth.",
            "裁剪前范数，每十步一次；颜色表示层的深度。",
        ),
    )


def _curve_items(files: RunFiles) -> dict[str, int]:
    """Items per kind inside training: as many as were asked for, or as many as there are."""
    asked = files.recipe.evals.curve_items
    tests = files.results["base"]["starter"] if "base" in files.results else {}
    return {kind: min(asked, tests[kind]["items"] if kind in tests else asked) for kind in KINDS}


def _pairs(files: RunFiles) -> Sequence[Html]:
    found = {name: files.pairs[name] for name in PAIRS if files.pairs[name]}
    if not found:
        return []
    parts = [element("h3", both("Preference pairs", "偏好对"))]
    for name, pairs in found.items():
        mean = sum(pair["bigram_f1"] for pair in pairs) / len(pairs)
        manifest = files.manifests.get(name)
        sampled = f" of {number(manifest.notes['sampled'])} sampled answers" if manifest else ""
        parts.append(
            sentence(
                "p",
                join(
                    element("strong", name),
                    f": {number(len(pairs))} pairs{sampled}. The rejected side is the model's own "
                    f"answer; its character-bigram F1 against the chosen one is {mean:.2f} on "
                    "average.",
                ),
                f"{number(len(pairs))} 对；劣选为模型自己的回答，"
                f"与优选的字二元组 F1 平均 {mean:.2f}。",
            )
        )
        boxes = [_pair_box(pair) for pair in pairs[:SHOWN_PAIRS]]
        parts.append(element("div", *boxes, class_="texts"))
    return parts


def _pair_box(pair: dict[str, Any]) -> Html:
    return element(
        "div",
        element("p", pair["query"], class_="prompt"),
        element("p", pair["chosen"], class_="chosen"),
        element("p", pair["rejected"], class_="rejected"),
        element("small", f"bigram F1 {pair['bigram_f1']:.2f}"),
    )
