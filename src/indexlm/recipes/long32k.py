"""A longer window for a base model, and its laptop twin.

    indexlm run long32k parent=MODEL text.inputs='["long"]' sft.files='["instructions.jsonl"]'
    indexlm run long-tiny            after `indexlm run tiny`

The report's 32K model: RoPE base 10,000 x 32, a window of 32,768, long pre-training on 10 B tokens
in steps of 4 M at a peak of 1e-5 (warm-up, cosine, weight decay 0.1, clip 1.0), then SFT on long
and general instructions in steps of 1 M tokens at 5e-6, 2 epochs, no DPO. Documents are packed with
mask and positions reset at their borders. What the report found and we keep: no length warm-up
(its loss rebounds), bases in the millions gain nothing. It does not give the length of the warm-up,
the final learning rate and the weight decay of SFT: those are our choice.
"""

from indexlm.config import (
    Continuation,
    ConversationConfig,
    OptimiserConfig,
    ScheduleConfig,
    TextConfig,
    TextTrainConfig,
    WindowConfig,
)

WINDOW = 32768
ROPE_RATIO = 32

TINY_MIXTURE = {"zh_ordinary": 0.55, "en_ordinary": 0.30, "en_curated": 0.10, "en_noisy": 0.05}
"""Positions restart in every document, so those past 256 are trained in longer documents only. Of
the starter corpus zh_curated and zh_noisy have next to none (2% and 0% of their text)."""


def recipe(parent: str = "Index-1.9B") -> Continuation:
    """The mixture is that of an input folder with both languages; yours may have other sources."""
    return Continuation(
        name="long32k",
        parent=parent,
        window=WindowConfig(context=WINDOW, rope_base=10_000.0 * ROPE_RATIO),
        text=TextConfig(inputs=("long",)),
        pretrain=TextTrainConfig(
            steps=2384,
            batch=128,
            micro_batch=1,
            mixture={"zh_ordinary": 0.5, "en_ordinary": 0.5},
            optimiser=OptimiserConfig(lr=1e-5, weight_decay=0.1, clip=1.0),
            schedule=ScheduleConfig(shape="cosine", warmup=100, final=0.1),
            save_every=50,
        ),
        sft=ConversationConfig(
            files=("instructions.jsonl",),
            epochs=2,
            batch=32,
            micro_batch=1,
            optimiser=OptimiserConfig(lr=5e-6, weight_decay=0.1, clip=1.0),
            warmup_share=0.02,
            final=0.1,
            save_every=20,
        ),
    )


def tiny() -> Continuation:
    """The same stages on the laptop recipe's base model: its window of 256 becomes 1,024.

    The report raises the base 32 times for a window 8 times as long, 3.9 times what NTK-aware
    scaling asks; that proportion is 16 times here.
    """
    return Continuation(
        name="long-tiny",
        parent="runs/tiny/models/base",
        window=WindowConfig(context=1024, rope_base=160_000.0),
        text=TextConfig(held_out_share=0.02),
        pretrain=TextTrainConfig(
            steps=120,
            batch=4,
            micro_batch=2,
            mixture=TINY_MIXTURE,
            optimiser=OptimiserConfig(lr=6e-4),
            schedule=ScheduleConfig(shape="cosine", warmup=10, final=0.1),
            save_every=40,
        ),
        sft=ConversationConfig(
            files=("runs/tiny/text/instruction.jsonl.zst",),
            limit=3000,
            epochs=1,
            batch=4,
            micro_batch=2,
            optimiser=OptimiserConfig(lr=6e-4),
            warmup_share=0.1,
            final=0.1,
            save_every=40,
        ),
    )
