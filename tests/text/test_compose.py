"""Instruction records say what the entry says; test entries do not give their word away."""

import pytest

from indexlm.text.document import Document, Entry
from indexlm.text.writing.compose import held_out_entry, instruction_records

IDIOM = Entry(
    "idiom",
    "画蛇添足",
    ("比喻多此一举。",),
    "语出《战国策》：“为蛇足者，终亡其酒。”",
    "这段话是画蛇添足。",
)


def document(name: str, language: str = "zh", tier: str = "ordinary") -> Document:
    return Document(name, "", name.split("/")[0], language, tier)


def test_an_idiom_gives_explanation_origin_and_example() -> None:
    records = list(instruction_records(document("idiom/画蛇添足"), IDIOM))
    kinds = [record["kind"] for record in records]
    assert kinds == ["idiom_explanation", "idiom_origin", "idiom_example"]
    for record, told in zip(records, ["多此一举", "出自《战国策》", "这段话是画蛇添足"]):
        assert list(record) == ["id", "language", "kind", "system", "history", "query", "response"]
        assert "画蛇添足" in record["query"]
        assert told.removeprefix("出自") in record["response"]
        assert "语出" not in record["response"]
        assert (record["system"], record["history"]) == ("", [])
    assert list(instruction_records(document("idiom/画蛇添足"), IDIOM)) == records


def test_what_is_not_known_is_not_asked() -> None:
    entry = Entry("idiom", "画蛇添足", ("比喻多此一举。",))
    records = list(instruction_records(document("idiom/画蛇添足"), entry))
    assert [record["kind"] for record in records] == ["idiom_explanation"]


@pytest.mark.parametrize("sense", ["见“摘钞”。", "同“欣悦”。", "亦作“酒杯”。"])
def test_a_pointer_to_another_word_is_no_answer(sense: str) -> None:
    assert list(instruction_records(document("word/甲乙"), Entry("word", "甲乙", (sense,)))) == []
    entry = Entry("word", "甲乙", (sense, "第二个意思。"))
    assert len(list(instruction_records(document("word/甲乙"), entry))) == 1


def test_wordings_vary_between_words_and_senses_are_numbered() -> None:
    queries = set()
    for number in range(60):
        entry = Entry("word", f"词{number}", ("甲。", "乙。"))
        [record] = instruction_records(document(f"word/词{number}"), entry)
        queries.add(record["query"].replace(f"词{number}", "词"))
        assert record["response"].endswith("1.甲。2.乙。")
    assert len(queries) == 5


def test_chat_turns_become_replies_with_history_before_them() -> None:
    turns = tuple(f"this is turn number {number} of the talk" for number in range(40))
    entry = Entry("chat", turns=turns)
    records = list(instruction_records(document("chat/1", "en"), entry))
    assert len(records) == 20
    assert 4 < sum(bool(record["history"]) for record in records) < 18
    for index, record in enumerate(records):
        assert (record["query"], record["response"]) == turns[2 * index : 2 * index + 2]
        if record["history"]:
            said = [turn for pair in record["history"] for turn in pair]
            assert tuple(said) == turns[2 * index - len(said) : 2 * index]


@pytest.mark.parametrize(
    ("tier", "reply"), [("noisy", "a reply that is long enough to keep"), ("ordinary", "haha")]
)
def test_badly_rated_talk_and_empty_replies_are_left_out(tier: str, reply: str) -> None:
    entry = Entry("chat", turns=("how was your day today?", reply))
    assert list(instruction_records(document("chat/1", "en", tier), entry)) == []


def test_a_held_out_entry() -> None:
    assert held_out_entry(document("idiom/画蛇添足"), IDIOM) == {
        "id": "idiom/画蛇添足",
        "kind": "idiom",
        "word": "画蛇添足",
        "explanation": "比喻多此一举。",
    }


@pytest.mark.parametrize(
    "senses",
    [
        ("短。",),
        ("这是第一个意思。", "这是第二个意思。"),
        ("很长" * 40,),
        ("亦作“百感俱集”，指感触很多。",),
        ("同“百感俱集”，形容人的心情。",),
        ("各种各样的感触交集在一起。",),
        ("百种感触一齐交到心里。",),
    ],
)
def test_giveaways_and_misfits_are_no_test_entries(senses: tuple[str, ...]) -> None:
    entry = Entry("idiom", "百感交集", senses)
    assert held_out_entry(document("idiom/百感交集"), entry) is None
    plain = Entry("idiom", "百感交集", ("形容心里想到的事情非常多。",))
    assert held_out_entry(document("idiom/百感交集"), plain) is not None
