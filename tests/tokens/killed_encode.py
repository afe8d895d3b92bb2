"""Text that is encoded once in peace, and once by processes that are killed again and again.

Run as a program with a folder that holds `tokenizer.model` and `text/`, and a seed. It leaves
`whole/` and `killed/` and writes a JSON line for every attempt. Each is a fork that SIGKILL ends:
at the n-th file that it opens, renames or removes, or at any instant, sent from outside.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from indexlm.tokens import encode
from indexlm.tokens.shards import CATALOGUE, group_files
from indexlm.tokens.tokenizer import Tokenizer

BATCH, COMMIT, THREADS = 1500, 6000, 2
EVENTS, SECONDS = 30, 0.03
"""In which an attempt dies: some before it begins to encode, others some commits later."""
LIVES = 30
"""Attempts after which they live longer and longer, for the end alone takes more events."""
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir")


def make(place: Path, name: str) -> None:
    files = group_files(place / "text")
    tokenizer = Tokenizer.load(place)
    made_from = encode.inputs_fingerprint(files, tokenizer)
    encode.write_shards(
        files, tokenizer, place / name, made_from, threads=THREADS, commit_bytes=COMMIT
    )


def die_at(event_number: int) -> None:
    """From here on, this process dies before that file event."""
    left = event_number

    def hook(event: str, _: Any) -> None:
        nonlocal left
        if event in FILE_EVENTS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def log_batches(log: Path) -> None:
    """Write down the place from which, and up to which, lines are handed out to be encoded."""
    batches = encode._batches
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def logged(inputs: Sequence[tuple[str, Path]], start: encode.Place) -> Iterator[Any]:
        os.write(out, f"{start.file} {start.byte}\n".encode())
        for batch in batches(inputs, start):
            os.write(out, f"{batch.behind.file} {batch.behind.byte}\n".encode())
            yield batch

    encode._batches = logged


def attempt(place: Path, draw: random.Random, life: float) -> dict[str, Any]:
    """One start: how it ended, where it began and how far it read."""
    log = place / "batches.log"
    at_event = draw.random() < 0.7
    event, seconds = draw.randint(1, round(EVENTS * life)), draw.uniform(0, SECONDS * life)
    child = os.fork()
    if child == 0:
        log_batches(log)
        if at_event:
            die_at(event)
        make(place, "killed")
        os._exit(0)
    if not at_event:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    places = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    log.write_text("")
    safe = place / ".killed.partial" / CATALOGUE
    return {
        "killed": os.WIFSIGNALED(status),
        "event": event if at_event else None,
        "begun": places[0] if places else None,
        "read": places[-1] if places else None,
        "half_made": safe.is_file(),
        "finished": (place / "killed").exists(),
    }


def main() -> None:
    place, draw = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    encode.BATCH_BYTES = BATCH
    make(place, "whole")
    for number in range(1000):
        ended = attempt(place, draw, max(number / LIVES, 1.0))
        print(json.dumps(ended), flush=True)
        if not ended["killed"]:
            return
    raise AssertionError("it does not get on")


if __name__ == "__main__":
    main()
