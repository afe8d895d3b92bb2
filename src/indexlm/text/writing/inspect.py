"""Samples of what was dropped, by reason: how a person judges a filter."""

from pathlib import Path

from indexlm.errors import UserError
from indexlm.text.document import FIELDS
from indexlm.text.jsonl import read_jsonl
from indexlm.text.refined import FUNNEL
from indexlm.text.writing.funnel import ALL_REASONS

SHOWN = 400
"""Characters of each sample."""


def inspect(folder: Path, reason: str | None, count: int) -> str:
    """Samples of the dropped text, evenly spaced, by reason (all reasons for None)."""
    if not (folder / FUNNEL).is_file():
        raise UserError(f"{folder} holds no refined text; give the --out of `indexlm data refine`")
    files = {path.name.split(".")[0]: path for path in sorted((folder / "dropped").glob("*.zst"))}
    if reason is not None and reason not in files:
        known = ", ".join(files) or "none"
        raise UserError(f"nothing was dropped as {reason!r} in {folder}; reasons there: {known}")
    parts = []
    for name in files if reason is None else [reason]:
        rows = list(read_jsonl(files[name]))
        chosen = rows[:: max(1, len(rows) // count)][:count]
        parts.append(f"== {name}: {len(rows):,} documents, {len(chosen)} shown")
        parts.append(f"   {ALL_REASONS[name]}")
        for row in chosen:
            told = [f"{key} {row[key]}" for key in row if key not in (*FIELDS, "reason")]
            about = ", ".join([row["language"], row["tier"], *told])
            parts.append(f"-- {row['id']} ({about})\n{row['text'][:SHOWN]}")
    return "\n".join(parts) if parts else f"nothing was dropped in {folder}"
