"""The learning rate of every training stage of a recipe over its steps: checked, and drawn."""

import logging
from dataclasses import dataclass

from indexlm.config import AnyRecipe, Continuation, ConversationConfig, ScheduleConfig
from indexlm.errors import UserError
from indexlm.train.schedules import SMALLEST_FINAL, last_share, lr_share, shortcoming

log = logging.getLogger("indexlm")

COLUMNS, ROWS = 60, 8
DOTS_ACROSS, DOTS_DOWN = 2 * COLUMNS, 4 * ROWS
"""A braille character is two dots wide and four high."""
BRAILLE = 0x2800
DOT_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of the dot in a row (from the top) and a column of a braille character (Unicode, U+2800)."""


@dataclass(frozen=True)
class Curve:
    """Learning rates of one run of the loop, steps `first` to `last` - 1 of its family."""

    name: str
    schedule: ScheduleConfig
    peak: float
    first: int
    last: int
    decay: int = 0
    ends_after: int = 0
    """Steps by which the schedule is longer than the run."""

    def rate(self, step: int) -> float:
        steps = self.last + self.ends_after
        return self.peak * lr_share(self.schedule, step, steps, self.decay)

    def extremes(self, begin: int, end: int) -> tuple[float, float]:
        """Lowest and highest rate of the steps from `begin` on, before `end`.

        Between its joints a schedule only rises or only falls.
        """
        joints = {self.schedule.warmup, self.last - self.decay}
        steps = {begin, end - 1} | joints | {joint - 1 for joint in joints}
        rates = [self.rate(step) for step in steps if begin <= step < end]
        return min(rates), max(rates)

    def stated(self) -> str:
        """Its joints in words."""
        schedule = self.schedule
        parts = [f"steps {self.first + 1:,} to {self.last:,}"]
        if self.first == 0:
            parts.append(f"warm-up {schedule.warmup:,}, peak {self.peak:g}")
        if schedule.shape != "wsd":
            parts.append(f"{schedule.shape} to {schedule.final:g} of the peak")
        elif self.decay:
            shape = "1 - sqrt" if schedule.decay_shape == "sqrt" else schedule.decay_shape
            share = last_share(schedule)
            parts.append(f"{shape} decay of {self.decay:,} steps to {share:g} of the peak")
            if share != schedule.final:
                parts.append(f"(an exponential never comes to 0 and is ended at {SMALLEST_FINAL})")
        return f"{self.name}: {', '.join(parts)}, last {self.rate(self.last - 1):.3g}"


def families(recipe: AnyRecipe) -> dict[str, list[Curve]]:
    """Section of the recipe -> a trunk and its branches, or the one run of a stage.

    Fine-tuning on files of conversations is not among them: the rows that they are packed in give
    its steps.
    """
    if isinstance(recipe, Continuation):
        stage = recipe.pretrain
        if stage is None:
            return {}
        # Like the stage: its schedule would come to the end one step after it.
        curve = Curve("pretrain", stage.schedule, stage.optimiser.lr, 0, stage.steps, ends_after=1)
        return {"pretrain": [curve]}
    trunk = recipe.pretrain
    lr, schedule, steps = trunk.optimiser.lr, trunk.schedule, trunk.steps
    found = {"pretrain": [Curve("trunk", schedule, lr, 0, steps)]}
    for name, branch in (("base", recipe.base), ("pure", recipe.pure)):
        first = branch.from_step or steps
        last = first + branch.steps
        found["pretrain"].append(Curve(name, schedule, lr, first, last, branch.steps))
    for name, each in {
        "sft": recipe.sft,
        "dpo": recipe.dpo,
        "character.sft": recipe.character.sft,
        "character.dpo": recipe.character.dpo,
    }.items():
        found[name] = [Curve(name, each.schedule, each.optimiser.lr, 0, each.steps)]
    return found


def check_schedules(recipe: AnyRecipe) -> None:
    """Raises UserError for a schedule that cannot be run as it is written, and warns of one that
    cannot come to its peak or its end."""
    for section, curves in families(recipe).items():
        trunk, branches = curves[0], curves[1:]
        if lacking := shortcoming(section, trunk.schedule, trunk.last):
            log.warning(lacking)
        if branches and trunk.schedule.shape != "wsd":
            raise UserError(
                f"{section}.schedule.shape={trunk.schedule.shape}: the decay branches "
                f"{' and '.join(curve.name for curve in branches)} start at the peak, which only "
                f"wsd keeps to the end of the trunk; set {section}.schedule.shape=wsd"
            )
        for branch in branches:
            if branch.first < min(trunk.schedule.warmup, trunk.last):
                raise UserError(
                    f"{branch.name}.from_step={branch.first} lies in the warm-up, before the peak "
                    f"that a decay starts at: {section}.schedule.warmup={trunk.schedule.warmup}"
                )


def learning_rate_charts(recipe: AnyRecipe) -> list[str]:
    """One chart for each family of runs, with the rates at its joints below it."""
    charts = []
    for section, curves in families(recipe).items():
        lines = [f"learning rate of {section} over steps", *chart(curves)]
        charts.append("\n".join([*lines, *(f"  {curve.stated()}" for curve in curves)]))
    if isinstance(recipe, Continuation) and recipe.sft is not None:
        charts.append(_of_conversations(recipe.sft))
    return charts


def chart(curves: list[Curve]) -> list[str]:
    """The curves on one canvas of COLUMNS x ROWS characters, 0 at its bottom, the highest rate at
    its top, labelled at both, and the steps below."""
    top = max(curve.extremes(curve.first, curve.last)[1] for curve in curves)
    last = max(curve.last for curve in curves)
    cells = [[0] * COLUMNS for _ in range(ROWS)]
    for curve in curves:
        for across, low, high in _dots(curve, top, last):
            for height in range(low, high + 1):
                down = DOTS_DOWN - 1 - height
                cells[down // 4][across // 2] |= DOT_BITS[down % 4][across % 2]
    labels = [f"{top:.3g}", *[""] * (ROWS - 2), "0"]
    lines = [
        f"{label:>10} ┤" + "".join(chr(BRAILLE + cell) for cell in row).rstrip(chr(BRAILLE))
        for label, row in zip(labels, cells)
    ]
    lines.append(" " * 11 + "└" + "─" * COLUMNS)
    middle = f"{curves[0].last:,}" if len(curves) > 1 else ""
    at = min(max(curves[0].last * COLUMNS // last - len(middle), 2), COLUMNS)
    marks = f"{'1':<{at}}{middle}" if middle else "1"
    end = f"{last:,}"
    lines.append(" " * 12 + f"{marks:<{COLUMNS - len(end)}}{end}")
    return lines


def _dots(curve: Curve, top: float, last: int) -> list[tuple[int, int, int]]:
    """(column, lowest dot, highest dot) of the columns that a curve passes; `last` is the step of
    the right edge. A column reaches to the one before it, so that steep parts stay joined."""
    found: list[tuple[int, int, int]] = []
    for across in range(DOTS_ACROSS):
        begin = across * last // DOTS_ACROSS
        end = max((across + 1) * last // DOTS_ACROSS, begin + 1)
        begin, end = max(begin, curve.first), min(end, curve.last)
        if begin >= end:
            continue
        low, high = (round(rate / top * (DOTS_DOWN - 1)) for rate in curve.extremes(begin, end))
        if found:
            _, before_low, before_high = found[-1]
            low, high = min(low, before_high + 1), max(high, before_low - 1)
        found.append((across, low, high))
    return found


def _of_conversations(stage: ConversationConfig) -> str:
    return (
        f"learning rate of sft: warm-up in {stage.warmup_share:.0%} of the steps to "
        f"{stage.optimiser.lr:g}, then a cosine to {stage.final:g} of it; {stage.epochs:g} epochs "
        f"in batches of {stage.batch}, so that the packed rows give the steps"
    )
