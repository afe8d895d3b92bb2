"""Each rule catches what it names and leaves ordinary text of every kind alone."""

import base64
import hashlib
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.config import RulesConfig
from indexlm.text.block import Block
from indexlm.text.document import Document
from indexlm.text.filters.heuristics import REASONS, rules
from indexlm.text.normalise import normalise

PROSE = {
    "zh": "清晨的集市刚刚醒来，卖豆腐的老人支起木桌，热气从桶里一缕一缕地升上去。"
    "孩子们背着书包跑过石桥，桥下的水很慢，像是还没有睡够。有人在远处喊：“小心脚下！”没有人回头。",
    "en": "The harbour was quiet before the storm. Two men mended a net on the wall and spoke of "
    'nothing in particular; a dog slept between them. "It will blow tonight," said the older one, '
    "and the other nodded without looking up from his work.",
    "code": "def mended(nets, storm):\n    whole = []\n    for net in nets:\n"
    "        if net.holes and not storm.near(net):\n            whole.append(net.mend())\n"
    "    return whole",
}
NOUNS = """
harbour net wall storm dog lantern rope barrel sailor widow baker bridge river tower garden window
kettle hammer saddle orchard mirror ladder blanket pepper needle button feather candle
"""
LINKS = "the of and to in that was with by for on from at which"
ZH_NOUNS = """
集市 豆腐 老人 木桌 孩子 书包 石桥 河水 灯笼 船夫 面包 花园 窗户 水壶 铁锤 马鞍 果园 镜子 梯子 毯子
胡椒 针线 纽扣 羽毛 蜡烛 茶杯 雨伞 砖墙 麦田 渔网
"""
ZH_LINKS = "的 了 在 是 和 有 不 也 到 说"


def picked(pools: tuple[str, str], count: int, seed: int) -> list[str]:
    """Words from one pool and the other in turn, so many that hardly a phrase comes twice."""
    chance = random.Random(seed)
    return [chance.choice(pools[number % 2].split()) for number in range(count)]


def words(count: int, seed: int) -> str:
    return " ".join(picked((LINKS, NOUNS), count, seed))


def characters(count: int, seed: int) -> str:
    return "".join(picked((ZH_LINKS, ZH_NOUNS), count, seed))


def lines(pattern: str, count: int = 20) -> str:
    """Lines of words, or of Chinese ones where the pattern asks for them."""
    return "\n".join(
        pattern.format(en=words(8, line), zh=characters(8, line), number=line)
        for line in range(count)
    )


def reasons(documents: list[tuple[str, str]], **settings: float) -> list[str]:
    """Of texts, each with its language."""
    made = [
        Document(f"t/{number}", text, "t", language, "ordinary")
        for number, (text, language) in enumerate(documents)
    ]
    answers = rules(RulesConfig.model_validate(settings))(Block(made))["reason"]
    return list(answers)


def reason(text: str, language: str, **settings: float) -> str:
    return reasons([(text, language)], **settings)[0]


def hex_dump() -> str:
    data = hashlib.sha256(b"data").digest() * 8
    return "\n".join(data[at : at + 16].hex(" ") for at in range(0, len(data), 16))


def menu(language: str) -> str:
    pool, space = (ZH_NOUNS, "") if language == "zh" else (NOUNS, " ")
    return "\n".join(space.join(picked((pool, pool), 2, line)).title() for line in range(12))


