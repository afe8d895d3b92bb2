"""What a person sees of a stage while it runs and what it amounted to: one dense line every few
seconds, curves for TensorBoard where asked for, and the account at the end."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexlm.model import costs
from indexlm.model.config import ModelConfig
from indexlm.records import clock
from indexlm.runtime import matrix_rate, memory_used, rank, ranks
from indexlm.train.watch import summary

if TYPE_CHECKING:
    from indexlm.train.loop import Stage

log = logging.getLogger("indexlm")

SHOW_EVERY = 5.0
"""Seconds between lines."""
FURTHER = ("margin", "accuracy", "bits_per_byte/zh", "bits_per_byte/en")
"""What a line says beside the rest, where a step has it."""


class Console:
    """Speed and time left are of the steps of this process; counts are of the whole stage."""

    def __init__(
        self,
        stage: "Stage",
        model: ModelConfig,
        device: str,
        step: int,
        before: Sequence[Mapping[str, Any]],
    ) -> None:
        self.stage, self.device, self.first, self.tokens = stage, device, step, 0
        length = stage.tokens_per_step // stage.config.batch or model.context
        self.flops = costs.training_flops_per_token(model, length)
        self.sources: dict[str, int] = dict.fromkeys(stage.feed.names, 0)
        self.clipped = self.skipped = self.seen = 0
        self.curves = _curves(stage.tensorboard, step) if rank() == 0 else None
        for entry in before:
            self._count(entry)
        self.started = self.before = time.monotonic()
        self.shown = self.started - 60

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def measure(self, entry: Mapping[str, Any]) -> dict[str, float]:
        now = time.monotonic()
        seconds, self.before = now - self.before, now
        self.tokens += entry["tokens"]
        self._count(entry)
        if self.curves is not None:
            _draw(self.curves, entry)
        return {"seconds": round(seconds, 4)}

    def show(self, entry: Mapping[str, Any], step: int) -> None:
        now = time.monotonic()
        if now - self.shown < SHOW_EVERY and step != self.stage.last_step:
            return
        self.shown = now
        log.info(self.line(entry, step))

    def line(self, entry: Mapping[str, Any], step: int) -> str:
        """Loss, bits per byte, learning rate, gradient, speed, share of the machine's matrix rate,
        memory of this process, time left."""
        speed = self.tokens / self.elapsed()
        left = self.elapsed() / (step - self.first) * (self.stage.last_step - step)
        ceiling = ranks() * matrix_rate(self.device, self.stage.hardware.dtype)
        known = entry | entry.get("scores", {})
        further = {name: known[name] for name in FURTHER if name in known}
        parts = [
            f"{self.stage.name} {step}/{self.stage.last_step}",
            f"loss {entry['loss']:.3f}",
            f"{entry['bits_per_byte']:.3f} bits/byte" if "bits_per_byte" in entry else "",
            f"lr {entry['lr']:.2e}",
            f"|g| {entry['grad_norm']:.2f} ({self.clipped / self.seen:.0%} clipped)",
            f"{self.skipped} skipped" if self.skipped else "",
            f"{speed:,.0f} tok/s",
            f"MFU {speed * self.flops / ceiling:.0%}",
            f"{memory_used(self.device) / 2**30:.2f} GiB",
            f"{clock(left)} left",
            summary(further),
        ]
        return "  ".join(part for part in parts if part)

    def account(self, steps: int) -> dict[str, Any]:
        """What the stage amounted to, for its manifest; achieved and asked shares are also said."""
        total = sum(self.sources.values()) or 1
        achieved = {name: round(count / total, 4) for name, count in self.sources.items()}
        asked = self.stage.shares
        if asked:
            whole = sum(asked.values())
            said = ", ".join(
                f"{name} {achieved.get(name, 0):.1%} ({share / whole:.1%})"
                for name, share in sorted(asked.items())
                if share
            )
            log.info(f"{self.stage.name}: shares of the tokens, in brackets as asked: {said}")
        return {
            "steps": steps,
            "seconds": round(self.elapsed(), 1),
            "tokens": total,
            "shares": achieved,
            "asked": dict(asked),
            "clipped": self.clipped,
            "skipped": self.skipped,
        }

    def close(self) -> None:
        if self.curves is not None:
            self.curves.close()

    def _count(self, entry: Mapping[str, Any]) -> None:
        self.seen += 1
        self.clipped += entry["clipped"]
        self.skipped += "skipped" in entry
        for name, count in entry["sources"].items():
            self.sources[name] += count


def _curves(folder: Path | None, step: int) -> Any:
    """A writer that goes on at `step`; None where nobody asked for it."""
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)


def _draw(curves: Any, entry: Mapping[str, Any]) -> None:
    step = entry["step"]
    for name, value in entry.items():
        if isinstance(value, Mapping):
            for part, number in value.items():
                curves.add_scalar(f"{name}/{part}", number, step)
        elif isinstance(value, int | float) and name != "step":
            curves.add_scalar(name, value, step)
