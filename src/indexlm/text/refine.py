"""The whole of the text room in order: read, normalise, filter, remove copies, hold out, write.

Every document that comes in is counted once on the way out: kept for training, held out, or
dropped with its reason. Dropped text is kept too, to be read, because a filter is judged by what
it throws away. The held-out share is chosen by a hash of the name behind the source, so that a
word stays unseen although two dictionaries explain it, and does not change with the seed.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from indexlm.config import TextConfig
from indexlm.errors import UserError
from indexlm.records import Manifest, Progress, log, verify, write_json
from indexlm.text.compose import held_out_entry, instruction_records
from indexlm.text.document import LANGUAGES, Document, Entry, Filter
from indexlm.text.heuristics import rule_filters
from indexlm.text.instructions import instruction_like
from indexlm.text.jsonl import read_jsonl, write_jsonl
from indexlm.text.near_dups import exact_duplicates, near_duplicates
from indexlm.text.normalise import normalise
from indexlm.text.sources import read_inputs
from indexlm.text.starter import read_starter

MIN_TRAINING_BYTES = 50_000
"""Less text than this cannot train even the smallest tokenizer and model."""

_FIELDS = tuple(field.name for field in dataclasses.fields(Document))

Entries = dict[str, Entry]
Dropped = dict[str, list[Document]]


def refine(config: TextConfig, seed: int, out: Path) -> dict[str, Any]:
    """Fill the folder `out` with clean documents and return the funnel, also in `funnel.json`.

    `seed` draws the MinHash permutations only. Raises UserError where the inputs cannot be read or
    too little text is left.
    """
    documents, entries = _read(config)
    steps = [_step("read", documents)]
    sources = _sources(documents)
    documents = [document.with_text(normalise(document.text)) for document in documents]
    steps.append(_step("normalise", documents))
    dropped: Dropped = {}
    filters = {**rule_filters(config), "instruction_like": instruction_like}
    documents = _filter(documents, filters, dropped, steps)
    removers: dict[str, Callable[[list[str]], list[int]]] = {
        "exact_duplicate": exact_duplicates,
        "near_duplicate": lambda texts: near_duplicates(texts, config.near_duplicate_jaccard, seed),
    }
    for reason, first_of in removers.items():
        documents = _remove_copies(documents, reason, first_of, dropped, steps)
    kept, held_out = _split(documents, config.held_out_share)
    steps.append(_step("hold_out", kept))
    _check_enough(kept, dropped, config)
    funnel = {
        "sources": sources,
        "steps": steps,
        "dropped": {reason: _size(gone) for reason, gone in dropped.items()},
        "kept": {name: _size(group) for name, group in _groups(kept).items()},
        "held_out": {name: _size(group) for name, group in _groups(held_out).items()},
    }
    _write(out, kept, held_out, dropped, entries)
    write_json(out / "funnel.json", funnel)
    return funnel


def verify_refined(folder: Path) -> Manifest:
    """Check refined text against its manifest. Raises UserError for a folder of anything else."""
    if not (folder / "funnel.json").is_file():
        raise UserError(
            f"{folder} holds no refined text; give the --out of `indexlm data refine` or the text "
            "folder of a run"
        )
    return verify(folder)


def split_key(document_id: str) -> str:
    """What decides on which side of the split a document falls: `word/晨风#2` -> `晨风`."""
    name = document_id.partition("/")[2] or document_id
    return re.sub(r"#\d+$", "", name)


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of one of the files that `refine` writes."""
    for row in read_jsonl(path):
        row.pop("reason", None)
        yield Document(**row)


def funnel_table(funnel: dict[str, Any]) -> str:
    """The funnel as aligned text: what each step left, what was dropped, what each tier holds."""
    rows = [("step", "documents", "MB")]
    rows += [_row(step["step"], step) for step in funnel["steps"]]
    for title in ("dropped", "kept", "held_out"):
        rows.append((f"{title.replace('_', ' ')}:", "", ""))
        rows += [_row(f"  {name}", size) for name, size in funnel[title].items()]
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{name:<{width}} {count:>10} {size:>8}".rstrip() for name, count, size in rows
    )


