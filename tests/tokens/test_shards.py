"""Shards: every document comes back as it was written, and only to the tokenizer that wrote it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto

from indexlm.errors import DamagedError, UserError
from indexlm.records import publish, verify
from indexlm.tokens.shards import CATALOGUE, Shard, read_shards, write_shards
from indexlm.tokens.tokenizer import EOS, Tokenizer

TEXTS = {
    "zh_curated": ["春天来了，河边的柳树发出新芽。", "", "🙂"],
    "en_noisy": ["The river was wide.\n\nAnd slow.", "</s><s>reserved_0"],
}

documents = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=30),
    max_size=8,
)


def read_back(shard: Shard, tokenizer: Tokenizer) -> list[str]:
    rows = [shard.ids[start:stop] for start, stop in zip(shard.offsets, shard.offsets[1:])]
    assert all(row[-1] == EOS and (row[:-1] > 4).all() for row in rows)
    return [tokenizer.decode(row[:-1].tolist()) for row in rows]


def written(texts: dict[str, list[str]], tokenizer: Tokenizer, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    write_shards(texts, tokenizer, folder, 100)
    return folder


@settings(max_examples=40)
@given(texts=st.dictionaries(st.sampled_from(["zh_curated", "en_noisy", "instruction"]), documents))
def test_documents_come_back_one_by_one(
    tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
    texts: dict[str, list[str]],
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    catalogue = write_shards(texts, tokenizer, folder, 100)
    shards = read_shards(folder, tokenizer)
    # A source without a document has no row to give.
    assert shards.keys() == {name for name, some in texts.items() if some}
    for name, shard in shards.items():
        assert shard.name == name and read_back(shard, tokenizer) == texts[name]
        assert shard.lengths.tolist() == [len(tokenizer.encode(t)) + 1 for t in texts[name]]
        assert shard.offsets[0] == 0 and shard.offsets[-1] == len(shard.ids)
    assert catalogue["sources"] == {
        name: {
            "documents": len(some),
            "tokens": sum(len(tokenizer.encode(text)) + 1 for text in some),
            "bytes": sum(len(text.encode()) for text in some),
        }
        for name, some in texts.items()
    }


def test_more_documents_than_are_encoded_at_a_time_keep_their_order(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    texts = [f"river {number}" for number in range(4321)]
    write_shards({"en": (text for text in texts)}, tokenizer, tmp_path, 100)
    assert read_back(read_shards(tmp_path, tokenizer)["en"], tokenizer) == texts


def test_ids_are_mapped_and_cannot_be_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = read_shards(written(TEXTS, tokenizer, tmp_path), tokenizer)["zh_curated"].ids
    assert isinstance(ids, np.memmap) and ids.dtype == np.uint16
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 7


def with_pieces(tokenizer: Tokenizer, pieces: list[str], path: Path) -> Tokenizer:
    """The tokenizer with pieces put at its end."""
    model = proto.ModelProto.FromString(tokenizer.path.read_bytes())
    for piece in pieces:
        model.pieces.add(piece=piece, score=-1e6, type=1)
    path.write_bytes(model.SerializeToString())
    return Tokenizer(path)


def test_ids_beyond_two_bytes_are_kept_whole(tokenizer: Tokenizer, tmp_path: Path) -> None:
    fillers = [f"filler{number}" for number in range((1 << 16) - tokenizer.vocab_size)]
    fits = with_pieces(tokenizer, fillers, tmp_path / "fits.model")
    large = with_pieces(fits, ["龘"], tmp_path / "large.model")
    assert large.encode("龘") == [1 << 16]
    shard = read_shards(written({"zh": ["龘a"]}, large, tmp_path / "large"), large)["zh"]
    assert shard.ids.dtype == np.uint32 and read_back(shard, large) == ["龘a"]
    shard = read_shards(written({"zh": ["龘a"]}, fits, tmp_path / "fits"), fits)["zh"]
    assert shard.ids.dtype == np.uint16 and read_back(shard, fits) == ["龘a"]


def test_shards_of_another_tokenizer_are_refused_with_both_hashes(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = written(TEXTS, tokenizer, tmp_path / "tokens")
    other = with_pieces(tokenizer, ["龘"], tmp_path / "other.model")
    with pytest.raises(UserError, match=re.escape(str(folder))) as caught:
        read_shards(folder, other)
    assert tokenizer.fingerprint[:12] in str(caught.value)
    assert other.fingerprint[:12] in str(caught.value)
    assert "indexlm data tokens" in str(caught.value)
    # The same tokenizer is known by its content, wherever it lies.
    copy = with_pieces(tokenizer, [], tmp_path / "copy.model")
    assert read_shards(folder, copy).keys() == TEXTS.keys()


def test_the_same_text_gives_the_same_files(tokenizer: Tokenizer, tmp_path: Path) -> None:
    first, second = (written(TEXTS, tokenizer, tmp_path / name) for name in ("first", "second"))
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert json.loads((first / CATALOGUE).read_text())["tokenizer"] == tokenizer.fingerprint


FILES = ["zh_curated.ids", "zh_curated.offsets.npy", "en_noisy.ids", CATALOGUE]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_published_folder_is_named(
    tokenizer: Tokenizer, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "tokens"
    with publish(folder, tokenizer.fingerprint) as made:
        write_shards(TEXTS, tokenizer, made, 100)
    verify(folder)
    content = (folder / name).read_bytes()
    flipped = bytes([content[0] ^ 1]) + content[1:]
    for damage in (flipped, content[:-1], b""):
        (folder / name).write_bytes(damage)
        with pytest.raises(DamagedError, match=re.escape(str(folder / name))):
            verify(folder)
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=re.escape(str(folder / name))):
        verify(folder)
