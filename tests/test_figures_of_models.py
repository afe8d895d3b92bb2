"""The tables of docs/models.md, in both languages, are those of the committed results."""

import json
from pathlib import Path
from typing import Any

import pytest

from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.plan import lora_memory
from indexlm.recipes import lora

DOCS = Path(__file__).parents[1] / "docs"


def results(name: str) -> Any:
    return json.loads((DOCS / name / "results.json").read_text(encoding="utf-8"))


def told_rows(file: str) -> set[str]:
    text = (DOCS / file).read_text(encoding="utf-8")
    return {line for line in text.splitlines() if line.startswith("| ")}


def signed(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"


@pytest.mark.parametrize("file", ["models.md", "models_zh.md"])
def test_the_tables_hold_the_committed_results(file: str) -> None:
    rows = [
        f"| {step} | {row['seconds']:.0f} | {row['peak_gib']:.1f} |"
        for step, row in results("full_size").items()
    ]
    for kind, row in results("quantised").items():
        cells = [f"{row['bytes'] / 1e6:.1f}"]
        for language in ("zh", "en"):
            text = row["text"][language]
            cells += [signed(text["difference"]), f"{text['same_next']:.1%}"]
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    for name, row in results("windows").items():
        if "bits_per_byte" in row:
            zh, en = (row["bits_per_byte"][language] for language in ("zh", "en"))
            rows.append(f"| {name} | {zh:.3f} | {en:.3f} |")
    assert len(rows) == 6 + 4 + 5
    assert set(rows) <= told_rows(file)


def test_every_step_at_the_released_size_succeeded() -> None:
    assert {row["exit_code"] for row in results("full_size").values()} == {0}


def test_the_needle_is_not_found_better_than_by_guessing() -> None:
    """What the pages say of the small models: no cell of 8 items is beyond chance for all."""
    found = results("windows")
    for name in ("needle: base, plain", "needle: base, NTK", "needle: trained"):
        assert all(cell["recall"] == 0 for cell in found[name]["cells"])


def test_the_memory_of_tuning_the_released_size_is_what_the_plan_says() -> None:
    needed = {
        rows: sum(lora_memory(ModelConfig(), rows, lora.ROW, LoraConfig()).values()) / 2**30
        for rows in (4, 2, 1)
    }
    english, chinese = ((DOCS / f"models{end}.md").read_text("utf-8") for end in ("", "_zh"))
    four, two, one = (f"{gib:.0f}" for gib in needed.values())
    told = f"take {four} GiB; `sft.micro_batch=2` takes {two}, 1 takes {one},"
    assert told in " ".join(english.split())
    assert f"需要 {four} GiB；\n`sft.micro_batch=2` 需要 {two}，1 需要 {one}；" in chinese
