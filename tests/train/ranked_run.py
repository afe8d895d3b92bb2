"""Training in several real processes, as the tests beside it ask for it.

    python ranked_run.py forks FOLDER JOBS    # JSON: a list of jobs
    python ranked_run.py launched FOLDER JOB  # one process of one job, under torchrun

Torch is imported once and every process of a job is a fork of its own, which joins the others over
127.0.0.1 by the variables that torchrun sets. A job leaves its run in FOLDER/NAME and, for each
process, a report in FOLDER/NAME.START.R.json and its messages in a `.log` beside it.
"""

import hashlib
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.distributed import TCPStore
from torch.distributed.fsdp import FSDPModule
from unequal_data import pairs, talk
from workshop import LORA, SHAPE, Workshop

from indexlm import runtime
from indexlm.config import HardwareConfig, TrainConfig
from indexlm.feed.loader import Feed
from indexlm.feed.mixture import Mixture, Phase
from indexlm.model.lora import wrap
from indexlm.model.shard import whole
from indexlm.model.transformer import Transformer
from indexlm.records import start_logging
from indexlm.tokens.chat_format import IGNORED
from indexlm.train import loop
from indexlm.train.loop import Stage, train
from indexlm.train.objectives.language import language_loss
from indexlm.train.objectives.preference import PairFeed, PreferenceLoss, reference_logprobs
from indexlm.train.watch import Activations

PATIENCE = 1200.0
"""Seconds after which all jobs of a program together are taken to hang."""


@dataclass(frozen=True)
class Job:
    """One start of a run of the loop by `ranks` processes."""

    name: str
    ranks: int = 1
    start: int = 1
    """Which one of this run."""
    steps: int = 50
    data: str = "text"
    """`text`, `talk` (rows of unequal numbers of labels, whole micro-batches of none) or `pairs`,
    which are learned by DPO."""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    """Of TrainConfig, beside the workshop's."""
    vocab: int = SHAPE.vocab_size
    lora: bool = False
    stop_after: int = 0
    """Steps after which the last process is sent SIGTERM."""
    trouble: Mapping[str, str] = field(default_factory=dict)
    """Kind by step, on the last process alone."""
    falls: bool = False
    """It comes to grief at every start by torchrun: see `Disturbed`."""
    evaluates: bool = False
    keeps: bool = False
    """The last gradients and the last state, gathered, in NAME.kept.pt."""
    wrong: str = ""
    """What is done wrongly on purpose: a check that cannot fail says nothing."""
    absent: int = -1
    """The process that never starts."""
    full_disk: bool = False
    """The last process can write no file of more than 20 kB."""

    def left(self, folder: Path, rank: int, ending: str) -> Path:
        return folder / f"{self.name}.{self.start}.{rank}.{ending}"


class Disturbed:
    """A job's feed and objective with the trouble that it asks for.

    A job that falls: in its first start the last process kills itself in step 7, in the second the
    first process raises in step 12, in the third the first process has torchrun stopped in step 18.
    """

    def __init__(self, job: Job, feed: loop.Feed, objective: loop.Objective) -> None:
        self.job, self.feed, self.objective = job, feed, objective
        self.step, self.last = 0, False

    @property
    def names(self) -> Sequence[str]:
        return self.feed.names

    def documents(self, step: int) -> list[str]:
        return self.feed.documents(step)

    def micro_batches(self, step: int, rank: int, ranks: int) -> Iterator[Any]:
        self.step, self.last = step, rank == ranks - 1
        if self.last and step == self.job.stop_after - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.job.falls:
            self._fall(rank)
        for number, batch in enumerate(self.feed.micro_batches(step, rank, ranks)):
            if self.job.data == "talk" and rank + number * ranks == 1:
                batch = replace(batch, labels_BT=torch.full_like(batch.labels_BT, IGNORED))
            yield batch

    def _fall(self, rank: int) -> None:
        if self.job.start == 1 and self.step == 7 and self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.job.start == 2 and self.step == 12 and rank == 0:
            raise RuntimeError("a start that fails")
        if self.job.start == 3 and self.step == 18 and rank == 0:
            heard = signal.getsignal(signal.SIGTERM)
            os.kill(os.getppid(), signal.SIGTERM)
            while signal.getsignal(signal.SIGTERM) == heard:
                time.sleep(0.01)

    def loss(self, model: Transformer, batch: Any) -> tuple[Tensor, int, Mapping[str, float]]:
        loss, units, further = self.objective(model, batch)
        if self.job.wrong == "each process divides by its own units":
            return loss / max(units, 1), 1, further
        kind = self.job.trouble.get(str(self.step), "") if self.last else ""
        if kind.endswith("gradient"):
            factor = {"nan gradient": torch.nan, "inf gradient": torch.inf}[kind]
            loss.register_hook(lambda gradient: gradient * factor)
        elif kind:
            loss = loss * {"nan loss": torch.nan, "spike": 100.0}[kind]
        return loss, units, further


