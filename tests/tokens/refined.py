"""Files as refined text has them, and tokens folders made of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from indexlm.text.jsonl import write_jsonl
from indexlm.tokens.encode import inputs_fingerprint, write_shards
from indexlm.tokens.shards import group_files
from indexlm.tokens.tokenizer import Tokenizer

Texts = Mapping[str, Sequence[str]]


def files_of(
    texts: Texts, folder: Path, origins: Texts | None = None, cut: int = 1 << 30
) -> dict[str, list[Path]]:
    """Documents by source, at most `cut` of them in a file, as `tales` where no origin is named."""
    for name, some in texts.items():
        come = (origins or {}).get(name, ["tales"] * len(some))
        rows = [{"text": text, "source": origin} for text, origin in zip(some, come)]
        for number in range(0, max(len(rows), 1), cut):
            path = folder / f"{name}.{number:05}.jsonl.zst"
            write_jsonl(path, rows[number : number + cut])
    return group_files(folder)


def written(texts: Texts, tokenizer: Tokenizer, place: Path, origins: Texts | None = None) -> Path:
    """A finished tokens folder below `place`."""
    files = files_of(texts, place / "text", origins)
    made_from = inputs_fingerprint(files, tokenizer)
    write_shards(files, tokenizer, place / "tokens", made_from, threads=2)
    return place / "tokens"
