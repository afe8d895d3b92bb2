"""A passage stays where it stands first and is cut everywhere else, whatever stands around it."""

import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.text.copies import passages, stretches
from indexlm.text.copies.passages import (
    cut,
    read_cuts,
    whole_words,
    write_cuts,
    write_repeats,
    write_stretches,
)

Shards = list[list[str]]


def without_repeats(shards: Shards, window: int, folder: Path, parts: int = 1, kept=None) -> Shards:
    """All tasks, those of a kind in descending order: none may lean on one before it."""
    kept = kept or [np.ones(len(shard), dtype=bool) for shard in shards]

    def text_bytes(shard: int, document: int) -> bytes:
        return shards[shard][document].encode()

    def files(name: str, count: int) -> list[Path]:
        return [folder / f"{name}-{number}.npy" for number in range(count)]

    stretch_files, cut_files = files("stretches", len(shards)), files("cuts", len(shards))
    repeat_files = files("repeats", parts)
    for shard in reversed(range(len(shards))):
        write_stretches(stretch_files[shard], [t.encode() for t in shards[shard]], window)
    for part in reversed(range(parts)):
        write_repeats(repeat_files[part], stretch_files, kept, text_bytes, window, part, parts)
    result = []
    for shard, texts in enumerate(shards):
        write_cuts(cut_files[shard], repeat_files, shard, text_bytes)
        cuts = read_cuts(cut_files[shard])
        result.append([cut(text, cuts.get(number, [])) for number, text in enumerate(texts)])
    return result


def by_definition(shards: Shards, window: int, kept=None) -> Shards:
    """What should be left: a dictionary of all windows, and no hashes."""
    seen: set[bytes] = set()
    result: Shards = []
    for shard, texts in enumerate(shards):
        result.append([])
        for number, text in enumerate(texts):
            encoded = text.encode()
            covered = np.zeros(len(encoded), dtype=bool)
            for start in range(len(encoded) - window + 1):
                if kept and not kept[shard][number]:
                    break
                piece = encoded[start : start + window]
                covered[start : start + window] |= piece in seen
                seen.add(piece)
            ends = np.cumsum([len(character.encode()) for character in text], dtype=int)
            left = [
                character
                for character, end in zip(text, ends)
                if not covered[end - len(character.encode()) : end].all()
            ]
            result[-1].append("".join(left))
    return result


@st.composite
def corpora(draw: st.DrawFn) -> Shards:
    """Documents of few letters, put together from few pieces; 甲 and 男 share their first byte."""
    alphabet = draw(st.sampled_from(["ab", "甲男", "a甲é"]))
    parts = draw(st.lists(st.text(alphabet, min_size=1, max_size=30), min_size=1, max_size=4))
    parts += [alphabet[0] * 40, alphabet[:2] * 15]
    document = st.lists(st.sampled_from(parts), max_size=6).map("".join)
    return draw(st.lists(st.lists(document, max_size=4), min_size=1, max_size=4))


small = st.fixed_dictionaries(
    {"_BATCH": st.sampled_from([10, 1 << 17]), "_MOST": st.sampled_from([20, 1 << 21])}
)


@given(corpora(), st.integers(16, 40), st.integers(1, 5), small, st.booleans(), st.data())
@settings(max_examples=80, deadline=None)
def test_what_is_left_is_what_the_definition_says(
    tmp_path_factory, shards, window, parts, sizes, all_kept, data
):
    kept = None
    if not all_kept:
        flags = [[data.draw(st.booleans()) for _ in shard] for shard in shards]
        kept = [np.array(flag, dtype=bool) for flag in flags]
    with pytest.MonkeyPatch.context() as patch:
        # So small that tiles, batches and shares of a key end inside of a passage.
        for name, value in sizes.items():
            patch.setattr(passages, name, value)
        patch.setattr(passages, "_READ", 50)
        patch.setattr(passages, "_COMPARED", 3)
        patch.setattr(stretches, "_TILE", 64)
        result = without_repeats(shards, window, tmp_path_factory.mktemp("work"), parts, kept)
    assert result == by_definition(shards, window, kept)


