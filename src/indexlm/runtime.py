"""The machine: processor threads, memory, and the fingerprint of the code that runs on it."""

import os
from functools import cache
from pathlib import Path

from indexlm.records import fingerprint, sha256_file


def start_threads(threads: int) -> int:
    """Fix the number of processor threads (0 is all of them) and return it."""
    import torch

    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    return count


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less in a container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        return min(total, int(text))
    return total


@cache
def code_fingerprint() -> str:
    """SHA-256 over the package's own Python files."""
    package = Path(__file__).parent
    files = sorted(package.rglob("*.py"))
    return fingerprint([(f.relative_to(package).as_posix(), sha256_file(f)) for f in files])
