"""The peers, each as its own documentation has it. A row reads the rows of a text and says which
documents it would drop: the number is the whole process, from its start to the names.

Shingles of those that leave them to the caller are what ours are: five characters, without white
space and case. datatrove and Daft take runs of five words; what a word of Chinese is, jieba says in
datatrove, and in Daft every Han character is one.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

Row = Callable[[Path, Path, int], list[str]]
"""(folder of the text, an empty folder to work in, workers) -> ids of what is dropped."""

SHINGLE = 5
PERMUTATIONS, JACCARD = 128, 0.8
LANGUAGES = {"en": "eng_Latn", "zh": "zho_Hani"}
_SPACE = re.compile(r"\s+")


# datatrove, a pipeline for each language: its word splitters have one


def datatrove_filters(text: Path, work: Path, workers: int) -> list[str]:
    """Quality and repetition rules of Gopher, the rules of C4, those of FineWeb.

    Left out is its language filter, whose model is a download from a place that is no package
    registry: the files come split by language. In Chinese, rules that ask for spaces between words
    or for English are off, for otherwise nothing comes as far as the later filters.
    """
    from datatrove.pipeline import filters
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    for short, language in LANGUAGES.items():
        zh = short == "zh"

        def dropped(name: str, short: str = short) -> JsonlWriter:
            return JsonlWriter(str(work / "dropped" / short / name), compression=None)

        quality = {"min_avg_word_length": 1, "min_stop_words": None} if zh else {}
        c4 = {"filter_no_terminal_punct": False, "min_words_per_line": -1} if zh else {}
        _execute(
            [
                JsonlReader(str(text / "parts"), glob_pattern=f"{short}-*.jsonl"),
                filters.GopherRepetitionFilter(
                    language=language, exclusion_writer=dropped("repetition")
                ),
                filters.GopherQualityFilter(
                    language=language, exclusion_writer=dropped("quality"), **quality
                ),
                filters.C4QualityFilter(language=language, exclusion_writer=dropped("c4"), **c4),
                filters.FineWebQualityFilter(
                    language=language, exclusion_writer=dropped("fineweb")
                ),
                JsonlWriter(str(work / "kept" / short), compression=None),
            ],
            tasks=workers,
            workers=workers,
            logs=work / "logs" / short,
        )
    return _ids(work / "dropped")


def datatrove_minhash(text: Path, work: Path, workers: int) -> list[str]:
    """Its four steps with its defaults: 14 buckets of 8 hashes, runs of five words."""
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    config = MinhashConfig()
    for short, language in LANGUAGES.items():
        folder = work / short
        found = {name: str(folder / name) for name in ("signatures", "buckets", "removed")}
        reader = JsonlReader(str(text / "parts"), glob_pattern=f"{short}-*.jsonl")
        steps: list[tuple[list[Any], int]] = [
            ([reader, MinhashDedupSignature(found["signatures"], config, language)], workers),
            (
                [MinhashDedupBuckets(found["signatures"], found["buckets"], config=config)],
                config.num_buckets,
            ),
            ([MinhashDedupCluster(found["buckets"], found["removed"], config)], 1),
            (
                [
                    reader,
                    MinhashDedupFilter(
                        found["removed"], JsonlWriter(str(folder / "dropped"), compression=None)
                    ),
                    JsonlWriter(str(folder / "kept"), compression=None),
                ],
                workers,
            ),
        ]
        for number, (pipeline, tasks) in enumerate(steps):
            _execute(pipeline, tasks, workers, folder / "logs" / str(number))
    return [name for short in LANGUAGES for name in _ids(work / short / "dropped")]


def _execute(pipeline: list[Any], tasks: int, workers: int, logs: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor

    LocalPipelineExecutor(
        pipeline=pipeline, tasks=tasks, workers=workers, logging_dir=str(logs)
    ).run()


def _ids(folder: Path) -> list[str]:
    files = sorted(folder.rglob("*.jsonl"))
    return [json.loads(line)["id"] for path in files for line in path.open(encoding="utf-8")]


# Near copies by a library


def datasketch(text: Path, work: Path, workers: int) -> list[str]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=JACCARD, num_perm=PERMUTATIONS)
    dropped = []
    for name, content in _rows(text):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([shingle.encode() for shingle in _shingles(content)])
        if index.query(sketch):
            dropped.append(name)
        else:
            index.insert(name, sketch)
    return dropped


def rensa(text: Path, work: Path, workers: int) -> list[str]:
    from rensa import RMinHash, RMinHashDeduplicator

    found = RMinHashDeduplicator(JACCARD, PERMUTATIONS, True, 16)
    dropped = []
    rows = _rows(text)
    while batch := list(islice(rows, 500)):
        sets = [_shingles(content) for _, content in batch]
        sketches = RMinHash.from_token_sets(sets, PERMUTATIONS, 42)
        added = found.add_pairs(list(zip([name for name, _ in batch], sketches)))
        dropped += [name for (name, _), new in zip(batch, added) if not new]
    return dropped


def daft(text: Path, work: Path, workers: int) -> list[str]:
    """Its MinHash expression; bands are joined by grouping, groups are connected here."""
    import daft as library
    from daft import col
    from daft.functions import minhash, regexp_replace

    bands, rows = 14, 8
    content = regexp_replace(col("text"), r"(\p{Han})", " $1 ")
    sketches = library.read_json(str(text / "corpus.jsonl")).select(
        col("id"), minhash(content, num_hashes=bands * rows, ngram_size=SHINGLE).alias("sketch")
    )
    table = sketches.to_arrow()
    names = table.column("id").to_pylist()
    values = table.column("sketch").combine_chunks().flatten().to_numpy()
    matrix = values.reshape(len(names), bands, rows)
    pairs = (
        (first, other)
        for band in range(bands)
        for first, *others in _equal([row.tobytes() for row in matrix[:, band]])
        for other in others
    )
    return [names[index] for index in _not_first(len(names), pairs)]


def _equal(keys: Sequence[bytes]) -> Iterator[list[int]]:
    """Groups of places with an equal key, ascending."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for _, group in groupby(order, key=keys.__getitem__):
        found = list(group)
        if len(found) > 1:
            yield found


