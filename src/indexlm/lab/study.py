"""A study: what is asked, what the report says, which arms answer, and what was declared before.

A study is one file of `studies/`. It says nothing of its outcome: verdicts are computed from the
arms' values by `verdict.judge`, and the page's sentences are made from them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from indexlm.lab.arms import Arm, Result
from indexlm.lab.texts import Corpus
from indexlm.lab.verdict import Claim, Said, Verdict, judge

FIRST_SEED = 100
"""Lower ones were looked at while the studies were designed; verdicts are of others."""

PresetName = Literal["quick", "full", "gpu"]
Results = Mapping[str, Mapping[int, Result]]
"""Arm -> seed -> what it left; every arm of the study, also those that diverged."""
Values = Mapping[int, float | None]
"""By seed; None is an arm that diverged."""


@dataclass(frozen=True)
class Declared:
    """A claim, and where its values come from: by seed, `value` of the arms of both names."""

    name: Said
    claim: Claim
    treatment: str
    control: str
    value: Callable[[Result], float | None] | None = None
    """None for an arm that diverged."""
    made: Callable[[Results], tuple[Values, Values]] | None = None
    """The values of treatment and control themselves, in the place of `value`, where they are made
    of several arms (the best of some learning rates) or of parts of one (its head, its layers); the
    two names are then of what they are made of."""

    def __post_init__(self) -> None:
        assert (self.value is None) != (self.made is None), self.name.en

    def values(self, results: Results) -> tuple[Values, Values]:
        """Of treatment and control, by seed."""
        if self.made is not None:
            return self.made(results)
        assert self.value is not None
        treatment, control = results[self.treatment], results[self.control]
        return (
            {seed: self.value(result) for seed, result in treatment.items()},
            {seed: self.value(result) for seed, result in control.items()},
        )

    def verdict(self, results: Results) -> Verdict:
        return judge(self.claim, *self.values(results))


@dataclass(frozen=True)
class Line:
    """A line, dots or bars of a panel.

    A name has one colour in a figure. Dots of a panel with bars stand over the bars of their name.
    """

    name: Said
    xs: Sequence[float]
    ys: Sequence[float | None]
    kind: Literal["line", "dots", "bars"] = "line"
    faint: bool = False
    """One seed of several, beside their mean."""


@dataclass(frozen=True)
class Panel:
    title: Said
    x: Said
    y: Said
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False
    marks: Mapping[float, Said] | None = None
    """Vertical lines, such as where the decay begins or the report's own setting."""
    chance: float | None = None
    ticks: Sequence[str | Said] | None = None
    """Names of the places 0, 1, ... of bars."""


@dataclass(frozen=True)
class Figure:
    caption: Said
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Table:
    caption: Said
    head: Sequence[Said]
    rows: Sequence[Sequence[str | Said]]


@dataclass(frozen=True)
class Study:
    name: str
    title: Said
    question: Said
    report: Said
    """The report's claim with its numbers, and where they stand."""
    design: Said
    limits: Said
    arms: Callable[[PresetName, int], Sequence[Arm]]
    """All arms of one seed."""
    claims: Sequence[Declared]
    """The first one is the study's verdict; the others are shown with theirs."""
    shown: Callable[[Results], Sequence[Figure | Table]]
    seeds: Mapping[PresetName, int]
    on_text: "OnText | None" = None
    """The same question on real text."""

    def with_text(self, corpus: Corpus) -> "Study":
        """With the arms and claims on real text beside its own, behind them: the verdict stays that
        of its own first claim."""
        more = self.on_text
        if more is None:
            return self
        return replace(
            self,
            arms=lambda preset, seed: [
                *self.arms(preset, seed),
                *more.arms(preset, seed, corpus),
            ],
            claims=[*self.claims, *more.claims],
            shown=lambda results: [*self.shown(_on_the_world(results)), *more.shown(results)],
            design=Said(f"{self.design.en} {more.design.en}", f"{self.design.zh}{more.design.zh}"),
        )


@dataclass(frozen=True)
class OnText:
    """What a study adds where it is given a refined folder and a tokenizer."""

    design: Said
    arms: Callable[[PresetName, int, Corpus], Sequence[Arm]]
    """Their names differ from those of the study's other arms."""
    claims: Sequence[Declared]
    shown: Callable[[Results], Sequence[Figure | Table]]


def _on_the_world(results: Results) -> Results:
    """Without the arms on real text, which a study's own figures know nothing of."""
    return {
        name: by_seed
        for name, by_seed in results.items()
        if all(result.arm["corpus"] is None for result in by_seed.values())
    }
