"""Retrieval of past lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.roleplay.card import Card, Dialogue, Line
from indexlm.roleplay.memory import Memory, terms_of

SCRIPT = [
    ("北伐中原可有胜算？", "当以十万之众出祁山。"),
    ("借东风之事如何？", "亮已筑坛祭风。"),
    ("Where is the harbour?", "East of the old lighthouse."),
]


def card(script: list[tuple[str, str]] = SCRIPT) -> Card:
    dialogues = tuple(
        Dialogue(str(i), f"scene {i}", (Line("备", asked), Line("亮", said)))
        for i, (asked, said) in enumerate(script)
    )
    return Card("亮", (), "", dialogues)


@pytest.mark.parametrize(
    ("query", "reply"),
    [
        ("中原北伐怎样了", 0),
        ("东风几时来", 1),
        ("祭风的坛在哪里", 1),  # found by the words of the reply itself
        ("HARBOUR, please", 2),
    ],
)
def test_the_line_that_speaks_of_it_comes_first(query: str, reply: int) -> None:
    hits = Memory(card()).search([query], 3)
    assert hits[0].reply == SCRIPT[reply][1]
    assert 0 < hits[0].score <= 1 + 1e-9
    assert hits[0].matched_terms
    assert hits == sorted(hits, key=lambda hit: -hit.score)


def test_a_scene_can_be_hidden() -> None:
    memory = Memory(card())
    assert memory.search(["北伐中原"], 1)[0].dialogue_index == 0
    assert all(hit.dialogue_index != 0 for hit in memory.search(["北伐中原"], 3, "scene 0"))


def test_nothing_alike_is_nothing_found() -> None:
    memory = Memory(card())
    assert memory.search(["zebra"], 3) == []
    assert memory.search([""], 3) == memory.search([], 3) == memory.search(["北伐"], 0) == []
    assert Memory(Card("亮", (), "", ())).search(["北伐"], 3) == []


def test_the_newest_line_weighs_most() -> None:
    memory = Memory(card())
    assert memory.search(["北伐中原", "东风之事"], 1)[0].dialogue_index == 1
    assert memory.search(["东风之事", "北伐中原"], 1)[0].dialogue_index == 0


def test_equal_scores_keep_the_order_of_the_script() -> None:
    memory = Memory(card([("北伐", "甲"), ("北伐", "乙"), ("北伐", "丙")]))
    assert [hit.reply for hit in memory.search(["北伐"], 3)] == ["甲", "乙", "丙"]


def test_other_names_are_replaced_and_do_not_find() -> None:
    dialogue = Dialogue("1", "s", (Line("关羽", "来"), Line("", "去"), Line("亮", "好")))
    memory = Memory(Card("亮", (), "", (dialogue,)))
    assert memory.search(["来"], 1)[0].context == (Line("user0", "来"), Line("user1", "去"))
    assert memory.search(["关羽 user0"], 1) == []


def test_terms_are_characters_pairs_and_words() -> None:
    assert list(terms_of("出祁山，Tom's 2!")) == ["出", "祁", "山", "出祁", "祁山", "tom", "s", "2"]


@given(st.lists(st.text(max_size=30), max_size=4), st.integers(0, 5))
def test_any_query_is_answered(lines: list[str], k: int) -> None:
    assert len(Memory(card()).search(lines, k)) <= k
