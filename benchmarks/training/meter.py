"""What one process measures of itself: time, processor time, memory, and its ceiling."""

import os
import resource
import time
from pathlib import Path
from typing import Any

import torch

TICK = os.sysconf("SC_CLK_TCK")
SIZE = 2048


class Meter:
    """`ready` once imports are done and the model is built, `step_ended` after each step."""

    def __init__(self) -> None:
        before = time.perf_counter()
        self.gflops = gemm_gflops()
        self.own_seconds = time.perf_counter() - before
        self.resident_mb = 0.0
        self.marks: list[tuple[float, float, float]] = []
        self.first_step_seconds = 0.0
        self.peak_mb = 0.0

    def ready(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.resident_mb = pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def step_ended(self) -> None:
        if not self.marks:
            self.first_step_seconds = _age() - self.own_seconds
        self.marks.append((time.perf_counter(), time.process_time(), _machine_cpu_seconds()))
        self.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    def results(self) -> dict[str, Any]:
        """Of all steps but the first, which is the warm-up. `other_cpu` is the share of the
        machine that other processes took meanwhile."""
        steps = [
            [after - before for before, after in zip(one, next_one)]
            for one, next_one in zip(self.marks, self.marks[1:])
        ]
        wall, own, machine = (sum(column) for column in zip(*steps))
        return {
            "step_seconds": [step[0] for step in steps],
            "cpu_seconds": [step[1] for step in steps],
            "other_cpu": max(machine - own, 0.0) / wall / (os.cpu_count() or 1),
            "first_step_seconds": self.first_step_seconds,
            "resident_mb": self.resident_mb,
            "peak_mb": self.peak_mb,
            "gemm_gflops": max(self.gflops, gemm_gflops()),
        }


def gemm_gflops() -> float:
    """The best of five float32 products of 2048 x 2048, in GFLOP/s: no training is faster."""
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    out = torch.empty(SIZE, SIZE)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - begin)
    return 2 * SIZE**3 / best / 1e9


def _age() -> float:
    """Seconds since this process was started, imports included."""
    # Field 22 of proc(5), counted after the name, which may hold spaces.
    begin = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - begin / TICK


def _machine_cpu_seconds() -> float:
    """Of all processes, and what a hypervisor took for others."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICK
