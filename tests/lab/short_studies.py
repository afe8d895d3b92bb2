"""The arms of a study, cut to a few steps and really run, and results made to be so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from indexlm.config import HardwareConfig
from indexlm.lab.arms import Arm, Result
from indexlm.lab.running import result_of, run
from indexlm.lab.study import Figure, Results, Study, Table
from indexlm.lab.workers import with_trunks

# One thread, so that sums come in one order.
torch.set_num_threads(1)

CPU = HardwareConfig(device="cpu")
Plain = dict[str, Any]


def cut(arm: Arm, factor: float) -> Arm:
    """All lengths times `factor`."""

    def scaled(steps: int) -> int:
        return max(1, round(steps * factor)) if steps else 0

    train = arm.train
    schedule = train.schedule.model_copy(update={"warmup": scaled(train.schedule.warmup)})
    lengths = {name: scaled(getattr(train, name)) for name in ("steps", "keep_every", "save_every")}
    watch = {"items": 16, "rows": 4, "every": max(5, scaled(arm.watch.every))}
    changed: Plain = {
        "train": train.model_copy(update=lengths | {"schedule": schedule}),
        "watch": arm.watch.model_copy(update=watch),
        "decay_steps": scaled(arm.decay_steps),
    }
    if arm.trunk is not None:
        changed["trunk"] = cut(arm.trunk, factor)
        changed["from_step"] = scaled(arm.from_step or 0) or None
    return arm.model_copy(update=changed)


def results(
    study: Study,
    folder: Path,
    factor: float,
    seeds: int = 1,
    wanted: Callable[[str], bool] = lambda name: True,
) -> Results:
    """Of the quick preset's arms whose names are wanted, by the product's loop."""
    found: dict[str, dict[int, Result]] = {}
    for seed in range(seeds):
        arms = [cut(arm, factor) for arm in study.arms("quick", seed) if wanted(arm.name)]
        for arm in with_trunks(arms).values():
            if result_of(arm, folder) is None:
                run(arm, folder, CPU)
        for arm in arms:
            found.setdefault(arm.name, {})[seed] = _known(result_of(arm, folder))
    return found


def _known(result: Result | None) -> Result:
    assert result is not None
    return result


def made(arm: Arm, diverged: str = "", **scores: float) -> Result:
    """As if an arm had left these scores; `/` of a name is written `__`, `-` as `_0_`."""
    named = {name.replace("__", "/").replace("_0_", "-"): value for name, value in scores.items()}
    return Result(
        arm=arm.model_dump(mode="json"),
        made_from="",
        scores=named,
        curve=[],
        losses=[],
        gradients=[],
        first_step=0,
        clipped=0.0,
        diverged=diverged,
        parameters=arm.model.parameters,
        non_embedding=arm.model.non_embedding_parameters,
        cpu_seconds=0.0,
    )


def planted(some: Results, arm: str, **fields: Any) -> Results:
    """`some` with other fields in all seeds of an arm."""
    changed = {seed: replace(result, **fields) for seed, result in some[arm].items()}
    return {**some, arm: changed}


def check_shown(shown: Sequence[Figure | Table], seeds: int) -> None:
    """Every panel has something in it and, where it has a mean, each seed; every table is whole."""
    assert shown
    for each in shown:
        _bilingual(each.caption)
        if isinstance(each, Table):
            assert each.rows
            assert {len(row) for row in each.rows} == {len(each.head)}
            continue
        for panel in each.panels:
            _bilingual(panel.title)
            assert any(y is not None for line in panel.lines for y in line.ys), panel.title
            for line in panel.lines:
                assert len(line.xs) == len(line.ys), (panel.title, line.name)
            faint: dict[str, int] = {}
            for line in panel.lines:
                if line.faint and line.kind == "line":
                    faint[line.name.en] = faint.get(line.name.en, 0) + 1
            assert set(faint.values()) <= {seeds}, (panel.title, faint)


def check_said(study: Study) -> None:
    for name in ("title", "question", "report", "design", "limits"):
        _bilingual(getattr(study, name))
    for declared in study.claims:
        for said in (
            declared.name,
            declared.claim.metric,
            declared.claim.treatment,
            declared.claim.control,
        ):
            assert said.en and said.zh, declared.name.en


def check_arms(arms: Callable[[Any, int], Sequence[Arm]], presets: Mapping[Any, int]) -> None:
    """Every seed has the same arms, and they differ in nothing but the seed."""
    for preset in presets:
        one, other = ({arm.name: arm for arm in arms(preset, seed)} for seed in (0, 1))
        assert one.keys() == other.keys()
        assert len({arm.fingerprint() for arm in one.values()}) == len(one)
        for name, arm in one.items():
            assert _unseeded(arm) == _unseeded(other[name])
            assert (arm.seed, other[name].seed) == (0, 1)


def _unseeded(arm: Arm) -> Plain:
    trunk = None if arm.trunk is None else _unseeded(arm.trunk)
    return arm.model_dump() | {"seed": 0, "trunk": trunk}


def _bilingual(said: Any) -> None:
    assert said.en and said.zh, said
