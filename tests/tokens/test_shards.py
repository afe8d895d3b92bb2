"""A tokens folder: every document is found as it was written, and only by its own tokenizer."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from refined import written
from sentencepiece import sentencepiece_model_pb2 as proto

from indexlm.errors import DamagedError, UserError
from indexlm.records import verify
from indexlm.tokens.shards import (
    CATALOGUE,
    Shard,
    group_files,
    labels_of,
    read_shards,
    training_files,
)
from indexlm.tokens.tokenizer import EOS, Tokenizer

TEXTS = {
    "zh_curated": ["春天来了，河边的柳树发出新芽。", "", "🙂"],
    "en_noisy": ["The river was wide.\n\nAnd slow.", "</s><s>reserved_0"],
}


def read_back(shard: Shard, tokenizer: Tokenizer) -> list[str]:
    rows = [shard.ids[start:stop] for start, stop in zip(shard.offsets, shard.offsets[1:])]
    assert all(row[-1] == EOS and (row[:-1] > 4).all() for row in rows)
    return [tokenizer.decode(row[:-1].tolist()) for row in rows]


def test_documents_come_back_one_by_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shards = read_shards(written(TEXTS, tokenizer, tmp_path), tokenizer)
    assert shards.keys() == TEXTS.keys()
    for name, shard in shards.items():
        assert shard.name == name and read_back(shard, tokenizer) == TEXTS[name]
        assert shard.lengths.tolist() == [len(tokenizer.encode(t)) + 1 for t in TEXTS[name]]
        assert shard.offsets[0] == 0 and shard.offsets[-1] == len(shard.ids)


def test_a_document_knows_where_it_came_from(tokenizer: Tokenizer, tmp_path: Path) -> None:
    origins = {"zh_curated": ["almanac", "letters", "almanac"]}
    shards = read_shards(written(TEXTS, tokenizer, tmp_path, origins), tokenizer)
    found = [shards["zh_curated"].origin(document) for document in range(3)]
    assert found == origins["zh_curated"]
    assert shards["en_noisy"].origin(1) == "tales"
    # Made in memory, of no text.
    assert Shard("x", np.zeros(1), np.zeros(2, np.int64)).origin(0) == ""


def test_ids_are_mapped_and_cannot_be_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = read_shards(written(TEXTS, tokenizer, tmp_path), tokenizer)["zh_curated"].ids
    assert isinstance(ids, np.memmap) and ids.dtype == np.uint16
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 7


def with_pieces(tokenizer: Tokenizer, pieces: Sequence[str], path: Path) -> Tokenizer:
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
    for each, dtype in ((large, np.uint32), (fits, np.uint16)):
        folder = written({"zh": ["龘a"]}, each, tmp_path / np.dtype(dtype).name)
        shard = read_shards(folder, each)["zh"]
        assert shard.ids.dtype == dtype and read_back(shard, each) == ["龘a"]


def test_shards_of_another_tokenizer_are_refused_with_both_hashes(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = written(TEXTS, tokenizer, tmp_path)
    other = with_pieces(tokenizer, ["龘"], tmp_path / "other.model")
    with pytest.raises(UserError, match=re.escape(str(folder))) as caught:
        read_shards(folder, other)
    assert tokenizer.fingerprint[:12] in str(caught.value)
    assert other.fingerprint[:12] in str(caught.value)
    assert "indexlm data tokens" in str(caught.value)
    # The same tokenizer is known by its content, wherever it lies.
    copy = with_pieces(tokenizer, [], tmp_path / "copy.model")
    assert read_shards(folder, copy).keys() == TEXTS.keys()


def test_a_folder_of_something_else_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"{tmp_path} holds no tokens")):
        read_shards(tmp_path, tokenizer)


FILES = ["zh_curated.ids", "zh_curated.offsets", "zh_curated.origins", "en_noisy.ids", CATALOGUE]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    folder = written(TEXTS, tokenizer, tmp_path)
    verify(folder)
    content = (folder / name).read_bytes()
    flipped = bytes([content[0] ^ 1]) + content[1:]
    for damage in (flipped, content[:-1], content + b"\0", b"", None):
        (folder / name).unlink()
        if damage is not None:
            (folder / name).write_bytes(damage)
        with pytest.raises(DamagedError, match=re.escape(str(folder / name))):
            verify(folder)
        # Sizes are looked at whenever shards are mapped.
        if name != CATALOGUE and damage != flipped:
            with pytest.raises(DamagedError, match=re.escape(str(folder / name))):
                read_shards(folder, tokenizer)


def test_the_catalogue_says_what_a_source_holds(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = written(TEXTS | {"instruction": []}, tokenizer, tmp_path)
    catalogue = json.loads((folder / CATALOGUE).read_text(encoding="utf-8"))
    assert catalogue["tokenizer"] == tokenizer.fingerprint and catalogue["dtype"] == "uint16"
    for name, texts in TEXTS.items():
        tokens = sum(len(tokenizer.encode(text)) + 1 for text in texts)
        size = sum(len(text.encode()) for text in texts)
        language, tier = name.split("_")
        assert catalogue["sources"][name] == {
            "documents": len(texts),
            "tokens": tokens,
            "bytes": size,
            "language": language,
            "tier": tier,
            "origins": {"tales": {"documents": len(texts), "tokens": tokens}},
        }
    assert catalogue["sources"]["instruction"]["documents"] == 0
    # A source without a document has no row to give.
    assert read_shards(folder, tokenizer).keys() == TEXTS.keys()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("zh_curated", ("zh", "curated")),
        ("code_noisy", ("code", "noisy")),
        ("instruction", (None, None)),
        ("curated", (None, None)),
        ("zh_best", (None, None)),
    ],
)
def test_language_and_tier_stand_in_the_name(
    name: str, labels: tuple[str | None, str | None]
) -> None:
    assert labels_of(name) == labels


def names(groups: Mapping[str, Sequence[Path]]) -> dict[str, list[str]]:
    return {name: [path.name for path in paths] for name, paths in groups.items()}


def test_numbered_files_are_one_source_in_the_order_of_their_names(tmp_path: Path) -> None:
    text = tmp_path / "text"
    (text / "train").mkdir(parents=True)
    for name in (
        *("train/zh_noisy.00001.jsonl.zst", "train/zh_noisy.00000.jsonl.zst"),
        *("train/zh_noisy.00010.jsonl.zst", "train/en_noisy.jsonl.zst", "train/notes.txt"),
        *("instruction.jsonl.zst", "entries.jsonl.zst", "funnel.json"),
    ):
        (text / name).touch()
    train = {
        "en_noisy": ["en_noisy.jsonl.zst"],
        "zh_noisy": [f"zh_noisy.{number:05}.jsonl.zst" for number in (0, 1, 10)],
    }
    assert names(group_files(text / "train")) == train
    assert names(training_files(text)) == train | {"instruction": ["instruction.jsonl.zst"]}
    (text / "instruction.jsonl.zst").unlink()
    assert names(training_files(text)) == train