def _not_first(count: int, pairs: Iterator[tuple[int, int]]) -> list[int]:
    """Everything but the first of each connected group."""
    leader = list(range(count))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = index = leader[leader[index]]
        return index

    for left, right in pairs:
        left, right = find(left), find(right)
        leader[max(left, right)] = min(left, right)
    return [index for index in range(count) if find(index) != index]


# Exact substrings: what it takes to know them, without cutting anything


def pydivsufsort(text: Path, work: Path, workers: int) -> list[str]:
    from pydivsufsort import divsufsort

    divsufsort(_content(text))
    return []


def pydivsufsort_lcp(text: Path, work: Path, workers: int) -> list[str]:
    from pydivsufsort import divsufsort, kasai

    content = _content(text)
    kasai(content, divsufsort(content))
    return []


def _content(text: Path) -> Any:
    """The bytes of all documents in one array, which the sorter wants to be writable."""
    import numpy as np

    content = "\0".join(content for _, content in _rows(text))
    return np.frombuffer(bytearray(content.encode()), dtype=np.uint8)


def _rows(text: Path) -> Iterator[tuple[str, str]]:
    with (text / "corpus.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["id"], row["text"]


def _shingles(text: str) -> set[str]:
    key = _SPACE.sub("", text).casefold()
    return {key[start : start + SHINGLE] for start in range(max(len(key) - SHINGLE + 1, 1))}


ROWS: Mapping[str, Row] = {
    "datatrove_filters": datatrove_filters,
    "datatrove_minhash": datatrove_minhash,
    "datasketch": datasketch,
    "rensa": rensa,
    "daft": daft,
    "pydivsufsort": pydivsufsort,
    "pydivsufsort_lcp": pydivsufsort_lcp,
}
