"""A small real tokenizer and a small real network with a window of 16 positions."""

from pathlib import Path

import pytest

from indexlm.config import TokenizerConfig
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.tokens.train_bpe import train

ZH = (
    "春天来了，河边的柳树发出新芽，孩子们在草地上奔跑。老人坐在门前，看着远处的青山。",
    "学习要有耐心，不能只看眼前的得失。读书使人明白道理，实践使人知道深浅。",
    "比喻做事多此一举，反而把事情办坏。形容人的性情温和，待人有礼。",
    "山高路远，行人稀少。一条小溪从林中流过，水声清澈，鸟鸣不断。",
)
EN = (
    "The river was wide and slow, and in the evening the boats came home one after another.",
    "She opened the window and looked at the garden, where the first roses had begun to flower.",
    "He said that nothing was ever finished, only put aside until somebody asked for it again.",
    "Hello there! How are you doing today? I am fine, thanks, and what about you?",
)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    config = TokenizerConfig(vocab_size=560, zh_share=0.5)
    return train({"zh": ZH * 3, "en": EN * 3}, config, folder / "tokenizer.model")


def small_network(tokenizer: Tokenizer, context: int, heads: int = 2) -> Transformer:
    """Random weights, large enough that neighbouring tokens differ in likelihood by nats."""
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden=32,
        layers=2,
        heads=heads,
        kv_heads=2,
        ffn=64,
        context=context,
        head_scale=3.0,
        init_std=0.3,
    )
    network = Transformer(config)
    network.initialise(seed=5)
    return network


@pytest.fixture
def model(tokenizer: Tokenizer) -> Transformer:
    return small_network(tokenizer, context=16)


@pytest.fixture
def texts() -> dict[str, list[str]]:
    """Held-out text as the runner takes it; each document is longer than the window."""
    return {"zh_curated": list(ZH[:2]), "zh_ordinary": list(ZH[2:]), "en_noisy": list(EN)}
