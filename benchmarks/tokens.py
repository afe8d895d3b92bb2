"""Text to ids: `indexlm data tokens` beside the libraries that it could be built on.

    python -m benchmarks.tokens --text FOLDER --tokenizer FOLDER

FOLDER is refined text of 50 MB or more. `indexlm` reads the packed files, encodes, writes ids and
document borders, flushes them and seals the folder; the others get the texts as lists in memory and
return the ids. Rounds go through all rows in turn, so that a slow hour of the machine meets all of
them, and medians are compared. Where other programs run beside, read the MB per CPU-second.

The tokenizers library encodes twice: with our tokenizer in its format (the same ids, but where a
text spells a marker like `<unk>`), and with a byte-level BPE of as many pieces, learned here on a
part of the text, which is what it is made for. tiktoken has the latter, where it is installed.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from indexlm.export.hub_tokenizer import tokenizer_json
from indexlm.text.jsonl import read_jsonl
from indexlm.tokens.encode import inputs_fingerprint, text_of, write_shards
from indexlm.tokens.shards import training_files
from indexlm.tokens.tokenizer import Tokenizer

BATCH = 1000
"""Documents that a library is given at a time."""
LEARNED_SHARE = 8
"""One document in so many teaches the byte-level BPE."""

Row = Callable[[], int]
"""Encodes all of the text; answers how many ids it has, without ends of documents."""


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.tokens", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--text", type=Path, required=True, help="a folder of `data refine`")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tokens.json"))
    asked = parser.parse_args()
    # The libraries' own threads, as many as ours.
    os.environ["RAYON_NUM_THREADS"] = str(asked.threads)
    tokenizer = Tokenizer.load(asked.tokenizer)
    files = training_files(asked.text)
    texts = [text_of(row) for paths in files.values() for path in paths for row in read_jsonl(path)]
    size = sum(len(text.encode()) for text in texts)
    with tempfile.TemporaryDirectory(dir=asked.out.parent) as folder:
        rows = {
            **_ours(asked.text, asked.tokenizer, asked.threads, Path(folder)),
            **_sentencepiece(tokenizer, texts, asked.threads),
            **_tokenizers(tokenizer, texts, Path(folder)),
        }
        rows |= _tiktoken(Path(folder), texts, asked.threads)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
        for number in range(asked.rounds):
            for name, row in rows.items():
                found[name].append(_measured(row, size))
                print(f"{number + 1} {name:<45} {_line(found[name][-1])}", flush=True)
        peak = _peak(asked.text, asked.tokenizer, asked.threads, Path(folder))
    results = {
        "setting": _setting(asked, tokenizer, size, len(texts)),
        "rows": {name: _summary(runs) for name, runs in found.items()},
        "peak_bytes_of_the_command": peak,
    }
    results["ratios"] = _ratios(results["rows"])
    print(json.dumps(results["ratios"], indent=1))
    asked.out.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")


def _ours(text: Path, tokenizer: Path, threads: int, place: Path) -> dict[str, Row]:
    out = place / "tokens"

    def command() -> int:
        shutil.rmtree(out, ignore_errors=True)
        arguments = [text, "--tokenizer", tokenizer, "--out", out, "--threads", threads]
        subprocess.run(
            [sys.executable, "-m", "indexlm.cli", "data", "tokens", *map(str, arguments)],
            check=True,
            capture_output=True,
        )
        return _ids_of(json.loads((out / "sources.json").read_text(encoding="utf-8")))

    def call() -> int:
        shutil.rmtree(out, ignore_errors=True)
        model, files = Tokenizer.load(tokenizer), training_files(text)
        made_from = inputs_fingerprint(files, model)
        return _ids_of(write_shards(files, model, out, made_from, threads=threads))

    return {"indexlm data tokens, a process": command, "indexlm write_shards": call}


def _ids_of(catalogue: dict[str, Any]) -> int:
    return sum(each["tokens"] - each["documents"] for each in catalogue["sources"].values())


def _sentencepiece(tokenizer: Tokenizer, texts: list[str], threads: int) -> dict[str, Row]:
    encode = tokenizer.processor.Encode

    def row(kind: Any, count: int) -> Row:
        return lambda: sum(
            sum(map(len, encode(some, return_type=kind, num_threads=count)))
            for some in _batches(texts)
        )

    rows = {
        f"sentencepiece {name}, {count} threads": row(kind, count)
        for name, kind in (("lists", int), ("arrays", "numpy"))
        for count in dict.fromkeys((1, threads))
    }

    def processes() -> int:
        # Forked ones share the texts; only counts come back.
        fork = multiprocessing.get_context("fork")
        with fork.Pool(threads, _share, (encode, texts)) as pool:
            return sum(pool.starmap(_part, [(number, threads) for number in range(threads)]))

    return rows | {f"sentencepiece arrays, {threads} processes": processes}


_shared: dict[str, Any] = {}
"""What a forked process encodes, and with what."""


def _share(encode: Any, texts: list[str]) -> None:
    _shared.update(encode=encode, texts=texts)


def _part(number: int, of: int) -> int:
    return sum(
        sum(map(len, _shared["encode"](some, return_type="numpy", num_threads=1)))
        for some in _batches(_shared["texts"][number::of])
    )


def _tokenizers(tokenizer: Tokenizer, texts: list[str], place: Path) -> dict[str, Row]:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    same = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(tokenizer)))
    by_bytes = tokenizers.Tokenizer(models.BPE())
    by_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    by_bytes.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tokenizer.vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    by_bytes.train_from_iterator(texts[::LEARNED_SHARE], trainer)
    by_bytes.save(str(place / "bytes.json"))

    def row(library: Any) -> Row:
        return lambda: sum(
            sum(len(each.ids) for each in library.encode_batch(some, add_special_tokens=False))
            for some in _batches(texts)
        )

    return {"tokenizers, our tokenizer": row(same), "tokenizers, byte-level BPE": row(by_bytes)}


def _tiktoken(place: Path, texts: list[str], threads: int) -> dict[str, Row]:
    """The byte-level BPE of the tokenizers library, in tiktoken."""
    try:
        import tiktoken
    except ImportError:
        return {}
    model = json.loads((place / "bytes.json").read_text(encoding="utf-8"))["model"]
    spelled = _byte_spellings()
    ranks = {
        bytes(spelled[character] for character in piece): index
        for piece, index in model["vocab"].items()
    }
    encoding = tiktoken.Encoding(
        name="here",
        # GPT-2's way to cut text, which the tokenizers library's ByteLevel has built in.
        pat_str=r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks=ranks,
        special_tokens={},
    )

    def row() -> int:
        return sum(
            sum(map(len, encoding.encode_ordinary_batch(some, num_threads=threads)))
            for some in _batches(texts)
        )

    return {"tiktoken, byte-level BPE": row}


def _byte_spellings() -> dict[str, int]:
    """The visible character that stands for each byte in a byte-level vocabulary."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {
        chr(256 + place): byte for place, byte in enumerate(hidden)
    }


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[place : place + BATCH] for place in range(0, len(texts), BATCH))


