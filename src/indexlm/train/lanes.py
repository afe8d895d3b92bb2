"""Processor cores side by side: each lane takes rows of its own through the network on one thread.

Two cores that share every operation wait for each other at each of them; two that share the rows
wait once in a micro-batch (`indexlm_one_lane` in `benchmarks/training` is without). Lanes share the
storage of the weights, each sums its own gradients, and they are added in the order of the lanes:
the same bits in every run.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from indexlm.model.transformer import Transformer

Objective = Callable[[Transformer, Any], tuple[Tensor, int, Mapping[str, float]]]
"""(model, batch) -> (summed loss, number of units, further sums). The loop divides by the units
of the whole step, so splitting a batch cannot change the result."""

Sums = tuple[Tensor, int, Mapping[str, float]]
"""(summed loss, float64; units; further sums) of a micro-batch."""


def fitting_lanes(model: Transformer, device: str, rows: int) -> int:
    """How many lanes a process can use: one for each thread of a processor, at most one for each
    row (or pair) of a micro-batch.

    One for dropout, whose masks come from one generator, and where a process is one of several:
    their exchanges would cross.
    """
    drops = any(isinstance(each, nn.Dropout) and each.p > 0 for each in model.modules())
    if device != "cpu" or drops or torch.distributed.is_initialized():
        return 1
    return min(torch.get_num_threads(), rows)


class Lanes:
    """Forward and backward passes of micro-batches; the first of `models` gets all gradients."""

    def __init__(self, models: Sequence[Transformer], objective: Objective) -> None:
        self.models, self.objective = models, objective
        self.threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(len(models), "lane") if len(models) > 1 else None

    def run(self, batch: Any) -> Sums:
        """Add the gradients of a micro-batch to those that the lanes hold."""
        if self._pool is None:
            return self._pass(self.models[0], batch)
        parts = batch.split(len(self.models))
        running = [
            self._pool.submit(self._alone, model, part) for model, part in zip(self.models, parts)
        ]
        done = [lane.result() for lane in running]
        # The lanes' own calls have changed it for libraries that keep one number for all threads.
        torch.set_num_threads(self.threads)
        further: dict[str, float] = {}
        for _, _, more in done:
            for name, value in more.items():
                further[name] = further.get(name, 0.0) + value
        return torch.stack([loss for loss, _, _ in done]).sum(), sum(d[1] for d in done), further

    def collect(self) -> None:
        """Add the gradients of the other lanes to the first one's and drop them."""
        for model in self.models[1:]:
            mine: list[Tensor] = []
            theirs: list[Tensor] = []
            for own, other in zip(self.models[0].parameters(), model.parameters()):
                # A lane that had no rows has none.
                if other.grad is not None and own.grad is not None:
                    mine.append(own.grad)
                    theirs.append(other.grad)
            if mine:
                torch._foreach_add_(mine, theirs)
            model.zero_grad(set_to_none=True)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _alone(self, model: Transformer, batch: Any) -> Sums:
        torch.set_num_threads(1)
        return self._pass(model, batch)

    def _pass(self, model: Transformer, batch: Any) -> Sums:
        loss, units, further = self.objective(model, batch)
        loss.backward()
        return loss.detach().double(), units, further
