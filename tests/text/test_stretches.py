"""What is written down of a text finds every pair of equal windows, and is small."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexlm.text.copies import stretches
from indexlm.text.copies.stretches import gram_bytes, stretches_of, window_hashes

pieces = st.lists(st.text("ab", min_size=1, max_size=40), min_size=1, max_size=4)


@st.composite
def texts(draw: st.DrawFn) -> list[bytes]:
    """Documents put together from few pieces, so that windows stand more than once."""
    parts = [*draw(pieces), "ab" * 20, "a" * 50]
    document = st.lists(st.sampled_from(parts), max_size=6).map("".join)
    return [text.encode() for text in draw(st.lists(document, max_size=5))]


@given(texts(), st.integers(16, 40), st.sampled_from([1, 5, 64, 1 << 16]))
@example([b"a" * 50], 16, 1)
@settings(max_examples=150, deadline=None)
def test_equal_windows_lie_in_stretches_that_will_be_compared(documents, window, tile):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "_TILE", tile)
        found = stretches_of(documents, window)
    keys = {}
    different = defaultdict(set)
    for key, document, first, count, signature in zip(*(column.tolist() for column in found)):
        different[key].add((count, signature))
        assert 0 < count <= window + 1
        for start in range(first, first + count):
            assert (document, start) not in keys
            keys[document, start] = (key, first)
    places = defaultdict(list)
    for document, text in enumerate(documents):
        for start in range(len(text) - window + 1):
            places[text[start : start + window]].append((document, start))
    # Every window lies in one stretch.
    assert sorted(keys) == sorted(place for same in places.values() for place in same)
    for same in places.values():
        assert len({keys[place][0] for place in same}) == 1
        stretches_met = {(document, keys[document, start][1]) for document, start in same}
        if len(stretches_met) < len(same):  # two in one stretch
            assert len(different[keys[same[0]][0]]) > 1


def test_the_keys_of_a_window_do_not_depend_on_what_stands_around_it():
    generator = np.random.default_rng(5)
    passage = generator.bytes(300)
    alone = set(stretches_of([passage], 200).keys.tolist())
    between = generator.bytes(70_000) + passage + generator.bytes(90)
    assert alone <= set(stretches_of([b"", between], 200).keys.tolist())
    assert not alone & set(stretches_of([generator.bytes(70_000)], 200).keys.tolist())


@pytest.mark.parametrize("period", [1, 2, 3, 70, 150])
def test_a_run_of_one_character_or_word_makes_few_stretches(period):
    text = np.random.default_rng(period).bytes(period) * (300_000 // period)
    found = stretches_of([text], 200)
    assert len(found.keys) < len(text) / gram_bytes(200) * 1.5
    # And they are mostly copies of each other.
    assert len(set(zip(found.keys.tolist(), found.signatures.tolist()))) < 1000


def test_running_text_makes_a_stretch_for_about_70_bytes():
    text = np.random.default_rng(1).bytes(500_000)
    # Twice the mean of the smaller part of a window, Schleimer et al.: 2 / (200 - 64 + 2).
    assert len(text) / len(stretches_of([text], 200).keys) == pytest.approx(69, rel=0.05)


def test_keys_fill_their_range_evenly():
    keys = stretches_of([np.random.default_rng(2).bytes(1_000_000)], 200).keys
    shares = np.bincount((keys >> np.uint64(61)).astype(int), minlength=8) / len(keys)
    assert shares == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize("length", [8, 16, 20, 64, 200])
def test_pieces_have_one_hash_when_they_are_equal_and_different_ones_else(length):
    text = np.frombuffer(b"abbabaab" * 30 + b"baababba" * 30 + b"abbabaab" * 30, dtype=np.uint8)
    by_piece = defaultdict(set)
    hashes = window_hashes(text, length, seed=3).tolist()
    for start, value in enumerate(hashes):
        by_piece[text[start : start + length].tobytes()].add(value)
    assert len(hashes) == len(text) - length + 1
    assert all(len(values) == 1 for values in by_piece.values())
    assert len(set(hashes)) == len(by_piece)
    assert not set(hashes) & set(window_hashes(text, length, seed=4).tolist())


@pytest.mark.parametrize("window", [15, 60_001])
def test_a_window_outside_the_bounds_is_refused(window):
    with pytest.raises(AssertionError):
        stretches_of([b"a" * 100_000], window)
