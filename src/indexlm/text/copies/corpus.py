"""All shards of a run, and what is said across them: names, copies, repeated passages.

Each question is put to ranges of hashes: a task reads its range of every shard's file and nothing
else, so memory is bounded by the range, and the answer does not depend on how many there are. Which
documents are still kept is one byte for each in a file that all tasks map.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexlm.records import fingerprint
from indexlm.runtime import code_behind
from indexlm.text.copies import ids, near_dups, passages
from indexlm.text.copies.near_dups import Edges, Found, Round
from indexlm.text.engine import Engine, Job
from indexlm.text.shards import open_shard, read_columns
from indexlm.text.work import once, output

SMALL = {
    "names": 2_000_000_000,
    "exact": 2_000_000_000,
    "near": 500_000_000,
    "passages": 64_000_000,
}
"""Bytes of text up to which one range does: starting workers takes longer than the answer."""
BYTES_A_BYTE = 4
"""Memory of a search for passages for each byte of text whose keys are in its range."""
BYTES_A_DOCUMENT = {"names": 40, "exact": 60, "near": 200}
"""Memory of a task for each document in its range."""
LISTING = "corpus.json"

Bools = NDArray[np.bool_]
EDGES, CUTS = "edges", "cuts"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Shards in the order of input, the documents of each, and hashes of what was made of them."""

    work: Path
    shards: Sequence[Path]
    counts: Sequence[int]
    text_size: int
    """Bytes."""
    hashes: Sequence[Mapping[str, str]]
    """Name of an output -> its hash, for each shard."""

    def save(self) -> None:
        """For `of`, in the processes of the tasks."""
        listing = {
            "shards": [str(path) for path in self.shards],
            "counts": list(self.counts),
            "text_size": self.text_size,
        }
        (self.work / LISTING).write_text(json.dumps(listing), encoding="utf-8")

    @staticmethod
    def of(work: Path) -> "Corpus":
        """As it was saved last, without the hashes, which no task needs."""
        return _listed(work, (work / LISTING).stat().st_mtime_ns)

    @cached_property
    def borders(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts)[:-1]

    def outputs(self, name: str) -> list[Path]:
        return [output(self.work, name, shard) for shard in self.shards]

    def hash_of(self, name: str) -> str:
        return fingerprint([one[name] for one in self.hashes])

    def hash_of_all(self) -> str:
        return fingerprint([dict(one) for one in self.hashes])

    def text(self, shard: int, index: int) -> str:
        return open_shard(self.shards[shard]).text(index)

    def text_bytes(self, shard: int, index: int) -> bytes:
        return open_shard(self.shards[shard]).text_bytes(index)

    def parts(self, kind: str, engine: Engine) -> int:
        """Ranges of hashes for a question; as many as memory asks for, or as there are workers."""
        documents = sum(self.counts)
        if kind == "passages":
            needed = self.text_size * BYTES_A_BYTE
        else:
            needed = documents * BYTES_A_DOCUMENT[kind]
        wide = engine.workers if self.text_size > SMALL[kind] else 1
        return max(wide, -(-needed // (engine.memory // 2)))

    def save_masks(self, name: str, masks: Sequence[Bools]) -> str:
        """Keep which documents are there under a name; returns a hash of it."""
        path = self._masks_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        joined = np.concatenate([*masks, np.zeros(0, dtype=bool)])
        np.save(path, joined)
        return fingerprint(np.packbits(joined).tobytes().hex())

    def masks(self, name: str) -> list[Bools]:
        joined = np.load(self._masks_path(name), mmap_mode="r", allow_pickle=False)
        return np.split(joined, self.borders) if self.counts else []

    def _masks_path(self, name: str) -> Path:
        return self.work / "masks" / f"{name}.npy"


@lru_cache(maxsize=1)
def _listed(work: Path, saved: int) -> Corpus:
    listing = json.loads((work / LISTING).read_text(encoding="utf-8"))
    return Corpus(work, [Path(path) for path in listing.pop("shards")], **listing, hashes=())


def kept_by(corpus: Corpus, asked: Sequence[str]) -> list[Bools]:
    """Documents that no step of those asked has a reason to drop."""
    masks = []
    for shard, count in zip(corpus.shards, corpus.counts):
        kept = np.ones(count, dtype=bool)
        for name in asked:
            answers = read_columns(output(corpus.work, name, shard)).column("reason")
            kept &= np.array([not reason for reason in answers.to_pylist()], dtype=bool)
        masks.append(kept)
    return masks


def unique_names(corpus: Corpus, engine: Engine) -> list[tuple[int, str]]:
    """The documents that need another name, by number, and that name."""
    parts = corpus.parts("names", engine)
    jobs = [_job(corpus, part, parts) for part in range(parts)]
    answers = engine.map("names", _renamed, jobs)
    return sorted((number, name) for answer in answers for number, name in answer["renamed"])


def exact_copies(corpus: Corpus, kept: Sequence[Bools], engine: Engine) -> Edges:
    """An edge for each document that says what an earlier one says, from the first of them."""
    jobs = _questions(corpus, "exact", corpus.save_masks("exact", kept), engine, {})
    answers = engine.map("exact copies", _exact, jobs)
    edges = near_dups.resolve([read_edges(Path(answer["path"])) for answer in answers])
    write_edges(corpus.work / EDGES / "exact.npy", edges)
    return edges


def near_copies(corpus: Corpus, kept: Sequence[Bools], jaccard: float, engine: Engine) -> Edges:
    """An edge for each document that is as similar as asked to an earlier one that stays."""

    def search(turn: Round) -> Iterator[Found]:
        names = [f"near-{turn.number}"]
        hashes = [corpus.save_masks(names[0], turn.kept)]
        if turn.before is not None:
            names.append(f"{names[0]}-before")
            hashes.append(corpus.save_masks(names[1], turn.before))
        asked = {"round": turn.number, "masks": names, "jaccard": jaccard}
        jobs = _questions(corpus, "near", fingerprint(hashes), engine, asked)
        for answer in engine.map(f"near copies {turn.number + 1}", _near, jobs):
            yield Found(read_edges(Path(answer["path"])), answer["complete"])

    edges = near_dups.settle(list(kept), search)
    write_edges(corpus.work / EDGES / "near.npy", edges)
    return edges


def repeated_passages(
    corpus: Corpus, kept: Sequence[Bools], passage_bytes: int, engine: Engine
) -> list[str]:
    """Cut what stood before; hashes of each shard's cuts."""
    mask = corpus.save_masks("passages", kept)
    asked = {"passage_bytes": passage_bytes}
    jobs = _questions(corpus, "passages", mask, engine, asked)
    answers = engine.map("repeated passages", _repeats, jobs)
    made_from = fingerprint([answer["sha256"] for answer in answers])
    code = code_behind("text/copies/corpus.py")
    cuts = [
        {"work": str(corpus.work), "shard": number, "parts": len(jobs), "size": count}
        | {"made_from": fingerprint(made_from, number, corpus.hashes[number]["shard"], code)}
        for number, count in enumerate(corpus.counts)
    ]
    return [answer["sha256"] for answer in engine.map("cuts", _cuts, cuts)]


def write_edges(path: Path, edges: Edges) -> None:
    """[3, E] int64: later documents in order, earlier ones, and similarities as bits of float64."""
    order = np.argsort(edges.later_E, kind="stable")
    rows = (edges.later_E, edges.earlier_E, edges.similarity_E.view(np.int64))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, np.stack([row[order] for row in rows]))


def read_edges(path: Path) -> Edges:
    later, earlier, similarity = np.load(path, allow_pickle=False)
    return Edges(earlier, later, similarity.view(np.float64))


def edges_of(work: Path, kind: str, shard: int) -> Iterable[tuple[int, int, float]]:
    """Of a shard's documents that are copies: index, number of the one that stays, similarity."""
    rows = np.load(work / EDGES / f"{kind}.npy", mmap_mode="r", allow_pickle=False)
    low, high = np.searchsorted(rows[0], [shard << 32, (shard + 1) << 32])
    later, earlier, similarity = np.array(rows[:, low:high])
    index = later & 0xFFFFFFFF
    return zip(index.tolist(), earlier.tolist(), similarity.view(np.float64).tolist())


def _job(corpus: Corpus, part: int, parts: int) -> dict[str, Any]:
    return {"work": str(corpus.work), "part": part, "parts": parts, "size": 1}


def _questions(
    corpus: Corpus, kind: str, masks: str, engine: Engine, asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A job for each range of hashes, with what its answer is made from and where it will lie."""
    parts = corpus.parts(kind, engine)
    output_name = "stretches" if kind == "passages" else "signatures"
    code = code_behind("text/copies/corpus.py")
    made_from = fingerprint(kind, corpus.hash_of(output_name), masks, parts, dict(asked), code)
    name = f"{kind}-{asked['round']}" if "round" in asked else kind
    return [
        _job(corpus, part, parts)
        | {
            "made_from": fingerprint(made_from, part),
            "path": str(_range_path(corpus.work, name, part)),
        }
        | dict(asked)
        for part in range(parts)
    ]


def _range_path(work: Path, name: str, part: int) -> Path:
    return work / "ranges" / f"{name}-{part}.npy"


def _renamed(job: Job) -> dict[str, Any]:
    corpus = Corpus.of(Path(job["work"]))
    found = ids.renamed(corpus.outputs("names"), corpus.shards, job["part"], job["parts"])
    return {"renamed": found}


def _exact(job: Job) -> dict[str, Any]:
    corpus = Corpus.of(Path(job["work"]))

    def write(path: Path) -> None:
        files, kept = corpus.outputs("signatures"), corpus.masks("exact")
        write_edges(path, near_dups.exact_copies(files, kept, job["part"], job["parts"]))

    return {"path": str(once(Path(job["path"]), job["made_from"], write).path)}


def _near(job: Job) -> dict[str, Any]:
    corpus = Corpus.of(Path(job["work"]))

    def write(path: Path) -> dict[str, Any]:
        turn = Round(job["round"], *(corpus.masks(name) for name in job["masks"]))
        found = near_dups.find_copies(
            corpus.outputs("signatures"),
            turn,
            corpus.text,
            job["part"],
            job["parts"],
            job["jaccard"],
        )
        write_edges(path, found.edges)
        return {"complete": bool(found.complete)}

    made = once(Path(job["path"]), job["made_from"], write)
    return {"path": str(made.path), **made.notes}


def _repeats(job: Job) -> dict[str, Any]:
    corpus = Corpus.of(Path(job["work"]))

    def write(path: Path) -> None:
        passages.write_repeats(
            path,
            corpus.outputs("stretches"),
            corpus.masks("passages"),
            corpus.text_bytes,
            job["passage_bytes"],
            job["part"],
            job["parts"],
        )

    made = once(Path(job["path"]), job["made_from"], write)
    return {"path": str(made.path), "sha256": made.sha256}


def _cuts(job: Job) -> dict[str, Any]:
    corpus, shard = Corpus.of(Path(job["work"])), job["shard"]
    files = [_range_path(corpus.work, "passages", part) for part in range(job["parts"])]
    path = output(corpus.work, CUTS, corpus.shards[shard])
    made = once(
        path,
        job["made_from"],
        lambda partial: passages.write_cuts(partial, files, shard, corpus.text_bytes),
    )
    return {"sha256": made.sha256}
