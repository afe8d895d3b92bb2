"""What is seen of a step: norms by layer, the rows of the head, the guard against broken updates.

Gradient norms cost one pass over the gradients and are there at every step. Norms of updates and of
activations, and the head's rows, are looked at every WATCH_EVERY steps. All of it together is under
2% of a step (`benchmarks/watching.py`).

With several processes every number here is of all of them.

Shape suffixes: V vocabulary.
"""

import math
import re
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from indexlm.model.shard import copies, local
from indexlm.model.transformer import Transformer
from indexlm.runtime import rank, ranks, summed

LAYER = re.compile(r"model\.layers\.(\d+)\.")
WATCH_EVERY = 10


def layer_of(name: str) -> str:
    """`embedding`, `layer 0` ..., `final norm`, `head` for a parameter's name."""
    inside = LAYER.match(name)
    if inside:
        return f"layer {inside[1]}"
    return {"model.embed_tokens.weight": "embedding", "lm_head.weight": "head"}.get(
        name, "final norm"
    )


@torch.no_grad()
def squared_norms(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Squared L2 norm of each; of a tensor that is sharded, of all its parts."""
    norms = torch._foreach_norm([local(tensor) for tensor in tensors.values()])
    held = torch.tensor([copies(tensor) for tensor in tensors.values()], dtype=torch.float64)
    squares = summed(torch.stack(norms).double().cpu().square() / held)
    return dict(zip(tensors, squares.tolist()))


def gradient_squares(model: Transformer) -> dict[str, float]:
    """Squared norm of the gradient of every trainable parameter, by name.

    Their sum is the squared norm of the whole gradient; the report's claim is that the head's share
    of it is the largest.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    gradients = {}
    for name, parameter in trainable:
        assert parameter.grad is not None, name
        gradients[name] = parameter.grad
    return squared_norms(gradients)


@torch.no_grad()
def update_squares(model: Transformer, optimiser: torch.optim.AdamW) -> dict[str, float]:
    """Squared norm of what the last step of AdamW added to every parameter, by name.

    Made from weights and moments after the step, so that no copy of the weights is kept: with
    u = lr m' / (sqrt(v') + eps) the step was w -> (1 - lr decay) w - u.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    updates: dict[str, Tensor] = {}
    held: list[int] = []
    # Read together: each reading waits for the GPU.
    steps_of = torch.stack([moments["step"] for moments in optimiser.state.values()])
    done = dict(zip(optimiser.state, steps_of.tolist()))
    for group in optimiser.param_groups:
        if not group["params"]:
            continue  # LoRA trains neither the head nor a gain.
        lr, (beta1, beta2) = group["lr"], group["betas"]
        for parameter in group["params"]:
            moments, steps = optimiser.state[parameter], done[parameter]
            denominator = local(moments["exp_avg_sq"]).sqrt()
            denominator.div_(math.sqrt(1 - beta2**steps)).add_(group["eps"])
            update = denominator.reciprocal_().mul_(local(moments["exp_avg"]))
            update.mul_(lr / (1 - beta1**steps))
            shrink = lr * group["weight_decay"]
            if shrink:
                # The weight before was (w + u) / (1 - shrink).
                update.add_(local(parameter), alpha=shrink).div_(1 - shrink)
            updates[names[id(parameter)]] = update.norm()
            held.append(copies(parameter))
    squares = torch.stack(list(updates.values())).double().cpu().square()
    return dict(zip(updates, summed(squares / torch.tensor(held)).tolist()))


def by_layer(squares: Mapping[str, float]) -> dict[str, float]:
    """Norms by layer from squared norms by parameter."""
    layers: dict[str, float] = {}
    for name, square in squares.items():
        layers[layer_of(name)] = layers.get(layer_of(name), 0.0) + square
    return {layer: math.sqrt(square) for layer, square in layers.items()}


@dataclass
class Activations:
    """Root mean squares of the residual stream, after the embedding and after every block."""

    squares: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    """By layer and lane, each of which adds up its own."""
    counts: dict[tuple[str, int], int] = field(default_factory=dict)

    def see(self, layer: str, lane: int, out: Tensor) -> None:
        place = (layer, lane)
        square = out.detach().float().square().sum()
        self.squares[place] = self.squares.get(place, 0.0) + square
        self.counts[place] = self.counts.get(place, 0) + out.numel()

    def means(self) -> dict[str, float]:
        places = sorted(self.squares, key=lambda place: place[1])
        layers = list(dict.fromkeys(layer for layer, _ in places))
        # One copy from the device, not one for each layer.
        found = torch.stack([self.squares[place] for place in places]).double().cpu()
        sums = torch.zeros(2, len(layers), dtype=torch.float64)
        for place, square in zip(places, found):
            at = layers.index(place[0])
            sums[0, at] += square
            sums[1, at] += self.counts[place]
        squares, counts = summed(sums)
        return dict(zip(layers, (squares / counts).sqrt().tolist()))


@contextmanager
def watching(lanes: Sequence[Transformer], watched: bool) -> Iterator[Activations]:
    """Look at the activations of every forward pass within it, where `watched`."""
    seen = Activations()
    hooks = []
    for lane, model in enumerate(lanes if watched else ()):
        places: list[tuple[str, nn.Module]] = [("embedding", model.model.embed_tokens)]
        places += [(f"layer {index}", block) for index, block in enumerate(model.model.layers)]
        for layer, module in places:
            hooks.append(module.register_forward_hook(partial(_see, seen, layer, lane)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _see(
    seen: Activations, layer: str, lane: int, module: nn.Module, given: Any, out: Tensor
) -> None:
    seen.see(layer, lane, out)


@torch.no_grad()
def head_row_norms(model: Transformer) -> dict[str, float]:
    """Mean, smallest and largest L2 norm of the head's raw rows."""
    norms_V = torch.linalg.vector_norm(local(model.lm_head.weight).float(), dim=1).double().cpu()
    parts = torch.zeros(ranks(), 4, dtype=torch.float64)
    if len(norms_V):
        ends = (norms_V.sum(), torch.tensor(len(norms_V)), norms_V.min(), norms_V.max())
        parts[rank()] = torch.stack([end.double() for end in ends])
    parts = summed(parts)
    parts = parts[parts[:, 1] > 0]
    mean = float(parts[:, 0].sum() / parts[:, 1].sum())
    return {"mean": mean, "min": float(parts[:, 2].min()), "max": float(parts[:, 3].max())}


class SkipGuard:
    """Says which updates to leave out: those of a loss or gradient that is not finite or far above
    the steps before; too many in a row end the run.

    It remembers nothing that the log of the steps does not say, so a resumed run judges alike.
    """

    MOST_IN_A_ROW = 5
    WINDOW = 64
    FEWEST = 16
    """Steps before a multiple of the median means anything."""

    def __init__(self, above: float = 0.0, before: Iterable[Mapping[str, Any]] = ()) -> None:
        """`above` is the multiple of the median, 0 for none; `before` are logged steps."""
        self.above = above
        self.in_a_row = 0
        self._losses: deque[float] = deque(maxlen=self.WINDOW)
        self._norms: deque[float] = deque(maxlen=self.WINDOW)
        for entry in before:
            self._remember(entry["loss"], entry["grad_norm"], bool(entry.get("skipped")))

    def allows(self, loss: float, norm: float, step: int) -> bool:
        """Whether to update. Raises FloatingPointError after MOST_IN_A_ROW skips."""
        skipped = bool(self.reason(loss, norm))
        self._remember(loss, norm, skipped)
        if self.in_a_row > self.MOST_IN_A_ROW:
            raise FloatingPointError(
                f"step {step}: loss {loss}, gradient norm {norm}; {self.in_a_row} updates in a row "
                "were skipped. The last checkpoint is from before; lower the learning rate"
            )
        return not skipped

    def reason(self, loss: float, norm: float) -> str:
        """Why an update would be left out; empty where it would not."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "not finite"
        if not self.above or len(self._norms) < self.FEWEST:
            return ""
        for name, value, window in (("loss", loss, self._losses), ("gradient", norm, self._norms)):
            usual = statistics.median(window)
            if value > self.above * usual > 0:
                return f"{name} is {value / usual:.3g} times its median"
        return ""

    def _remember(self, loss: float, norm: float, skipped: bool) -> None:
        if skipped:
            self.in_a_row += 1
            return
        self.in_a_row = 0
        self._losses.append(loss)
        self._norms.append(norm)


def summary(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
