"""A command and everything it starts: wall and processor time, memory, files.

The benchmark adopts processes whose parent has gone (prctl(2), PR_SET_CHILD_SUBREAPER), so that
the processor time of pools and servers is counted however they were started.
"""

import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INTERVAL = 0.1
"""Seconds between two looks at memory."""
DISK_INTERVAL = 1.0
PATIENCE = 10.0
"""Seconds that processes which outlive the command have to end by themselves."""
_PR_SET_CHILD_SUBREAPER = 36
_TICK = os.sysconf("SC_CLK_TCK")


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Run to the end and say what it took.

    Memory is the sum over all processes: `peak_mb` of what is resident, pages that two have in
    common counted twice, and `peak_anonymous_mb` without pages of files, which the system takes
    back when it needs them. `peak_disk_mb` is the most that lay in `folder` beyond what lay there
    before. Raises SystemExit with the end of the log where the command fails.
    """
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SystemExit("processes cannot be adopted: Linux 3.4 or newer is needed")
    watch = _Watch(folder)
    before = folder_bytes(folder) if folder is not None else 0
    usage, machine = resource.getrusage(resource.RUSAGE_CHILDREN), _machine_seconds()
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        with watch:
            status = process.wait()
            wall = time.monotonic() - begin
            _adopt_and_wait()
    if status:
        tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise SystemExit(f"{tail}\nfailed with status {status}: {' '.join(command)}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    others = max(_machine_seconds() - machine - cpu, 0.0) / (time.monotonic() - begin)
    return {
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "other_cpu": others / (os.cpu_count() or 1),
        "peak_mb": watch.resident / 1e6,
        "peak_anonymous_mb": watch.anonymous / 1e6,
        "processes": watch.processes,
        "peak_disk_mb": max(watch.disk - before, 0) / 1e6,
    }


def folder_bytes(folder: Path) -> int:
    """Of all files, as far as they are still there."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


@dataclass
class _Watch:
    """Looks at all descendants of this process until it is left."""

    folder: Path | None
    resident: int = 0
    anonymous: int = 0
    processes: int = 0
    disk: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "_Watch":
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _look_on(self) -> None:
        next_disk = 0.0
        while not self._stop.wait(INTERVAL):
            found = [memory for pid in _descendants(os.getpid()) if (memory := _memory(pid))]
            self.resident = max(self.resident, sum(resident for resident, _ in found))
            self.anonymous = max(self.anonymous, sum(anonymous for _, anonymous in found))
            self.processes = max(self.processes, len(found))
            if self.folder is not None and time.monotonic() >= next_disk:
                self.disk = max(self.disk, folder_bytes(self.folder))
                next_disk = time.monotonic() + DISK_INTERVAL


def _descendants(ancestor: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            content = _read(entry / "stat")
            if content:
                # The second field, the name, may hold spaces and brackets.
                parents[int(entry.name)] = int(content.rpartition(")")[2].split()[1])
    found = [ancestor]
    for known in found:
        found += [pid for pid, parent in parents.items() if parent == known]
    return found[1:]


def _memory(pid: int) -> tuple[int, int] | None:
    """Resident bytes, and those of them that are no file's."""
    fields = dict.fromkeys(("VmRSS", "RssAnon", "RssShmem"), 0)
    for line in _read(Path(f"/proc/{pid}/status")).splitlines():
        name, _, value = line.partition(":")
        if name in fields:
            fields[name] = int(value.split()[0]) * 1024
    if not fields["VmRSS"]:
        return None
    return fields["VmRSS"], fields["RssAnon"] + fields["RssShmem"]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _adopt_and_wait() -> None:
    """Waits for adopted processes; one that stays is asked to end, then made to."""
    deadline = time.monotonic() + PATIENCE
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        for pid in _descendants(os.getpid()) if number else []:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        while time.monotonic() < deadline:
            try:
                found, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not found:
                time.sleep(0.05)
        deadline = time.monotonic() + PATIENCE


def _machine_seconds() -> float:
    """Of all processes, and what a hypervisor took for others."""
    line = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0]
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICK
