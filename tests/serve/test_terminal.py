"""The chat in a terminal: in a real one (pty), with keys, and through a pipe."""

import json
import logging
import os
import pty
import select
import sys
import termios
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from command import PATIENCE
from indexlm.config import TokenizerConfig
from indexlm.errors import UserError
from indexlm.model.config import ModelConfig
from indexlm.roleplay.card import Dialogue, Line
from indexlm.roleplay.create import create_card
from indexlm.roleplay.session import CharacterPrompts
from indexlm.serve.chat import ChatSession, History
from indexlm.serve.terminal import answer_once, chat_loop
from indexlm.tokens.tokenizer import FILE_NAME
from indexlm.tokens.train_bpe import train

CHILD = """
import sys
sys.path[:0] = {path!r}
from indexlm.records import start_logging
from indexlm.serve.terminal import chat_loop
from test_terminal import character_session, session
start_logging()
chat_loop({session})
print("left politely")
"""


class Spoken:
    """Prompts that are the message's characters, so that an answer can be told from them."""

    system = ""

    def prompt(self, history: History, query: str) -> "Spoken":
        self.ids = [ord(character) for character in query]
        self.turns = len(history)
        return self

    def set_system(self, text: str) -> None:
        if text == "no":
            raise UserError("not this one")
        self.system = text

    def notices(self) -> dict[str, str]:
        return {"history": "something was cut"} if self.turns else {}

    def explain(self) -> str:
        return f"{self.turns} turns before"


def session(delay: float = 0.0) -> ChatSession:
    """Says the message back, one character at a time, in brackets; `long` for ever."""

    def answer(ids: list[int]) -> Iterator[str]:
        text = "".join(map(chr, ids))
        pieces = (f"<{n}>" for n in range(10**9)) if text == "long" else f"[{text}]"
        for piece in pieces:
            time.sleep(delay)
            yield piece

    return ChatSession(Spoken(), answer)


def character_session(folder: Path) -> ChatSession:
    """A character on a real, small and untrained model."""
    # Here, because every child process above would wait for torch.
    from indexlm.model.transformer import Transformer
    from indexlm.serve.engine import Engine, Sampling

    texts = {
        "zh": ["先生，北伐中原可有胜算？当以十万之众出祁山。"] * 20,
        "en": ["user0 user1"] * 20,
    }
    tokenizer = train(texts, TokenizerConfig(vocab_size=512), folder / FILE_NAME)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden=32,
        layers=2,
        heads=2,
        kv_heads=2,
        ffn=64,
        context=256,
    )
    model = Transformer(shape)
    model.initialise(seed=1)
    engine = Engine(model, tokenizer)
    lines = (Line("刘备", "北伐中原可有胜算？"), Line("诸葛亮", "当以十万之众出祁山。"))
    card = create_card("诸葛亮", [Dialogue("1", "s", lines)], "足智多谋。")
    sampling = Sampling(temperature=1.0, max_new_tokens=24, seed=1)
    prompts = CharacterPrompts(card, tokenizer, engine.context, 24, retrieve=2)
    return ChatSession(prompts, partial(engine.stream, sampling=sampling))


