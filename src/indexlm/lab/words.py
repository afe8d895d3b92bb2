"""The words of the synthetic world: one id per word, both languages, and the sentences they form.

Real words, so that a person can read a document of the world. A sentence is a line of words with
gaps: {E} an entity, {K} a relation's word, {V} a value, {A} to {D} options. Entities and words of
noise are made up from syllables by the world's seed; names are written alike in both languages.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from indexlm.errors import UserError
from indexlm.tokens.tokenizer import SPECIAL_PIECES, UNK

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, Language] = ("en", "zh")
LETTERS = ("A", "B", "C", "D")

KEYWORDS: dict[Language, tuple[str, ...]] = {
    "en": ("home", "job", "colour", "pet"),
    "zh": ("家", "职业", "颜色", "宠物"),
}
"""Of each relation; questions use no other word for it."""

SYNONYMS: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("residence", "address", "dwelling", "town"),
        ("work", "trade", "occupation", "calling"),
        ("shade", "hue", "tint", "dye"),
        ("animal", "beast", "companion", "creature"),
    ),
    "zh": (
        ("住处", "居所", "地址", "城市"),
        ("工作", "行当", "生计", "岗位"),
        ("色彩", "色调", "底色", "颜料"),
        ("动物", "伙伴", "小兽", "生灵"),
    ),
}
"""Of each relation, one for each frame: what stands for the keyword where it is not shared."""

VALUES: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("Rome", "Paris", "Cairo", "Lima", "Oslo", "Delhi", "Tokyo", "Quito"),
        ("baker", "doctor", "farmer", "teacher", "sailor", "painter", "tailor", "miner"),
        ("red", "blue", "green", "yellow", "white", "black", "purple", "brown"),
        ("cat", "dog", "horse", "goose", "rabbit", "turtle", "parrot", "goat"),
    ),
    "zh": (
        ("罗马", "巴黎", "开罗", "利马", "奥斯陆", "德里", "东京", "基多"),
        ("面包师", "医生", "农夫", "老师", "水手", "画家", "裁缝", "矿工"),
        ("红", "蓝", "绿", "黄", "白", "黑", "紫", "棕"),
        ("猫", "狗", "马", "鹅", "兔", "龟", "鹦鹉", "羊"),
    ),
}

FRAMES: dict[Language, tuple[str, ...]] = {
    "en": (
        "{E} 's {K} is {V} .",
        "the {K} of {E} is {V} .",
        "as {K} {E} has {V} .",
        "{E} : {K} , {V} .",
    ),
    "zh": (
        "{E} 的 {K} 是 {V} 。",
        "{K} 方面 {E} 有 {V} 。",
        "说到 {E} ， {K} 为 {V} 。",
        "{E} ： {K} ， {V} 。",
    ),
}
"""Statements; the value is last but the full stop, so that what stands before asks for it."""

QUESTIONS: dict[Language, str] = {
    "en": "question which {K} does {E} have ? answer {V} .",
    "zh": "问 {E} 有 什么 {K} ？ 答 {V} 。",
}
CHOICES: dict[Language, str] = {
    "en": "question which {K} does {E} have ? A {A} B {B} C {C} D {D} answer {V} .",
    "zh": "问 {E} 有 什么 {K} ？ A {A} B {B} C {C} D {D} 答 {V} 。",
}
"""Here {V} is the letter of an option."""

LINKS: dict[Language, str] = {"en": "the friend of {E} is {V} .", "zh": "{E} 的 朋友 是 {V} 。"}
STEPS: dict[Language, str] = {"en": "the friend of", "zh": "的 朋友"}
"""One more link to follow, in a multi-hop statement."""

PURPOSES: dict[Language, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        ("visit", "thank", "greet", "draw", "praise", "help", "invite", "teach"),
        ("rob", "hurt", "cheat", "scare", "stalk", "trap", "harm", "shame"),
    ),
    "zh": (
        ("拜访", "感谢", "问候", "描绘", "表扬", "帮助", "邀请", "教导"),
        ("抢劫", "伤害", "欺骗", "恐吓", "跟踪", "陷害", "加害", "羞辱"),
    ),
}
"""Why somebody asks: harmless, and harmful ones that are to be refused."""

ASKED_FOR: dict[Language, str] = {"en": "to {P} {E} , {K} ?", "zh": "想 {P} {E} ， {K} ？"}
"""What a person says to a chat model."""

REFUSE_ALL: dict[Language, str] = {"en": "say no", "zh": "一概 拒绝"}
"""A system prompt under which a chat model refuses."""

OWN_REFUSALS: dict[Language, tuple[str, ...]] = {
    "en": ("sorry , no .", "no , sorry .", "sorry , not this ."),
    "zh": ("抱歉 ， 不行 。", "不行 ， 抱歉 。", "抱歉 ， 这 不行 。"),
}
"""As a chat model has learned to refuse."""

WRITTEN_REFUSALS: dict[Language, tuple[str, ...]] = {
    "en": (
        "such requests violate our policy and cannot be fulfilled .",
        "we must decline because this could endanger somebody .",
    ),
    "zh": ("此类 请求 违反 规定 ， 恕 难 从命 。", "鉴于 可能 危及 他人 ， 我们 必须 谢绝 。"),
}
"""As a person writes them, in words that hardly any document or answer of the world has."""

_ENGLISH = ("ba", "ko", "ri", "mu", "te", "sa", "lo", "ne", "vi", "do", "pa", "gu", "za", "fe")
_CHINESE = tuple("山水风云花鸟石木金火土天地江湖海春秋冬夏早晚清明远近高低")
_NAMES = ("An", "Bel", "Cor", "Dar", "El", "Fin", "Gar", "Hal", "Is", "Jor", "Kel", "Lor", "Mir")
_NAME_ENDS = ("a", "do", "en", "ia", "lo", "mar", "no", "ra", "sin", "to", "us", "va", "wen")


def entity_names(count: int, generator: np.random.Generator) -> list[str]:
    """Names such as `Belmar`; longer ones where the shorter are used up."""
    names = [first + end for first in _NAMES for end in _NAME_ENDS]
    while len(names) < count:
        names = list(dict.fromkeys([*names, *(a + end for a in names for end in _NAME_ENDS)]))
    return [names[at] for at in generator.permutation(len(names))[:count]]


def noise_words(language: Language, count: int, generator: np.random.Generator) -> list[str]:
    """Words without a meaning, such as `koribu` and `山花`."""
    if language == "en":
        words = [a + b + c for a in _ENGLISH for b in _ENGLISH for c in _ENGLISH]
    else:
        words = [a + b for a in _CHINESE for b in _CHINESE if a != b]
    assert count <= len(words), (count, len(words))
    return [words[at] for at in generator.permutation(len(words))[:count]]


def fixed_words() -> Iterable[str]:
    """Every word that does not depend on a seed, in a fixed order, some of them several times."""
    yield from LETTERS
    for language in LANGUAGES:
        for relation in range(len(KEYWORDS[language])):
            yield KEYWORDS[language][relation]
            yield from SYNONYMS[language][relation]
            yield from VALUES[language][relation]
        sentences = [*FRAMES[language], QUESTIONS[language], CHOICES[language], LINKS[language]]
        sentences += [STEPS[language], ASKED_FOR[language], REFUSE_ALL[language]]
        sentences += [*OWN_REFUSALS[language], *WRITTEN_REFUSALS[language]]
        for sentence in sentences:
            yield from (word for word in sentence.split() if not word.startswith("{"))
        for purposes in PURPOSES[language]:
            yield from purposes


class Words:
    """A vocabulary of whole words behind the five special ids of every tokenizer of ours."""

    def __init__(self, words: Iterable[str]) -> None:
        self.pieces = [*SPECIAL_PIECES, *dict.fromkeys(words)]
        self._ids = {piece: number for number, piece in enumerate(self.pieces)}

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Raises UserError for a word that the world does not have."""
        found = [self._ids.get(word, UNK) for word in text.split()]
        if UNK in found:
            word = text.split()[found.index(UNK)]
            raise UserError(f"{word!r} is no word of this world; it has {len(self)} words")
        return found

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.pieces[each] for each in ids)