def _measured(row: Row, size: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), _cpu_seconds()
    ids = row()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    return {"seconds": wall, "cpu_seconds": cpu, "ids": ids, "mb": size / 1e6}


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _line(run: dict[str, float]) -> str:
    wall, cpu = (run["mb"] / run[name] for name in ("seconds", "cpu_seconds"))
    return f"{wall:6.2f} MB/s, {cpu:6.2f} MB per CPU-second"


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians; a bare list keeps what they are of."""
    seconds, cpu = ([run[name] for run in runs] for name in ("seconds", "cpu_seconds"))
    mb = runs[0]["mb"]
    return {
        "ids": runs[0]["ids"],
        "mb_per_second": mb / statistics.median(seconds),
        "mb_per_cpu_second": mb / statistics.median(cpu),
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def _ratios(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Ours over the best of each library, by the clock and by CPU time."""
    ratios = {}
    for ours in (name for name in rows if name.startswith("indexlm")):
        for library in ("sentencepiece", "tokenizers", "tiktoken"):
            others = [row for name, row in rows.items() if name.startswith(library)]
            for rate in ("mb_per_second", "mb_per_cpu_second") if others else ():
                best = max(other[rate] for other in others)
                ratios[f"{ours} / {library}, {rate}"] = rows[ours][rate] / best
    return ratios


PEAK = """
import re, sys
from pathlib import Path
from indexlm.cli import main
try:
    main()
finally:
    # getrusage would count what the parent had before this program began.
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    print(int(peak) * 1024, file=sys.stderr)
"""


def _peak(text: Path, tokenizer: Path, threads: int, place: Path) -> int:
    arguments = [text, "--tokenizer", tokenizer, "--out", place / "peak", "--threads", threads]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "data", "tokens", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stderr.split()[-1])


def _setting(
    asked: argparse.Namespace, tokenizer: Tokenizer, size: int, documents: int
) -> dict[str, Any]:
    return {
        "mb": size / 1e6,
        "documents": documents,
        "vocab_size": tokenizer.vocab_size,
        "threads": asked.threads,
        "rounds": asked.rounds,
        # More than the threads that are asked for: other programs ran beside.
        "load_at_the_end": os.getloadavg()[0],
        "versions": {name: _version(name) for name in ("sentencepiece", "tokenizers", "tiktoken")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
