"""The window of a plain chat: what is dropped first, and what is said about it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.config import TokenizerConfig
from indexlm.errors import UserError
from indexlm.serve.chat import PlainPrompts
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.tokens.train_bpe import train


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = {"zh": ["天地玄黄宇宙洪荒"] * 20, "en": ["question answer be brief and now"] * 20}
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return train(texts, TokenizerConfig(vocab_size=512), path)


HISTORY = tuple((f"question {letter}", f"answer {letter}") for letter in "abcdef")


def test_everything_that_fits_goes_in(tokenizer: Tokenizer) -> None:
    prompt = PlainPrompts(tokenizer, 1000, 64, "be brief").prompt(HISTORY, "and now")
    assert prompt.ids == prompt_ids(tokenizer, Conversation("be brief", HISTORY, "and now"))
    assert prompt.notices() == {}


def test_the_oldest_turns_go_first(tokenizer: Tokenizer) -> None:
    prompt = PlainPrompts(tokenizer, 100, 64, "be brief").prompt(HISTORY, "and now")
    assert 0 < prompt.dropped < len(HISTORY)
    kept = HISTORY[prompt.dropped :]
    assert prompt.ids == prompt_ids(tokenizer, Conversation("be brief", kept, "and now"))
    assert str(prompt.dropped) in prompt.notices()["history"]


def test_a_message_beyond_the_window_keeps_both_ends(tokenizer: Tokenizer) -> None:
    message = "first " + "middle " * 100 + "last"
    prompt = PlainPrompts(tokenizer, 128, 64).prompt(HISTORY, message)
    shown = tokenizer.decode([token for token in prompt.ids if token > 4])
    assert shown.startswith("first middle") and shown.endswith("middle last") and "…" in shown
    assert 56 <= len(prompt.ids) <= 64  # no more is cut than needed
    assert "middle" in prompt.notices()["message"] and prompt.dropped == len(HISTORY)


def test_a_system_text_that_fills_the_window_is_refused(tokenizer: Tokenizer) -> None:
    prompts = PlainPrompts(tokenizer, 128, 64, "be brief")
    with pytest.raises(UserError, match="64"):
        prompts.set_system("be very brief " * 20)
    assert prompts.system == "be brief"
    prompts.set_system("")
    assert prompts.prompt((), "x").ids == prompt_ids(tokenizer, Conversation("", (), "x"))
    with pytest.raises(UserError, match="no room"):
        PlainPrompts(tokenizer, 128, 64, "be very brief " * 20).prompt((), "message")


@settings(deadline=None, max_examples=50)
@given(
    history=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=5),
    message=st.text(min_size=1, max_size=200),
    window=st.integers(80, 300),
)
def test_the_window_holds(
    tokenizer: Tokenizer, history: list[tuple[str, str]], message: str, window: int
) -> None:
    prompt = PlainPrompts(tokenizer, window, 64).prompt(tuple(history), message)
    assert len(prompt.ids) <= window - 64
    turns = prompt.turns
    assert [token for token in prompt.ids if token in (3, 4)] == [3, 4] * (turns + 1)
