"""Aligned text."""

from collections.abc import Mapping, Sequence

from indexlm.plan.memory import GIB


def memory_table(title: str, columns: Mapping[str, Mapping[str, int]]) -> str:
    """Parts as rows, where any column has them, and the sum."""
    names = dict.fromkeys(name for column in columns.values() for name in column if column[name])
    rows = [("", *columns)]
    rows += [(n, *(f"{column.get(n, 0) / GIB:.3f}" for column in columns.values())) for n in names]
    rows.append(("all", *(f"{sum(column.values()) / GIB:.3f}" for column in columns.values())))
    return table(title, rows)


def table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """First column left, the others right."""
    widths = [
        max(len(row[at]) for row in rows if at < len(row)) for at in range(len(max(rows, key=len)))
    ]
    lines = [title]
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:])]
        lines.append("  ".join([f"  {first:<{widths[0]}}", *cells]))
    return "\n".join(lines)


def times(parts: Mapping[str, int], count: int) -> dict[str, int]:
    return {name: count * each for name, each in parts.items()}