KEPT = {
    "a dictionary entry": ("晨光：1.曙光；阳光。2.比喻希望。", "zh"),
    "an entry with its reading": ("丁（dīng）：1.天干的第四位。2.人口：人丁。", "zh"),
    "an idiom": ("画饼充饥：画个饼来解除饥饿。比喻用空想来安慰自己。", "zh"),
    "a short review": ("味道还不错，就是送得有点慢……下次还会再点", "zh"),
    "a delighted review": ("太好吃了！！！强烈推荐～", "zh"),
    "classical Chinese": (
        "晋人有好古者，见一鼎于市，喜而买之。归视其铭，乃今之所铸也。众皆笑之，而其人不以为忤，"
        "曰：“今之所铸，后之视之，亦犹今之视昔也。”遂置之堂上，日夕摩挲焉。",
        "zh",
    ),
    "a poem": ("山路向西去\n秋云一片低\n归人不见影\n唯有暮鸦啼\n灯火三两家", "zh"),
    "traditional Chinese": ("這座橋建於一九二一年，長約三百公尺，是當時全島最長的一座鐵橋。", "zh"),
    "a Chinese manual": (
        "## 安装\n\n1. 运行 `tiup install`，等待下载完成。\n2. 编辑 `config.toml`：\n\n"
        "- `host`：监听的地址\n- `port`：监听的端口，默认值是 `4000`\n\n"
        "> **注意：**\n>\n> 修改配置之后需要重启服务，参见 https://example.org/docs/restart 。",
        "zh",
    ),
    "Chinese with formulas": (
        "这个函数在区间的两端取相同的值，设 $f(x)=\\frac{1}{2}x^2$，由上面的定理可以知道存在一点"
        "使它的导数等于零，所以原来的式子对任何一个正数都成立，证明到这里就完成了．",
        "zh",
    ),
    "chat": ("A: Hello?\nB: Hi! :)\nA: haha\nB: haha\nA: So, what do you do?", "en"),
    "chat without marks": (
        "hey\nhi there how are you\ngood and you\nnot bad\nwhat do you do\ni work in a shop\n"
        "oh nice\nyeah it pays the bills haha\nwhere is it\nin the old town by the river",
        "en",
    ),
    "drama": (
        "FIRST SAILOR:\nWhat says the glass?\n\nSECOND SAILOR:\nIt falls, and falls again;\n"
        "The gulls come in.\n\nFIRST SAILOR:\nThen bring the boats to land,\nAnd count the men.",
        "en",
    ),
    "signs in prose": ("In Beijing, 王 said that x < 5 and y > 3 hold (see p. 12).", "en"),
    "an English manual": (
        "# Setup\n\nRun `till open` and wait until it prints `ready`. A `Vec<T>` holds items of "
        "one type.\n\n- `--port`: the port to listen on\n- `--quiet`: print nothing\n\n"
        "```\n$ till open --port 80\n```\n",
        "en",
    ),
    "a table": (
        "The boats of the harbour were counted in every year of the war:\n\n"
        "| Year | Boats |\n|---|---|\n| 1921 | 48 |\n| 1922 | 51 |",
        "en",
    ),
    "a style sheet": (".till > a {\n  color: #333;\n}\n\n.till {\n  margin: 0 auto;\n}", "code"),
    "a program with Chinese": ('print("你好，世界")  # 打印一行字\nprint("再见")', "code"),
}

