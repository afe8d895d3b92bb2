"""Copies are found, and texts that merely resemble each other are not taken for copies."""

import random
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.text.block import Block
from indexlm.text.copies.minhash import Signatures, signatures, write_signatures
from indexlm.text.copies.near_dups import (
    Edges,
    Found,
    Round,
    exact_copies,
    find_copies,
    resolve,
    settle,
    without,
)
from indexlm.text.document import Document

WORDS = {
    "zh": list(
        "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水"
        "玉出昆冈剑号巨阙珠称夜光果珍李柰菜重芥姜海咸河淡鳞潜羽翔龙师火帝鸟官人皇始制文字乃服衣裳"
    ),
    "en": [
        a + b + c for a in ("br", "t", "sp", "l", "") for b in "aeiou" for c in ("nd", "st", "r")
    ],
}
GAP = {"zh": "", "en": " "}


class Corpus:
    """Texts in shards on disk; cut, searched and put together as a run would."""

    def __init__(self, folder: Path, texts: Sequence[str], cuts: Iterable[int] = ()) -> None:
        bounds = sorted({0, *cuts, len(texts)})
        self.shards = [list(texts[start:end]) for start, end in pairwise(bounds)]
        self.files = [folder / f"{number}.arrow" for number in range(len(self.shards))]
        for file, shard in zip(self.files, self.shards):
            half = (len(shard) + 1) // 2
            write_signatures(file, [signed(part) for part in (shard[:half], shard[half:]) if part])
        self.kept = [np.ones(len(shard), dtype=bool) for shard in self.shards]
        self.texts_read = 0
        self.rounds = 0

    def text(self, shard: int, index: int) -> str:
        self.texts_read += 1
        return self.shards[shard][index]

    def near(self, jaccard: float = 0.8, order: Sequence[int] = (0,)) -> dict[int, int]:
        """Dropped document to the one it is dropped for, by place in the corpus. `order` is that
        in which the parts are worked on."""

        def search(turn: Round) -> Iterable[Found]:
            self.rounds += 1
            for part in order:
                yield find_copies(self.files, turn, self.text, part, len(order), jaccard)

        return self.places(settle(self.kept, search))

    def exact(self, parts: int = 1) -> dict[int, int]:
        edges = [exact_copies(self.files, self.kept, part, parts) for part in range(parts)]
        return {later: first for part in edges for later, first in self.places(part).items()}

    def places(self, edges: Edges) -> dict[int, int]:
        before = [0, *accumulate(len(shard) for shard in self.shards)]
        earlier, later = (
            [before[number >> 32] + (number & 0xFFFFFFFF) for number in numbers.tolist()]
            for numbers in (edges.earlier_E, edges.later_E)
        )
        return dict(zip(later, earlier))


def signed(texts: Sequence[str], jaccard: float = 0.8) -> Signatures:
    return signatures(Block([Document("", text, "", "zh", "") for text in texts]), 0, jaccard)


def jaccard(left: str, right: str) -> float:
    """The true similarity, by plain sets of five-character shingles."""
    keys = ["".join(text.split()).casefold() for text in (left, right)]
    sets = [{key[at : at + 5] for at in range(len(key) - 4)} for key in keys]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def written(rng: random.Random, language: str, words: int) -> str:
    return GAP[language].join(rng.choices(WORDS[language], k=words))


def edited(rng: random.Random, language: str, text: str, edits: int) -> str:
    """`edits` times a character, a word or a sentence is put in, taken out or replaced."""
    for _ in range(edits):
        new = rng.choice(["x", *([written(rng, language, n) for n in (1, 1, 12)])])
        start = rng.randrange(len(text))
        end = start if rng.random() < 0.33 else start + len(new)
        text = text[:start] + (new if rng.random() < 0.66 else "") + text[end:]
    return text or new


