"""From runs and comparisons to figures and tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.evals.points import POINTS

Found = Mapping[str, Any]


def row_summary(runs: Sequence[Found]) -> dict[str, Any]:
    """Medians over the rounds, and each round."""
    rounds = [{**run, "items_per_second": run["items"] / run["scoring_seconds"]} for run in runs]
    return {**{name: median(each[name] for each in rounds) for name in rounds[0]}, "rounds": rounds}


def ratio(ours: Found, theirs: Found) -> dict[str, Any]:
    """How many times as many items per second, and as many seconds of the whole process; of single
    rounds the lowest and the highest beside the medians."""
    pairs = list(zip(ours["rounds"], theirs["rounds"]))
    rates = [one["items_per_second"] / other["items_per_second"] for one, other in pairs]
    return {
        "items_per_second": ours["items_per_second"] / theirs["items_per_second"],
        "rounds": [min(rates), max(rates)],
        "process_seconds": theirs["process_seconds"] / ours["process_seconds"],
        "positions": theirs["positions"] / ours["positions"],
    }


def tables(results: Path) -> str:
    """Markdown of everything that lies in a results folder: parity, faults, speed."""
    files = [results / "evals_parity" / f"{point}.json" for point in POINTS]
    parity = [_read(path) for path in files if path.is_file()]
    parts = [_parity(parity), _accuracy(parity), _controls(parity)] if parity else []
    speed = results / "evals.json"
    if speed.is_file():
        found = _read(speed)
        parts += [_speeds(found), _batch_sizes(found)]
    return "\n\n".join(parts)


def _items(one: Found) -> str:
    told = f"{one['items']:,}"
    return told if one["limit"] is None else f"{told} (first {one['limit']} a subject)"


def _parity(found: Sequence[Found]) -> str:
    header = ["point", "lm-eval's task", "items", "prompts that differ", "choices that differ"]
    header += ["log-likelihoods", "largest difference", "mean"]
    header += [f"items more than {found[0]['tolerance']:g} apart", "with exact sums"]
    header += ["SHA-256 of all prompts"]
    return _markdown(
        header,
        (
            (
                one["point"],
                one["harness"].rpartition(" ")[2],
                _items(one),
                str(_prompts_that_differ(one)),
                str(one["mismatches"]["choices"]),
                f"{one['log_likelihoods']:,}",
                f"{one['largest_difference']:.1e}",
                f"{one['mean_difference']:.1e}",
                str(one["as_lm_eval_sums"]),
                str(one["mismatches"]["logprobs"]),
                " ".join(sorted({digest[:16] for digest in one["prompts_sha256"].values()})),
            )
            for one in found
        ),
    )


def _prompts_that_differ(one: Found) -> int:
    return sum(
        one["mismatches"][kind] for kind in ("items", "contexts", "continuations", "answers")
    )


def _accuracy(found: Sequence[Found]) -> str:
    rows = []
    for one in found:
        for metric, accuracy in one["accuracy"].items():
            rows.append(
                (one["point"], metric, *(f"{accuracy[side]:.6f}" for side in ("ours", "lm_eval")))
            )
    return _markdown(("point", "metric", "indexlm", "lm-eval"), rows)


def _controls(found: Sequence[Found]) -> str:
    """Items with a mismatch of any kind, of those that were asked, and the largest difference."""
    rows = []
    for name in dict.fromkeys(name for one in found for name in one["controls"]):
        cells = []
        for one in found:
            told = one["controls"].get(name)
            cells.append("" if told is None else _told(told))
        rows.append((name, *cells))
    return _markdown(("fault", *(one["point"] for one in found)), rows)


def _told(told: Found) -> str:
    kinds = ("contexts", "continuations", "logprobs", "choices")
    if not any(told[kind] for kind in kinds):
        return "not seen"
    strings = max(told["contexts"], told["continuations"])
    return f"{strings} / {told['choices']} / {told['largest_difference']:.1e}"


def _speeds(found: Found) -> str:
    rows = []
    for point, one in found["points"].items():
        for name, row in one["rows"].items():
            times = one["ratios"].get(name)
            spread = "" if times is None else " to ".join(f"{each:.1f}" for each in times["rounds"])
            rows.append(
                (
                    point,
                    name,
                    f"{one['items']:.0f}",
                    str(len(row["rounds"])),
                    f"{row['items_per_second']:.2f}",
                    "" if times is None else f"{times['items_per_second']:.1f}",
                    spread,
                    f"{row['positions'] / row['items']:,.0f}",
                    f"{row['scoring_seconds']:.1f}",
                    f"{row['process_seconds']:.1f}",
                )
            )
    header = ["point", "row", "items", "rounds", "items/s", "times lm-eval", "rounds from"]
    header += ["positions an item", "seconds of scoring", "of the process"]
    return _markdown(header, rows)


def _batch_sizes(found: Found) -> str:
    points = found["batch_sizes"]
    sizes = dict.fromkeys(size for one in points.values() for size in one["tried"])

    def cell(point: str, size: str) -> str:
        speed = points[point]["tried"].get(size)
        return "too large for the memory" if speed is None else f"{speed:.2f}"

    return _markdown(
        ("batch size of lm-eval, items/s", *points),
        ((size, *(cell(point, size) for point in points)) for size in sizes),
    )


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
