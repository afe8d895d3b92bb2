"""Arms side by side: as many processes as cores, one thread each, trunks before their forks."""

import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from indexlm.config import HardwareConfig
from indexlm.errors import StoppedError, UserError
from indexlm.lab.arms import Arm, Result
from indexlm.lab.running import can_fork, forget, result_of, run
from indexlm.model import costs
from indexlm.records import Progress

log = logging.getLogger("indexlm")


def run_all(
    label: str,
    arms: Sequence[Arm],
    folder: Path,
    processes: int,
    hardware: HardwareConfig,
    finished: Callable[[str], None] = lambda key: None,
) -> list[Result]:
    """Results of `arms`, in their order; those that `folder` has already are not run again.

    One call at a time may work in `folder`: the caller holds it (`records.only_writer`).
    `finished` is told the fingerprint of every arm, or trunk, whose result has just been written.

    Trunks are run for their forks, each once, and their checkpoints removed at the end. Raises
    StoppedError on Ctrl-C: running arms save their state, finished ones are kept, and the same call
    goes on.
    """
    missing = [arm for arm in with_trunks(arms).values() if result_of(arm, folder) is None]
    waiting = with_needed(missing, folder)
    if waiting:
        _run_waiting(label, waiting, folder, processes, hardware, finished)
    for arm in with_trunks(arms).values():
        forget(arm, folder)
    found = [result_of(arm, folder) for arm in arms]
    results = [result for result in found if result is not None]
    assert len(results) == len(arms), "an arm has left no result"
    return results


def with_trunks(arms: Iterable[Arm]) -> dict[str, Arm]:
    """The arms and all that they start from, each once, by fingerprint."""
    found: dict[str, Arm] = {}
    for arm in arms:
        if arm.trunk is not None:
            found |= with_trunks([arm.trunk])
        found.setdefault(arm.fingerprint(), arm)
    return found


def with_needed(arms: Iterable[Arm], folder: Path) -> dict[str, Arm]:
    """The arms and those trunks of theirs that have to run, for the first time or once more because
    their checkpoints were removed; trunks first, by fingerprint."""
    found: dict[str, Arm] = {}
    for arm in arms:
        if arm.trunk is not None and not can_fork(arm, folder):
            found |= with_needed([arm.trunk], folder)
        found[arm.fingerprint()] = arm
    return found


def work(arm: Arm) -> int:
    """MFLOPs that an arm takes, to weigh arms against each other in the time that is left."""
    tokens = (arm.train.steps - arm.first_step) * arm.tokens_per_step
    each = costs.training_flops_per_token(arm.model, arm.model.context)
    return round(tokens * each / 1e6)


def _run_waiting(
    label: str,
    arms: Mapping[str, Arm],
    folder: Path,
    processes: int,
    hardware: HardwareConfig,
    finished: Callable[[str], None],
) -> None:
    progress = Progress(label, sum(map(work, arms.values())))
    beside = min(processes, len(arms))
    log.info(f"{label}: {len(arms)} arms to run, {beside} at a time")
    waiting, running = dict(arms), dict[Future[Result], str]()
    trunks = {
        key: "" if arm.trunk is None else arm.trunk.fingerprint() for key, arm in arms.items()
    }
    forks = Counter(trunks.values())
    # Fresh interpreters: a copy of this process would not have the threads that torch counts on.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(beside, context, initializer=_begin)
    try:
        while waiting or running:
            unfinished = {*waiting, *running.values()}
            for key in list(waiting):
                if trunks[key] not in unfinished:
                    running[pool.submit(run, waiting.pop(key), folder, hardware)] = key
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(done)
                result, arm = done.result(), arms[key]
                if result.made_from != key:
                    raise UserError(
                        f"{label}: {arm.name}: the code of indexlm changed while arms ran; give "
                        "the same command again"
                    )
                # A message begins a line of its own.
                progress.close()
                if result.diverged:
                    log.warning(f"{label}: {arm.name}, seed {arm.seed}: {result.diverged}")
                finished(key)
                forks[trunks[key]] -= 1
                # A GPU's models are large: checkpoints go as soon as no fork needs them.
                for each, name in ((arm, key), (arm.trunk, trunks[key])):
                    if each is not None and not forks[name]:
                        forget(each, folder)
                ended = len(arms) - len(waiting) - len(running)
                progress.label = f"{label}: {ended} of {len(arms)} arms, MFLOPs"
                progress.advance(work(arm))
    except (KeyboardInterrupt, StoppedError) as stop:
        left = len(waiting) + len(running)
        raise StoppedError(
            f"{label}: stopped, {left} arms are left; finished ones are kept"
        ) from stop
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()


def _begin() -> None:
    """In a worker: one thread, no chatter, and Ctrl-C is for the arm that runs, if one does."""
    import torch

    torch.set_num_threads(1)
    log.setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
