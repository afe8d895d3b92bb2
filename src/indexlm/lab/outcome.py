"""What a study found, as the plain values that are stored and that its page is made of.

| key | |
|---|---|
| `verdict`, `sentence` | of the first claim, the study's own |
| `claims` | each as `Verdict.as_json`, with the values of both arms by seed and their means |
| `arms` | settings, parameters, and by seed the scores, fingerprint, CPU-seconds, why it diverged |
| `shown` | figures and tables of the page |
| `made` | command, date, fingerprint of the code, versions, CPU-seconds |

Said texts are {"en", "zh"}. Lines are thinned to what can be seen; scores are whole.
"""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from indexlm import __version__
from indexlm.errors import UserError, shown
from indexlm.lab.arms import Arm, Result
from indexlm.lab.intervals import mean, t_interval
from indexlm.lab.study import (
    FIRST_SEED,
    Declared,
    Figure,
    Line,
    Panel,
    PresetName,
    Results,
    Study,
    Table,
)
from indexlm.lab.texts import Corpus
from indexlm.lab.verdict import Said
from indexlm.model import costs
from indexlm.runtime import code_fingerprint

Outcome = dict[str, Any]

FORMAT = 1
TEXTS = ("title", "question", "report", "design", "limits")
KEYS = (
    *("verdict", "sentence", "preset", "presets", "seeds", *TEXTS),
    *("claims", "arms", "shown", "made"),
)
"""Of a stored result, beside `format` and `study`."""

MOST_POINTS = 160
"""Of a line; more of them are drawn as means of neighbours."""
DIGITS = 6
"""Significant, of what is computed."""


def outcome(
    study: Study,
    preset: PresetName,
    results: Results,
    cpu_seconds: float,
    corpus: Corpus | None = None,
) -> Outcome:
    """`cpu_seconds` are of all arms and their trunks; `corpus` is the real text among them."""
    claims = [_claim(each, results) for each in study.claims]
    seeds = sorted({seed for by_seed in results.values() for seed in by_seed})
    return {
        "format": FORMAT,
        "study": study.name,
        "verdict": claims[0]["verdict"],
        "sentence": claims[0]["sentence"],
        "preset": preset,
        "presets": list(study.seeds),
        "seeds": seeds,
        **{name: getattr(study, name)._asdict() for name in TEXTS},
        "claims": claims,
        "arms": [_arm(name, by_seed) for name, by_seed in results.items()],
        "shown": [_plain(each) for each in study.shown(results)],
        "made": {
            "command": _command(study, preset, seeds, corpus),
            "corpus": "" if corpus is None else corpus.made_from,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "cpu_seconds": round(cpu_seconds, 1),
            "code": code_fingerprint(),
            "indexlm": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if preset == "gpu" else "cpu",
        },
    }


def same_but_date(one: Outcome, other: Outcome) -> bool:
    """Whether two results say the same; one of them may have been read from a file."""
    return _undated(one) == _undated(json.loads(json.dumps(other)))


def read_outcome(path: Path) -> Outcome:
    """Raises UserError for a file that holds no result of a study."""
    remedy = "remove it and give `indexlm lab run` again, or name another folder"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no result of a study: {shown(str(error))}; {remedy}") from error
    if not isinstance(found, dict) or "study" not in found:
        raise UserError(f"{path} is no result of a study; {remedy}")
    if found.get("format") != FORMAT:
        raise UserError(
            f"{path} is no result of a study that can be read here: its format is "
            f"{shown(found.get('format'))}, not {FORMAT}; {remedy}"
        )
    if missing := [name for name in KEYS if name not in found]:
        raise UserError(f"{path} is no result of a study: it lacks {', '.join(missing)}; {remedy}")
    return found


def _undated(found: Outcome) -> Outcome:
    return found | {"made": {**found["made"], "date": ""}}


def _command(study: Study, preset: PresetName, seeds: Sequence[int], corpus: Corpus | None) -> str:
    more = "" if len(seeds) == study.seeds[preset] else f" --seeds {len(seeds)}"
    more += "" if seeds[0] == FIRST_SEED else f" --first-seed {seeds[0]}"
    more += "" if corpus is None else " --text REFINED --tokenizer MODEL"
    return f"indexlm lab run {study.name} --preset {preset}{more}"


