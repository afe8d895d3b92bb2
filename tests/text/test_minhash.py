"""Signatures find what is similar as often as they promise, however a corpus is cut."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.text.block import Block
from indexlm.text.copies.minhash import (
    BANDS,
    LEAST_JACCARD,
    RECALL,
    SignatureFile,
    Signatures,
    most_unequal_bits,
    rows_for,
    shingle_sets,
    signatures,
    write_signatures,
)
from indexlm.text.document import Document

LETTERS = {"zh": [chr(code) for code in range(0x4E00, 0x9FA0)], "en": list("etaoinshrdlucmfwyp")}


def signed(texts: list[str], jaccard: float = 0.8, seed: int = 0) -> Signatures:
    return signatures(Block([Document("", text, "", "zh", "") for text in texts]), seed, jaccard)


def joined(parts: list[Signatures]) -> Signatures:
    return Signatures(*(np.concatenate(arrays) for arrays in zip(*parts)))


def written(rng: random.Random, language: str, length: int) -> str:
    return "".join(rng.choices(LETTERS[language], k=length))


def pairs_at(
    rng: random.Random, language: str, shared: int, own: int, count: int
) -> tuple[list[str], list[str]]:
    """Texts with a common beginning: `shared` shingles of both, `own` of each alone."""
    starts = [written(rng, language, shared + 4) for _ in range(count)]
    left, right = (
        [start + mark + written(rng, language, own - 1) for start in starts] for mark in "一二"
    )
    return left, right


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("times", [1, 4, 50])
def test_pairs_at_the_bound_meet_in_a_band_and_pass_the_sketch(language: str, times: int) -> None:
    rng = random.Random(times)
    left, right = (signed(texts) for texts in pairs_at(rng, language, 8 * times, times, 1500))
    meet = (left.keys_NB == right.keys_NB).any(axis=1)
    unequal = np.bitwise_count(left.sketches_NW ^ right.sketches_NW).sum(axis=1)
    assert meet.mean() >= 0.97
    assert (unequal <= most_unequal_bits(0.8)).mean() >= 0.998


def test_unlike_documents_do_not_meet() -> None:
    rng = random.Random(0)
    left, right = (signed(texts) for texts in pairs_at(rng, "zh", 20, 25, 1500))
    meet = (left.keys_NB == right.keys_NB).any(axis=1)
    unequal = np.bitwise_count(left.sketches_NW ^ right.sketches_NW).sum(axis=1)
    assert meet.mean() <= 0.02
    assert (unequal <= most_unequal_bits(0.8)).mean() <= 0.02


@given(st.floats(LEAST_JACCARD, 0.999))
def test_bands_find_pairs_at_any_bound(jaccard: float) -> None:
    rows = rows_for(jaccard)
    assert 1 - (1 - jaccard**rows) ** BANDS >= RECALL


def test_a_lower_bound_than_bands_can_find_is_not_taken() -> None:
    with pytest.raises(AssertionError):
        rows_for(LEAST_JACCARD - 0.01)


texts_of_any_kind = st.text(min_size=1, alphabet=st.characters())


@settings(deadline=None)
@given(st.lists(texts_of_any_kind, min_size=2, max_size=12), st.data())
def test_a_signature_depends_on_the_document_alone(texts: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(texts) - 1))
    whole, parts = signed(texts), joined([signed(texts[:cut]), signed(texts[cut:])])
    for together, apart in zip(whole, parts):
        np.testing.assert_array_equal(together, apart)


def test_seeds_draw_other_hash_functions() -> None:
    texts = [written(random.Random(1), "en", 200)]
    one, other = signed(texts, seed=1), signed(texts, seed=2)
    assert not (one.keys_NB == other.keys_NB).any()
    np.testing.assert_array_equal(one.contents_N2, other.contents_N2)


def test_case_and_white_space_do_not_make_another_text() -> None:
    texts = [
        "The end is near.",
        "the\u3000END\nis near.",
        "The end is nearer.",
        "ΣΊΣΥΦΟΣ",
        "σίσυφος",
    ]
    contents = [tuple(content) for content in signed(texts).contents_N2.tolist()]
    assert contents[0] == contents[1]
    assert len(set(contents[1:4])) == 3


def test_texts_shorter_than_a_shingle_are_like_equal_ones_alone() -> None:
    texts = ["好", "好的", "好 的", "ok", "OK!", " ", "的好", "好的好"]
    keys_NB = signed(texts).keys_NB
    assert (keys_NB[1] == keys_NB[2]).all()
    assert all(len(set(keys_B.tolist())) == 7 for keys_B in keys_NB.T)
    sets = list(shingle_sets(texts))
    assert [len(hashes) for hashes in sets] == [1] * len(texts)
    assert len({int(hashes[0]) for hashes in sets}) == 7


@given(texts_of_any_kind, texts_of_any_kind)
def test_shingles_are_those_of_plain_python(left: str, right: str) -> None:
    plain = [_plain_shingles(text) for text in (left, right)]
    sets = [set(hashes.tolist()) for hashes in shingle_sets([left, right])]
    assert [len(hashes) for hashes in sets] == [len(shingles) for shingles in plain]
    assert len(sets[0] & sets[1]) == len(plain[0] & plain[1])


def _plain_shingles(text: str) -> set[str]:
    folds = {character: [character.casefold(), character.lower()] for character in text}
    key = "".join(
        [*[fold for fold in folds[character] if len(fold) == 1], character][0]
        for character in text
        if not character.isspace() and character != "\0"
    ).ljust(5, "\0")
    return {key[at : at + 5] for at in range(len(key) - 4)}


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_every_document_is_in_one_range_of_each_band(tmp_path: Path, parts: int) -> None:
    rng = random.Random(2)
    blocks = [signed([written(rng, "zh", 30) for _ in range(40)]) for _ in range(3)]
    write_signatures(tmp_path / "shard", blocks)
    file, whole = SignatureFile(tmp_path / "shard"), joined(blocks)
    for band in range(BANDS):
        slices = [file.band(band, part, parts) for part in range(parts)]
        index, keys = (np.concatenate(values) for values in zip(*slices))
        assert sorted(index.tolist()) == list(range(120))
        np.testing.assert_array_equal(keys, np.sort(keys))
        np.testing.assert_array_equal(whole.keys_NB[index, band], keys)
    slices = [file.contents(part, parts) for part in range(parts)]
    index, head, rest = (np.concatenate(values) for values in zip(*slices))
    assert sorted(index.tolist()) == list(range(120))
    np.testing.assert_array_equal(whole.contents_N2[index], np.stack([head, rest], axis=1))
    some = np.array([119, 0, 7, 7])
    np.testing.assert_array_equal(file.rows(some)["sketch"], whole.sketches_NW[some])
    np.testing.assert_array_equal(file.rows(some)["marks"], whole.keys_NB[some] & 0xFFFFFFFF)


def test_a_file_has_the_same_bytes_however_its_shard_was_cut(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [written(rng, "en", 50) for _ in range(30)]
    write_signatures(tmp_path / "whole", [signed(texts)])
    write_signatures(tmp_path / "cut", [signed(texts[:11]), signed(texts[11:])])
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "cut").read_bytes()


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    write_signatures(tmp_path / "shard", [])
    assert all(len(values) == 0 for values in SignatureFile(tmp_path / "shard").contents(0, 1))
