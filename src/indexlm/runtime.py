"""The machine and the processes on it: threads, memory, devices, torchrun, the code's fingerprint.

The only reader of environment variables. Under torchrun every process runs the same program;
`processes` joins them, and then `rank` 0 writes files while all of them train. Without it there is
one process, and every call here says so.
"""

import ast
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from indexlm.errors import DamagedError, UserError
from indexlm.records import fingerprint, sha256_file

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # type: ignore[attr-defined]

T = TypeVar("T")

PLAIN = (UserError, DamagedError, FloatingPointError, OSError)
"""Errors that are a message: every process can raise the first one's."""

_PACKAGE = Path(__file__).parent

_first_alone = False
"""Whether the first process is at work while the others wait for it."""

JOIN = timedelta(minutes=2)
"""How long the first process waits for the others."""
LONGEST_STAGE = timedelta(days=7)
"""How long the others wait for a stage that only the first one works on."""


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, has started this process."""
    return "WORLD_SIZE" in os.environ


def first_of_machine() -> bool:
    """Whether messages to people are this process's to give; known before any is joined."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def processes(device: str = "cpu", *, group: bool = False) -> Iterator[None]:
    """Join the processes that were launched together; alone, only where `group` asks for it.

    `device` is where they compute: NCCL carries tensors of GPUs, gloo those of processors.
    Raises UserError where one of them does not come or the variables do not fit together.
    """
    if not launched() and not group:
        yield
        return
    import torch
    import torch.distributed as dist
    from torch.distributed import HashStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    if launched():
        try:
            store, number, count = next(rendezvous("env://", timeout=JOIN))
            store = _store_of_this_start(store, number, count)
        except (ValueError, dist.DistError) as error:
            raise UserError(
                f"not all of WORLD_SIZE={os.environ['WORLD_SIZE']} processes came together within "
                f"{JOIN.seconds} s: {str(error).splitlines()[0]}; start each with torchrun, on "
                "every machine, under the same --nnodes, --nproc-per-node and --rdzv-endpoint"
            ) from error
    else:
        store, number, count = HashStore(), 0, 1
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=number, world_size=count, timeout=LONGEST_STAGE
    )
    try:
        yield
        # gloo's threads abort the process where its peers have left already.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _store_of_this_start(store: "Store", number: int, count: int) -> "Store":
    """The part of a store that only these processes know.

    torchrun keeps one store over its restarts, and gloo would find in it the addresses of processes
    that are gone and wait for them. So each process leaves a word of its own, new at every start,
    and the first one answers every word that it finds with the name of the part, until all have it.
    Only then does any go on: gloo waits as long as a stage may take.
    """
    from torch.distributed import DistStoreError, PrefixStore  # type: ignore[attr-defined]

    if number:
        word = uuid4().hex
        store.set(f"process {number}", word)
        name = store.get(word).decode()
        store.set(f"{name} {number}", "")
        store.get(f"{name} all")
        return PrefixStore(name, store)
    name, late = uuid4().hex, time.monotonic() + JOIN.total_seconds()
    missing = set(range(1, count))
    while missing:
        for other in [each for each in missing if store.check([f"process {each}"])]:
            store.set(store.get(f"process {other}").decode(), name)
        missing = {each for each in missing if not store.check([f"{name} {each}"])}
        if missing and time.monotonic() > late:
            raise DistStoreError(f"process {min(missing)} is missing")
        time.sleep(0.01)
    store.set(f"{name} all", "")
    return PrefixStore(name, store)


def rank() -> int:
    """Number of this process, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes work together; one inside `from_first`, whatever it calls."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() and not _first_alone else 1


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives on the first process, on all of them; plain values that can be pickled.

    The others wait for the first one, and it not for them. What it raises is raised by all.
    """
    if ranks() == 1:
        return make()
    import torch.distributed as dist

    global _first_alone
    held: list[Any] = [None, None]
    mine: Exception | None = None
    if rank() == 0:
        _first_alone = True
        try:
            held[0] = make()
        except Exception as error:  # raised below, here and by the others
            mine = held[1] = error
        finally:
            _first_alone = False
    if mine is not None and not isinstance(mine, PLAIN):
        # Others may not be able to make one like it.
        held[1] = RuntimeError(repr(mine))
    dist.broadcast_object_list(held, src=0)
    if held[1] is not None:
        raise mine or held[1]
    return held[0]


