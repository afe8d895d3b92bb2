"""A child process that opens spoilt copies of small checkpoints, one after the other.

Run with a seed and a count; prints a JSON object: how many were refused, how many loaded, and what
was neither. It may take 2 GB of memory over what it begins with, so that a size which a file only
claims cannot be allocated unnoticed.
"""

import json
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from published import Form, checkpoint, raw_tensors

from indexlm.errors import DamagedError, UserError
from indexlm.export import hf, inspect
from indexlm.model.config import ModelConfig

TINY = ModelConfig(vocab_size=16, hidden=8, layers=1, heads=2, kv_heads=2, ffn=8, context=8)

VALUES = (
    *("-1", "0", "1", "2", "3", "4", "16", "1.5", "-0.0", "1e999", "-1e999", "NaN", "Infinity"),
    *("9223372036854775807", "18446744073709551615", "1099511627776", "4294967296", "9" * 5000),
    *("true", "false", "null", '""', '"F16"', '"I64"', '"BOOL"', '"F33"', '"\\ud800"', '"\\u0000"'),
    *("[]", "{}", "[1, 2]", "[-1]", "[9223372036854775807, 9223372036854775807]", "[[[8]]]"),
    *('"../model.safetensors"', '"/etc/passwd"', '".."', '"a/b.safetensors"', '"model.bin"'),
    "[" * 100_000,
    '{"a":' * 50_000,
)
VALUE = re.compile(r'"[^"]*"(?!\s*:)|-?\d+(?:\.\d+)?|true|false|null|\[[^\[\]]*\]')
MEMBER = re.compile(r'"[^"]*"\s*:\s*(?:"[^"]*"|[^,{}\[\]"]+|\[[^\[\]]*\]|\{[^{}]*\})')


def spoil_json(text: str, dice: random.Random) -> str:
    """A value replaced, a member put twice or taken out, one or more times."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        pattern = dice.choice((VALUE, VALUE, VALUE, MEMBER))
        places = list(pattern.finditer(text))
        if not places:
            return text
        place = dice.choice(places)
        new = dice.choice(VALUES)
        if pattern is MEMBER:
            new = dice.choice((f"{place[0]}, {place[0]}", '"other": 1'))
        text = text[: place.start()] + new + text[place.end() :]
    return text


def spoil_bytes(data: bytes, dice: random.Random) -> bytes:
    """Bits turned, bytes overwritten, a part cut out, doubled, or the end missing."""
    changed = bytearray(data)
    at = dice.randrange(len(data))
    kind = dice.randrange(5)
    if kind == 0:
        for _ in range(dice.choice((1, 1, 1, 8))):
            changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == 1:
        size = dice.choice((1, 2, 4, 8))
        changed[at : at + size] = dice.choice((b"\xff", b"\x00", b"\x7f", b"\x80")) * size
    elif kind == 2:
        del changed[at : at + dice.randrange(1, 40)]
    elif kind == 3:
        changed[at:at] = changed[at : at + dice.randrange(1, 40)]
    else:
        del changed[at:]
    return bytes(changed)


def spoil_header(path: Path, dice: random.Random) -> None:
    """Of a safetensors file: its JSON, the stated length of it, or any of its bytes. Not what
    follows: weights of another value are no error that a file can show."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    kind = dice.randrange(4)
    if kind == 0:
        stated = dice.choice((0, 1, length - 1, length + 1, len(data), 10**8, 2**62, 2**64 - 1))
        path.write_bytes(stated.to_bytes(8, "little") + header + body)
    elif kind == 1:
        path.write_bytes(data[:8] + spoil_bytes(header, dice) + body)
    elif kind == 2:
        path.write_bytes(data[: dice.randrange(len(data))])
    else:
        text = spoil_json(header.decode(), dice).encode("utf-8", "surrogatepass")
        path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def spoil_text(path: Path, dice: random.Random) -> None:
    """Of a JSON file."""
    if dice.randrange(3):
        text = spoil_json(path.read_text(encoding="utf-8"), dice)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    else:
        path.write_bytes(spoil_bytes(path.read_bytes(), dice))


def spoil_archive(path: Path, dice: random.Random) -> None:
    path.write_bytes(spoil_bytes(path.read_bytes(), dice))


CASES: tuple[tuple[Form, str, Callable[[Path, random.Random], None]], ...] = (
    ("safetensors", "model.safetensors", spoil_header),
    ("safetensors", "config.json", spoil_text),
    ("sharded", "model.safetensors.index.json", spoil_text),
    ("sharded", "model-00002-of-00003.safetensors", spoil_header),
    ("bin", "pytorch_model.bin", spoil_archive),
    ("sharded-bin", "pytorch_model.bin.index.json", spoil_text),
)


def outcome(folder: Path, expected: dict[str, torch.Tensor]) -> str:
    """`loaded`, `refused` or what happened instead."""
    inspection = inspect.describe(folder)
    try:
        model = hf.load(folder)
    except (UserError, DamagedError) as error:
        message = str(error)
        if str(folder) not in message or len(message) > 1000:
            return f"not named, or at length: {message[:300]}"
        return "refused" if inspection.wrong else f"not seen by inspect: {message[:300]}"
    found = dict(model.named_parameters())
    same = found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )
    return "loaded" if same else "loaded other weights"


def main(seed: int, count: int) -> None:
    dice = random.Random(seed)
    torch.set_num_threads(1)
    expected = raw_tensors(TINY)
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        whole = {form: checkpoint(scratch / form, config=TINY, form=form) for form, _, _ in CASES}
        assert all(outcome(folder, expected) == "loaded" for folder in whole.values())
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 10**9,) * 2)
        outcomes: Counter[str] = Counter()
        for number in range(count):
            form, file, spoil = CASES[number % len(CASES)]
            folder = scratch / "spoilt"
            shutil.copytree(whole[form], folder)
            spoil(folder / file, dice)
            try:
                outcomes[outcome(folder, expected)] += 1
            except Exception as error:
                outcomes[f"{file} {number}: {error!r}"[:500]] += 1
            shutil.rmtree(folder)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