@pytest.mark.parametrize("language", ["zh", "en"])
def test_planted_copies_are_found_and_nothing_else(tmp_path: Path, language: str) -> None:
    rng = random.Random(1)
    originals = [written(rng, language, rng.randint(12, 300)) for _ in range(1200)]
    copies = [
        edited(rng, language, text, rng.randint(1, 1 + len(text) // 60)) for text in originals
    ]
    texts = originals + copies
    dropped = Corpus(tmp_path, texts, [700, 1500]).near(order=(1, 0))
    true = [jaccard(original, copy) for original, copy in zip(originals, copies)]
    for low, high, least in ((0.8, 0.85, 0.95), (0.85, 1.01, 0.99)):
        similar = [i for i in range(1200) if low <= true[i] < high]
        assert len(similar) > 100
        assert sum(dropped.get(1200 + i) == i for i in similar) >= least * len(similar)
    assert all(jaccard(texts[first], texts[later]) >= 0.8 for later, first in dropped.items())
    assert sum(similarity < 0.8 for similarity in true) > 100


@pytest.mark.parametrize("language", ["zh", "en"])
def test_half_alike_is_not_a_copy(tmp_path: Path, language: str) -> None:
    rng = random.Random(2)
    shared = written(rng, language, 60)
    texts = [shared + written(rng, language, 60) for _ in range(300)]
    assert Corpus(tmp_path, texts).near() == {}


def test_short_entries_of_one_template_are_not_copies(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [
        f"成语“{written(rng, 'zh', 4)}”：形容{written(rng, 'zh', 9)}。"
        f"出自古书《{written(rng, 'zh', 3)}》，多用于书面语。"
        for _ in range(600)
    ]
    again = texts[5].replace("。出自古书", "，出自古书")
    assert jaccard(texts[5], again) < 0.8 < jaccard(texts[6], texts[6] + "。")
    dropped = Corpus(tmp_path, [*texts, again, texts[6] + "。"]).near()
    assert dropped == {601: 6}


def test_texts_shorter_than_a_shingle_are_near_only_when_equal(tmp_path: Path) -> None:
    texts = ["好", "好", "好的", "ok", "OK", "ok!", "一二三四五", "一二三四六"]
    assert Corpus(tmp_path, texts).near() == {1: 0, 4: 3}


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_exact_copies_keep_the_first(tmp_path: Path, parts: int) -> None:
    texts = ["The end.", "别的", "the\nEND.", "The end", "別的", "别 的", "THE END."]
    corpus = Corpus(tmp_path, texts, [2, 3])
    assert corpus.exact(parts) == {2: 0, 5: 1, 6: 0}
    corpus.kept[0][0] = False
    assert corpus.exact(parts) == {5: 1, 6: 2}


def test_there_are_no_chains(tmp_path: Path) -> None:
    rng = random.Random(4)
    first = written(rng, "zh", 200)
    second = first[:190] + written(rng, "zh", 10)
    third = second[15:] + written(rng, "zh", 15)
    assert min(jaccard(first, second), jaccard(second, third)) >= 0.8 > jaccard(first, third)
    assert Corpus(tmp_path, [first, second, third]).near() == {1: 0}
    assert Corpus(tmp_path, [second, first, third]).near() == {1: 0, 2: 0}


def test_what_is_gone_already_neither_stays_nor_drops(tmp_path: Path) -> None:
    rng = random.Random(5)
    text = written(rng, "en", 80)
    corpus = Corpus(tmp_path, [text, text + " a", text + " b", text + " c"])
    corpus.kept[0][[0, 2]] = False
    assert corpus.near() == {3: 1}


@pytest.mark.parametrize("strangers", [0, 20])
def test_many_copies_of_a_page_take_about_linear_work(tmp_path: Path, strangers: int) -> None:
    """Also where the first of the buckets are pages that have a part of it, but are not copies."""
    rng = random.Random(6)
    page = written(rng, "en", 200)
    half = page[: len(page) // 2]
    texts = [half + written(rng, "en", 100) for _ in range(strangers)]
    texts += [f"{page} seen {rng.randrange(10**9)} times" for _ in range(2000)]
    corpus = Corpus(tmp_path, texts, [800])
    assert corpus.near() == dict.fromkeys(range(strangers + 1, strangers + 2000), strangers)
    assert corpus.texts_read < 3 * len(texts)
    assert corpus.rounds <= 3


def one_pass(texts: Sequence[str]) -> set[int]:
    """What is dropped if each text in turn is compared with all kept ones it shares a key with."""
    keys = signed(texts).keys_NB
    dropped: set[int] = set()
    for later in range(len(texts)):
        met = np.flatnonzero((keys[:later] == keys[later]).any(axis=1)).tolist()
        if any(jaccard(texts[i], texts[later]) >= 0.8 for i in met if i not in dropped):
            dropped.add(later)
    return dropped


@st.composite
def related_texts(draw: st.DrawFn) -> list[str]:
    """Versions of versions of a few texts: long chains and large buckets."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    texts = [written(rng, "zh", 60) for _ in range(draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(1, 50))):
        source = rng.choice(texts)
        start = rng.randrange(len(source))
        texts.append(source[:start] + written(rng, "zh", rng.randint(1, 5)) + source[start + 3 :])
    rng.shuffle(texts)
    return texts


@settings(deadline=None, max_examples=25)
@given(related_texts(), st.data())
def test_result_is_that_of_one_pass_however_the_work_is_cut(
    texts: list[str], data: st.DataObject
) -> None:
    results = []
    for parts in (1, 3, 8):
        cuts = data.draw(st.sets(st.integers(1, len(texts)), max_size=4))
        order = data.draw(st.permutations(range(parts)))
        with TemporaryDirectory() as folder:
            results.append(Corpus(Path(folder), texts, cuts).near(order=order))
    assert results[0] == results[1] == results[2]
    assert results[0].keys() == one_pass(texts)
    for later, first in results[0].items():
        assert first < later and first not in results[0]
        assert jaccard(texts[first], texts[later]) >= 0.8


def test_a_document_that_comes_back_is_compared_again() -> None:
    """3 is dropped for 2, and 2 then for 0; only now is it worth a comparison of 3 with 1."""
    answers = {
        (True, True, True, True): Found(edges_of((2, 3)), False),
        (True, True, True, False): Found(edges_of((0, 2)), True),
        (True, True, False, True): Found(edges_of((1, 3)), True),
    }
    found = settle([np.ones(4, dtype=bool)], lambda turn: [answers[tuple(turn.kept[0].tolist())]])
    assert dict(zip(found.later_E.tolist(), found.earlier_E.tolist())) == {2: 0, 3: 1}


def edges_of(*pairs: tuple[int, int]) -> Edges:
    earlier, later = (np.array(numbers) for numbers in zip(*pairs))
    return Edges(earlier, later, np.full(len(pairs), 0.9))


def test_edges_resolve_in_any_order() -> None:
    pairs = [(1, 5), (0, 1), (5, 6), (2, 6), (6, 7), (4, 7), (3, 4)]
    for seed in range(5):
        random.Random(seed).shuffle(pairs)
        found = resolve([edges_of(*pairs[:3]), edges_of(*pairs[3:])])
        assert dict(zip(found.later_E.tolist(), found.earlier_E.tolist())) == {1: 0, 4: 3, 6: 2}
    assert resolve([]).later_E.size == 0


def test_masks_lose_the_dropped_documents() -> None:
    kept = [np.array([True, True]), np.array([False, True, True])]
    left = without(kept, edges_of((0, 1), (0, 1 << 32 | 2)))
    assert [mask.tolist() for mask in left] == [[True, False], [False, True, False]]
    assert kept[0].all()
