"""A run that is killed again and again, beside one that is not.

Run as a program with a folder, a seed and `full` or `lora`; it leaves `whole/` and `killed/` there
and writes, as JSON lines, where each kill came. Torch is imported once and every attempt is a fork.
A kill is SIGKILL, sent by the attempt to itself at an exact place: before the n-th file operation
of its checkpoints, or in the middle of a step.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workshop import LORA, Workshop

from indexlm.feed.loader import Feed
from indexlm.feed.packing import Batch
from indexlm.train.loop import Stage

STEPS = 48
KILLS = {"full": 12, "lora": 6}
FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_save(after: int) -> None:
    """Before file operation number `after` on the checkpoints of this attempt, from 0."""
    left = after

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in FILE_EVENTS or (event == "open" and "/step-" not in opened(arguments)):
            return
        if left == 0:
            die()
        left -= 1

    sys.addaudithook(count)


def opened(arguments: tuple[Any, ...]) -> str:
    """Path of an open for writing, with `/step-` and `/.step-` made alike; empty for reading."""
    path, mode, flags = arguments
    writing = flags & (os.O_WRONLY | os.O_RDWR) or (mode is not None and mode != "r")
    return str(path).replace("/.step-", "/step-") if writing else ""


@dataclass(frozen=True)
class DeadlyFeed:
    """Dies before the micro-batch with the number `after` of this attempt, from 0."""

    feed: Feed
    after: int

    def micro_batches(self, step: int) -> Iterator[Batch]:
        for number, batch in enumerate(self.feed.micro_batches(step)):
            if self.after == self.number_of(step, number):
                die()
            yield batch

    def number_of(self, step: int, number: int) -> int:
        COUNTED.add((step, number))
        return len(COUNTED) - 1


COUNTED: set[tuple[int, int]] = set()


def attempt(work: Callable[[], object]) -> bool:
    """Run `work` in a fork; whether it came to its end. Raises if it ended in another way."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, f"an attempt ended with status {status}"
    return True


def killed_attempt(workshop: Workshop, stage: Stage, kind: str, after: int) -> None:
    assert isinstance(stage.feed, Feed)
    if kind == "step":
        stage = replace(stage, feed=DeadlyFeed(stage.feed, after))
    else:
        die_in_a_save(after)
    workshop.run("killed", stage)


def main(folder: Path, seed: int, trained: str) -> None:
    workshop = Workshop(folder, {"full": None, "lora": LORA}[trained])
    stage = workshop.stage(STEPS)
    # The first save imports half a second of modules, which the forks then share.
    workshop.run("warm", workshop.stage(1))
    assert attempt(lambda: workshop.run("whole", stage))
    generator = random.Random(seed)
    for number in range(KILLS[trained]):
        # Two of three inside a save, which is 15 to 20 file operations; a step is two micro-batches
        # and a save is due every four, so that no attempt comes far.
        kind = "step" if number % 3 == 0 else "save"
        after = generator.randrange(12 if kind == "step" else 20)
        ended = attempt(lambda k=kind, a=after: killed_attempt(workshop, stage, k, a))
        report = {"kind": kind, "after": after, "killed": not ended}
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
    assert attempt(lambda: workshop.run("killed", stage))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
