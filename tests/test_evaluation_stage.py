"""What an evaluation inside a recipe depends on, and what it refuses before any training."""

import os
from pathlib import Path

import pytest

import benchmark_files
from indexlm.errors import UserError
from indexlm.pipeline import Run
from indexlm.preflight import check_before
from indexlm.recipes.tiny import recipe
from indexlm.settings import with_overrides


def run_on(data: Path, *settings: str) -> Run:
    asked = [f"evals.benchmarks={data}", *settings]
    return Run(with_overrides(recipe(), asked), data.parent / "run")


def test_a_stage_is_made_anew_for_its_own_benchmark_files_alone(tmp_path: Path) -> None:
    data = benchmark_files.mmlu(tmp_path / "data")

    def fingerprints() -> list[str]:
        run = run_on(data, 'evals.tasks=["mmlu"]', 'evals.curve_tasks=["mmlu"]')
        return [run.made_from(stage) for stage in ("trunk", "evals")]

    before = fingerprints()
    (data / "notes.txt").write_text("of no task", encoding="utf-8")
    (data / "mmlu" / "README.md").write_text("nor this", encoding="utf-8")
    assert fingerprints() == before
    for folder in ("test", "dev"):
        changed = data / f"mmlu/{folder}/anatomy_{folder}.csv"
        os.utime(changed, (1, 1))
        after = fingerprints()
        assert all(one != other for one, other in zip(before, after))
        before = after


def test_other_tasks_at_the_end_leave_the_trunk(tmp_path: Path) -> None:
    data = benchmark_files.arc_easy(benchmark_files.mmlu(tmp_path / "data"))
    one = run_on(data, 'evals.tasks=["mmlu"]')
    other = run_on(data, 'evals.tasks=["mmlu","arc_easy"]', "evals.limit=3")
    assert one.made_from("trunk") == other.made_from("trunk")
    assert one.made_from("evals") != other.made_from("evals")
    curve = run_on(data, 'evals.curve_tasks=["mmlu"]')
    assert one.made_from("trunk") != curve.made_from("trunk")


def test_a_wrong_row_is_told_before_the_training(tmp_path: Path) -> None:
    data = benchmark_files.mmlu(tmp_path / "data")
    file = data / "mmlu/test/anatomy_test.csv"
    file.write_text(file.read_text(encoding="utf-8") + "What?,a,b,c,d,E\n", encoding="utf-8")
    for part in ("tasks", "curve_tasks"):
        with pytest.raises(UserError, match=r"anatomy_test\.csv:13.*'E'"):
            check_before(run_on(data, f'evals.{part}=["mmlu"]').recipe)
