"""The real command in a real process, and the text and the models that it is given."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from indexlm.model.config import ModelConfig
from indexlm.tokens.tokenizer import Tokenizer

COMMAND = [sys.executable, "-m", "indexlm.cli"]
PATIENCE = 600.0
"""Seconds after which a process is taken to hang: a hundred times what torch takes to be imported
on an idle machine."""
Run = Callable[..., tuple[int, str, str]]
"""`run` or `run_here`."""
ZH = "春夏秋冬山水河海天地日月星云风雨雪花草树木鸟鱼虫马牛羊门窗书笔纸墨城乡道路桥船车行走坐立"
EN = "river stone evening garden window letter morning harbour mountain winter summer bread"
TIERS = ("curated", "ordinary", "noisy")
SMALL = [
    'text.inputs=["corpus"]',
    *("tokenizer.vocab_size=600", "model.vocab_size=600", "model.hidden=16", "model.layers=1"),
    *("model.heads=2", "model.kv_heads=2", "model.ffn=16", "model.context=32", "threads=1"),
]


def rows(count: int) -> Iterator[dict[str, str]]:
    """Sentences of random words, as many Chinese as English, in all three tiers."""
    draw, words = random.Random(7), EN.split()
    for number in range(count):
        tier = TIERS[number % 3]
        zh = "".join("".join(draw.choices(ZH, k=12)) + "。" for _ in range(6))
        en = " ".join("The " + " ".join(draw.choices(words, k=9)) + "." for _ in range(4))
        yield {"text": zh, "tier": tier, "source": "tales"}
        yield {"text": en, "tier": tier, "source": "letters"}


def jsonl(count: int) -> bytes:
    return lines(rows(count))


def lines(objects: Iterable[Any]) -> bytes:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects).encode()


def write_model(folder: Path, tokenizer: Tokenizer, **changes: Any) -> Path:
    """A model folder with small seeded weights, and `tokenizer` whatever its vocabulary."""
    from indexlm.export import hf
    from indexlm.model.transformer import Transformer

    shape = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 2, "ffn": 64, "context": 64}
    stated = {"vocab_size": tokenizer.vocab_size, "head_scale": 4.0, "init_std": 0.05}
    network = Transformer(ModelConfig.model_validate(shape | stated | changes))
    network.initialise(1)
    hf.save(network, tokenizer.path, folder, f"test {changes}", {"name": "small"})
    return folder


def start(place: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The real command in `place`. Ctrl-C works in it even where the tests run in the background,
    in which it would be inherited as ignored."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def read_until(process: subprocess.Popen[str], words: str) -> None:
    """Until a line with `words` came on stderr. Raises where the process ends before."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended before it said {words!r}")


@contextmanager
def standing_still(process: subprocess.Popen[str]) -> Iterator[None]:
    """Within it the process makes no step. Raises where it ended before; its workers go on."""
    process.send_signal(signal.SIGSTOP)
    told = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert told is not None and told.si_code == os.CLD_STOPPED, "it ended before it was stopped"
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def run(place: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    process = start(place, *arguments, **environment)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def run_here(place: Path, *arguments: str) -> tuple[int, str, str]:
    """As `run`, in this process: saves the seconds in which torch is loaded."""
    from indexlm.cli import main

    out, err = StringIO(), StringIO()
    before = sys.argv
    sys.argv = ["indexlm", *arguments]
    code: object = 0
    with chdir(place), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.argv = before
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def succeeded(place: Path, *arguments: str, how: Run = run) -> str:
    code, out, err = how(place, *arguments)
    assert code == 0, err
    return out + err


def contents(place: Path) -> dict[str, bytes | None]:
    """Every path below `place` with its bytes. The log only grows; it tells of failures too."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes() if path.is_file() else None
        for path in place.rglob("*")
        if path.name != "log.txt"
    }


def refused(
    place: Path,
    *arguments: str,
    code: int = 2,
    changes: bool = False,
    how: Run = run,
    **environment: str,
) -> str:
    """The one message with which a command ends, once it is sure that nothing else happened."""
    before = contents(place)
    found, out, err = how(place, *arguments, **environment)
    assert (found, out) == (code, ""), err
    assert "Traceback" not in err
    messages = re.findall(r"^(?:indexlm|Error): ", err, re.MULTILINE)
    assert len(messages) == 1, err
    if not changes:
        assert contents(place) == before
    return err[err.index(messages[0]) :]


def with_corpus(place: Path, count: int) -> Path:
    """`place`, with the corpus of SMALL in it, 2 x `count` documents that are fine."""
    (place / "corpus").mkdir()
    (place / "corpus" / "rows.jsonl").write_bytes(jsonl(count))
    return place


def flipped(content: bytes, first: int, last: int) -> bytes:
    return content[:first] + bytes(b ^ 0x5A for b in content[first:last]) + content[last:]
