"""One function over many jobs: in processes of this machine, or on a Ray cluster, by Daft.

The plan is the same for both: a table with a row per job and one column made by the function. A job
is a small JSON object; its work and its result lie in files, which on a cluster all machines see.
The functions know nothing of the engine.
"""

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from indexlm.errors import DamagedError, UserError
from indexlm.records import Progress
from indexlm.runtime import prepare_daft

Job = Mapping[str, Any]
"""Plain values; `size` says how much of the whole work it is, in the same unit for all jobs."""
Task = Callable[[Job], Mapping[str, Any]]
"""A module's own function, so that another process finds it by its name."""


@dataclass(frozen=True)
class Engine:
    """Where and how wide the work is done; the results do not depend on it."""

    name: Literal["native", "ray"] = "native"
    workers: int = 1
    memory: int = 1_000_000_000
    """Bytes that a worker may take, beside 200 MB of Python and its libraries."""

    def map(self, label: str, task: Task, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """The task's answer to each job, in the order of the jobs.

        Raises UserError and OSError as the task does, after the jobs that ran beside it.
        """
        answers: list[dict[str, Any]] = [{} for _ in jobs]
        progress = Progress(label, sum(job["size"] for job in jobs))
        try:
            for row in self._rows(task, jobs):
                answer = json.loads(row["answer"])
                _raise(answer)
                answers[answer["job"]] = answer["result"]
                progress.advance(jobs[answer["job"]]["size"])
        except RuntimeError as error:
            if "EOF reached" not in str(error):
                raise
            raise ChildProcessError(
                f"{label}: a worker process was killed from outside, most often for want of "
                f"memory; fewer --workers than {self.workers} or a smaller --memory take less, and "
                "the same command goes on where it stopped"
            ) from error
        progress.close()
        return answers

    def _rows(self, task: Task, jobs: Sequence[Job]) -> Any:
        leader = os.getpid()
        lines = [
            json.dumps({"job": number, "leader": leader, **job}) for number, job in enumerate(jobs)
        ]
        if len(jobs) < 2 and self.name == "native":
            # A process for one job would start for longer than most of them take.
            return [{"answer": _answer(task, line)} for line in lines]
        prepare_daft()
        import daft as library

        # Its decorators type a method by its rows, and its calls by columns.
        daft: Any = library
        if self.name == "ray":
            _start_ray(daft)
        workers = min(self.workers, len(jobs))

        @daft.cls(use_process=workers > 1, max_concurrency=workers)
        class Worker:
            @daft.method(return_dtype=daft.DataType.string())  # type: ignore[untyped-decorator]
            def answer(self, job: str) -> str:
                return _answer(task, job)

        table = daft.from_pydict({"job": lines})
        table = table.into_partitions(len(jobs)) if self.name == "ray" else table.into_batches(1)
        return table.select(Worker().answer(daft.col("job")).alias("answer")).iter_rows()


def _answer(task: Task, line: str) -> str:
    """The task's answer as JSON; an error that is a message travels as one."""
    job = json.loads(line)
    number = job.pop("job")
    if job.pop("leader") != os.getpid():
        _end_with_parent()
    try:
        return json.dumps({"job": number, "result": task(job)})
    except UserError as error:
        return json.dumps({"job": number, "mistake": str(error)})
    except DamagedError as error:
        return json.dumps({"job": number, "damaged": str(error)})
    except OSError as error:
        return json.dumps({"job": number, "failed": str(error)})
    except Exception as error:
        # What comes from another process is the message alone.
        raise RuntimeError(f"job {number}:\n{traceback.format_exc()}") from error


@cache
def _end_with_parent() -> None:
    """A worker whose leader was killed would go on writing beside the next start's workers."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _raise(answer: Mapping[str, Any]) -> None:
    if "mistake" in answer:
        raise UserError(answer["mistake"])
    if "damaged" in answer:
        raise DamagedError(answer["damaged"])
    if "failed" in answer:
        raise OSError(answer["failed"])


def _start_ray(daft: Any) -> None:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--engine ray needs a package of its own: pip install 'indexlm[ray]'"
        ) from error
    if not ray.is_initialized():
        # Joins the cluster that RAY_ADDRESS names; a machine without one is a cluster of itself.
        ray.init(log_to_driver=False, configure_logging=False)
    daft.set_runner_ray(noop_if_initialized=True)
