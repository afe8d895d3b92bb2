"""Copies are found, and texts that merely resemble each other are not taken for copies."""

import random

import pytest

from indexlm.text.near_dups import exact_duplicates, key_text, near_duplicates

ALPHABETS = {
    "zh": "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露"
    "结为霜金生丽水玉出昆冈剑号巨阙珠称夜光果珍李柰菜重芥姜海咸河淡鳞潜羽翔龙师火帝鸟官人皇始制文字乃服衣裳推位让国",
    "en": "abcdefghijklmnopqrstuvwxyz" * 3 + " " * 15,
}


def jaccard(left: str, right: str) -> float:
    """The true similarity, by plain sets of five-character shingles."""
    sets = []
    for text in (key_text(left), key_text(right)):
        sets.append({text[at : at + 5] for at in range(len(text) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def written(rng: random.Random, language: str, length: int) -> str:
    return "".join(rng.choices(ALPHABETS[language], k=length))


def changed(rng: random.Random, language: str, text: str, places: int) -> str:
    characters = list(text)
    for at in rng.sample(range(len(characters)), places):
        characters[at] = rng.choice(ALPHABETS[language])
    return "".join(characters)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_planted_copies_are_found_and_nothing_else(language: str) -> None:
    rng = random.Random(1)
    originals = [written(rng, language, rng.randint(40, 600)) for _ in range(700)]
    copies = []
    for index in range(400):
        copy = changed(rng, language, originals[index], rng.randint(0, len(originals[index]) // 60))
        copies.append(copy)
    firsts = near_duplicates(originals + copies, 0.8, seed=0)
    assert firsts[:700] == list(range(700))
    similar = [i for i in range(400) if jaccard(originals[i], copies[i]) >= 0.85]
    found = [i for i in similar if firsts[700 + i] == i]
    assert len(similar) > 200
    assert len(found) >= 0.95 * len(similar)
    dropped = [i for i in range(400) if firsts[700 + i] != 700 + i]
    assert all(jaccard(originals[i], copies[i]) >= 0.8 for i in dropped)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_half_alike_is_not_a_copy(language: str) -> None:
    rng = random.Random(2)
    shared = written(rng, language, 200)
    texts = [shared + written(rng, language, 200) for _ in range(300)]
    assert near_duplicates(texts, 0.8, seed=0) == list(range(300))


def test_short_texts_are_exact() -> None:
    texts = ["好", "好", "好的", "", "", "ok", "OK", "ok!", "一二三四五", "一二三四六"]
    assert near_duplicates(texts, 0.8, seed=0) == [0, 0, 2, 3, 3, 5, 5, 7, 8, 9]


def test_case_and_spaces_do_not_make_another_text() -> None:
    texts = ["The end is near.", "the  end\nis near.", "The end is nearer."]
    assert exact_duplicates(texts) == [0, 0, 2]


def test_groups_follow_chains_and_keep_the_first() -> None:
    rng = random.Random(3)
    chain = [written(rng, "zh", 400)]
    for _ in range(6):
        chain.append(changed(rng, "zh", chain[-1], 8))
    assert jaccard(chain[0], chain[-1]) < 0.8
    other = written(rng, "zh", 400)
    assert near_duplicates([other, *chain], 0.8, seed=0) == [0] + [1] * 7


def test_many_copies_of_one_text_are_one_group() -> None:
    rng = random.Random(4)
    text = written(rng, "en", 300)
    texts = [changed(rng, "en", text, 2) for _ in range(200)]
    assert near_duplicates(texts, 0.8, seed=0) == [0] * 200