DROPPED = {
    "too_short": [("短。", "zh"), ("ok then", "en"), ("x = 1", "code")],
    "broken_characters": [
        ("这是一段 \ufffd\ufffd 坏掉的\ufffd文字，没有办法读下去。", "zh"),
        ("CafÃ© dÃ©jÃ  vu, itâ€™s all there", "en"),
        ("鐨勬槸鍦ㄤ簡鎴戜滑鏄竴涓", "zh"),
        ("数据里有锟斤拷锟斤拷，什么也看不出来。", "zh"),
        ("这里的编码没有还原：~{N@Iz<dC;SP4rI~}", "zh"),
        ("图标 \ue601\ue602\ue603 留在了文字里面", "zh"),
    ],
    "symbols": [
        ("=== ### *** |||| ~~~~ <<<>>> ===== a few words @@@@", "en"),
        ("hello!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!", "en"),
        ("不知道好不好。。。。。。。。。。。。。。。。。。。。。。", "zh"),
        ("+-+-+-+-+\n| ()()() |\n+-+-+-+-+\n[] {} <> ;;", "code"),
    ],
    "wrong_language": [
        (PROSE["en"], "zh"),
        (PROSE["zh"], "en"),
        ("Это совсем другой язык, не тот.", "en"),
        ("朝の市場は目を覚ましたばかりで、豆腐を売る老人が木の机を立てている。", "zh"),
        ("Der Hafen war still vor dem Sturm, und ein Hund schlief auf der Mauer.", "en"),
        ("Der Hafen war still vor dem Sturm, und ein Hund schlief.", "other"),
    ],
    "digits": [
        ("1921 48 51 60 2210\n1922 51 49 58 2304\n1923 47 50 61 2288 boats", "en"),
        ("13800000000 2015-03-02 10:20 100285 合计", "zh"),
    ],
    "encoded": [
        (f"The key is\n{base64.b64encode(hashlib.sha512(b'k').digest() * 3).decode()}", "en"),
        (hex_dump(), "code"),
        (hex_dump(), "en"),
    ],
    "links": [
        (
            "请大家有空的时候都到这里看看更多的照片，"
            "https://example.org/photos/summer/long/path/of/it/all/1921/index.html",
            "zh",
        ),
        ("See https://example.org/a/very/long/address/of/a/page and www.example.org/too", "en"),
    ],
    "markup": [
        (
            '<p class="story">The net was mended.</p>&nbsp;<a href="net.html" title="The net">The '
            "rope was not.</a>&nbsp;&nbsp;and&nbsp;so&nbsp;on",
            "en",
        ),
        ("&#28165;&#26216;&#30340;集市&nbsp;&nbsp;醒来", "zh"),
    ],
    "curly_brackets": [
        (PROSE["en"] + " if (window.a) { b(); } else { c(); } .d { color: red }", "en"),
        (PROSE["zh"] + "function a() { b(); } .c { d: e }", "zh"),
    ],
    "lorem_ipsum": [
        (PROSE["en"] + " Lorem ipsum dolor sit amet, and so on it goes in this way.", "en")
    ],
    "repeated_lines": [
        ("返回首页\n" * 10 + "欢迎光临本站，祝您愉快。", "zh"),
        ("Click here to subscribe\n" * 6 + "and a line of its own", "en"),
        ("    total = total + price\n" * 12 + "print(total)", "code"),
    ],
    "repeated_grams": [
        ("今天特价优惠大酬宾，" * 12, "zh"),
        ("buy one now and get one free today " * 8, "en"),
        ("row(first_name, last_name, street_name, town_name), " * 8, "code"),
    ],
    "bullets": [(lines("- {en}."), "en"), (lines("• {zh}。"), "zh")],
    "ellipses": [(lines("{en}..."), "en"), (lines("{zh}……"), "zh")],
    "word_length": [
        (re.sub(r" (\w+) (\w+) (\w+)", r" \1-\2-\3", words(240, 1)), "en"),
        (" ".join(picked(("of in to at an", "a b d e g h i j k l"), 120, 1)), "en"),
    ],
    "words_without_letters": [
        (lines("{en}: 1921 - 1922 - 1923, 1924 - 1925 - 1926, 1927 - 1928"), "en")
    ],
    "stop_words": [
        (" ".join(picked((NOUNS, NOUNS), 100, 1)) + " of the net and of the wall", "en"),
        ("".join(picked((ZH_NOUNS, ZH_NOUNS), 100, 1)), "zh"),
    ],
    "unfinished_lines": [(menu("en"), "en"), (menu("zh"), "zh")],
    "generated": [
        ("// Code generated by protoc-gen-till. DO NOT EDIT.\n" + PROSE["code"], "code"),
        ("# This file was automatically generated by make.\n" + PROSE["code"], "code"),
        ("/* Do not edit! Generated from till.in */\n" + PROSE["code"], "code"),
    ],
    "long_lines": [
        ("".join(f"var a{n}=b({n},c);" for n in range(200)), "code"),
        (lines("print('{en} {en}', '{zh}', '{en}', '{en}', {number});", 8), "code"),
    ],
}


@pytest.mark.parametrize("language", PROSE)
def test_ordinary_text_is_kept(language: str) -> None:
    assert reason(PROSE[language], language) == ""


