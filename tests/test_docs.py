"""The figures of the READMEs are those of the committed run."""

import json
import re
from pathlib import Path

import pytest

from indexlm import cli

ROOT = Path(__file__).parents[1]
COLUMNS = ("base", "pure", "chat", "character", "bigram", "xz -9e")


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("README.md", {"zh": "Chinese", "en": "English"}),
        ("README_zh.md", {"zh": "中文", "en": "英文"}),
    ],
)
def test_bits_per_byte_are_those_of_the_committed_run(file: str, rows: dict[str, str]) -> None:
    results = json.loads((ROOT / "docs" / "tiny" / "results.json").read_text(encoding="utf-8"))
    text = (ROOT / file).read_text(encoding="utf-8")
    for language, name in rows.items():
        found = re.search(rf"^\| {name} \|(.*)\|$", text, re.MULTILINE)
        assert found is not None
        values = [results[column]["bits_per_byte"][language]["value"] for column in COLUMNS]
        assert found[1].strip().split(" | ") == [f"{value:.3f}" for value in values]


def test_the_committed_run_took_the_minutes_and_the_memory_that_are_told() -> None:
    costs = json.loads((ROOT / "docs" / "tiny" / "times.json").read_text(encoding="utf-8"))
    minutes = sum(cost["seconds"] for cost in costs.values()) / 60
    peak = max(cost["peak_bytes"] for cost in costs.values()) / 1e9
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"about {minutes:.0f} minutes on two" in text and f"in {peak:.1f} GB of memory" in text
    chinese = (ROOT / "README_zh.md").read_text(encoding="utf-8")
    assert f"约 {minutes:.0f} 分钟，占用 {peak:.1f} GB 内存" in chinese


def test_every_verb_of_the_readmes_is_a_verb() -> None:
    known = {
        command.name or getattr(command.callback, "__name__", "")
        for command in cli.app.registered_commands
    }
    known |= {group.name for group in cli.app.registered_groups}
    for file in ("README.md", "README_zh.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        told = re.findall(r"^(?:\.venv/bin/)?indexlm (\w+)", text, re.MULTILINE)
        assert len(told) > 10 and set(told) <= known
