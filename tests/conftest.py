"""A tokenizer learned like the large ones, on a page of text in both languages."""

import os
from collections.abc import Mapping

import pytest
from hypothesis import settings

from indexlm.config import TokenizerConfig
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.tokens.train_bpe import train

# A loaded machine is no fault of what is tested. Nor is an example that nobody had met a fault of
# the change that happens to meet it: every run of a test tries the same ones. New ones are searched
# for with `pytest --hypothesis-profile=search`.
settings.register_profile("search", deadline=None, derandomize=False)
settings.register_profile("the same", deadline=None, derandomize=True)
settings.load_profile("the same")

# transformers reads it when it is imported: nothing in these tests is fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

ZH = (
    "春天来了，河边的柳树发出新芽，孩子们在草地上奔跑。老人坐在门前，看着远处的青山。",
    "学习要有耐心，不能只看眼前的得失。读书使人明白道理，实践使人知道深浅。",
    "山高路远，行人稀少。一条小溪从林中流过，水声清澈，鸟鸣不断。",
    "中华人民共和国成立了。中华人民共和国的首都是北京。",
)
EN = (
    "The river was wide and slow, and in the evening the boats came home one after another.",
    "She opened the window and looked at the garden, where the first roses were in flower.",
    "He said that nothing was ever finished, only put aside until somebody asked for it again.",
    "Hello there! How are you doing today? I am fine, thanks, and what about you?",
)


@pytest.fixture(scope="session")
def bilingual() -> Mapping[str, tuple[str, ...]]:
    """Running text by language; the Chinese holds a phrase of seven characters many times."""
    return {"zh": ZH * 8, "en": EN * 8}


@pytest.fixture(scope="session")
def tokenizer(
    tmp_path_factory: pytest.TempPathFactory, bilingual: Mapping[str, tuple[str, ...]]
) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return train(bilingual, TokenizerConfig(vocab_size=640, zh_share=0.5), path)
