"""What four of the studies ask of real text, in bits per byte of held-out documents.

One size for each preset, trained side by side on the same rows, with every source in the share that
the text has of it. All arms but those of the learning rates have one rate, near the best of the
world; nothing is tuned on the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from indexlm.config import OptimiserConfig, ScheduleConfig, TrainConfig
from indexlm.lab import sweep
from indexlm.lab.arms import Arm, TextData, TextPhase, Watch
from indexlm.lab.drawing import Column, bars, curve, number, scored, table
from indexlm.lab.reference import FFN_RATIO, heads_that_fill
from indexlm.lab.study import Declared, Figure, OnText, Panel, PresetName, Results, Table
from indexlm.lab.texts import ALL, Corpus
from indexlm.lab.verdict import REPORT, Claim, Said
from indexlm.model.config import ModelConfig

MARGIN = 0.01
"""Bits per byte: half a percent of what a small model pays."""

BITS = Said("bits per byte of real text", "真实文本每字节比特数")
UNIT = Said(" bits", " 比特")

SUFFIX = ", text"
"""Of every arm's name, beside those on the world."""


@dataclass(frozen=True)
class Size:
    hidden: int
    layers: int
    head_width: int
    head_scale: float
    """At width 64 and below 2 to 4 is best; above it the bound of the release, sqrt(2048 / d)."""
    context: int
    batch: int
    steps: int
    lr: float
    documents: int
    """Held-out ones of each source that are scored."""


SIZES: Mapping[PresetName, Size] = {
    "quick": Size(64, 4, 16, 3.0, 64, 16, 150, 4e-3, 24),
    "full": Size(64, 4, 16, 3.0, 64, 16, 200, 4e-3, 24),
    "gpu": Size(384, 8, 64, 2.3, 512, 64, 1500, 1.5e-3, 256),
}
DECAY = 0.2
"""Share of a WSD's steps."""


