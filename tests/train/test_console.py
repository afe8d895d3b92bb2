"""What a person sees of a stage: the line, the account at the end, curves for TensorBoard."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from workshop import Workshop

from indexlm.records import verify


def test_the_line_says_what_a_run_is_judged_by(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="indexlm")
    stage = workshop.stage(12)
    workshop.run("run", stage)
    last = next(line for line in reversed(caplog.messages) if line.startswith("test 12/12"))
    entry = workshop.entries("run")[-1]
    assert f"loss {entry['loss']:.3f}" in last and f"lr {entry['lr']:.2e}" in last
    assert f"|g| {entry['grad_norm']:.2f}" in last
    clipped = sum(each["clipped"] for each in workshop.entries("run"))
    assert f"({clipped / 12:.0%} clipped)" in last
    assert re.search(r"[\d,]+ tok/s  MFU \d+%  \d+\.\d\d GiB  0:00 left", last), last


def test_a_resumed_run_counts_the_steps_before_it(workshop: Workshop) -> None:
    """Clipped and skipped steps and tokens by source are those of the stage, not of the process."""
    stage = workshop.stage(12, shares={"en": 1.0, "zh": 3.0})
    workshop.run("whole", stage)
    half = replace(stage, last_step=7)
    workshop.run("resumed", half)
    (workshop.folder / "resumed" / "manifest.json").unlink()
    workshop.run("resumed", stage)
    whole, resumed = (
        {k: v for k, v in verify(workshop.folder / name).notes.items() if k != "seconds"}
        for name in ("whole", "resumed")
    )
    assert whole == resumed
    assert whole["tokens"] == 12 * 8 * 24 and whole["steps"] == 12
    assert whole["asked"] == {"en": 1.0, "zh": 3.0}
    read = sum(entry["sources"]["zh"] for entry in workshop.entries("whole"))
    assert whole["shares"]["zh"] == pytest.approx(read / whole["tokens"], abs=1e-4)


def test_achieved_shares_are_said_beside_those_asked_for(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="indexlm")
    # 256 rows are one block of the mixture, in which shares are met exactly.
    workshop.run("run", workshop.stage(32, shares={"en": 0.5, "zh": 0.5}))
    said = next(line for line in caplog.messages if "shares of the tokens" in line)
    found = re.findall(r"(\w+) ([\d.]+)% \(50\.0%\)", said)
    assert [name for name, _ in found] == ["en", "zh"]
    # The last row of an epoch is shorter than the others.
    assert all(float(share) == pytest.approx(50, abs=1.5) for _, share in found)


def test_tensorboard_holds_the_numbers_of_the_log(workshop: Workshop, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stage = workshop.stage(12, tensorboard=tmp_path / "curves")
    workshop.run("run", replace(stage, last_step=7))
    (workshop.folder / "run" / "manifest.json").unlink()
    workshop.run("run", stage)
    curves = EventAccumulator(str(tmp_path / "curves"))
    curves.Reload()
    entries = workshop.entries("run")
    for name in ("loss", "lr", "grad_norm"):
        drawn = {event.step: event.value for event in curves.Scalars(name)}
        assert drawn == pytest.approx({entry["step"]: entry[name] for entry in entries}, rel=1e-6)
    by_layer = {event.step: event.value for event in curves.Scalars("layers/head")}
    assert by_layer == pytest.approx(
        {0: entries[0]["layers"]["head"], 10: entries[10]["layers"]["head"]}
    )