@given(corpora(), st.integers(16, 40))
@settings(max_examples=25, deadline=None)
def test_how_the_work_is_divided_does_not_show(tmp_path_factory, shards, window):
    texts = ["", *(text for shard in shards for text in shard)]
    whole = without_repeats([texts], window, tmp_path_factory.mktemp("whole"))[0]
    each = [[text] for text in texts]
    divided = without_repeats(each, window, tmp_path_factory.mktemp("each"), 7)
    assert [text for shard in divided for text in shard] == whole


def test_files_are_the_same_bytes_again(tmp_path):
    shards = [[page("en", number) for number in range(5)] for _ in range(2)]
    for name, parts in (("a", 1), ("b", 1), ("c", 3)):
        (tmp_path / name).mkdir()
        without_repeats(shards, 200, tmp_path / name, parts)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
        if file.name.startswith("cuts"):
            assert file.read_bytes() == (tmp_path / "c" / file.name).read_bytes()


MONTHS = "December November October September August July June May April March February January"
MENUS = {
    "en": "Select Month " + " ".join(f"{m} {y}" for y, m in product((2021, 2020), MONTHS.split())),
    "zh": "选择月份 "
    + " ".join(f"{year}年{month}月" for year, month in product((2021, 2020), range(12, 0, -1))),
}
WORDS = {
    "en": ["the", "of", "and", "river", "stone", "light"],
    "zh": list("山水人天地日月风云花"),
}


def page(language: str, number: int, size: int = 150) -> str:
    """Text of one line, unlike that of any other number."""
    chooser = random.Random(f"{language} {number}")
    space = " " if language == "en" else ""
    return space.join(chooser.choice(WORDS[language]) for _ in range(size))


def planted(language: str, passage: str, count: int = 40) -> tuple[list[str], list[str]]:
    """Pages with a passage at a random place, and the same pages without it."""
    chooser = random.Random(language)
    with_it, without = [], []
    for number in range(count):
        text = page(language, number)
        place = chooser.randrange(len(text) + 1)
        # A mark of its own on either side: nothing but the passage stands twice.
        mark = chr(ord("!") + number)
        left, right = text[:place] + mark, mark + text[place:]
        with_it.append(left + passage + right)
        without.append(left + right)
    return with_it, without


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_menu_of_months_inside_other_text_is_found(tmp_path, language):
    pages, without = planted(language, MENUS[language])
    # Removing lines or paragraphs that stood before finds nothing: no two are equal.
    pieces = [piece for text in pages for piece in text.splitlines()]
    assert len(set(pieces)) == len(pieces) == len(pages)
    (left,) = without_repeats([pages], 200, tmp_path)
    assert left == [pages[0], *without[1:]]


def test_a_passage_one_byte_short_stays(tmp_path):
    pages, without = planted("en", MENUS["en"][:200])
    assert without_repeats([pages], 200, tmp_path) == [[pages[0], *without[1:]]]
    pages, without = planted("en", MENUS["en"][:199])
    assert without_repeats([pages], 200, tmp_path) == [pages]


def test_the_first_in_the_order_of_the_corpus_stays(tmp_path):
    pages, without = planted("en", MENUS["en"], count=3)
    left = without_repeats([[], [pages[2], pages[0]], [pages[1]]], 200, tmp_path)
    assert left == [[], [pages[2], without[0]], [without[1]]]


def test_a_document_that_is_dropped_takes_nothing_from_others(tmp_path):
    pages, without = planted("zh", MENUS["zh"], count=3)
    kept = [np.array([False, True, True])]
    left = without_repeats([pages], 200, tmp_path, kept=kept)
    assert left == [[pages[0], pages[1], without[2]]]


def test_a_passage_is_found_again_in_its_own_document(tmp_path):
    between = page("en", 1)
    text = f"①{MENUS['en']}②{between}③{MENUS['en']}④"
    assert without_repeats([[text]], 200, tmp_path) == [[f"①{MENUS['en']}②{between}③④"]]