@pytest.mark.parametrize("kind", KEPT)
def test_text_of_every_kind_is_kept(kind: str) -> None:
    assert reason(*KEPT[kind]) == ""


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [(text, language, name) for name, made in DROPPED.items() for text, language in made],
)
def test_each_rule_catches_its_own(text: str, language: str, expected: str) -> None:
    assert reason(text, language) == expected


def test_every_reason_has_a_case_and_a_sentence() -> None:
    assert list(REASONS) == [name for name in REASONS if name in DROPPED]
    assert all(sentence and "\n" not in sentence for sentence in REASONS.values())


def test_the_first_rule_that_fails_gives_the_reason() -> None:
    both = "=== ### *** ===\n" * 8
    assert reason(both, "en") == "symbols"
    assert reason(both, "en", max_symbol_share=1.0) == "repeated_lines"


LOOSER: dict[str, dict[str, float]] = {
    "too_short": {"min_chars": 1},
    "broken_characters": {"max_broken_share": 1.0},
    "symbols": {"max_symbol_share": 1.0, "min_code_alphanumeric_share": 0.0},
    "digits": {"max_digit_share": 1.0},
    "encoded": {"max_run_share": 1.0, "max_hex_share": 1.0},
    "links": {"max_link_share": 1.0},
    "markup": {"max_markup_share": 1.0},
    "curly_brackets": {"max_bracket_share": 1.0},
    "repeated_lines": {"max_repeated_line_share": 1.0, "max_code_repeated_line_share": 1.0},
    "repeated_grams": {"max_repeated_gram_share": 1.0, "max_code_repeated_gram_share": 1.0},
    "bullets": {"max_bullet_share": 1.0},
    "ellipses": {"max_ellipsis_share": 1.0},
    "word_length": {"min_mean_word": 0.0, "max_mean_word": 1e9},
    "words_without_letters": {"min_lettered_share": 0.0},
    "stop_words": {"min_stop_word_share": 0.0, "min_stop_character_share": 0.0},
    "unfinished_lines": {"max_short_line_share": 1.0, "min_ended_share": 0.0},
    "long_lines": {"max_long_line_share": 1.0, "max_mean_code_line": 1e9},
}


@pytest.mark.parametrize("name", LOOSER)
def test_a_looser_setting_keeps_what_the_default_drops(name: str) -> None:
    for text, language in DROPPED[name]:
        assert reason(text, language, **LOOSER[name]) != name


def test_a_rare_character_is_not_a_broken_encoding() -> None:
    text = "锛：1.锛子。2.用锛子削平木料：锛木头。3.刃出现缺口：刀使锛了。"
    assert reason(text, "zh") == ""


def test_french_names_are_not_a_broken_encoding() -> None:
    text = "Æsop, Mlle Gillenormand’s aunt and M. Mabœuf’s café—à la carte—were all in Besançon."
    assert reason(text, "en") == ""


def test_a_page_about_an_encoding_error_is_kept() -> None:
    text = "".join(characters(12, seed) + "。" for seed in range(20))
    assert reason(text + "乱码“锟斤拷”就是这样来的。", "zh") == ""


def test_prose_with_a_listing_keeps_its_language() -> None:
    listing = "\n".join(f"value_{number} = read_value(source, {number})" for number in range(30))
    assert reason(f"{PROSE['zh']}\n\n```\n{listing}\n```\n\n{PROSE['zh'][:40]}", "zh") == ""


_TEXTS = [
    *((text, language) for language, text in PROSE.items()),
    *KEPT.values(),
    *(case for cases in DROPPED.values() for case in cases),
]
_ANY = st.tuples(
    st.text(min_size=1).map(normalise).filter(bool), st.sampled_from(["zh", "en", "code", "other"])
)


@given(st.lists(st.one_of(st.sampled_from(_TEXTS), _ANY), min_size=1, max_size=6))
def test_neighbours_in_a_block_change_nothing(documents: list[tuple[str, str]]) -> None:
    assert reasons(documents) == [reason(*document) for document in documents]