def wait_for_all() -> None:
    """No process goes on before all have come here. (`from_first` lets the first one go early:
    from 8 processes on it hands its word on through others.)"""
    if ranks() > 1:
        import torch.distributed as dist

        dist.barrier()


def summed(values: "torch.Tensor") -> "torch.Tensor":
    """The sum over all processes, of a tensor on the processor."""
    if ranks() > 1:
        import torch.distributed as dist

        dist.all_reduce(values)
    return values


def shared_out(sizes: Sequence[int], processes: int) -> list[list[int]]:
    """Numbers of the pieces that each process takes: the largest first, to whom has least.

    Within a third of the best there is (Graham 1969). Each list is in ascending order.
    """
    load, lists = [0] * processes, [list[int]() for _ in range(processes)]
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        least = load.index(min(load))
        load[least] += sizes[number]
        lists[least].append(number)
    return [sorted(numbers) for numbers in lists]


def start_threads(threads: int) -> int:
    """Fix the number of processor threads and return it."""
    import torch

    count = threads_of(threads)
    torch.set_num_threads(count)
    return count


def threads_of(asked: int) -> int:
    """Threads of a process; 0 shares the cores among the processes of this machine. Threads beyond
    the cores wait for each other at every operation."""
    return asked or max(1, len(os.sched_getaffinity(0)) // _processes_here())


def _processes_here() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def device_of(asked: str) -> str:
    """`cpu` or `cuda`. Raises UserError for a GPU that is not there."""
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "hardware.device=cuda: this PyTorch sees no GPU; install one that does, or use "
            "hardware.device=cpu"
        )
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less in a container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        return min(total, int(text))
    return total


def memory_for(device: str) -> int:
    """Bytes that each process may use: of its GPU, or its share of the machine's."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return machine_memory() // _processes_here()


def memory_used(device: str) -> int:
    """Bytes: the peak of a GPU's tensors, or this process's resident memory now."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@cache
def matrix_rate(device: str, dtype: str) -> float:
    """FLOPs per second of the best of a few square matrix products, the ceiling for a model."""
    import torch

    side = 8192 if device == "cuda" else 1024
    # Random numbers: a GPU multiplies ones an eighth faster, at less power.
    left = torch.randn(side, side, device=device).to(getattr(torch, dtype))
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        left @ left
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


@cache
def code_fingerprint() -> str:
    """SHA-256 over the package's own Python files."""
    return _hash_of(sorted(_PACKAGE.rglob("*.py")))


@cache
def code_behind(place: str) -> str:
    """SHA-256 over a file of a room (`text/filters/heuristics.py`) and all files of that room that
    it imports, at whatever remove."""
    room = place.partition("/")[0]
    found, waiting = set(), [_PACKAGE / place]
    while waiting:
        file = waiting.pop()
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("indexlm."):
                module = _PACKAGE.joinpath(*(node.module or "").split(".")[1:])
                near = [module.with_suffix(".py"), *(module / f"{n.name}.py" for n in node.names)]
                inside = [path for path in near if _PACKAGE / room in path.parents]
                waiting += [path for path in inside if path.is_file() and path not in found]
    return _hash_of(sorted(found))


def _hash_of(files: Sequence[Path]) -> str:
    return fingerprint([(f.relative_to(_PACKAGE).as_posix(), sha256_file(f)) for f in files])


def prepare_daft() -> None:
    """For Daft, which reports its use and draws bars of its own unless told otherwise, and for its
    workers, which give arrays back to the machine only to ask for them again (5 to 8% of the time
    that text takes)."""
    os.environ |= {"DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1", "DAFT_PROGRESS_BAR": "0"}
    kept = str(2**28)
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": kept, "MALLOC_TRIM_THRESHOLD_": kept}