def test_what_differs_between_two_passages_stays(tmp_path):
    first, second = MENUS["en"], MENUS["zh"]
    texts = [
        f"{first}{mark}{page('en', number)[:300]}{mark}{second}" for number, mark in enumerate("#+")
    ]
    middle = texts[1][len(first) : -len(second)]
    assert without_repeats([texts], 200, tmp_path) == [[texts[0], middle]]


def test_windows_do_not_cross_from_document_to_document(tmp_path):
    menu = MENUS["en"]
    shards = [[menu[:150], menu[150:], menu]]
    assert without_repeats(shards, 200, tmp_path) == shards


@pytest.mark.parametrize("shards", [[[]], [[""], ["a", ""]], [[], ["", "甲" * 5], []]])
def test_there_may_be_nothing_to_find(tmp_path, shards):
    assert without_repeats(shards, 200, tmp_path, parts=2) == shards


@pytest.mark.parametrize("word", ["=", "-=", "abc", "0123456789", MENUS["en"][:70]])
def test_long_runs_of_a_word_are_cut_in_bounded_work(tmp_path, word):
    run, short = (word * (size // len(word)) for size in (400_000, 800))
    left = without_repeats([[run], [f"before {run} behind"]], 200, tmp_path)
    assert left == by_definition([[short], [f"before {short} behind"]], 200)
    assert left[0] == [word]
    assert all(file.stat().st_size < 0.5 * len(run) for file in tmp_path.iterdir())


def test_a_passage_that_stands_everywhere_is_cut_share_by_share(tmp_path, monkeypatch):
    monkeypatch.setattr(passages, "_MOST", 1000)
    pages, _ = planted("zh", MENUS["zh"], count=20)
    pages = [f"{number}{text}" for number, text in enumerate(pages * 10)]
    assert without_repeats([pages], 200, tmp_path) == by_definition([pages], 200)


def test_text_is_cut_only_where_the_bytes_are_equal(tmp_path, monkeypatch):
    shards = [planted(language, MENUS[language])[0] for language in MENUS]
    hashes = passages.window_hashes

    def weak(text_B, length, seed):
        found = hashes(text_B, length, seed)
        return found % np.uint64(50) if seed < 3 else found

    monkeypatch.setattr(passages, "window_hashes", weak)
    assert without_repeats(shards, 200, tmp_path) == by_definition(shards, 200)


def test_equal_signatures_are_not_believed(tmp_path):
    shards = [planted(language, MENUS[language])[0] for language in MENUS]
    files = [tmp_path / f"stretches-{number}.npy" for number in range(2)]
    for file, shard in zip(files, shards):
        write_stretches(file, [text.encode() for text in shard], 200)
        rows = np.load(file)
        rows[4] = 7
        np.save(file, rows)
    kept = [np.ones(len(shard), dtype=bool) for shard in shards]

    def text_bytes(shard: int, document: int) -> memoryview:
        return memoryview(shards[shard][document].encode())

    write_repeats(tmp_path / "repeats.npy", files, kept, text_bytes, 200, 0, 1)
    for number, shard in enumerate(shards):
        write_cuts(tmp_path / "cuts.npy", [tmp_path / "repeats.npy"], number, text_bytes)
        cuts = read_cuts(tmp_path / "cuts.npy")
        left = [cut(text, cuts.get(document, [])) for document, text in enumerate(shard)]
        assert left == by_definition(shards, 200)[number]


def test_cut_leaves_what_is_between_the_spans():
    assert cut("零一二三四", [(0, 3), (6, 12)]) == "一四"
    assert cut("as it is", []) == "as it is"
    # A word of which a part stood before stays whole; Han characters are cut apart.
    words = "so many people and years 零一二"
    spans = list(whole_words(words, [(3, 12), (18, 24), (25, 28)]))
    assert cut(words, spans) == "so people and 一二"
    assert list(whole_words(words, [(9, 12)])) == []
    # What stood apart does not touch.
    assert cut("one MENU two", list(whole_words("one MENU two", [(3, 9)]))) == "one two"
    assert cut("all", [(0, 3)]) == ""
