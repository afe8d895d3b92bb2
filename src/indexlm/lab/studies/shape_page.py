"""What the study of shapes shows; each shape is read at its best learning rate."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from indexlm.lab.activations import kept_bytes_per_token
from indexlm.lab.arms import Result
from indexlm.lab.drawing import (
    GUESSING,
    PERCENT_RIGHT,
    TOKENS,
    Column,
    Value,
    bars,
    curve,
    differences,
    number,
    percent,
    scored,
    table,
)
from indexlm.lab.intervals import less, mean
from indexlm.lab.study import Figure, Line, Panel, Results, Table, Values
from indexlm.lab.sweep import best
from indexlm.lab.verdict import Said
from indexlm.model import costs
from indexlm.model.config import ModelConfig

LOSS, CLOZE, HOPS = "loss/hq", "cloze/held-out/accuracy", "hops-2/held-out/accuracy"
HOPS_TRAINED, HOPS_SURE = "hops-2/trained/accuracy", "hops-2/held-out/probability"

MIDDLE = 1
"""Place, among the widths, of those that further budgets and chains are tried at."""

DEEP, SHALLOW = Said("deep", "深而窄"), Said("shallow", "浅而宽")
CLEAN = Said("loss, curated text", "精选文本损失")
RIGHT = Said("facts, %", "事实（%）")

REPORT_SHAPES = ((36, 1490), (9, 2980))
"""Layers and widths that have 1.01B weights outside the embeddings with the released FFN ratio; of
the report, only the layers are known."""
REPORT_RATIO, REPORT_WINDOW = 2.875, 4096


def widths(results: Results) -> list[int]:
    """Of the deep models, from the smallest."""
    named = (name.split(" @ ")[0].split() for name in results if name.startswith("deep "))
    return sorted({int(words[1]) for words in named if words[1].isdigit()})


def chosen(results: Results, shape: str) -> dict[int, Result]:
    """Of every seed, the arm at the learning rate that the other seeds find best for the shape."""
    named = [arm for arm in results if arm.startswith(f"{shape} @ ")]
    return {
        seed: results[best(results, named, LOSS, without=seed)][seed] for seed in results[named[0]]
    }


def compared(results: Results, deep: str, shallow: str, value: Value) -> tuple[Values, Values]:
    one, other = (
        {seed: value(result) for seed, result in chosen(results, shape).items()}
        for shape in (deep, shallow)
    )
    return one, other


def shown(results: Results) -> Sequence[Figure | Table]:
    sizes = widths(results)
    pairs = [(f"deep {width}", f"shallow {width}") for width in sizes]
    further = ("deep, equal FLOPs", "deep, equal total")
    # Every shape at its best learning rate, under its own name.
    shapes = {name: chosen(results, name) for name in [*sum(pairs, ()), *further]}
    middle = (pairs[MIDDLE][0], *further, pairs[MIDDLE][1])
    return [
        _gaps(shapes, pairs),
        _gap_table(shapes, pairs),
        _over_training(shapes, (pairs[0], pairs[-1])),
        _budgets(shapes, middle),
        _chains(results),
        _chain_table(results),
        _costs(shapes, pairs),
        _memory_table(shapes, pairs),
    ]


def _gaps(shapes: Results, pairs: Sequence[tuple[str, str]]) -> Figure:
    weights = Said("weights outside the embeddings", "非嵌入参数")
    loss = Said("gap of the loss on curated text, nats", "精选文本损失之差（奈特）")
    right = Said("gap of the facts, percentage points", "事实正确率之差（百分点）")
    return Figure(
        Said(
            "The gap between deep and shallow against size, both with as many weights outside the "
            "embeddings and each at its best learning rate. Deep is better below the dashed line "
            "on the left, above it on the right.",
            "深而窄与浅而宽之差随规模的变化：非嵌入参数相同，各取最佳学习率。左图虚线以下、右图虚线以上"
            "表示深而窄更好。",
        ),
        [
            Panel(title, weights, title, _gap_lines(shapes, pairs, value), log_x=True, chance=0)
            for title, value in ((loss, number(LOSS)), (right, percent(CLOZE)))
        ],
    )


def _gap_lines(shapes: Results, pairs: Sequence[tuple[str, str]], value: Value) -> list[Line]:
    name = Said("deep minus shallow", "深而窄减浅而宽")
    xs = [float(_first(shapes, deep).non_embedding) for deep, _ in pairs]
    of_seed = [
        [less(value(shapes[deep][seed]), value(shapes[shallow][seed])) for deep, shallow in pairs]
        for seed in shapes[pairs[0][0]]
    ]
    means = [mean([ys[place] for ys in of_seed]) for place in range(len(pairs))]
    return [*(Line(name, xs, ys, faint=True) for ys in of_seed), Line(name, xs, means)]


def _gap_table(shapes: Results, pairs: Sequence[tuple[str, str]]) -> Table:
    named = [
        (_both(f"{_shape(shapes, deep)} − {_shape(shapes, shallow)}"), deep, shallow)
        for deep, shallow in pairs
    ]
    caption = Said(
        "Deep minus shallow (layers × width) at equal weights outside the embeddings.",
        "非嵌入参数相同时深而窄减浅而宽（层数 × 宽度）。",
    )
    columns = [Column(CLEAN, number(LOSS), 3), Column(RIGHT, percent(CLOZE))]
    return differences(caption, shapes, named, columns)


def _over_training(shapes: Results, pairs: Sequence[tuple[str, str]]) -> Figure:
    right = Said("facts completed rightly, %", "事实补全正确率（%）")
    panels = []
    for pair in pairs:
        lines = [
            line
            for shape, said in zip(pair, (DEEP, SHALLOW))
            for line in curve(shapes, shape, said, scored(CLOZE, 100))
        ]
        count = f"{_first(shapes, pair[0]).non_embedding:,}"
        title = Said(f"{count} weights outside the embeddings", f"{count} 个非嵌入参数")
        panels.append(Panel(title, TOKENS, right, lines, chance=GUESSING))
    return Figure(
        Said(
            "Facts over training at the smallest and the largest size.",
            "最小与最大规模下事实正确率随训练的变化。",
        ),
        panels,
    )


def _budgets(shapes: Results, named: Sequence[str]) -> Table:
    """At one size, the deep model with other budgets too."""
    says = {
        "deep, equal FLOPs": Said("deep, more steps: equal FLOPs", "深而窄，更多步数：FLOPs 相同"),
        "deep, equal total": Said("deep, wider: equal total", "深而窄，更宽：总参数相同"),
    }
    said = {
        name: _beside(says.get(name, DEEP if name.startswith("deep") else SHALLOW), shapes, name)
        for name in named
    }
    caption = Said("One size, what is equal by turns.", "同一规模，依次令不同的预算相等。")
    columns = [Column(CLEAN, number(LOSS), 3), Column(RIGHT, percent(CLOZE))]
    measured = table(caption, shapes, said, columns)
    given = [
        Said("weights outside the embeddings", "非嵌入参数"),
        Said("weights", "总参数"),
        Said("training GFLOPs", "训练 GFLOPs"),
    ]
    return replace(
        measured,
        head=[measured.head[0], *given, *measured.head[1:]],
        rows=[
            [row[0], *_budget(_first(shapes, name)), *row[1:]]
            for name, row in zip(named, measured.rows)
        ],
    )


def _budget(result: Result) -> list[str]:
    """The same in all seeds."""
    return [f"{result.non_embedding:,}", f"{result.parameters:,}", f"{_gflops(result):.0f}"]


def _beside(said: Said, shapes: Results, name: str) -> Said:
    shape = _shape(shapes, name)
    return Said(f"{said.en} ({shape})", f"{said.zh}（{shape}）")


def _gflops(result: Result) -> float:
    model = _model(result)
    tokens = result.arm["train"]["steps"] * result.arm["train"]["batch"] * model.context
    return tokens * costs.training_flops_per_token(model, model.context) / 1e9


CHAINS = {"deep, chains": DEEP, "shallow, chains": SHALLOW}


def _chain_names(results: Results) -> dict[str, Said]:
    return {arm: _beside(said, results, arm) for arm, said in CHAINS.items()}


def _chains(results: Results) -> Figure:
    panels = []
    for score, title in (
        (HOPS, Said("chains never trained on", "未训练过的链条")),
        (HOPS_TRAINED, Said("chains trained on", "训练过的链条")),
    ):
        lines = [
            line
            for arm, said in _chain_names(results).items()
            for line in curve(results, arm, said, scored(score, 100))
        ]
        panels.append(Panel(title, TOKENS, PERCENT_RIGHT, lines, chance=GUESSING))
    return Figure(
        Said(
            "Questions of two facts (a fact of somebody's friend). Chains that are trained on can "
            "be learned by heart, the others have to be followed.",
            "两跳问题（朋友的事实）。训练过的链条可以死记，其余的必须逐步推理。",
        ),
        panels,
    )


def _chain_table(results: Results) -> Table:
    columns = [
        Column(Said("never trained on, %", "未训练过（%）"), percent(HOPS)),
        Column(Said("probability of the right one, %", "正确候选概率（%）"), percent(HOPS_SURE)),
        Column(Said("trained on, %", "训练过（%）"), percent(HOPS_TRAINED)),
        Column(Said("single facts, %", "单跳事实（%）"), percent(CLOZE)),
    ]
    caption = Said("Chains at the end.", "结束时的链条题。")
    return table(caption, results, _chain_names(results), columns)


def _costs(shapes: Results, pairs: Sequence[tuple[str, str]]) -> Figure:
    kept = Said("bytes kept per token", "每词元保留字节数")
    time = Said("CPU-milliseconds of the processor per step", "每步处理器毫秒")
    size = Said("pairs of equal weights: layers × width", "等参数的各对：层数 × 宽度")
    ticks = [_both(f"{_shape(shapes, one)} {_shape(shapes, other)}") for one, other in pairs]
    panels = [
        Panel(title, size, title, _two_bars(shapes, pairs, value), ticks=ticks)
        for title, value in ((kept, _kept), (time, _step_time))
    ]
    return Figure(
        Said(
            "What depth costs: bytes that the backward pass reads (counted where autograd saves "
            "them, without weights and logits), and time of a step, evaluations in it.",
            "深度的代价：反向传播读取的字节数（在 autograd 保存处计数，不含权重与 logits），"
            "以及每步耗时（含评测）。",
        ),
        panels,
    )


def _two_bars(
    shapes: Results, pairs: Sequence[tuple[str, str]], value: Callable[[Result], float | None]
) -> list[Line]:
    return [
        line
        for side, said in enumerate((DEEP, SHALLOW))
        for line in bars(shapes, [pair[side] for pair in pairs], said, value)
    ]


def _memory_table(shapes: Results, pairs: Sequence[tuple[str, str]]) -> Table:
    """Measured, and what the formula says of the report's size."""
    rows: list[list[str | Said]] = []
    for pair in pairs:
        models = [_model(_first(shapes, name)) for name in pair]
        rows.append(_memory_row(models, [kept_bytes_per_token(model) for model in models]))
    models = [
        ModelConfig(
            layers=layers,
            hidden=hidden,
            heads=5,
            kv_heads=5,
            ffn=round(REPORT_RATIO * hidden),
        )
        for layers, hidden in REPORT_SHAPES
    ]
    by_formula = [
        float(sum(costs.activation_bytes(model, REPORT_WINDOW).values())) for model in models
    ]
    rows.append(_memory_row(models, by_formula))
    return Table(
        Said(
            "Bytes that the backward pass reads per token, measured; the last row is the formula "
            "at the report's layers, with widths that we infer from 1.01B weights.",
            "每词元反向传播读取的字节数，实测；末行按公式计算，层数取自报告，"
            "宽度由 1.01B 参数推得。",
        ),
        [
            Said("layers × width", "层数 × 宽度"),
            Said("weights outside the embeddings", "非嵌入参数"),
            Said("deep", "深而窄"),
            Said("shallow", "浅而宽"),
            Said("ratio", "比值"),
        ],
        rows,
    )


def _memory_row(models: Sequence[ModelConfig], kept: Sequence[float]) -> list[str | Said]:
    deep, shallow = kept
    return [
        ", ".join(f"{model.layers}×{model.hidden}" for model in models),
        f"{models[0].non_embedding_parameters:,}",
        f"{deep:,.0f}",
        f"{shallow:,.0f}",
        f"{deep / shallow:.2f}",
    ]


def _kept(result: Result) -> float:
    return kept_bytes_per_token(_model(result))


def _step_time(result: Result) -> float:
    return 1000 * result.cpu_seconds / max(1, len(result.losses))


def _model(result: Result) -> ModelConfig:
    return ModelConfig(**result.arm["model"])


def _first(shapes: Results, name: str) -> Result:
    return next(iter(shapes[name].values()))


def _shape(shapes: Results, name: str) -> str:
    model = _model(_first(shapes, name))
    return f"{model.layers}×{model.hidden}"


def _both(text: str) -> Said:
    return Said(text, text)
