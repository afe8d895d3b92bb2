"""Dialogues from files people really have, and the card of one speaker."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.roleplay.card import Dialogue, Line
from indexlm.roleplay.create import _script_lines, create_card, read_dialogues

HEADER = "编号,对话\n"


def script(tmp_path: Path, text: str, name: str = "script.csv", encoding: str = "utf-8") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_csv_row_is_a_dialogue_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    text = HEADER + '1,"甲：你好\r\n乙:你也好"\r\n2,"甲：再见"\r\n'
    dialogues = read_dialogues(script(tmp_path, text, encoding=encoding))
    assert [dialogue.lines for dialogue in dialogues] == [
        (Line("甲", "你好"), Line("乙", "你也好")),
        (Line("甲", "再见"),),
    ]


def test_narration_is_kept_and_bad_rows_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = HEADER + '1,"（雨夜）\n甲：你好"\n2\n\n4,没有人说话\n5,甲：12:30 见\n'
    with caplog.at_level(logging.WARNING, logger="indexlm"):
        dialogues = read_dialogues(script(tmp_path, text))
    assert dialogues[0].lines == (Line("", "（雨夜）"), Line("甲", "你好"))
    assert dialogues[1].lines == (Line("甲", "12:30 见"),)
    assert "2 of its rows" in caplog.text and "3, 5" in caplog.text


def test_a_csv_without_a_header_loses_nothing(tmp_path: Path) -> None:
    assert len(read_dialogues(script(tmp_path, "1,甲：一\n2,甲：二\n"))) == 2


@pytest.mark.parametrize(
    "line", ["12:30 见", "https://example.org", "他说，好：的。", "孔明曰：“愿。”"]
)
def test_a_colon_alone_makes_no_speaker(line: str) -> None:
    assert _script_lines(line) == (Line("", line),)


def test_jsonl_turns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = {"turns": [{"speaker": "甲", "text": "你好"}, {"text": "风声"}]}
    half = '{"turns": [{"speaker": "甲", "text": "\\ud800"}]}'
    rows = [json.dumps(good, ensure_ascii=False), "{", '{"turns": [3]}', "[]", half, ""]
    with caplog.at_level(logging.WARNING, logger="indexlm"):
        dialogues = read_dialogues(script(tmp_path, "\n".join(rows), "script.jsonl"))
    assert [dialogue.lines for dialogue in dialogues] == [(Line("甲", "你好"), Line("", "风声"))]
    assert "2, 3, 4, 5" in caplog.text


def test_txt_script_and_txt_novel(tmp_path: Path) -> None:
    as_script = read_dialogues(script(tmp_path, "甲：一\n乙：二\n\n甲：三\n", "a.txt"))
    assert [len(dialogue.lines) for dialogue in as_script] == [2, 1]
    novel = "第一回 相见\n却说孔明曰：“甲。”\n第二回 再见\n玄德曰：“乙。”\n"
    as_novel = read_dialogues(script(tmp_path, novel, "b.txt"))
    assert [line.speaker for each in as_novel for line in each.lines] == ["诸葛亮", "刘备"]
    assert as_novel[1].scene.startswith("第二回 再见")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", "编号,对话\n".encode()),
        ("a.csv", b"\xff\xfe\x00\x01"),
        ("a.csv", b'1,"' + b"x" * 200_000),
        ("a.jsonl", b"{}\n"),
        ("a.txt", "一段没有对话的文字。".encode()),
        ("a.docx", b"PK"),
        ("missing.csv", None),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_dialogues(path)
    assert str(path) in str(error.value)


@given(st.text(max_size=60))
def test_no_script_text_is_an_error(text: str) -> None:
    for line in _script_lines(text):
        assert line.text.strip()


def dialogue(number: int, *lines: tuple[str, str]) -> Dialogue:
    return Dialogue(str(number), f"scene {number}", tuple(Line(*line) for line in lines))


def test_a_card_holds_the_dialogues_of_its_character_under_one_name() -> None:
    dialogues = [
        dialogue(1, ("玄德", "先生"), ("孔明", "主公")),
        dialogue(2, ("玄德", "云长")),
        dialogue(3, ("诸葛亮", "好")),
        dialogue(4, ("玄德", "先生"), ("孔明", "主公")),
    ]
    card = create_card(" 诸葛亮 ", dialogues, " 军师 ", aliases=("孔明", "诸葛亮"))
    assert (card.name, card.aliases, card.description) == ("诸葛亮", ("孔明",), "军师")
    assert [each.id for each in card.dialogues] == ["1", "3"]  # 4 repeats 1
    assert card.dialogues[0].lines[1] == Line("诸葛亮", "主公")


def test_a_name_nobody_has_lists_who_speaks() -> None:
    dialogues = [dialogue(1, ("诸葛孔明", "主公"), ("玄德", "先生"), ("玄德", "请"))]
    with pytest.raises(UserError, match=r"孔明.*诸葛孔明 \(1\), 玄德 \(2\)"):
        create_card("孔明", dialogues, "")


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "长" * 41])
def test_a_name_is_one_short_line(name: str) -> None:
    with pytest.raises(UserError, match="name"):
        create_card(name, [dialogue(1, ("a", "b"))], "")
