"""A small tokenizer, learned like the large ones."""

import pytest

from indexlm.config import TokenizerConfig
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.tokens.train_bpe import train

CHINESE = """你是诸葛亮。足智多谋，忠心耿耿。
先生，北伐中原可有胜算？当以十万之众出祁山。待秋后粮足。
借东风之事如何？亮已筑坛祭风。主公请坐。亮谢主公。"""
ENGLISH = "You are a sailor. Where is the harbour? East of the old lighthouse. user0 user1"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = {"zh": [CHINESE] * 20, "en": [ENGLISH] * 20}
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return train(texts, TokenizerConfig(vocab_size=512), path)
