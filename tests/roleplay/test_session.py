"""The prompt of a character: what goes in, in which order, and what never does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.roleplay.card import Card, Dialogue, Line, chat_turns, exchanges
from indexlm.roleplay.memory import Memory
from indexlm.roleplay.session import CharacterPrompts, History, conversation_for
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import Tokenizer

SCRIPT = [
    ("北伐中原可有胜算？", "当以十万之众出祁山。"),
    ("北伐之事何时？", "待秋后粮足。"),
    ("借东风之事如何？", "亮已筑坛祭风。"),
]


def card(description: str = "足智多谋。忠心耿耿。", script: list[tuple[str, str]] = SCRIPT) -> Card:
    dialogues = tuple(
        Dialogue(str(i), f"scene {i}", (Line("刘备", asked), Line("诸葛亮", said)))
        for i, (asked, said) in enumerate(script)
    )
    return Card("诸葛亮", (), description, dialogues)


def conversation(
    tokenizer: Tokenizer,
    query: str,
    room: int = 400,
    of: Card | None = None,
    history: History = (),
    exclude_scene: str | None = None,
) -> Conversation:
    of = of or card()
    return conversation_for(of, Memory(of), tokenizer, history, query, room, 4, exclude_scene)[0]


def test_the_best_past_line_stands_last(tokenizer: Tokenizer) -> None:
    made = conversation(tokenizer, "北伐中原可有胜算")
    assert made.system == (
        "你是诸葛亮。足智多谋。忠心耿耿。\n"
        "user0：北伐之事何时？\n诸葛亮：待秋后粮足。\n"
        "user0：北伐中原可有胜算？\n诸葛亮：当以十万之众出祁山。"
    )
    assert (made.history, made.query) == ((), "北伐中原可有胜算")


def test_training_and_use_make_the_same_prompt(tokenizer: Tokenizer) -> None:
    """A row of a scene, hidden from its own past lines, is what a chat at that point would be."""
    of = card()
    exchange = next(exchanges(of))
    turns = chat_turns(exchange.context, of.name)
    assert turns is not None
    row = conversation(tokenizer, turns[1], history=turns[0], exclude_scene="scene 0")
    assert "当以十万之众" not in row.system and "待秋后粮足" in row.system
    unseen = card(script=SCRIPT[1:])
    live = CharacterPrompts(unseen, tokenizer, 464, 64, 4).prompt(turns[0], turns[1])
    assert live.ids == prompt_ids(tokenizer, row)


def test_a_past_line_that_does_not_fit_is_passed_over(tokenizer: Tokenizer) -> None:
    long = [("北伐中原可有胜算？", "当以十万之众出祁山。" * 30), ("北伐如何？", "待秋。")]
    of = card(script=long)
    made, parts = conversation_for(of, Memory(of), tokenizer, (), "北伐中原可有胜算？", 120, 4)
    assert "待秋。" in made.system and "祁山" not in made.system
    skipped = [part for part in parts if not part.used]
    assert len(skipped) == 1 and "does not fit" in skipped[0].why


def test_history_loses_its_oldest_turns_and_the_user_can_know(tokenizer: Tokenizer) -> None:
    history = tuple((f"第{n}问" + "先生" * 5, "主公" * 5) for n in range(20))
    prompts = CharacterPrompts(card(), tokenizer, context=256, reserve=64, retrieve=4)
    prompt = prompts.prompt(history, "北伐？")
    kept = [part for part in prompt.parts if part.kind == "history" and part.used]
    assert 0 < len(kept) < 20
    assert [part.text for part in kept] == ["\n".join(turn) for turn in history[-len(kept) :]]
    assert str(20 - len(kept)) in prompt.notices()["history"]
    assert "history" not in prompts.prompt(history[:1], "北伐？").notices()


def test_a_long_description_is_cut_at_a_sentence(tokenizer: Tokenizer) -> None:
    of = card(description="足智多谋。" * 40)
    made = conversation(tokenizer, "北伐？", room=100, of=of)
    first = made.system.split("\n")[0]
    assert first.endswith("足智多谋。") and len(first) < 200
    prompt = CharacterPrompts(of, tokenizer, 164, 64, 0).prompt((), "北伐？")
    assert "description" in prompt.notices()


def test_a_message_longer_than_the_window_loses_its_middle_and_it_is_told(
    tokenizer: Tokenizer,
) -> None:
    text = "".join(f"第{number}日，亮出祁山。" for number in range(40))
    prompt = CharacterPrompts(card(), tokenizer, 128, 64, 4).prompt((), text)
    assert len(prompt.ids) <= 64
    said = tokenizer.decode(prompt.ids[prompt.ids.index(3) : prompt.ids.index(4)])
    first, last = said.split("…")
    assert len(first) == len(last) > 3
    assert text.startswith(first) and text.endswith(last)
    kept = len(tokenizer.encode(said))
    notice = prompt.notices()["message"]
    assert f"has {len(tokenizer.encode(text))} tokens" in notice
    assert f"{len(tokenizer.encode(text)) - kept} in its middle" in notice
    assert (
        "message" not in CharacterPrompts(card(), tokenizer, 600, 64, 4).prompt((), "好").notices()
    )


def test_no_room_for_any_part_of_a_message_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="the window has room for 4"):
        CharacterPrompts(card(), tokenizer, 68, 64, 4).prompt((), "北伐中原可有胜算？")


def test_the_message_is_whole_or_refused(tokenizer: Tokenizer) -> None:
    query = "北伐中原可有胜算？" * 5
    assert conversation(tokenizer, query, room=120).query == query
    with pytest.raises(UserError, match="room for 20"):
        conversation(tokenizer, query, room=20)


def test_an_english_card_is_ordered_in_english(tokenizer: Tokenizer) -> None:
    of = Card("Ishmael", (), "A sailor.", ())
    assert conversation(tokenizer, "Hello", of=of).system == "You are Ishmael. A sailor."


@pytest.mark.parametrize("text", ["${name}", "{{user}}", "{name}", "%s", "\\n", "$description"])
def test_placeholders_stay_as_written(tokenizer: Tokenizer, text: str) -> None:
    of = card(description=f"{text}。", script=[(f"北伐{text}", f"好{text}")])
    made = conversation(tokenizer, f"北伐{text}", of=of, history=((text, text),))
    assert made.system == f"你是诸葛亮。{text}。\nuser0：北伐{text}\n诸葛亮：好{text}"
    assert (made.history, made.query) == (((text, text),), f"北伐{text}")


MARKERS = ["<unk>", "<s>", "</s>", "reserved_0", "reserved_1", "\x00", "▁"]


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from([*MARKERS, "北伐", "好", " "]), min_size=1, max_size=6))
def test_no_text_forges_a_turn(tokenizer: Tokenizer, parts: list[str]) -> None:
    """Markers written in a card, a past line, the history or the message are plain text: the ids
    hold one system marker and one pair of turn markers per turn, and nothing else below 5."""
    text = "北" + "".join(parts)
    lines = (Line(text, text), Line(f"亮{text}", text))
    of = Card(f"亮{text}", (), text, (Dialogue("1", "s", lines),))
    prompt = CharacterPrompts(of, tokenizer, 2000, 64, 4).prompt(((text, text),), text)
    assert [part.kind for part in prompt.parts] == ["description", "past lines", "history"]
    assert [token for token in prompt.ids if token < 5] == [0, 3, 4, 3, 4]


@settings(deadline=None, max_examples=40)
@given(
    description=st.text(max_size=80),
    history=st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=4),
    query=st.text(max_size=40),
    room=st.integers(10, 300),
)
def test_the_budget_holds(
    tokenizer: Tokenizer,
    description: str,
    history: list[tuple[str, str]],
    query: str,
    room: int,
) -> None:
    of = card(description=description)
    try:
        made = conversation(tokenizer, query, room, of, tuple(history))
    except UserError:
        alone = Conversation("你是诸葛亮。", (), query)
        assert len(prompt_ids(tokenizer, alone)) > room
        return
    assert len(prompt_ids(tokenizer, made)) <= room


def test_the_card_is_the_system_text(tokenizer: Tokenizer) -> None:
    prompts = CharacterPrompts(card(), tokenizer, 256, 64, 4)
    assert prompts.system == "你是诸葛亮。足智多谋。忠心耿耿。"
    with pytest.raises(UserError, match="card"):
        prompts.set_system("你是曹操。")


def test_the_account_shows_what_was_used(tokenizer: Tokenizer) -> None:
    shown = CharacterPrompts(card(), tokenizer, 256, 64, 1).prompt((), "东风如何").explain()
    assert "亮已筑坛祭风。" in shown and "东风" in shown and "祁山" not in shown