# One process.


def model_of(job: Job) -> Transformer:
    """Untrained; the same in every process."""
    model = Transformer(SHAPE.model_copy(update={"vocab_size": job.vocab}))
    model.initialise(1)
    if job.lora:
        wrap(model, LORA, 1)
    return model


def stage_of(job: Job, model: Transformer) -> Stage:
    stage = Workshop(Path()).stage(job.steps, micro_batch=2)
    config = TrainConfig(**(stage.config.model_dump() | dict(job.config)))
    feed, objective = stage.feed, stage.objective
    if job.data == "talk":
        mixture = Mixture([Phase(0, {"talk": 1.0})], 3)
        length = SHAPE.context
        feed = Feed({"talk": talk()}, mixture, batch=8, micro_batch=2, length=length)
        objective = language_loss
    elif job.data == "pairs":
        reference = reference_logprobs(model, pairs(), 4)
        feed = PairFeed(pairs(), reference, batch=8, micro_batch=2, seed=5)
        objective = PreferenceLoss(0.1)
    disturbed = Disturbed(job, feed, objective)
    return replace(
        stage,
        name=job.name,
        config=config,
        feed=disturbed,
        objective=disturbed.loss,
        hardware=HardwareConfig(device="cpu", **job.hardware),
    )


class Observer:
    """Notes what the loop works with and what it sees, to the last digit."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = {"norms": [], "head_rows": [], "activations": []}
        self.worker: Transformer | None = None
        self.state: dict[str, Tensor] = {}

    def watch(self) -> None:
        by_layer, head_rows, means = loop.by_layer, loop.head_row_norms, Activations.means
        arrange, named_state = loop.arrange, loop.named_state

        def noted(kind: str, values: dict[str, float]) -> dict[str, float]:
            self.seen[kind].append(values)
            return values

        def kept_worker(*arguments: Any, **named: Any) -> Transformer:
            self.worker = arrange(*arguments, **named)
            return self.worker

        def kept_state(*arguments: Any) -> dict[str, Tensor]:
            self.state = named_state(*arguments)
            return self.state

        loop.by_layer = lambda squares: noted("norms", by_layer(squares))
        loop.head_row_norms = lambda model: noted("head_rows", head_rows(model))
        Activations.means = lambda seen: noted("activations", means(seen))
        loop.arrange, loop.named_state = kept_worker, kept_state

    def gathered(self) -> dict[str, dict[str, Tensor]]:
        assert self.worker is not None
        gradients = {
            name: whole(p.grad).clone()
            for name, p in self.worker.named_parameters()
            if p.grad is not None
        }
        state = {name: whole(value).clone() for name, value in self.state.items()}
        return {"gradients": gradients, "state": state}


def do_wrong(job: Job) -> None:
    """Break what a check is to find."""
    if job.wrong == "mean over processes":
        divide = FSDPModule.set_gradient_divide_factor
        FSDPModule.set_gradient_divide_factor = lambda module, _: divide(module, float(job.ranks))
    elif job.wrong == "head not summed":
        loop.sum_head_gradient = lambda worker: None


def evaluate(model: Transformer) -> dict[str, float]:
    """Runs the model on text of its own, of a random length, and draws random numbers."""
    generator = np.random.default_rng(1)
    torch.rand(3)
    model.eval()
    with torch.no_grad():
        ids = torch.from_numpy(generator.integers(5, 150, (3, int(generator.integers(4, 20)))))
        score = float(model.logits(model(ids)).logsumexp(-1).mean())
    model.train()
    return {"score": score}


def digest(tensors: Sequence[Tensor]) -> str:
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()


def work(job: Job, folder: Path, rank: int) -> dict[str, Any]:
    """Train; what this process reports."""
    observer = Observer()
    observer.watch()
    do_wrong(job)
    if job.full_disk and rank == job.ranks - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    start_logging()
    with runtime.processes("cpu", group=job.hardware.get("dtype") == "bfloat16"):
        model = model_of(job)
        stage = stage_of(job, model)
        if job.evaluates:
            stage = replace(stage, evaluate=evaluate)
        train(model, stage, folder / job.name)
        found: dict[str, Any] = {"seen": observer.seen}
        found["weights"] = digest(list(model.parameters()))
        # Compiled by torch.compile.
        found["graphs"] = counters["stats"]["unique_graphs"]
        if job.keeps:
            kept = observer.gathered() | {"model": dict(model.state_dict())}
            runtime.from_first(lambda: torch.save(kept, folder / f"{job.name}.kept.pt"))
    return found


def report(job: Job, folder: Path, rank: int) -> bool:
    """Work and write the report; whether it went well."""
    found: dict[str, Any] = {"error": None}
    try:
        found |= work(job, folder, rank)
    except Exception as error:  # that of every process is looked at by the tests
        logging.getLogger("indexlm").exception("")
        found["error"] = [type(error).__name__, str(error)]
    job.left(folder, rank, "json").write_text(json.dumps(found), encoding="utf-8")
    return found["error"] is None


# Many processes.


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


def serve_store() -> tuple[int, int]:
    """Port of a store for all jobs and the process that serves it: one with threads of its own
    should not be forked."""
    reads, writes = os.pipe()
    server = os.fork()
    if not server:
        store = TCPStore("127.0.0.1", 0, 1, True, wait_for_workers=False)
        os.write(writes, str(store.port).encode())
        while True:
            signal.pause()
    return int(os.read(reads, 16)), server


def fork_all(job: Job, folder: Path, store_port: int) -> None:
    """The processes of a job, to their ends. They meet in a store that others have used before, as
    those that torchrun starts again; where one is absent, the first one makes the store."""
    shared, children = job.absent < 0, []
    port = store_port if shared else free_port()
    for rank in range(job.ranks):
        if rank == job.absent:
            continue
        child = os.fork()
        if child:
            children.append(child)
            continue
        try:
            with job.left(folder, rank, "log").open("w", encoding="utf-8") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if job.ranks > 1:
                os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
                os.environ["WORLD_SIZE"] = os.environ["LOCAL_WORLD_SIZE"] = str(job.ranks)
                os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
                os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(shared)
            if not shared:
                runtime.JOIN = timedelta(seconds=2)
            report(job, folder, rank)
            os._exit(0)
        finally:
            os._exit(1)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0, (job.name, "a process ended without a report")


def run_jobs(folder: Path, jobs: Sequence[Job]) -> None:
    """Run jobs one after the other, from a test."""
    command = [sys.executable, __file__, "forks", str(folder), json.dumps([*map(asdict, jobs)])]
    code, out = finished(command)
    assert code == 0, out


def launch(folder: Path, job: Job) -> str:
    """Run one job under torchrun, which starts it up to three times more; all that was said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(job.ranks), "--max-restarts", "3"]
    command += [__file__, "launched", str(folder), json.dumps(asdict(job))]
    return finished(command)[1]


def finished(command: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of a program, and the end of all that it has started."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # torchrun ends its processes, which are in sessions of their own.
            process.terminate()
            process.wait(60)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out


def reports(folder: Path, job: Job) -> list[dict[str, Any]]:
    """Of each process that was started."""
    started = [rank for rank in range(job.ranks) if rank != job.absent]
    return [json.loads(job.left(folder, rank, "json").read_text()) for rank in started]


def main() -> None:
    mode, folder, asked = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    if mode == "launched":
        attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        job = replace(Job(**asked), start=attempt + 1)
        sys.exit(0 if report(job, folder, int(os.environ["RANK"])) else 1)
    # A save imports half a second of modules, which the forks then share.
    workshop = Workshop(folder)
    workshop.run("warm", workshop.stage(1))
    port, server = serve_store()
    for each in asked:
        fork_all(Job(**each), folder, port)
    os.kill(server, signal.SIGKILL)


if __name__ == "__main__":
    main()
