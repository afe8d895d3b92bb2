"""Names become unique, the first of a name keeps it, and the ranges of hashes do not matter."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.text.copies.ids import renamed, write_hashes
from indexlm.text.document import Document
from indexlm.text.shards import write_shard

NAMES = st.lists(
    st.lists(st.sampled_from(["a/x", "a/x#2", "a/x#3", "a/y", "b/x", "a/#2"]), min_size=1),
    min_size=1,
    max_size=4,
)


def reference(names: list[str]) -> list[str]:
    """One after the other, with all names before it at hand."""
    taken: set[str] = set()
    given: list[str] = []
    for name in names:
        repeat, new = 2, name
        while new in taken:
            new, repeat = f"{name}#{repeat}", repeat + 1
        taken.add(new)
        given.append(new)
    return given


def unique(corpus: list[list[str]], parts: int, folder: Path) -> list[str]:
    shards, hashes = [], []
    for number, names in enumerate(corpus):
        shards.append(folder / f"{number}.arrow")
        hashes.append(folder / f"{number}.npy")
        documents = [Document(name, "text", "s", "en", "ordinary") for name in names]
        write_shard(shards[-1], documents, [""] * len(documents))
        write_hashes(hashes[-1], names)
    new = {n: name for part in range(parts) for n, name in renamed(hashes, shards, part, parts)}
    return [
        new.get(shard << 32 | index, name)
        for shard, names in enumerate(corpus)
        for index, name in enumerate(names)
    ]


@settings(deadline=None, max_examples=100)
@given(NAMES, st.sampled_from([1, 3, 8]))
def test_names_are_unique_and_those_of_one_pass(corpus: list[list[str]], parts: int) -> None:
    with TemporaryDirectory() as folder:
        found = unique(corpus, parts, Path(folder))
    assert found == reference([name for names in corpus for name in names])
    assert len(set(found)) == len(found)
