"""From the runs of each row to figures, ratios, the fit by size, and tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

Summary = Mapping[str, Any]

FIGURES = ("mb_per_second", "mb_per_cpu_second")
WHOLE, WITHOUT_PASSAGES = "indexlm", "indexlm_without_passages"
DATATROVE = ("datatrove_filters", "datatrove_minhash")
LEAST = "step_rules"
PEERS_OF = {
    "near_copies": ("datatrove_minhash", "datasketch", "rensa", "daft"),
    "passages": ("pydivsufsort", "pydivsufsort_lcp"),
}
TERABYTE = 1e6
"""In MB."""
CORES = 64


def row_summary(runs: Sequence[Summary]) -> dict[str, Any]:
    """Medians over the rounds, and each round."""
    rounds = [
        {
            **run,
            "mb_per_second": run["mb"] / run["wall_seconds"],
            "mb_per_cpu_second": run["mb"] / run["cpu_seconds"],
        }
        for run in runs
    ]
    medians = {name: median(each[name] for each in rounds) for name in rounds[0]}
    return {**medians, "rounds": rounds}


def ratios(rows: Mapping[str, Summary]) -> dict[str, dict[str, Any]]:
    """Ours to each peer that does the same, twice where ours reads, normalises, applies the rules
    and writes as well: as it is run, and `alone`, less the row that does nothing else. The peers
    read in either case."""
    found: dict[str, dict[str, Any]] = {}

    def add(
        label: str, ours: Sequence[str], theirs: Sequence[str], less: str | None = None
    ) -> None:
        if all(name in rows for name in (*ours, *theirs, *([less] if less else []))):
            for figure in FIGURES:
                found[f"{label}, {figure}"] = _ratio(
                    [rows[name] for name in ours],
                    [rows[name] for name in theirs],
                    figure,
                    rows[less] if less else None,
                )

    add("without passages to datatrove, filters and minhash", [WITHOUT_PASSAGES], DATATROVE)
    for step, peers in PEERS_OF.items():
        for peer in peers:
            add(f"{step} to {peer}", [f"step_{step}"], [peer])
            add(f"{step} alone to {peer}", [f"step_{step}"], [peer], less=LEAST)
    return found


def _ratio(
    ours: Sequence[Summary], theirs: Sequence[Summary], figure: str, less: Summary | None
) -> dict[str, Any]:
    """How many times as fast; the lowest and the highest of single rounds beside the medians."""

    def cost(rows: Sequence[Summary], pick: Callable[[list[float]], float]) -> float:
        return sum(1 / pick([each[figure] for each in row["rounds"]]) for row in rows)

    def ratio(
        pick_theirs: Callable[[list[float]], float], pick_ours: Callable[[list[float]], float]
    ) -> float | None:
        own = cost(ours, pick_ours) - (cost([less], median) if less else 0.0)
        # The difference of two runs may drown in their noise.
        return cost(theirs, pick_theirs) / own if own > 0 else None

    return {"ratio": ratio(median, median), "rounds": [ratio(max, min), ratio(min, max)]}


def step_costs(rows: Mapping[str, Summary]) -> dict[str, float]:
    """CPU-seconds per MB that each step adds to the least row, which is told whole."""
    costs = {
        name.removeprefix("step_"): 1 / row["mb_per_cpu_second"]
        for name, row in rows.items()
        if name.startswith("step_")
    }
    least = costs.get(LEAST.removeprefix("step_"))
    if least is None:
        return {}
    return {name: cost if name == "rules" else cost - least for name, cost in sorted(costs.items())}


# Size


def fit(points: Iterable[tuple[float, float]]) -> dict[str, Any]:
    """A straight line through (MB, cost): intercept, slope, residuals as shares of the cost, and
    the exponent of the best power law, which is 1 where cost is in proportion to size."""
    sizes, costs = map(np.array, zip(*points))
    slope, intercept = np.polyfit(sizes, costs, 1)
    exponent, _ = np.polyfit(np.log(sizes), np.log(costs), 1)
    residuals = (costs - (intercept + slope * sizes)) / costs
    return {
        "intercept": float(intercept),
        "slope": float(slope),
        "residuals": [round(float(each), 4) for each in residuals],
        "exponent": float(exponent),
    }


def scaling(points: Mapping[str, Mapping[str, Summary]]) -> dict[str, Any]:
    """Row -> size in MB -> run, as fits of wall and processor time with what lies behind them."""
    found: dict[str, dict[str, Any]] = {}
    for row, runs in points.items():
        ordered = sorted(runs.values(), key=lambda run: run["mb"])
        found[row] = {"runs": ordered}
        if len(ordered) >= 3:
            for figure in ("wall_seconds", "cpu_seconds"):
                found[row][figure] = fit((run["mb"], run[figure]) for run in ordered)
    return found


def terabyte(scaled: Summary) -> dict[str, float]:
    """What 1 TB of text takes by the fits. Wall time on other machines is processor time divided by
    cores as busy as here; memory is that of a process, which the size of the text does not change
    where the runs show none; disk is in proportion to the text, by the largest run."""
    runs = scaled["runs"]
    cpu, wall = scaled["cpu_seconds"], scaled["wall_seconds"]
    core_hours = (cpu["intercept"] + cpu["slope"] * TERABYTE) / 3600
    workers = runs[-1]["workers"]
    return {
        "core_hours": core_hours,
        "hours_on_many_cores": wall["slope"] * TERABYTE * workers / CORES / 3600,
        "memory_gb_of_a_worker": runs[-1]["peak_anonymous_mb"] / workers / 1e3,
        "disk_tb": runs[-1]["peak_disk_mb"] / runs[-1]["mb"],
    }


# Tables


def table(results: Mapping[str, Any]) -> str:
    """Markdown: speeds, ratios, steps, planted truth, sizes, and what 1 TB takes."""
    parts = [_speeds(results), _ratios(results), _steps(results), _truth(results)]
    return "\n\n".join(part for part in [*parts, _sizes(results), _costs(results)] if part)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _speeds(results: Mapping[str, Any]) -> str:
    header = ("row", "MB", "rounds", "MB/s", "MB per CPU-s", "peak GB", "disk GB", "others' share")
    return markdown(
        header,
        (
            (
                name,
                f"{row['mb']:.0f}",
                str(len(row["rounds"])),
                _three(row["mb_per_second"]),
                _three(row["mb_per_cpu_second"]),
                f"{row['peak_anonymous_mb'] / 1e3:.2f}",
                f"{row['peak_disk_mb'] / 1e3:.2f}",
                f"{row['other_cpu']:.2f}",
            )
            for name, row in results["rows"].items()
        ),
    )


def _ratios(results: Mapping[str, Any]) -> str:
    rows = results["ratios"].items()
    if not rows:
        return ""
    return markdown(
        ("ours to theirs", "times", "rounds"),
        (
            (label, _three(found["ratio"]), " to ".join(map(_three, found["rounds"])))
            for label, found in rows
        ),
    )


def _steps(results: Mapping[str, Any]) -> str:
    costs = results["step_costs"]
    if not costs:
        return ""
    return markdown(
        ("step", "ns of a core per byte"),
        (
            (f"{name}, reading and writing" if name == "rules" else name, f"{cost * 1e3:.0f}")
            for name, cost in costs.items()
        ),
    )


def _truth(results: Mapping[str, Any]) -> str:
    """A column for each row; how many were planted is told for the largest text."""
    columns = {row: _found(score) for row, score in results["scores"].items()}
    kinds = list(dict.fromkeys(kind for found in columns.values() for kind in found))
    lines = []
    for kind in kinds:
        shares = [found.get(kind, {"share": None, "of": 0}) for found in columns.values()]
        cells = ["" if one["share"] is None else f"{one['share']:.1%}" for one in shares]
        lines.append((kind, *cells, f"{max(one['of'] for one in shares):,}"))
    return markdown(("share of", *columns, "planted"), lines) if columns else ""


def _found(score: Mapping[str, Any]) -> dict[str, Any]:
    copies = score.get("copies", score)
    found = {**copies["pairs"], "no copy, dropped": copies["false_drops"]}
    found |= score.get("dropped", {})
    personal = score.get("personal", {}).get("hidden", {})
    found |= {f"hidden: {kind}": share for kind, share in personal.items()}
    if "passage" in score:
        hosts, left = score["passage"]["hosts"], score["passage"]["left"]
        found["shared passage, left"] = {"share": left / max(hosts, 1), "of": hosts}
        found["text around it whole"] = score["passage"]["text_around_whole"]
    return found


def _sizes(results: Mapping[str, Any]) -> str:
    rows = []
    for name, scaled in results["scaling"].items():
        residuals = scaled.get("cpu_seconds", {}).get("residuals", ["-"] * len(scaled["runs"]))
        for run, residual in zip(scaled["runs"], residuals):
            off = residual if residual == "-" else f"{residual:+.1%}"
            rows.append(
                (
                    name,
                    f"{run['mb']:.0f}",
                    f"{run['wall_seconds']:.1f}",
                    f"{run['cpu_seconds']:.1f}",
                    off,
                    f"{run['peak_anonymous_mb'] / 1e3:.2f}",
                    f"{run['peak_disk_mb'] / 1e3:.2f}",
                )
            )
    header = ("row", "MB", "seconds", "CPU-seconds", "off the line", "peak GB", "disk GB")
    return markdown(header, rows) if rows else ""


def _costs(results: Mapping[str, Any]) -> str:
    """Ours by the fit; peers by their rate on the smaller text, seconds of their start included."""
    rows = []
    for name, scaled in results["scaling"].items():
        if "cpu_seconds" not in scaled:
            continue
        cost = terabyte(scaled)
        rows.append(
            (
                name,
                f"{cost['core_hours']:,.0f}",
                f"{cost['hours_on_many_cores']:,.1f}",
                f"{cost['memory_gb_of_a_worker']:.2f}",
                f"{cost['disk_tb']:.2f}",
                f"{scaled['cpu_seconds']['exponent']:.3f}",
            )
        )
    if not rows:
        return ""
    for name in DATATROVE:
        if name in results["rows"]:
            core_hours = TERABYTE / results["rows"][name]["mb_per_cpu_second"] / 3600
            rows.append((name, f"{core_hours:,.0f}", f"{core_hours / CORES:,.1f}", "", "", ""))
    hours = f"hours on {CORES} cores"
    header = ("1 TB", "core-hours", hours, "GB of a worker", "TB of disk", "exponent of size")
    return markdown(header, rows)


def _three(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