def arm(preset: PresetName, seed: int, corpus: Corpus, name: str, **changed: Any) -> Arm:
    """`changed` are other fields; without them a cosine with a Norm-Head."""
    each = SIZES[preset]
    fields: dict[str, Any] = {
        "name": name + SUFFIX,
        "seed": seed,
        "corpus": corpus,
        "model": shape(each, corpus),
        "train": training(each),
        "data": TextData(phases=(TextPhase(shares=dict(corpus.shares)),)),
        "watch": Watch(sets=(), texts=(), rows=each.documents, every=each.steps // 5),
    }
    return Arm(**(fields | changed))


def shape(each: Size, corpus: Corpus, **changed: Any) -> ModelConfig:
    fields: dict[str, Any] = {"hidden": each.hidden, "layers": each.layers} | changed
    heads = heads_that_fill(fields["hidden"], each.head_width)
    fields = {
        "vocab_size": corpus.vocab_size,
        "heads": heads,
        "kv_heads": heads,
        "ffn": round(FFN_RATIO * fields["hidden"]),
        "context": each.context,
        "head_scale": each.head_scale,
        "init_std": 0.02,
    } | fields
    return ModelConfig(**fields)


def training(
    each: Size,
    shape: Literal["cosine", "linear", "wsd"] = "cosine",
    steps: int | None = None,
    lr: float | None = None,
) -> TrainConfig:
    length = steps or each.steps
    return TrainConfig(
        steps=length,
        batch=each.batch,
        micro_batch=each.batch,
        optimiser=OptimiserConfig(lr=lr or each.lr),
        schedule=ScheduleConfig(shape=shape, warmup=each.steps // 10, final=0.1),
        skip_above=0,
        save_every=length,
    )


# The arms of each study.


def of_heads(preset: PresetName, seed: int, corpus: Corpus) -> Sequence[Arm]:
    each = SIZES[preset]
    drawn = 0.02 * each.hidden**0.5
    factor = each.head_scale / drawn
    plain = shape(each, corpus, norm_head=False, head_scale=1.0)
    scaled = shape(each, corpus, norm_head=False, head_scale=factor)
    return [
        arm(preset, seed, corpus, "norm-head"),
        arm(preset, seed, corpus, "plain", model=plain),
        arm(preset, seed, corpus, "plain, scaled", model=scaled, head_rows=drawn),
    ]


def of_rates(preset: PresetName, seed: int, corpus: Corpus) -> Sequence[Arm]:
    each = SIZES[preset]
    rates = {"2e-4": 2e-4, "5e-4": 5e-4, "2.5 times lower": each.lr / 2.5}
    lower = [
        arm(preset, seed, corpus, name, train=training(each, lr=lr)) for name, lr in rates.items()
    ]
    # The arm of the other studies, under another name.
    return [*lower, arm(preset, seed, corpus, "the common rate")]


def of_schedules(preset: PresetName, seed: int, corpus: Corpus) -> Sequence[Arm]:
    each = SIZES[preset]
    begin = round((1 - DECAY) * each.steps)
    trunk = arm(preset, seed, corpus, "stable", train=training(each, "wsd", begin))
    decay = arm(
        preset,
        seed,
        corpus,
        "WSD",
        train=training(each, "wsd"),
        trunk=trunk,
        decay_steps=each.steps - begin,
    )
    linear = arm(preset, seed, corpus, "linear", train=training(each, "linear"))
    return [arm(preset, seed, corpus, "cosine"), linear, trunk, decay]


def of_shapes(preset: PresetName, seed: int, corpus: Corpus) -> Sequence[Arm]:
    """Four times the layers at half the width, as in the report; and as many weights in all."""
    each = SIZES[preset]
    deep = shape(each, corpus, hidden=each.hidden // 2, layers=4 * each.layers)
    shallow = shape(each, corpus)
    some = [
        shape(each, corpus, hidden=width, layers=4 * each.layers)
        for width in range(deep.hidden, shallow.hidden, 2)
        if heads_that_fill(width, each.head_width)
    ]
    whole = min(some, key=lambda model: abs(model.parameters - shallow.parameters))
    return [
        arm(preset, seed, corpus, "deep", model=deep),
        arm(preset, seed, corpus, "shallow"),
        arm(preset, seed, corpus, "deep, equal total", model=whole),
    ]


# Claims and pages.

CREDITS_ROWS = Said("whoever credits the normalisation", "“归功于归一化”之说")
"""The report compares with a plain head as it is drawn."""
LARGER_IS_BETTER = Said("whoever holds a larger rate to be better as such", "“学习率越大越好”之说")
"""The report has one pair, and says nothing of an optimum."""


def _claim(
    name: Said,
    treatment: tuple[str, Said],
    control: tuple[str, Said],
    direction: Literal["higher", "lower", "same"],
    claimant: Said = REPORT,
) -> Declared:
    claim = Claim(
        BITS, treatment[1], control[1], direction, MARGIN, "high", UNIT, claimant=claimant
    )
    sides = treatment[0] + SUFFIX, control[0] + SUFFIX
    named = Said(f"real text: {name.en}", f"真实文本：{name.zh}")
    return Declared(named, claim, *sides, number(ALL))


def _on_text(arms: Any, design: Said, named: Mapping[str, Said], claims: list[Declared]) -> OnText:
    return OnText(
        Said(f"On real text: {design.en}", f"真实文本：{design.zh}"),
        arms,
        claims,
        lambda results: _shown(results, named),
    )


def _shown(results: Results, named: Mapping[str, Said]) -> Sequence[Figure | Table]:
    said = {name + SUFFIX: each for name, each in named.items()}
    tokens, kind = Said("tokens", "词元数"), Said("arm", "运行")
    over = [line for name, each in said.items() for line in curve(results, name, each, scored(ALL))]
    ends = bars(results, list(said), BITS, number(ALL))
    first = next(iter(results[next(iter(said))].values()))
    languages = [score for score in first.scores if score.startswith("bits/")]
    columns = [Column(Said(score, score), number(score), 4) for score in languages]
    caption = Said("Bits per byte of real text.", "真实文本每字节比特数。")
    return [
        Figure(
            Said(
                "Real text: bits per byte of held-out documents over training, and of every seed "
                "at its end; lower is better.",
                "真实文本：留出文档的每字节比特数，左为训练过程，右为各种子终点；越低越好。",
            ),
            [
                Panel(BITS, tokens, BITS, over),
                Panel(Said("At the end", "终点"), kind, BITS, ends, ticks=list(said.values())),
            ],
        ),
        table(caption, results, said, columns),
    ]


NORM, PLAIN = ("norm-head", sweep.NORM_HEAD), ("plain", sweep.PLAIN)
SCALED = (
    "plain, scaled",
    Said("a plain head of the same logits and rows", "logits 与行长相同的普通输出头"),
)
COSINE, LINEAR = ("cosine", Said("cosine", "余弦")), ("linear", Said("linear", "线性"))
WSD = "WSD", Said("WSD", "WSD")
LARGE, SMALL = ("5e-4", Said("5e-4", "5e-4")), ("2e-4", Said("2e-4", "2e-4"))
COMMON = "the common rate", Said("the rate of all other arms", "其余各组的学习率")
BELOW = "2.5 times lower", Said("the rate 2.5 times lower", "其 1/2.5 的学习率")
DEEP, SHALLOW = ("deep", Said("deep", "深而窄")), ("shallow", Said("shallow", "浅而宽"))
WHOLE = "deep, equal total", Said("deep of as many weights in all", "总参数相同的深而窄")

HEADS = _on_text(
    of_heads,
    Said(
        "three heads at one learning rate on the same rows.",
        "三种输出头，同一学习率、同样的数据行。",
    ),
    dict([NORM, PLAIN, SCALED]),
    [
        _claim(Said("Norm-Head against plain", "Norm-Head 对普通头"), NORM, PLAIN, "lower"),
        _claim(Said("against the same scale", "尺度相同时"), NORM, SCALED, "lower", CREDITS_ROWS),
    ],
)
RATES = _on_text(
    of_rates,
    Said(
        "the report's pair of rates, and the same ratio below the rate of all other arms.",
        "报告的一对学习率，以及以其余各组的学习率为较大者、比值相同的一对。",
    ),
    dict([SMALL, LARGE, BELOW, COMMON]),
    [
        _claim(Said("the report's pair", "报告的一对学习率"), LARGE, SMALL, "lower"),
        _claim(
            Said("the common rate", "其余各组的学习率"), COMMON, BELOW, "lower", LARGER_IS_BETTER
        ),
    ],
)
SCHEDULES = _on_text(
    of_schedules,
    Said("three schedules of equal peak and end.", "三种调度，峰值与终值相同。"),
    dict([COSINE, LINEAR, WSD]),
    [
        _claim(Said("WSD and cosine", "WSD 与余弦"), WSD, COSINE, "same"),
        _claim(Said("linear and cosine", "线性与余弦"), LINEAR, COSINE, "same"),
    ],
)
SHAPES = _on_text(
    of_shapes,
    Said(
        "four times the layers at half the width, and as many weights in all at a larger width; "
        "one learning rate.",
        "层数四倍、宽度一半；另有总参数相同、宽度更大的深模型；学习率相同。",
    ),
    dict([DEEP, SHALLOW, WHOLE]),
    [
        _claim(Said("deep against shallow", "深对浅"), DEEP, SHALLOW, "lower"),
        _claim(Said("at equal total weights", "总参数相同时"), WHOLE, SHALLOW, "lower"),
    ],
)
