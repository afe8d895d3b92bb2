"""Documents in which items of a benchmark stand, so that no score is learned by heart.

Text is compared as a stream: the UTF-8 bytes of its letters and digits, case folded, marks and
spaces left out. So a stretch of n bytes is n Latin letters or n / 3 Han characters, which say
about as much: one n serves both languages and texts that mix them.

A long question is found where enough of its n-grams stand in a document, a shorter one where it
stands as a whole with its options nearby. Three stages, each met far less often than the one
before: windows of the document at every fourth byte are looked up among the items' seeds of 24
bytes, laid so that any n-gram that an item and a document share holds one, however it lies; a pair
of document and item that has as many seeds as the share asks for goes on; its bytes are compared.
No hash decides.

Shapes: N documents, B bytes of a stream, W windows, S seeds, P postings (a seed in an item),
I items, H hits.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexlm.config import ContaminationConfig
from indexlm.errors import DamagedError
from indexlm.records import fingerprint, log, sha256_file
from indexlm.runtime import code_behind
from indexlm.text.block import Block
from indexlm.text.document import Columns, Step
from indexlm.text.filters.benchmarks import Item, benchmark_files, read_benchmarks
from indexlm.text.normalise import normalise

REASONS = {"contaminated": "an item of a benchmark stands in the document"}

SEED = 24
"""Bytes of a window that is looked up: 24 letters or 8 Han, about five words."""
STRIDE = 4
"""Bytes between the windows of a document. An item has seeds at as many places side by side, so
that one of them is met however the item lies in the document."""
MIN_OPTION = 4
"""Bytes of an option that says something: shorter ones (`12`, `B`, `是`) stand anywhere."""
MIN_OPTIONS = 12
"""Bytes of all options of an item; with fewer they do not help to tell it."""
REACH = 100
"""Bytes that may stand between a question and its options beside themselves: labels, a hint."""
_BORDER = b"\1"
"""What stands behind a document, and between the parts of an item, in a stream."""
# Odd 64-bit numbers without a pattern: the first digits of the golden ratio, e and pi.
_FACTORS = [np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xADF85458A2BB4A9B, 0xC90FDAA22168C235)]

Uint64s = NDArray[np.uint64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Index:
    """What is known of all items; the arrays are mapped from a file where one was loaded."""

    seeds_S: Uint64s
    """Sorted."""
    firsts_S: Ints
    """Where the postings of each seed begin, and behind the last their number."""
    items_P: Ints
    needs_I: Ints
    """Seeds that a document that holds the item must have; 0 for an item that is not checked."""
    ends_I: Ints
    """Where the parts of each item end in `parts_B`: question and options, borders between."""
    parts_B: NDArray[np.uint8]
    names: pa.Array
    """Benchmark and name of each item, one behind the other."""

    def parts(self, item: int) -> list[bytes]:
        """Question and options of an item, as streams."""
        start = int(self.ends_I[item - 1]) if item else 0
        return self.parts_B[start : int(self.ends_I[item])].tobytes().split(_BORDER)

    def name(self, item: int) -> tuple[str, str]:
        """Benchmark and name of an item."""
        return self.names[2 * item].as_py(), self.names[2 * item + 1].as_py()

    def unchecked(self) -> list[tuple[str, str]]:
        """Items that say too little to be told from other text."""
        return [self.name(item) for item in np.flatnonzero(self.needs_I == 0).tolist()]


def contamination(config: ContaminationConfig, index: Path | None = None) -> Step:
    """A step that drops documents that hold an item of `config.benchmarks`.

    `index` is a file that `build_index` wrote for this config; without it the index is built here.
    Columns: `reason`, and of the item that stands most completely in the document `benchmark`,
    `item` (file and id or row; empty where there is none) and `overlap`, the share found of its
    n-grams, or of its bytes where it is told by its options. Raises UserError where the benchmarks
    cannot be read, DamagedError where the file is no index.
    """
    known = load(index) if index else _index(config, read_benchmarks(config.benchmarks))
    seen = _seen(known.seeds_S)

    def step(block: Block) -> Columns:
        stream = stream_of(document.text for document in block.documents)
        best = [(0.0, -1)] * len(block.documents)
        for document, item, text, hits in _candidates(known, seen, stream):
            if best[document][0] == 1:
                continue  # A collection of questions is told by its first.
            overlap = _overlap(config, known.parts(item), text, hits)
            if overlap > best[document][0]:
                best[document] = (overlap, item)
        names = [known.name(item) if item >= 0 else ("", "") for _, item in best]
        return {
            "reason": ["contaminated" if item >= 0 else "" for _, item in best],
            "benchmark": [benchmark for benchmark, _ in names],
            "item": [name for _, name in names],
            "overlap": [overlap for overlap, _ in best],
        }

    return step


def stream_of(texts: Iterable[str]) -> bytes:
    """The letters and digits of all texts as UTF-8, case folded, a border after each text."""
    codes = np.frombuffer("".join(f"{text}\0" for text in texts).encode("utf-32-le"), np.uint32)
    folded = _folded()[codes]
    return folded[folded != 0].tobytes().decode("utf-32-le").encode()


@cache
def _folded() -> NDArray[np.uint32]:
    """Of every code point the one that it is compared as; 0 for what is left out."""
    folded = np.zeros(0x110000, dtype=np.uint32)
    for code in range(0x20000):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            same = unicodedata.normalize("NFKC", character).casefold()
            folded[code] = ord(same) if len(same) == 1 else code
    folded[0x20000:0x40000] = np.arange(0x20000, 0x40000)  # Han
    folded[0] = ord(_BORDER)
    return folded


def _hashes(stream: bytes, stride: int) -> Uint64s:
    """[W] of the windows of SEED bytes that begin at multiples of the stride, 1 or 4."""
    count = max(0, (len(stream) - 8) // stride + 1)
    words = np.ndarray((count,), "<u8", stream, 0, (stride,)).astype(np.uint64)
    step = 8 // stride
    hashes = words[: -2 * step] * _FACTORS[0]
    hashes += words[step:-step] * _FACTORS[1]
    hashes += words[2 * step :] * _FACTORS[2]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _FACTORS[0]
    return hashes


def _seen(seeds_S: Uint64s) -> NDArray[np.bool_]:
    """A table by the highest bits of a hash: whether any seed has them. Of 16 places 15 are empty,
    so that a sixteenth of ordinary windows is searched for among the seeds."""
    bits = max(10, (16 * len(seeds_S)).bit_length())
    table = np.zeros(2**bits, dtype=bool)
    table[seeds_S >> np.uint64(64 - bits)] = True
    return table


def _candidates(
    known: Index, seen: NDArray[np.bool_], stream: bytes
) -> Iterator[tuple[int, int, bytes, list[int]]]:
    """Document, item, the document's stream and the item's hits in it, in the order of documents,
    then items, wherever there are as many hits as the item needs.
    """
    hashes_W = _hashes(stream, STRIDE)
    shift = np.uint64(65 - len(seen).bit_length())
    windows_H = np.flatnonzero(seen[hashes_W >> shift])
    seeds_H = np.searchsorted(known.seeds_S, hashes_W[windows_H])
    seeds_H[seeds_H == len(known.seeds_S)] = 0
    same_H = known.seeds_S[seeds_H] == hashes_W[windows_H]
    windows_H, seeds_H = windows_H[same_H], seeds_H[same_H]
    if not len(windows_H):
        return
    # One entry for every item of a seed that was hit.
    counts_H = known.firsts_S[seeds_H + 1] - known.firsts_S[seeds_H]
    behind_H = np.cumsum(counts_H)
    skipped = np.repeat(known.firsts_S[seeds_H] - behind_H + counts_H, counts_H)
    items = known.items_P[skipped + np.arange(behind_H[-1])]
    places = np.repeat(windows_H * STRIDE, counts_H)
    borders_N = np.flatnonzero(np.frombuffer(stream, np.uint8) == ord(_BORDER))
    keys = np.searchsorted(borders_N, places) * len(known.needs_I) + items
    order = np.argsort(keys, kind="stable")
    pairs, begins, sizes = np.unique(keys[order], return_index=True, return_counts=True)
    for found in np.flatnonzero(sizes >= known.needs_I[pairs % len(known.needs_I)]):
        document, item = divmod(int(pairs[found]), len(known.needs_I))
        start = int(borders_N[document - 1]) + 1 if document else 0
        hits = places[order[begins[found] : begins[found] + sizes[found]]] - start
        text = stream[start : int(borders_N[document])]
        yield document, item, text, hits.tolist()


def _overlap(
    config: ContaminationConfig, parts: Sequence[bytes], text: bytes, hits: Sequence[int]
) -> float:
    """Share of the item that stands in the text; 0 where that is not enough.

    The hits depend on where the windows fell, what is found around them does not.
    """
    question, *options = parts
    if len(question) >= config.question_bytes:
        around = _around(text, hits, config.gram_bytes)
        if question in around:
            return 1.0
        grams = _grams(question, config.gram_bytes)
        share = sum(gram in around for gram in grams) / len(grams)
        return share if share >= config.share else 0.0
    asked = sum(map(len, options))
    reach = 2 * asked + REACH
    found = 0
    for hit in hits:
        at = text.find(question, max(0, hit - len(question)), hit + len(question))
        if at >= 0:
            nearby = text[max(0, at - reach) : at + len(question) + reach]
            found = max(found, sum(len(option) for option in options if option in nearby))
    if found < config.share * asked:
        return 0.0
    return (len(question) + found) / (len(question) + asked)


def _around(text: bytes, hits: Sequence[int], radius: int) -> bytes:
    """The text within a radius of any hit, with a border where something is left out."""
    parts: list[bytes] = []
    start, end = 0, 0
    for hit in hits:
        if hit - radius > end:
            parts.append(text[start:end])
            start = hit - radius
        end = hit + radius
    parts.append(text[start:end])
    return _BORDER.join(parts)


def _grams(text: bytes, size: int) -> set[bytes]:
    return {text[start : start + size] for start in range(len(text) - size + 1)}


# Building


def build_index(config: ContaminationConfig, path: Path) -> Mapping[str, Any]:
    """Write the index of all items of the benchmarks to a file; equal items give equal bytes.

    Answers with the number of `items` of each benchmark, and of those `unchecked`. Raises UserError
    where the benchmarks cannot be read.
    """
    index = _index(config, read_benchmarks(config.benchmarks))
    arrays = {name: pa.array(values) for name, values in vars(index).items()}
    columns = [pa.ListArray.from_arrays([0, len(array)], array) for array in arrays.values()]
    batch = pa.record_batch(columns, names=list(arrays))
    batch = batch.replace_schema_metadata({"made_from": made_from(config)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    items = Counter(index.names.to_pylist()[::2])
    unchecked = Counter(benchmark for benchmark, _ in index.unchecked())
    for benchmark, count in items.items():
        log.info(
            "%s: %d items, %d of them too short to be checked",
            *(benchmark, count, unchecked[benchmark]),
        )
    return {"items": items, "unchecked": unchecked}


def made_from(config: ContaminationConfig) -> str:
    """Fingerprint of what an index is made from: settings, every benchmark file, and the code."""
    files = [
        (benchmark, name, sha256_file(path))
        for benchmark, name, path in benchmark_files(config.benchmarks)
    ]
    settings = config.model_dump(mode="json", exclude={"benchmarks"})
    return fingerprint(settings, files, code_behind("text/filters/contamination.py"))


def load(path: Path) -> Index:
    """An index whose arrays stay in the file, shared by all processes that map it.

    Raises DamagedError where the file is no index.
    """
    try:
        with pa.memory_map(str(path)) as file:
            batch = pa.ipc.open_file(file).get_batch(0)
    except pa.ArrowInvalid as error:
        raise DamagedError(f"{path} is no index of benchmarks ({error}); delete it") from error
    arrays = {name: batch.column(name).values for name in batch.schema.names}
    names = arrays.pop("names")
    return Index(names=names, **{name: array.to_numpy() for name, array in arrays.items()})


def _index(config: ContaminationConfig, items: Iterable[Item]) -> Index:
    names: list[str] = []
    parts: list[list[bytes]] = []
    for item in items:
        names += [item.benchmark, item.name]
        question, *options = (
            stream_of([normalise(text)]).removesuffix(_BORDER)
            for text in (item.question, *item.options)
        )
        parts.append([question, *(option for option in options if len(option) >= MIN_OPTION)])
    seeds, owners, needs_I = _seeds(config, parts)
    order = np.lexsort((owners, seeds))
    seeds, owners = seeds[order], owners[order]
    # An item whose text repeats itself has the same seed twice.
    fresh = np.r_[True, (seeds[1:] != seeds[:-1]) | (owners[1:] != owners[:-1])][: len(seeds)]
    seeds, owners = seeds[fresh], owners[fresh]
    seeds_S, firsts_S = np.unique(seeds, return_index=True)
    streams = [_BORDER.join(several) for several in parts]
    return Index(
        seeds_S=seeds_S,
        firsts_S=np.r_[firsts_S, len(owners)],
        items_P=owners,
        needs_I=needs_I,
        ends_I=np.cumsum([len(stream) for stream in streams]),
        parts_B=np.frombuffer(b"".join(streams), np.uint8),
        names=pa.array(names, pa.string()),
    )


def _seeds(
    config: ContaminationConfig, items: Sequence[Sequence[bytes]]
) -> tuple[Uint64s, Ints, Ints]:
    """Seeds of all items, the item of each, and [I] how many of its own a document must have."""
    questions = [question for question, *_ in items]
    hashes_B = _hashes(_BORDER.join(questions) + bytes(SEED), 1)
    _, inverse_B, counts = np.unique(hashes_B, return_inverse=True, return_counts=True)
    commonness_B = counts[inverse_B]
    # A group of seeds in every so many bytes: each n-gram holds one of each remainder by STRIDE.
    period = (config.gram_bytes - SEED) // STRIDE * STRIDE
    needs_I = np.zeros(len(items), dtype=np.int64)
    places: list[Ints] = []
    start = 0
    for item, (question, *options) in enumerate(items):
        windows = len(question) - SEED + 1
        offsets = np.zeros(0, dtype=np.int64)
        if len(question) >= config.question_bytes:
            offsets = np.arange(windows)
            offsets = offsets[offsets % period < STRIDE]
            grams = len(_grams(question, config.gram_bytes))
            # One seed lies in so many n-grams at most.
            needs_I[item] = math.ceil(config.share * grams / (config.gram_bytes - SEED + 1))
        elif windows >= STRIDE and sum(map(len, options)) >= MIN_OPTIONS:
            common = commonness_B[start : start + windows]
            groups = np.lib.stride_tricks.sliding_window_view(common, STRIDE)
            offsets = int(np.argmin(groups.max(axis=1))) + np.arange(STRIDE)
            needs_I[item] = 1
        places.append(start + offsets)
        start += len(question) + len(_BORDER)
    owners = np.repeat(np.arange(len(items)), [len(offsets) for offsets in places])
    return hashes_B[np.concatenate(places)], owners, needs_I
