"""The window of a plain chat: what is dropped first, and what is said about it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.config import TokenizerConfig
from indexlm.errors import UserError
from indexlm.serve.chat import ChatSession, PlainPrompts
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
    first, last = shown.split("…")
    assert message.startswith(first) and message.endswith(last) and len(first) == len(last)
    assert 56 <= len(prompt.ids) <= 64  # no more is cut than needed
    assert prompt.dropped == len(HISTORY)
    whole = len(tokenizer.encode(message))
    left_out = whole - len(tokenizer.encode(shown))
    assert prompt.notices()["message"] == (
        f"the message has {whole} tokens, more than the window has room for: {left_out} in its "
        "middle are left out, its first and last half are kept"
    )
    assert f"without {left_out} of its {whole} tokens" in prompt.explain()


def test_every_cut_message_is_told_and_a_cut_history_once(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    chat = ChatSession(PlainPrompts(tokenizer, 128, 64), lambda ids: iter(["brief"]))
    messages = ["question " * 40, "be brief", "answer " * 100, "and now " * 6]
    with caplog.at_level("WARNING", logger="indexlm"):
        for message in messages:
            list(chat.reply(message))
    sizes = [len(tokenizer.encode(message)) for message in messages]
    told = [record.message for record in caplog.records]
    assert [text.split(",")[0] for text in told] == [
        f"the message has {sizes[0]} tokens",
        "the oldest 1 turns no longer fit and are left out",
        f"the message has {sizes[2]} tokens",
    ]


def test_a_system_text_that_fills_the_window_is_refused_from_wherever_it_comes(
    tokenizer: Tokenizer,
) -> None:
    prompts = PlainPrompts(tokenizer, 128, 64, "be brief")
    long = "be very brief " * 20
    refusal = (
        rf"the system text has {len(tokenizer.encode(long))} tokens .* may have 64 "
        r"\(a window of 128, 64 of it for the answer\); shorten"
    )
    with pytest.raises(UserError, match=refusal):
        prompts.set_system(long)
    assert prompts.system == "be brief"
    prompts.set_system("")
    assert prompts.prompt((), "x").ids == prompt_ids(tokenizer, Conversation("", (), "x"))
    with pytest.raises(UserError, match=refusal):
        PlainPrompts(tokenizer, 128, 64, long)


def test_a_system_text_beside_which_no_message_fits_is_named_with_the_numbers(
    tokenizer: Tokenizer,
) -> None:
    system = "be brief"
    while len(tokenizer.encode(system)) < 60:  # of 64, three are markers
        system += "."
    prompts = PlainPrompts(tokenizer, 128, 64, system)
    with pytest.raises(
        UserError, match=r"message has \d+ tokens; .* of 60 .* may have 64 .* no room"
    ):
        prompts.prompt((), "question and answer")


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
    assert 0 <= prompt.left_out < prompt.message and ("message" in prompt.notices()) == (
        len(tokenizer.encode(message)) > window - 66
    )
    turns = prompt.turns
    assert [token for token in prompt.ids if token in (3, 4)] == [3, 4] * (turns + 1)
