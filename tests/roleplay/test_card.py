"""A script's lines as replies and as chat turns."""

from indexlm.roleplay.card import Card, Dialogue, Line, chat_turns, exchanges


def test_neighbouring_lines_of_the_character_are_one_reply() -> None:
    lines = (
        Line("亮", "一"),
        Line("备", "二"),
        Line("亮", "三"),
        Line("亮", "四"),
        Line("", "五"),
    )
    card = Card("亮", (), "", (Dialogue("1", "s", lines),))
    assert [(each.context, each.reply) for each in exchanges(card)] == [
        ((), "一"),
        ((Line("亮", "一"), Line("备", "二")), "三\n四"),
    ]


def test_turns_alternate_whatever_the_script_does() -> None:
    context = (
        Line("亮", "零"),
        Line("备", "一"),
        Line("飞", "二"),
        Line("亮", "三"),
        Line("", "四"),
    )
    assert chat_turns(context, "亮") == ((("一\n二", "三"),), "四")


def test_a_crowd_is_cut_to_its_last_words() -> None:
    crowd = tuple(Line(f"甲{n}", str(n)) for n in range(9))
    assert chat_turns((*crowd, Line("亮", "好"), *crowd), "亮") == ((("7\n8", "好"),), "7\n8")


def test_nobody_spoke_nothing_to_answer() -> None:
    assert chat_turns((), "亮") is None
    assert chat_turns((Line("亮", "一"),), "亮") is None
