"""Compression figures count what is there: bytes, characters, tokens, byte tokens."""

import pytest

from indexlm.tokens.report import compression, compression_table
from indexlm.tokens.tokenizer import Tokenizer

RARE = "龘靐齉"


def test_figures_times_tokens_give_back_the_text(tokenizer: Tokenizer) -> None:
    texts = {"zh": ["春天来了", "山水"], "en": ["the river", "a stone"]}
    rows = compression(tokenizer, texts)
    for name, documents in texts.items():
        tokens = sum(len(tokenizer.encode(text)) for text in documents)
        size = sum(len(text.encode()) for text in documents)
        assert rows[name]["bytes_per_token"] * tokens == pytest.approx(size)
        assert rows[name]["characters_per_token"] * tokens == pytest.approx(
            sum(map(len, documents))
        )


def test_characters_out_of_the_vocabulary_are_all_bytes(tokenizer: Tokenizer) -> None:
    row = compression(tokenizer, {"rare": [RARE], "none": []})
    assert row == {
        "rare": {"bytes_per_token": 1.0, "characters_per_token": 1 / 3, "byte_share": 1.0}
    }
    assert "100.00%" in compression_table(row)