class Terminal:
    """A child process on a pseudo-terminal, as a person has it."""

    def __init__(self, argv: list[str]) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "dumb"
            os.execv(argv[0], argv)
        self.seen = ""

    def press(self, keys: str) -> None:
        """At the prompt, once it is listened at: readline shows it a moment before."""
        end = time.monotonic() + PATIENCE
        while not self._listens():
            assert time.monotonic() < end, f"it does not listen; seen: {self.seen!r}"
            time.sleep(0.01)
        self.interrupt(keys)

    def interrupt(self, keys: str) -> None:
        """At once, whatever the child is at."""
        os.write(self.master, keys.encode())

    def _listens(self) -> bool:
        """Whether readline has taken the terminal over, and sleeps until a key comes."""
        if termios.tcgetattr(self.master)[3] & termios.ICANON:
            return False
        state = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        return state.split()[0] == "S"

    def wait_for(self, text: str) -> str:
        """Everything shown up to and with `text`, which is then taken from the screen."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} did not come; seen: {self.seen!r}"
            try:
                got = os.read(self.master, 4096)
            except OSError:  # Linux: the child closed its side
                got = b""
            assert got, f"the child ended before {text!r}; seen: {self.seen!r}"
            self.seen += got.decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def exit_code(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.master)
        return code


def start(session: str) -> Terminal:
    child = CHILD.format(path=[str(Path(__file__).parent), *sys.path], session=session)
    started = Terminal([sys.executable, "-c", child])
    started.wait_for("> ")
    return started


@pytest.fixture
def terminal() -> Terminal:
    return start("session(delay=0.02)")


def test_an_answer_streams_and_quit_leaves(terminal: Terminal) -> None:
    terminal.press("你好\r")
    terminal.wait_for("[你好]")
    terminal.wait_for("> ")
    terminal.press("/quit\r")
    terminal.wait_for("left politely")
    assert terminal.exit_code() == 0


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_ctrl_c_or_ctrl_d_at_the_prompt_leaves(terminal: Terminal, key: str) -> None:
    terminal.press(key)
    terminal.wait_for("left politely")
    assert terminal.exit_code() == 0


def test_ctrl_c_stops_an_answer_and_keeps_the_session(terminal: Terminal) -> None:
    terminal.press("long\r")
    terminal.wait_for("<5>")
    terminal.interrupt("\x03")
    terminal.wait_for("stopped")
    terminal.wait_for("> ")
    terminal.press("again\r")
    shown = terminal.wait_for("[again]")
    assert "Traceback" not in shown
    terminal.press("/why\r")
    terminal.wait_for("1 turns before")  # the stopped answer is part of the chat
    terminal.press("\x04")
    terminal.wait_for("left politely")
    assert terminal.exit_code() == 0


def test_lines_can_be_edited_and_recalled(terminal: Terminal) -> None:
    terminal.press("helo\x1b[D\x1b[Dl\r")  # two steps left
    terminal.wait_for("[hello]")
    terminal.wait_for("> ")
    terminal.press("\x1b[A\r")  # the line before
    terminal.wait_for("[hello]")
    terminal.press("\x04")
    terminal.wait_for("left politely")
    assert terminal.exit_code() == 0


def test_a_character_on_a_real_model(tmp_path: Path) -> None:
    (tmp_path / "child").mkdir()
    terminal = start(f"character_session(__import__('pathlib').Path({str(tmp_path / 'child')!r}))")
    terminal.press("北伐如何？\r")
    terminal.wait_for("\n> ")
    terminal.press("/why\r")
    assert "+] past lines" in terminal.wait_for("当以十万之众出祁山。")
    terminal.press("/system 你是曹操。\r")
    terminal.wait_for("has its card")
    terminal.press(f"/save {tmp_path / 'chat.json'}\r")
    terminal.wait_for("saved to")
    terminal.press("\x04")
    terminal.wait_for("left politely")
    assert terminal.exit_code() == 0
    messages = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))["messages"]
    assert messages[:2] == [
        {"role": "system", "content": "你是诸葛亮。足智多谋。"},
        {"role": "user", "content": "北伐如何？"},
    ]
    assert messages[2]["role"] == "assistant" and messages[2]["content"]
    assert (
        "".join(character_session(tmp_path).reply("北伐如何？")).strip() == messages[2]["content"]
    )


def test_a_real_model_goes_on_after_a_stop(tmp_path: Path) -> None:
    chat = character_session(tmp_path)
    stream = chat.reply("北伐如何？")
    said = next(piece for piece in stream if piece.strip())
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    assert chat.history == (("北伐如何？", said.strip()),)
    assert "".join(chat.reply("再说。")).strip()
    assert len(chat.history) == 2
    assert chat.explain().count("history") == 1


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    waiting = iter(lines)

    def read(_prompt: str) -> str:
        for line in waiting:
            return line
        raise EOFError

    monkeypatch.setattr("builtins.input", read)


COMMANDS = [
    *(
        "/help",
        "/why",
        "/regenerate",
        "/system no",
        "/system 简短。",
        "one",
        "/regenerate",
        "//two",
    ),
    *("/save", "/save /none/c.json", "/unknown", "", "\udcff"),
]
REFUSED = [
    "nothing was answered",
    "no answer to make again",
    "not this one",
    "needs a file name",
    "/none/c.json cannot be written",
    "/unknown is not a command",
    "not UTF-8",
    "exists and is not overwritten",
]


def test_commands(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    chat = session()
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    typed(monkeypatch, *COMMANDS, f"/save {first}", f"/save {first}", "/reset", f"/save {second}")
    with caplog.at_level(logging.INFO, logger="indexlm"):
        chat_loop(chat)
    assert capsys.readouterr().out == "[one]\n[one]\n[/two]\n\n"
    assert json.loads(first.read_text(encoding="utf-8")) == {
        "messages": [
            {"role": "system", "content": "简短。"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "[one]"},
            {"role": "user", "content": "/two"},
            {"role": "assistant", "content": "[/two]"},
        ]
    }
    assert json.loads(second.read_text(encoding="utf-8"))["messages"] == [
        {"role": "system", "content": "简短。"}
    ]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [words for words, error in zip(REFUSED, errors) if words not in error] == []
    assert len(errors) == len(REFUSED)


def test_what_was_cut_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    chat = session()
    for text in ("one", "two", "three"):
        list(chat.reply(text))
    assert caplog.text.count("something was cut") == 1
    chat.reset()
    for text in ("one", "two"):
        list(chat.reply(text))
    assert caplog.text.count("something was cut") == 2


def test_an_answer_stopped_by_its_reader_is_kept() -> None:
    chat = session()
    stream = chat.reply("long")
    assert [next(stream), next(stream)] == ["<0>", "<1>"]
    stream.close()
    assert chat.history == (("long", "<0><1>"),)


def test_an_empty_new_answer_does_not_lose_the_old_one() -> None:
    answers = iter(["old", ""])
    chat = ChatSession(Spoken(), lambda ids: iter([next(answers)]))
    list(chat.reply("one"))
    list(chat.regenerate())
    assert chat.history == (("one", "old"),)


def test_one_answer_stands_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    answer_once(session(), "你好")
    assert capsys.readouterr().out == "[你好]\n"
    with pytest.raises(UserError, match="empty"):
        answer_once(session(), " ")


def test_no_escape_sequence_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    pieces = ["a\x1b", "]52;c;eA==\x07", "\x9b2Jb\n"]
    answer_once(ChatSession(Spoken(), lambda ids: iter(pieces)), "x")
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    assert shown.startswith("a") and shown.endswith("b\n\n")
