"""Speakers of quoted lines in classical prose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.roleplay.card import Line
from indexlm.roleplay.novel import MAX_NARRATION, dialogues_of_novel


def lines_of(text: str, people: dict[str, tuple[str, ...]] | None = None) -> list[Line]:
    chapters = [("第一回", text)]
    dialogues = (
        dialogues_of_novel(chapters) if people is None else dialogues_of_novel(chapters, people)
    )
    return [line for dialogue in dialogues for line in dialogue.lines]


@pytest.mark.parametrize(
    ("sentence", "speaker"),
    [
        ("孔明笑曰：“甲。”", "诸葛亮"),
        ("玄德屏人促席而告曰：“甲。”", "刘备"),
        ("张飞大怒，谓云长曰：“甲。”", "张飞"),
        ("刘璋听罢，大怒曰：“甲。”", "刘璋"),
        ("玄德问孔明曰：“甲。”", "刘备"),
        ("云火急上马，正迎着蔡瑁，急问曰：“甲。”", "赵云"),
        ("吕布引数百骑往门外，呼王允曰：“甲。”", "吕布"),
        ("主簿左咸曰：“甲。”", "左咸"),
        ("时乃唤马岱、魏延分付曰：“甲。”", ""),
        ("忽一人应声而出曰：“甲。”", "一人"),
        ("众将皆曰：“甲。”", "众将"),
        ("叹曰：“甲。”", ""),
    ],
)
def test_the_subject_before_the_saying_verb_speaks(sentence: str, speaker: str) -> None:
    assert lines_of(sentence) == [Line(speaker, "甲。")]


def test_a_given_name_is_completed_by_the_nearest_full_name() -> None:
    text = "却说公孙瓒引兵来。瓒曰：“甲。”后公孙越至。越曰：“乙。”"
    assert [line.speaker for line in lines_of(text)] == ["公孙瓒", "公孙越"]


def test_names_are_learned_from_the_text_itself() -> None:
    """木子 is in no table: two plain uses teach it, and the third, elaborate one finds it."""
    text = "木子曰：“甲。”木子笑曰：“乙。”木子登楼远望良久曰：“丙。”"
    assert [line.speaker for line in lines_of(text, people={})] == ["木子"] * 3
    once = "木子登楼远望良久曰：“丙。”"
    assert [line.speaker for line in lines_of(once, people={})] == [""]


def test_a_courtesy_name_is_learned_where_the_text_gives_it() -> None:
    text = "时有会稽阚泽，字德润；众人敬之。德润曰：“甲。”"
    assert lines_of(text, people={}) == [Line("阚泽", "甲。")]


@pytest.mark.parametrize(
    "text",
    [
        "后人有诗叹曰：“甲。”",
        "其书略曰：“甲。”",
        "操暗忖：“甲。”",
        "众皆称为“水镜先生”。",
        "没有引号的一段话。",
        "孔明曰：“没有关上的引号",
        "",
    ],
)
def test_what_nobody_says_aloud_is_no_line(text: str) -> None:
    assert lines_of(text) == []


def test_the_same_speaker_goes_on_after_his_own_words() -> None:
    text = "孔明曰：“甲。”又曰：“乙。”"
    assert [line.speaker for line in lines_of(text)] == ["诸葛亮", "诸葛亮"]


@pytest.mark.parametrize(("narration", "dialogues"), [(MAX_NARRATION - 10, 1), (250, 2)])
def test_long_narration_ends_a_dialogue(narration: int, dialogues: int) -> None:
    text = "孔明曰：“甲。”" + "风" * narration + "。玄德曰：“乙。”"
    assert len(dialogues_of_novel([("第一回", text)])) == dialogues


def test_a_chapter_ends_a_dialogue_and_scenes_are_told_apart() -> None:
    chapters = [("第一回", "孔明曰：“甲。”"), ("第二回", "孔明曰：“乙。”")]
    dialogues = dialogues_of_novel(chapters)
    assert len({dialogue.scene for dialogue in dialogues}) == len(dialogues) == 2


@given(st.text(alphabet="孔明操曰笑：，。“”「」又答\n ——、之", max_size=80))
def test_any_arrangement_of_the_marks_is_read_without_an_error(text: str) -> None:
    for line in lines_of(text):
        assert line.text in text
