"""What an evaluation inside a recipe depends on, and what it refuses before any training."""

import os
from pathlib import Path
from typing import Any

import pytest

import benchmark_files
from command import write_model
from indexlm.errors import UserError
from indexlm.pipeline import Run
from indexlm.preflight import check_before
from indexlm.recipes.tiny import recipe
from indexlm.serve.engine import Engine
from indexlm.settings import with_overrides
from indexlm.stages.evaluation import WORK, benchmark_scores
from indexlm.tokens.tokenizer import Tokenizer


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


def test_finished_parts_are_those_of_the_same_weights(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A model that stands in the place of another one takes nothing over from it."""
    data = benchmark_files.arc_easy(tmp_path / "data")
    run = run_on(data, 'evals.tasks=["arc_easy"]')
    for name, size in (("base", 0.05), ("pure", 0.3)):
        write_model(run.path(f"models/{name}"), tokenizer, init_std=size)

    def scored(name: str) -> Any:
        return benchmark_scores(run, name, Engine.load(run.path(f"models/{name}")), "cpu")

    def pieces() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in run.path(WORK).glob("*.json")}

    base = scored("base")
    first = pieces()
    assert first and scored("base") == base and pieces() == first
    pure = scored("pure")
    assert len(pieces()) == 2 * len(first) and first.items() <= pieces().items()
    assert pure["arc_easy"]["prompts"] != base["arc_easy"]["prompts"]
