"""Arms side by side: the same numbers as one by one, each once, trunks before their forks."""

from pathlib import Path

import pytest
from small_arms import CPU, arm, exploding, wsd

from indexlm.lab.running import can_fork, run
from indexlm.lab.workers import run_all, with_needed, with_trunks, work

TRUNK = arm(name="trunk", train=wsd(8))
FORKS = [arm(name=f"fork {n}", train=wsd(8 + n), decay_steps=n, trunk=TRUNK) for n in (2, 4)]


def test_two_processes_give_the_numbers_of_one_call_after_the_other(tmp_path: Path) -> None:
    arms = [*FORKS, exploding(name="too hot")]
    beside = run_all("test", arms, tmp_path / "beside", 2, CPU)
    assert [result.arm["name"] for result in beside] == ["fork 2", "fork 4", "too hot"]
    alone = [run(each, tmp_path / "alone", CPU) for each in (TRUNK, *arms)]
    for one, other in zip(beside, alone[1:]):
        assert (one.losses, one.scores, one.diverged) == (
            other.losses,
            other.scores,
            other.diverged,
        )
    # Done once: the same call reads what is there.
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("beside/arms/*")}
    assert len(stamps) == 4
    assert run_all("test", arms, tmp_path / "beside", 2, CPU) == beside
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    # Trunks are removed at the end, and run again where another fork needs them.
    later = arm(name="later", train=wsd(10), decay_steps=1, trunk=TRUNK)
    assert not can_fork(later, tmp_path / "beside")
    assert list(with_needed([later], tmp_path / "beside").values()) == [TRUNK, later]
    assert list(with_needed([later], tmp_path / "alone").values()) == [later]
    (result,) = run_all("test", [later], tmp_path / "beside", 1, CPU)
    # The first step of a decay of two is the same rows and weights.
    assert result.losses[0] == beside[0].losses[0]


def test_a_trunk_comes_once_and_before_its_forks() -> None:
    assert list(with_trunks(FORKS).values()) == [TRUNK, *FORKS]


def test_work_is_of_the_steps_that_a_fork_has_of_its_own() -> None:
    assert work(FORKS[1]) == pytest.approx(2 * work(FORKS[0]), abs=1)
    assert work(TRUNK) == pytest.approx(4 * work(FORKS[0]), abs=2)
