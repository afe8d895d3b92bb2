"""From the runs of each row to figures, ratios and a table."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.training.points import COMPILED, EAGER, OURS, Point

from indexlm.model.config import ModelConfig
from indexlm.model.costs import training_flops_per_token

Summary = Mapping[str, Any]


def row_summary(point: Point, runs: Sequence[Summary]) -> dict[str, Any]:
    """Medians over the rounds, and each round. The first round compiles what is compiled, later
    ones find it: their time to the first step is told apart."""
    rounds = [_round(point, run) for run in runs]
    summary: dict[str, Any] = {name: median(each[name] for each in rounds) for name in rounds[0]}
    first, *later = [each["first_step_seconds"] for each in rounds]
    summary["first_step_seconds"] = first
    if later:
        summary["first_step_seconds_again"] = median(later)
    summary["losses"] = runs[0].get("losses", [])
    summary["versions"] = runs[0]["versions"]
    summary["rounds"] = [
        figures | {"step_seconds": run["step_seconds"]} for figures, run in zip(rounds, runs)
    ]
    return summary


def _round(point: Point, run: Summary) -> dict[str, float]:
    """`mfu` is against the matrix products of the same process; attention counted as causal."""
    rate = point.tokens / median(run["step_seconds"])
    figures = {
        "tokens_per_second": rate,
        "tokens_per_cpu_second": point.tokens / median(run["cpu_seconds"]),
        "gemm_gflops": run["gemm_gflops"],
        "step_memory_mb": run["peak_mb"] - run["resident_mb"],
        "peak_mb": run["peak_mb"],
        "other_cpu": run["other_cpu"],
        "first_step_seconds": run["first_step_seconds"],
    }
    if "losses" in run:
        figures["mfu"] = _flops_per_token(point) * rate / (run["gemm_gflops"] * 1e9)
    return figures


def _flops_per_token(point: Point) -> float:
    """The same for every row: packages differ in what they call a FLOP."""
    shape = ModelConfig(
        vocab_size=point.vocab_size,
        hidden=point.hidden,
        layers=point.layers,
        heads=point.heads,
        kv_heads=point.heads,
        ffn=point.ffn,
        context=point.length,
    )
    return training_flops_per_token(shape, point.length)


def ratios(rows: Mapping[str, Summary]) -> dict[str, Any]:
    """Every ratio whose rows were run. Above 1, indexlm is faster; below 1, it needs less."""
    found: dict[str, Any] = {}
    for basis in ("tokens_per_second", "tokens_per_cpu_second"):
        sides: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
            ("eager to best eager peer", OURS[:1], EAGER),
            ("compiled to best compiled peer", OURS[1:], COMPILED),
            ("best to best peer", OURS, EAGER + COMPILED),
        )
        for name, ours, peers in sides:
            mine, best = _best(rows, ours, basis), _best(rows, peers, basis)
            if mine and best:
                found[f"{basis}, {name}"] = _ratio(rows, mine, best, basis)
    for mine in OURS:
        for peer in (*EAGER, *COMPILED, "litgpt_chunked_head"):
            if mine in rows and peer in rows:
                memory = _ratio(rows, mine, peer, "step_memory_mb")
                found[f"step memory, {mine} to {peer}"] = memory
    if "loader" in rows and (mine := _best(rows, OURS, "tokens_per_second")):
        found[f"loader alone to {mine}"] = _ratio(rows, "loader", mine, "tokens_per_second")
    if "indexlm" in rows and "indexlm_plain_head" in rows:
        # Seconds are the inverse of tokens per second.
        for basis in ("tokens_per_second", "tokens_per_cpu_second"):
            seconds = _ratio(rows, "indexlm_plain_head", "indexlm", basis)
            found[f"time of a step with the Norm-Head to one without, {basis}"] = seconds
    return found


def _best(rows: Mapping[str, Summary], names: Sequence[str], basis: str) -> str | None:
    return max((n for n in names if n in rows), key=lambda n: rows[n][basis], default=None)


def _ratio(rows: Mapping[str, Summary], one: str, other: str, figure: str) -> dict[str, Any]:
    """Of the medians, and the lowest and the highest of a single round."""
    pairs = zip(rows[one]["rounds"], rows[other]["rounds"])
    single = [mine[figure] / theirs[figure] for mine, theirs in pairs]
    return {
        "of": [one, other],
        "ratio": rows[one][figure] / rows[other][figure],
        "rounds": [min(single), max(single)],
    }


def table(results: Mapping[str, Any]) -> str:
    lines = []
    for name, point in results["points"].items():
        shape = ", ".join(f"{key} {value}" for key, value in point["shape"].items())
        lines += ["", f"{name}: {shape}"]
        lines.append(
            f"{'':24}{'tok/s':>9}{'MFU':>6}{'tok/CPU-s':>11}{'step MB':>9}{'peak MB':>9}"
            f"{'1st step s':>12}{'again':>7}{'others':>8}"
        )
        for row, found in point["rows"].items():
            mfu = f"{found['mfu']:.2f}" if "mfu" in found else "-"
            again = found.get("first_step_seconds_again")
            lines.append(
                f"{row:24}{found['tokens_per_second']:9,.0f}{mfu:>6}"
                f"{found['tokens_per_cpu_second']:11,.0f}{found['step_memory_mb']:9,.0f}"
                f"{found['peak_mb']:9,.0f}{found['first_step_seconds']:12.1f}"
                f"{'-' if again is None else f'{again:.1f}':>7}{found['other_cpu']:8.2f}"
            )
        for label, found in point["ratios"].items():
            low, high = found["rounds"]
            one, other = found["of"]
            lines.append(
                f"  {label}: {found['ratio']:,.2f} ({low:,.2f} to {high:,.2f}; {one} / {other})"
            )
    return "\n".join(lines)
