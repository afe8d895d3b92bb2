"""What the report reads of a run folder. A part that the run has not made yet is empty here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexlm.config import Recipe
from indexlm.errors import DamagedError
from indexlm.records import Manifest, read_manifest, read_metrics
from indexlm.settings import load_recipe
from indexlm.text.jsonl import read_jsonl
from indexlm.text.refined import FUNNEL

TRAINING = ("trunk", "base", "pure", "sft", "chat", "character-sft", "character")
"""Stages with a `metrics.jsonl`."""
PAIRS = ("pairs", "character-pairs")
MODELS = ("base", "pure", "chat", "character")
STAGES = (
    "text",
    "tokenizer",
    "tokens",
    "trunk",
    "base",
    "pure",
    "sft",
    "pairs",
    "chat",
    "script",
    "character-sft",
    "character-pairs",
    "character",
    "evals",
)
"""Every stage before the report, in the order in which a run makes them."""
TIERS = ("", "curated", "ordinary", "noisy")


@dataclass(frozen=True)
class RunFiles:
    """The parsed files of one run; dictionaries and lists are empty where there is no file."""

    recipe: Recipe
    costs: dict[str, dict[str, float]]
    """Stage -> seconds, and peak_bytes of the process's memory up to its end."""
    funnel: dict[str, Any]
    sources: dict[str, dict[str, int]]
    """Source -> documents, tokens, bytes of the training text."""
    results: dict[str, dict[str, Any]]
    samples: dict[str, Any]
    compression: dict[str, Any]
    metrics: dict[str, list[dict[str, Any]]]
    pairs: dict[str, list[dict[str, Any]]]
    manifests: dict[str, Manifest]
    """Finished stages only."""


def read_run(run: Path) -> RunFiles:
    """Read what is there. Raises UserError for a bad `config.json`, DamagedError for bad JSON."""
    manifests = {stage: read_manifest(run / stage) for stage in STAGES}
    recipe = load_recipe(run / "config.json")
    # A continuation has no stage that writes a report.
    assert isinstance(recipe, Recipe)
    return RunFiles(
        recipe=recipe,
        costs=_read_json(run / "times.json"),
        funnel=_read_json(run / "text" / FUNNEL),
        sources=_read_json(run / "tokens" / "sources.json").get("sources", {}),
        results=_read_json(run / "evals" / "results.json"),
        samples=_read_json(run / "evals" / "samples.json"),
        compression=_read_json(run / "evals" / "compression.json"),
        metrics={stage: read_metrics(run / stage / "metrics.jsonl") for stage in TRAINING},
        pairs={stage: _read_pairs(run / stage / "pairs.jsonl.zst") for stage in PAIRS},
        manifests={stage: found for stage, found in manifests.items() if found is not None},
    )


def text_order(name: str) -> tuple[bool, str, int, str]:
    """Sorts `<language>_<tier>` names: Chinese first, a whole language before its tiers."""
    language, _, tier = name.partition("_")
    place = TIERS.index(tier) if tier in TIERS else len(TIERS)
    return language != "zh", language, place, tier


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} cannot be read: {error}; delete it to make it anew") from error
    return content


def _read_pairs(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path)) if path.is_file() else []