def _claim(each: Declared, results: Results) -> dict[str, Any]:
    treatment, control = each.values(results)
    values = {"treatment": treatment, "control": control}
    return {
        "name": each.name.en,
        "said": each.name._asdict(),
        "arms": {"treatment": each.treatment, "control": each.control},
        **each.verdict(results).as_json(),
        "values": {side: _plain(by_seed) for side, by_seed in values.items()},
        "means": {side: _rounded_mean(list(by_seed.values())) for side, by_seed in values.items()},
        "unit": each.claim.unit._asdict(),
    }


def _arm(name: str, by_seed: Mapping[int, Result]) -> dict[str, Any]:
    first = next(iter(by_seed.values()))
    settings = Arm.model_validate(first.arm)
    steps = settings.train.steps - settings.first_step
    tokens = steps * settings.tokens_per_step
    each = costs.training_flops_per_token(settings.model, settings.model.context)
    return {
        "name": name,
        "parameters": first.parameters,
        "non_embedding": first.non_embedding,
        "steps": steps,
        "tokens": tokens,
        "flops": tokens * each,
        "starts_at": settings.first_step,
        "settings": _settings(first.arm),
        "scores": _summary(list(by_seed.values())),
        "seeds": {
            str(seed): {
                "fingerprint": result.made_from,
                "scores": dict(result.scores),
                "diverged": result.diverged,
                "clipped": _rounded(result.clipped),
                "cpu_seconds": result.cpu_seconds,
            }
            for seed, result in by_seed.items()
        },
    }


def _settings(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Without name and seed, and without where a text lies on this machine."""
    kept = {key: value for key, value in arm.items() if key not in ("name", "seed")}
    if kept["corpus"] is not None:
        places = ("text", "tokenizer", "tokens")
        kept["corpus"] = {k: value for k, value in kept["corpus"].items() if k not in places}
    return kept | {"trunk": kept["trunk"] and _settings(kept["trunk"])}


def _summary(results: Sequence[Result]) -> dict[str, Any]:
    """Mean over the seeds and its 95% interval; nothing of an arm of which one seed diverged."""
    if any(result.diverged for result in results):
        return {}
    found: dict[str, Any] = {}
    for score in results[0].scores:
        values = [result.scores[score] for result in results]
        known = [value for value in values if value is not None]
        interval = None
        if 1 < len(known) == len(values):
            interval = [_rounded(end) for end in t_interval(known)[1:]]
        found[score] = {"mean": _rounded_mean(values), "interval": interval}
    return found


def _plain(value: Any) -> Any:
    """Figures, tables and whatever they hold, as JSON has it."""
    match value:
        case Said():
            return value._asdict()
        case Line():
            xs, ys = _thinned(value) if value.kind == "line" else (value.xs, value.ys)
            points = {"xs": [*map(_plain, xs)], "ys": [*map(_plain, ys)]}
            return {"name": value.name._asdict(), "kind": value.kind, "faint": value.faint} | points
        case Figure() | Table() | Panel():
            named = {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
            return {"kind": type(value).__name__.lower(), **named}
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case np.generic():
            return _plain(value.item())
        case str() | bool() | int() | None:
            return value
        case float():
            return _rounded(value) if math.isfinite(value) else None
        case _:
            return [_plain(each) for each in value]


def _thinned(line: Line) -> tuple[list[float], list[float | None]]:
    """At most MOST_POINTS points, each the mean of as many neighbours as it stands for."""
    size = -(-len(line.xs) // MOST_POINTS)
    xs: list[float] = []
    ys: list[float | None] = []
    for start in range(0, len(line.xs), size or 1):
        part = slice(start, start + size)
        known = [y for y in line.ys[part] if y is not None]
        xs.append(math.fsum(line.xs[part]) / len(line.xs[part]))
        ys.append(math.fsum(known) / len(known) if known else None)
    return xs, ys


def _rounded_mean(values: Sequence[float | None]) -> float | None:
    found = mean(values)
    return None if found is None else _rounded(found)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
