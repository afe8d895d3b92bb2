"""The path of the data: every stage as a box, what follows from what, what came out of each."""

from typing import Any

from matplotlib.patches import Rectangle

from indexlm.report.figures import PALETTE, drawing
from indexlm.report.markup import Html, figure, short
from indexlm.report.run_files import MODELS, PAIRS, TRAINING, RunFiles

PLACES = {
    "text": (0, 0),
    "tokenizer": (1, 0),
    "tokens": (2, 0),
    "trunk": (3, 0),
    "base": (4, 0),
    "pure": (4, 1),
    "sft": (5, 0),
    "pairs": (6, 0),
    "chat": (7, 0),
    "script": (1, 2),
    "character-sft": (5, 2),
    "character-pairs": (6, 2),
    "character": (7, 2),
}
"""Stage -> column and row of its box."""
ARROWS = (
    ("text", "tokenizer"),
    ("tokenizer", "tokens"),
    ("tokens", "trunk"),
    ("trunk", "base"),
    ("trunk", "pure"),
    ("base", "sft"),
    ("sft", "pairs"),
    ("pairs", "chat"),
    ("tokenizer", "script"),
    ("sft", "character-sft"),
    ("script", "character-sft"),
    ("character-sft", "character-pairs"),
    ("character-pairs", "character"),
)
BOX_WIDTH, BOX_HEIGHT = 0.88, 0.62


def path(files: RunFiles) -> Html:
    """The stages as a drawing."""
    return figure(
        _path_figure(files),
        "An arrow leads from a stage to one that is made from it; a coloured box ends in a model, "
        "a dashed one is not finished.",
        "箭头由一个阶段指向由其产生的阶段；彩色框产出模型，虚线框尚未完成。",
    )


def outcome(files: RunFiles, stage: str) -> str:
    """What came out of a stage, in three or four words."""
    if stage not in files.manifests:
        return "not finished"
    if stage == "text":
        kept = files.funnel["kept"].values()
        return f"{short(sum(size['documents'] for size in kept))} documents"
    if stage == "tokenizer":
        return f"{files.recipe.tokenizer.vocab_size:,} pieces"
    if stage == "tokens":
        return f"{short(sum(size['tokens'] for size in files.sources.values()))} tokens"
    if stage in TRAINING:
        return f"{len(files.metrics[stage]):,} steps"
    if stage in PAIRS:
        return f"{len(files.pairs[stage]):,} pairs"
    return "card, dialogues"


def _path_figure(files: RunFiles) -> Html:
    with drawing("path", 2.9) as page:
        page.figure.set_layout_engine("none")
        axes = page.figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-0.5, 7.5)
        axes.set_ylim(2.45, -0.45)
        for before, after in ARROWS:
            _arrow(axes, PLACES[before], PLACES[after])
        for stage, (x, y) in PLACES.items():
            edge = PALETTE[stage] if stage in MODELS else PALETTE["soft"]
            corner = (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2)
            axes.add_patch(_box(corner, edge, stage in files.manifests))
            axes.text(x, y - 0.08, stage, ha="center", va="center", weight="bold", fontsize=8.2)
            told = {"ha": "center", "va": "center", "fontsize": 7.8, "color": PALETTE["soft"]}
            axes.text(x, y + 0.15, outcome(files, stage), **told)
        return page.svg("Flow of the stages: " + ", ".join(PLACES))


def _box(corner: tuple[float, float], edge: str, finished: bool) -> Rectangle:
    return Rectangle(
        corner,
        BOX_WIDTH,
        BOX_HEIGHT,
        edgecolor=edge,
        facecolor=PALETTE["panel"],
        linewidth=1.4,
        linestyle="solid" if finished else "dashed",
    )


def _arrow(axes: Any, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Along a row or down a column; where both differ, down first and then along the row."""
    (x0, y0), (x1, y1) = start, end
    tip = (x1 - BOX_WIDTH / 2, y1) if x0 != x1 else (x1, y1 - BOX_HEIGHT / 2)
    tail = (x0 + BOX_WIDTH / 2, y0) if y0 == y1 else (x0, y0 + BOX_HEIGHT / 2)
    look = {"color": PALETTE["soft"], "linewidth": 1, "shrinkA": 0, "shrinkB": 1}
    if x0 != x1 and y0 != y1:
        axes.plot([x0, x0], [tail[1], y1], color=PALETTE["soft"], linewidth=1)
        tail = (x0, y1)
    axes.annotate("", tip, tail, arrowprops={"arrowstyle": "-|>", **look})