def inspect(folder: Path, reason: str | None, count: int) -> str:
    """Samples of the dropped text, evenly spaced, by reason (all reasons for None)."""
    files = {path.name.split(".")[0]: path for path in sorted((folder / "dropped").glob("*.zst"))}
    if not (folder / "funnel.json").exists():
        raise UserError(f"{folder} holds no refined text; give the --out of `indexlm data refine`")
    if reason is not None and reason not in files:
        known = ", ".join(files) or "none"
        raise UserError(f"nothing was dropped as {reason!r} in {folder}; reasons there: {known}")
    parts = []
    for name in files if reason is None else [reason]:
        rows = list(read_jsonl(files[name]))
        chosen = rows[:: max(1, len(rows) // count)][:count]
        parts.append(f"== {name}: {len(rows):,} documents, {len(chosen)} shown")
        parts += [
            f"-- {row['id']} ({row['language']}, {row['tier']})\n{row['text'][:400]}"
            for row in chosen
        ]
    return "\n".join(parts) if parts else f"nothing was dropped in {folder}"


def _read(config: TextConfig) -> tuple[list[Document], Entries]:
    """All inputs, with unique ids, and the parts of the documents that have parts."""
    documents: list[Document] = []
    entries: Entries = {}
    taken: set[str] = set()
    for name in config.inputs:
        for document, entry in _read_input(name, config):
            document = dataclasses.replace(document, id=_free(document.id, taken))
            taken.add(document.id)
            documents.append(document)
            if entry is not None:
                entries[document.id] = entry
    log.info(f"read {len(documents):,} documents")
    return documents, entries


def _free(document_id: str, taken: set[str]) -> str:
    """The id itself, or the first of `id#2`, `id#3`, ... that no document has."""
    names = itertools.chain(
        [document_id], (f"{document_id}#{repeat}" for repeat in itertools.count(2))
    )
    return next(name for name in names if name not in taken)


def _read_input(name: str, config: TextConfig) -> Iterator[tuple[Document, Entry | None]]:
    if name == "starter":
        yield from read_starter(Path(config.downloads))
    else:
        log.info(f"reading {name}")
        yield from ((document, None) for document in read_inputs(Path(name), config))


def _sources(documents: Iterable[Document]) -> list[dict[str, Any]]:
    """What came from where, with its licence, in the order it was read."""
    groups: dict[tuple[str, str], list[Document]] = {}
    for document in documents:
        groups.setdefault((document.source, document.license), []).append(document)
    return [
        {"source": source, "license": license_name, **_size(group)}
        for (source, license_name), group in groups.items()
    ]


def _filter(
    documents: list[Document],
    filters: dict[str, Filter],
    dropped: Dropped,
    steps: list[dict[str, Any]],
) -> list[Document]:
    """Apply the filters one after the other; each is a step of the funnel."""
    progress = Progress("filter", len(documents) * len(filters))
    for name, answer in filters.items():
        kept: list[Document] = []
        gone: list[Document] = []
        for document in documents:
            (kept if answer(document) is None else gone).append(document)
            progress.advance()
        documents = kept
        _take_away(name, gone, dropped, steps)
    progress.close()
    return documents


def _remove_copies(
    documents: list[Document],
    reason: str,
    first_of: Callable[[list[str]], list[int]],
    dropped: Dropped,
    steps: list[dict[str, Any]],
) -> list[Document]:
    firsts = first_of([document.text for document in documents])
    copies = [document for index, document in enumerate(documents) if firsts[index] != index]
    _take_away(reason, copies, dropped, steps)
    return [document for index, document in enumerate(documents) if firsts[index] == index]


def _take_away(
    reason: str, gone: list[Document], dropped: Dropped, steps: list[dict[str, Any]]
) -> None:
    """Note what one step dropped, and what it left, in the funnel."""
    if gone:
        dropped[reason] = gone
    left = {key: steps[-1][key] - size for key, size in _size(gone).items()}
    steps.append({"step": reason, **left})


def _split(documents: list[Document], share: float) -> tuple[list[Document], list[Document]]:
    """Training and held-out documents. No language with two names goes without a held-out one."""
    places = {key: _place(key) for key in {split_key(document.id) for document in documents}}
    chosen = {key for key, place in places.items() if place < share}
    for language in LANGUAGES:
        keys = {split_key(document.id) for document in documents if document.language == language}
        if len(keys) > 1 and not keys & chosen:
            chosen.add(min(keys, key=lambda key: places[key]))
    kept = [document for document in documents if split_key(document.id) not in chosen]
    held_out = [document for document in documents if split_key(document.id) in chosen]
    return kept, held_out


def _place(key: str) -> float:
    """A number in [0, 1) that looks random and depends on the key alone."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _check_enough(kept: list[Document], dropped: Dropped, config: TextConfig) -> None:
    left = _size(kept)["bytes"]
    if left >= MIN_TRAINING_BYTES:
        return
    gone = [f"{reason} {_size(documents)['bytes']:,}" for reason, documents in dropped.items()]
    remedy = (
        f"dropped bytes: {', '.join(gone)}; give more text, or loosen the text.* setting of the "
        "filter that dropped most"
        if gone
        else "nothing was dropped; give more text"
    )
    raise UserError(
        f"only {left:,} bytes of training text are left of text.inputs={list(config.inputs)}, at "
        f"least {MIN_TRAINING_BYTES:,} are needed; {remedy}"
    )


def _write(
    out: Path, kept: list[Document], held_out: list[Document], dropped: Dropped, entries: Entries
) -> None:
    for folder, documents in (("train", kept), ("held_out", held_out)):
        for name, group in _groups(documents).items():
            write_jsonl(out / folder / f"{name}.jsonl.zst", map(_as_row, group))
    for reason, documents in dropped.items():
        rows = ({**_as_row(document), "reason": reason} for document in documents)
        write_jsonl(out / "dropped" / f"{reason}.jsonl.zst", rows)
    write_jsonl(out / "instruction.jsonl.zst", _records(kept, entries))
    unseen = (held_out_entry(d, entries[d.id]) for d in held_out if d.id in entries)
    write_jsonl(out / "entries.jsonl.zst", (entry for entry in unseen if entry is not None))


def _records(kept: list[Document], entries: Entries) -> Iterator[dict[str, Any]]:
    progress = Progress("instruction data", len(kept))
    for document in kept:
        progress.advance()
        if document.id in entries:
            yield from instruction_records(document, entries[document.id])
    progress.close()


def _as_row(document: Document) -> dict[str, Any]:
    return {name: getattr(document, name) for name in _FIELDS}


def _groups(documents: Iterable[Document]) -> dict[str, list[Document]]:
    groups: dict[str, list[Document]] = {}
    for document in documents:
        groups.setdefault(f"{document.language}_{document.tier}", []).append(document)
    return dict(sorted(groups.items()))


def _size(documents: list[Document]) -> dict[str, int]:
    size = sum(len(document.text.encode("utf-8", "surrogatepass")) for document in documents)
    return {"documents": len(documents), "bytes": size}


def _step(name: str, documents: list[Document]) -> dict[str, Any]:
    return {"step": name, **_size(documents)}


def _row(name: str, size: dict[str, Any]) -> tuple[str, str, str]:
    return name, f"{size['documents']:,}", f"{size['bytes'] / 1e6:.3f}"
