"""Where the numbers come from: times, fingerprints, versions, the resolved recipe."""

import json
import platform
import statistics

import torch

from indexlm import __version__
from indexlm.records import clock
from indexlm.report.markup import (
    Html,
    both,
    element,
    join,
    megabytes,
    number,
    sentence,
    short,
    table,
)
from indexlm.report.run_files import STAGES, TRAINING, RunFiles
from indexlm.runtime import code_fingerprint


def times(files: RunFiles) -> Html:
    """Wall time and memory of each stage; steps, tokens and speed of the training ones."""
    rows: list[list[object]] = []
    for name in STAGES:
        entries = files.metrics[name] if name in TRAINING else []
        cost = files.costs.get(name)
        if cost is None and not entries:
            continue
        row: list[object] = [name, "–", "–", "", "", ""]
        if cost is not None:
            row[1:3] = clock(cost["seconds"]), megabytes(cost["peak_bytes"])
        if entries:
            pace = statistics.median(e["tokens"] / max(e["seconds"], 1e-9) for e in entries)
            tokens = sum(entry["tokens"] for entry in entries)
            row[3:] = number(len(entries)), short(tokens), number(pace)
        rows.append(row)
    if not rows:
        return Html("")
    costs = [files.costs[name] for name in STAGES if name in files.costs]
    if costs:
        total = clock(sum(cost["seconds"] for cost in costs))
        peak = megabytes(max(cost["peak_bytes"] for cost in costs))
        name = element("strong", both("All", "合计"))
        rows.append([name, element("strong", total), element("strong", peak), "", "", ""])
    head = [
        both("Stage", "阶段"),
        both("Wall time", "用时"),
        both("Peak memory, MB", "内存峰值（MB）"),
        both("Steps", "步数"),
        both("Tokens", "词元"),
        both("Tokens per second", "词元／秒"),
    ]
    note = sentence(
        "p",
        "Wall time holds everything a stage does, over all attempts; memory is the peak of the "
        "process up to the end of the stage; the speed is that of the median step.",
        "用时包含该阶段的全部工作（含中断后的重试）；内存为进程到该阶段结束时的峰值；速度取中位步。",
        "note",
    )
    return join(table(head, rows), note)


def provenance(files: RunFiles) -> Html:
    """Fingerprints of code and data, versions, and the configuration in full."""
    versions: list[list[object]] = [
        [both("Code that wrote this page", "生成本页的代码"), element("code", code_fingerprint())],
        ["indexlm", element("code", __version__)],
        ["torch", element("code", torch.__version__)],
        ["Python", element("code", platform.python_version())],
        [both("Seed", "随机种子"), element("code", files.recipe.seed)],
    ]
    settings = json.dumps(files.recipe.model_dump(mode="json"), ensure_ascii=False, indent=2)
    return join(
        table([both("What", "项目"), both("Value", "值")], versions, words=2),
        _fingerprints(files),
        element(
            "details",
            element("summary", both("The resolved configuration", "完整配置")),
            element("pre", settings),
        ),
    )


def _fingerprints(files: RunFiles) -> Html:
    if not files.manifests:
        return Html("")
    rows = [
        [
            name,
            element("code", manifest.fingerprint),
            number(len(manifest.files)),
            megabytes(sum(entry["bytes"] for entry in manifest.files.values())),
        ]
        for name, manifest in files.manifests.items()
    ]
    head = [
        both("Stage", "阶段"),
        both("Fingerprint of all it was made from", "全部输入的指纹"),
        both("Files", "文件"),
        both("MB", "兆字节"),
    ]
    heading = element("h3", both("Finished stages", "已完成的阶段"))
    return join(heading, table(head, rows, words=2))
