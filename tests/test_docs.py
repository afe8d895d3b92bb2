"""The documents tell the figures of the committed run, and commands that there are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main
from benchmarks.text.summary import table

from indexlm import cli
from indexlm.config import TEXT_STEPS, HardwareConfig
from indexlm.recipes import tiny
from indexlm.settings import text_settings, with_overrides

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


def commands_told(file: str) -> list[str]:
    """What follows `indexlm` where a document tells a command: on a line of its own or quoted."""
    text = (ROOT / file).read_text(encoding="utf-8")
    told = re.findall(r"^(?:\.venv/bin/)?indexlm (.+)$|`indexlm ([^`]+)`", text, re.MULTILINE)
    return [line or quoted for line, quoted in told]


def verbs_of(told: str) -> list[typer.core.TyperCommand]:
    """`train pretrain|sft RECIPE` tells two. Raises KeyError for a word that is no verb."""
    found: list[Any] = [typer.main.get_command(cli.app)]
    for word in told.split():
        if not isinstance(found[0], typer.core.TyperGroup):
            break
        found = [found[0].commands[name] for name in word.split("|")]
    return found


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "README_zh.md",
        "docs/models.md",
        "docs/models_zh.md",
        "docs/training.md",
        "docs/training_zh.md",
        "docs/text.md",
        "docs/text_zh.md",
        "docs/evaluation.md",
        "docs/evaluation_zh.md",
        "docs/lab.md",
        "docs/lab_zh.md",
        "EXPERIMENTS.md",
        "EXPERIMENTS_zh.md",
    ],
)
def test_every_command_that_is_told_has_its_verb_and_its_options(file: str) -> None:
    told = commands_told(file)
    assert len(told) >= 4
    for line in told:
        for verb in verbs_of(line):
            known = {"--help"}.union(*(parameter.opts for parameter in verb.params))
            assert set(re.findall(r"--[a-z][a-z-]*", line)) <= known, line


@pytest.mark.parametrize("line", ["finetun MODEL", "data refin X", "train pretrain|sfx RECIPE"])
def test_a_verb_that_is_none_would_be_seen(line: str) -> None:
    with pytest.raises(KeyError):
        verbs_of(line)


@pytest.mark.parametrize("file", ["docs/training.md", "docs/training_zh.md"])
def test_the_training_page_has_every_setting_of_the_hardware_and_no_other(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    table = text.split("| `hardware` | |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(HardwareConfig.model_fields)
    settings = re.findall(r"(?:pretrain|base|pure|hardware)\.[a-z_.]+=[a-z0-9.]+", text)
    assert len(settings) >= 6
    with_overrides(tiny.recipe(), settings)


@pytest.mark.parametrize("file", ["docs/text.md", "docs/text_zh.md"])
def test_the_text_page_has_every_step_in_order_and_settings_that_there_are(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == list(TEXT_STEPS)
    settings = re.findall(r"--set ([a-z_.]+=[\w.]*\w)", text)
    assert len(settings) >= 5
    text_settings({"quality": {"model": "quality.safetensors"}}, settings)


def test_the_figures_of_the_text_room_are_those_of_the_committed_run() -> None:
    results = json.loads((ROOT / "benchmarks/results/text.json").read_text(encoding="utf-8"))
    told = (ROOT / "docs" / "text_benchmark.md").read_text(encoding="utf-8")
    assert told.endswith(f"\n{table(results)}\n")
