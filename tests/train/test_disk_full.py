"""A disk that is full while a checkpoint is written: the run ends, and loses nothing before it.

Each run is a fork in which the kernel refuses to let one file of a checkpoint grow beyond a limit,
as it does on a full disk.
"""

import os
import random
import re
import resource
import shutil
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from killed_run import fork
from workshop import Workshop

from indexlm.config import HardwareConfig
from indexlm.errors import UserError
from indexlm.records import verify
from indexlm.train import checkpoint
from indexlm.train.loop import Stage
from indexlm.train.optim import adamw, named_state

STEPS = 48
FILES = {"__0_0.distcp": 12, ".metadata": 4, ".manifest.json.partial": 4}
"""Name of a file of a checkpoint -> number of failures in it."""


def stage_of(workshop: Workshop, *, background: bool = False) -> Stage:
    return workshop.stage(STEPS, hardware=HardwareConfig(async_save=background))


def fill_the_disk(path: str, after: int, size: int) -> None:
    """Once this process has opened a file of that path `after` times before, no file may grow
    beyond `size` bytes. A write beyond them fails, since Python ignores the signal."""
    numbers = count()

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and path in str(arguments[0]) and next(numbers) == after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    sys.addaudithook(heard)


def failure(workshop: Workshop, background: bool, path: str, after: int, size: int) -> str:
    """What a run on a disk that fills up ends with."""
    reading, writing = os.pipe()

    def work() -> None:
        fill_the_disk(path, after, size)
        try:
            workshop.run("full", stage_of(workshop, background=background))
        except OSError as error:
            os.write(writing, str(error).encode())

    child = fork(work)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


def whole_checkpoints(folder: Path) -> dict[int, Any]:
    """Step -> sizes and hashes of the files, once they are verified; there is nothing else."""
    return {int(path.name[5:]): verify(path).files for path in folder.glob("*")}


def written(name: str) -> str:
    """The final name of a file."""
    return "manifest.json" if name.endswith(".partial") else name


def assert_same_end(workshop: Workshop) -> None:
    whole, full = (verify(workshop.folder / name).files for name in ("whole", "full"))
    data = [name for name in whole if name.endswith(".distcp")]
    assert whole.keys() == full.keys() and len(data) == 2
    assert all(whole[name] == full[name] for name in data)
    assert workshop.entries("full") == workshop.entries("whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """With a run on a disk that is large enough."""
    workshop = Workshop(tmp_path_factory.mktemp("disk"))
    workshop.run("whole", stage_of(workshop))
    return workshop


@pytest.fixture
def workshop(whole: Workshop) -> Workshop:
    """The same, with nothing of an earlier test."""
    shutil.rmtree(whole.folder / "full", ignore_errors=True)
    return whole


def test_twenty_full_disks_lose_nothing_and_the_run_ends_as_on_a_large_one(
    workshop: Workshop,
) -> None:
    newest = checkpoint.last(workshop.folder / "whole" / "checkpoints")
    folder = workshop.folder / "full" / "checkpoints"
    generator, step = random.Random(20), 0
    names = [name for name, failures in FILES.items() for _ in range(failures)]
    generator.shuffle(names)
    for number, name in enumerate(names):
        size = generator.randrange((newest / written(name)).stat().st_size)
        before = whole_checkpoints(folder)
        # In every third attempt the second save fails, so that the run gets on.
        saved = number % 3 == 2
        background = number % 2 == 1
        said = failure(workshop, background, f".partial/{name}", int(saved), size)
        step += 4 * saved
        after = whole_checkpoints(folder)
        # Where the run goes on beside the save, its log may meet the limit first.
        if background and "metrics.jsonl" in said:
            assert "could not be written" in said and "make room" in said
        else:
            assert f"step-{step + 4:08d} could not be written to {folder}" in said, (name, said)
            assert re.search(r"takes about [\d,]+ bytes, [\d,]+ are free", said)
            assert "the same command goes on from there" in said
        assert max(after, default=0) == step
        kept = [each for each in before if each >= step - 4]
        assert {each: after[each] for each in kept} == {each: before[each] for each in kept}
    assert step == 24
    workshop.run("full", stage_of(workshop))
    assert_same_end(workshop)


@pytest.mark.parametrize("size", [0, 700])
def test_a_disk_too_full_for_the_log_of_the_steps_is_said_so(workshop: Workshop, size: int) -> None:
    said = failure(workshop, False, "/metrics.jsonl", 0, size)
    assert f"{workshop.folder}/full/metrics.jsonl could not be written (File too large)" in said
    workshop.run("full", stage_of(workshop))
    assert_same_end(workshop)


def test_a_disk_without_room_is_refused_before_anything_is_written(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the newest two, one that is being written, and those to keep. The free space is made
    up, since no test may mount a small file system."""
    stage = workshop.stage(12)
    keeping = replace(stage, config=stage.config.model_copy(update={"keep_every": 5}))
    model = workshop.model()
    each = checkpoint.size(named_state(model, adamw(model, stage.config.optimiser)))
    usage = shutil.disk_usage(workshop.folder)
    for asked, needed in ((stage, 3 * each), (keeping, 5 * each)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, n=needed: usage._replace(free=n - 1))
        with pytest.raises(UserError, match=f"take {needed:,} bytes more.*{needed - 1:,} free"):
            workshop.run("full", asked)
        assert not (workshop.folder / "full").exists()
        monkeypatch.setattr(shutil, "disk_usage", lambda path, n=needed: usage._replace(free=n))
        workshop.run("full", asked)
        shutil.rmtree(workshop.folder / "full")
