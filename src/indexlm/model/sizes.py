"""Named shapes, from a minute's experiment to the released model, deep and slim like it.

A name states the parameters without embedding and head, which depend on the vocabulary. The
feed-forward width is 2.875 times the width, as in the released model, rounded to 32, the block of
8-bit weights. `NAME-deep` is `NAME`; `NAME-shallow` has a fourth of the layers at twice the widths,
so that the matrices hold the same number of weights: the report compares 36 layers with 9 in this
way at 1.01B. Attention of the shallow one takes half the arithmetic and its head twice: in training
FLOPs it is 1% below the deep one at 1b, and up to 10% above it where the head weighs more.
"""

import math

from indexlm.model.config import ModelConfig

LOGIT_BOUND = 35.0
"""head_scale x |gain| that a narrow model starts with; without a factor it would be sqrt(width)."""
RELEASED_WIDTH, RELEASED_STD = 2048, 0.01


def _shape(layers: int, hidden: int, ffn: int, head: int, vocab: int, context: int) -> ModelConfig:
    """`head` is the width of one attention head."""
    return ModelConfig(
        vocab_size=vocab,
        hidden=hidden,
        layers=layers,
        heads=hidden // head,
        kv_heads=hidden // head,
        ffn=ffn,
        context=context,
        head_scale=max(1.0, round(LOGIT_BOUND / math.sqrt(hidden), 2)),
        init_std=round(RELEASED_STD * math.sqrt(RELEASED_WIDTH / hidden), 4),
    )


def _pair(
    name: str, layers: int, hidden: int, ffn: int, head: int, vocab: int, context: int
) -> dict[str, ModelConfig]:
    deep = _shape(layers, hidden, ffn, head, vocab, context)
    shallow = _shape(layers // 4, 2 * hidden, 2 * ffn, head, vocab, context)
    return {name: deep, f"{name}-deep": deep, f"{name}-shallow": shallow}


SIZES: dict[str, ModelConfig] = {
    "1m": _shape(8, 96, 288, 32, 5120, 256),
    "3m": _shape(10, 160, 448, 32, 8192, 256),
    **_pair("10m", 12, 256, 736, 64, 8192, 512),
    **_pair("30m", 16, 384, 1120, 64, 8192, 512),
    **_pair("100m", 24, 576, 1664, 64, 32768, 1024),
    **_pair("300m", 28, 896, 2592, 128, 65029, 2048),
    "600m": _shape(30, 1280, 3680, 128, 65029, 4096),
    **_pair("1b", 36, 1472, 4224, 64, 65029, 4096),
    "1.9b": ModelConfig(),
}
