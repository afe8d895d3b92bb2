"""Each rule catches what it names and leaves ordinary prose of both languages alone."""

import pytest

from indexlm.config import TextConfig
from indexlm.text.document import Document
from indexlm.text.heuristics import rule_filters

PROSE = {
    "zh": "清晨的集市刚刚醒来，卖豆腐的老人支起木桌，热气从桶里一缕一缕地升上去。"
    "孩子们背着书包跑过石桥，桥下的水很慢，像是还没有睡够。有人在远处喊：“小心脚下！”没有人回头。",
    "en": "The harbour was quiet before the storm. Two men mended a net on the wall and spoke of "
    'nothing in particular; a dog slept between them. "It will blow tonight," said the older one, '
    "and the other nodded without looking up from his work.",
}


def reasons(text: str, language: str, **settings: float) -> list[str]:
    document = Document("t/1", text, "t", language, "ordinary")
    filters = rule_filters(TextConfig.model_validate(settings))
    answers = [answer(document) for answer in filters.values()]
    return [answer for answer in answers if answer is not None]


@pytest.mark.parametrize("language", ["zh", "en"])
def test_prose_is_kept(language: str) -> None:
    assert reasons(PROSE[language], language) == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("晨光：1.曙光；阳光。2.比喻希望。", "zh"),
        ("丁（dīng）：1.天干的第四位。2.人口：人丁。", "zh"),
        ("A: Hello?\nB: Hi! :)\nA: haha\nB: haha\nA: So, what do you do?", "en"),
        ("In Beijing, 王 said that x < 5 and y > 3 hold (see p. 12).", "en"),
    ],
)
def test_dictionary_prose_and_talk_are_kept(text: str, language: str) -> None:
    assert reasons(text, language) == []


@pytest.mark.parametrize(
    ("text", "language", "reason"),
    [
        ("短。", "zh", "too_short"),
        ("ok then", "en", "too_short"),
        ("=== ### *** |||| ~~~~ <<<>>> ===== a few words @@@@", "en", "symbols"),
        ("hello!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!", "en", "symbols"),
        ("这是一段 \ufffd\ufffd 坏掉的\ufffd文字，没有办法读下去。", "zh", "broken_characters"),
        ("CafÃ© dÃ©jÃ  vu, itâ€™s all there", "en", "broken_characters"),
        ("鐨勬槸鍦ㄤ簡鎴戜滑鏄竴涓", "zh", "broken_characters"),
        ("数据里有锟斤拷锟斤拷，什么也看不出来。", "zh", "broken_characters"),
        (PROSE["en"], "zh", "wrong_language"),
        (PROSE["zh"], "en", "wrong_language"),
        ("Это совсем другой язык, не тот.", "en", "wrong_language"),
        ("返回首页\n" * 10 + "欢迎光临本站，祝您愉快。", "zh", "repeated_lines"),
        ("Click here to subscribe\n" * 6 + "and a line of its own", "en", "repeated_lines"),
        ("今天特价优惠大酬宾，" * 12, "zh", "repeated_grams"),
        ("buy one now and get one free today " * 8, "en", "repeated_grams"),
    ],
)
def test_each_rule_catches_its_own(text: str, language: str, reason: str) -> None:
    assert reason in reasons(text, language)


def test_a_looser_setting_keeps_what_the_default_drops() -> None:
    text = "今天特价优惠大酬宾，" * 12
    assert "repeated_grams" not in reasons(text, "zh", max_repeated_gram_share=1.0)


def test_a_rare_character_is_not_a_broken_encoding() -> None:
    assert reasons("锛：1.锛子。2.用锛子削平木料：锛木头。3.刃出现缺口：刀使锛了。", "zh") == []
