"""Runs that are killed again and again, beside ones that are not.

Run as a program with a folder and a seed. It goes through pre-training, SFT from there, DPO from
there and LoRA, leaves `<kind>/whole` and `<kind>/killed`, and writes, as JSON lines, where each
kill came. Torch is imported once and every attempt is a fork. A kill is SIGKILL: before the n-th
file operation of an attempt's checkpoints, in the middle of a step, or at any instant after it,
sent from outside. Checkpoints are written now in the foreground, now in the background.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from workshop import LORA, SHAPE, Workshop, shard_of

from indexlm.config import HardwareConfig
from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.feed.packing import ConversationSource, TextSource
from indexlm.tokens.chat_format import IGNORED
from indexlm.tokens.tokenizer import EOS
from indexlm.train import checkpoint
from indexlm.train.loop import Feed as AnyFeed
from indexlm.train.loop import Stage
from indexlm.train.objectives.preference import Pair, PairFeed, PreferenceLoss, reference_logprobs

KILLS = {"pretrain": 16, "sft": 14, "dpo": 12, "lora": 8}
PROGRESS = 4
"""Steps that an attempt gets further, up to its first checkpoint, or less."""
OPERATIONS = 20
"""Of a save, the flushes and the removal of an old one among them."""
MICRO_BATCHES = 11
"""Of the steps in which an attempt is killed; two are a step."""
SECOND_SAVE = 4 * PROGRESS - 1
"""The last micro-batch before an attempt's second checkpoint."""
FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


# What is trained


def workshop_of(folder: Path, kind: str) -> Workshop:
    return Workshop(folder / kind, LORA if kind == "lora" else None)


def stage_of(folder: Path, kind: str, *, background: bool = False) -> Stage:
    """The stage as a recipe would have it; SFT and DPO go on from the `whole` run before."""
    workshop = workshop_of(folder, kind)
    changed: dict[str, Any] = {"hardware": HardwareConfig(async_save=background)}
    if kind == "sft":
        changed |= {"feed": conversations(), "parent": end_of(folder, "pretrain")}
    elif kind == "dpo":
        parent = end_of(folder, "sft")
        changed |= {"feed": pairs(workshop, parent), "objective": PreferenceLoss(0.3)}
        changed |= {"parent": parent, "keep_optimiser": False}
    return workshop.stage(PROGRESS * KILLS[kind], **changed)


def end_of(folder: Path, kind: str) -> Path:
    return checkpoint.last(folder / kind / "whole" / "checkpoints")


def answers(number: int) -> Iterator[tuple[list[int], list[int]]]:
    """Two answers to one prompt as (ids, labels)."""
    generator = np.random.default_rng(number)
    prompt = generator.integers(5, 60, size=generator.integers(2, 6)).tolist()
    for first in (60, 110):
        answer = generator.integers(first, first + 50, size=generator.integers(1, 8)).tolist()
        yield prompt + answer, [IGNORED] * (len(prompt) - 1) + [*answer, EOS]


def conversations() -> Feed:
    """Three of five rows are conversations, the others replay text."""
    length = SHAPE.context
    sources = {
        "zh": TextSource(shard_of("zh", 1), length, 1),
        "responses": ConversationSource([next(answers(n)) for n in range(40)], length, 1),
    }
    mixture = Mixture([Phase(0, {"zh": 0.4, "responses": 0.6})], 3)
    return Feed(sources, mixture, batch=8, micro_batch=4, length=length)


def pairs(workshop: Workshop, parent: Path) -> PairFeed:
    model = workshop.model()
    weights = {f"weight.{name}": value.detach() for name, value in model.named_parameters()}
    checkpoint.load(parent, weights)
    some = [Pair(*answers(number)) for number in range(21)]
    return PairFeed(some, reference_logprobs(model, some, 7), batch=8, micro_batch=4, seed=1)


# Kills


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_save(after: int) -> None:
    """Before file operation number `after` on the checkpoints of this process, from 0, whatever
    thread it is of."""
    numbers = count()
    fsync = os.fsync

    def operation() -> None:
        if next(numbers) == after:
            die()

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and changes_a_checkpoint(event, *arguments):
            operation()

    def counted_fsync(descriptor: int) -> None:
        operation()
        fsync(descriptor)

    sys.addaudithook(heard)
    os.fsync = counted_fsync


def changes_a_checkpoint(event: str, path: object, *more: Any) -> bool:
    if event in ("os.remove", "os.rmdir"):
        return True  # of paths inside the folder that is removed
    if event == "open":
        mode, flags = more
        if mode == "r" or not (mode or flags & (os.O_WRONLY | os.O_RDWR)):
            return False
    return "step-" in str(path)


@dataclass(frozen=True)
class WatchedFeed:
    """Calls `then` before the micro-batch with the number `after` of this process, from 0."""

    feed: AnyFeed
    after: int
    then: Callable[[], object]
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def names(self) -> Any:
        return self.feed.names

    def documents(self, step: int) -> list[str]:
        return self.feed.documents(step)

    def micro_batches(self, step: int, rank: int, ranks: int) -> Iterator[Any]:
        for batch in self.feed.micro_batches(step, rank, ranks):
            if next(self.numbers) == self.after:
                self.then()
            yield batch


def fork(work: Callable[[], object]) -> int:
    """The process in which `work` runs."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def ended(child: int) -> bool:
    """Wait for a fork; whether it came to its end. Raises if it was not killed either."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, f"an attempt ended with status {status}"
    return True


def killed_attempt(folder: Path, trained: str, place: str, after: int, background: bool) -> bool:
    """Whether it came to its end in spite of the kill."""
    reading, writing = os.pipe()

    def work() -> None:
        stage = stage_of(folder, trained, background=background)
        if place == "save":
            die_in_a_save(after)
        elif place == "step":
            stage = replace(stage, feed=WatchedFeed(stage.feed, after, die))
        else:
            tell = WatchedFeed(stage.feed, after, lambda: os.write(writing, b"."))
            # Where the kill is slow to come, it does not find a run that has ended.
            stage = replace(stage, feed=WatchedFeed(tell, SECOND_SAVE, signal.pause))
        workshop_of(folder, trained).run("killed", stage)

    child = fork(work)
    os.close(writing)
    if place == "instant" and os.read(reading, 1):
        time.sleep(0.001 * after)
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    return ended(child)


def half_written(checkpoints: Path) -> set[tuple[str, int]]:
    """Checkpoints without a name yet, and when they were begun or last added to."""
    return {(path.name, path.stat().st_mtime_ns) for path in checkpoints.glob(".step-*.partial")}


def main(folder: Path, seed: int) -> None:
    generator = random.Random(seed)
    # The first save imports half a second of modules, which the forks then share.
    warm = workshop_of(folder, "warm")
    warm.run("run", warm.stage(1))
    for trained, kills in KILLS.items():
        workshop = workshop_of(folder, trained)
        checkpoints = workshop.folder / "killed" / "checkpoints"
        stage = stage_of(folder, trained)
        assert ended(fork(lambda w=workshop, s=stage: w.run("whole", s)))
        for number in range(kills):
            place = ("save", "save", "save", "step", "instant")[number % 5]
            after = generator.randrange(OPERATIONS if place == "save" else MICRO_BATCHES)
            background = number % 2 == 1
            before = half_written(checkpoints)
            survived = killed_attempt(folder, trained, place, after, background)
            report = {
                "trained": trained,
                "place": place,
                "after": after,
                "background": background,
                "killed": not survived,
                "half_written": not half_written(checkpoints) <= before,
            }
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()
        assert ended(fork(lambda w=workshop, s=stage: w.run("killed", s)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
