"""A label is right for running text of each kind, and does not depend on what lies beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexlm.text.block import Block
from indexlm.text.document import Document
from indexlm.text.languages import NAMES, label, line_languages, rough_languages
from indexlm.text.normalise import normalise

PROSE = {
    "zh": "清晨的集市刚刚醒来，卖豆腐的老人支起木桌，热气从桶里一缕一缕地升上去。孩子们跑过石桥。",
    "traditional": "清晨的集市剛剛醒來，賣豆腐的老人支起木桌，熱氣從桶裡一縷一縷地升上去。",
    "classical": "晋人有好古者，见一鼎于市，喜而买之，归视其铭，乃今之所铸也。众皆笑之。",
    "english": "The harbour was quiet before the storm. Two men mended a net on the wall and "
    "spoke of nothing in particular; a dog slept between them.",
    "french": "Le port était calme avant la tempête. Deux hommes réparaient un filet sur le mur "
    "et ne parlaient de rien ; un chien dormait entre eux.",
    "german": "Der Hafen war still vor dem Sturm. Zwei Männer flickten ein Netz auf der Mauer "
    "und sprachen von nichts Besonderem; ein Hund schlief zwischen ihnen.",
    "spanish": "El puerto estaba en calma antes de la tormenta. Dos hombres remendaban una red "
    "en el muro y no hablaban de nada; un perro dormía entre ellos.",
    "dutch": "De haven was stil voor de storm. Twee mannen herstelden een net op de muur en "
    "spraken niet veel; een hond sliep tussen hen in.",
    "polish": "Port był cichy przed burzą. Dwaj ludzie naprawiali sieć na murze i nie mówili o "
    "niczym; pies spał między nimi.",
    "vietnamese": "Bến cảng yên tĩnh trước cơn bão. Hai người đàn ông vá lưới trên bức tường và "
    "không nói về điều gì cả.",
    "pinyin": "Qīngchén de jíshì gānggāng xǐnglái, mài dòufu de lǎorén zhīqǐ mùzhuō, rèqì shēng "
    "shàngqù.",
    "plain pinyin": "qing chen de ji shi gang gang xing lai, mai dou fu de lao ren zhi qi mu "
    "zhuo, zhe shi wo men de zao shang",
    "japanese": "朝の市場は目を覚ましたばかりで、豆腐を売る老人が木の机を立てている。",
    "korean": "아침 시장이 막 깨어났고 두부를 파는 노인이 나무 탁자를 세웠다.",
    "russian": "Гавань была тиха перед бурей. Двое чинили сеть на стене и говорили ни о чём.",
    "arabic": "كان الميناء هادئا قبل العاصفة. كان رجلان يصلحان شبكة على الجدار.",
}

CODE = {
    "python": """
        import math

        class Circle(Shape):
            def __init__(self, radius):
                self.radius = radius

            def area(self):
                return math.pi * self.radius ** 2
    """,
    "c": """
        #include <stdio.h>

        /* Adds up what is given
           on the command line. */
        int main(int argc, char **argv)
        {
            int sum = 0;
            for (int i = 1; i < argc; i++)
                sum += atoi(argv[i]);
            printf("%d\\n", sum);
        }
    """,
    "java": """
        package shop.till;

        public class Till extends Machine {
            private final List<Item> items = new ArrayList<>();

            @Override
            public int total() {
                return items.stream().mapToInt(Item::price).sum();
            }
        }
    """,
    "typescript": """
        export interface Point { x: number; y: number }

        export const distance = (a: Point, b: Point): number => {
          const dx = a.x - b.x;
          return Math.hypot(dx, a.y - b.y);
        };
    """,
    "go": """
        package main

        func sum(values []int) (total int) {
            for _, value := range values {
                total += value
            }
            return total
        }
    """,
    "rust": """
        pub fn longest<'a>(words: &'a [String]) -> Option<&'a String> {
            let mut best = None;
            for word in words.iter() {
                best = match best { None => Some(word), other => other };
            }
            best
        }
    """,
    "html": """
        <!DOCTYPE html>
        <html>
          <head><title>Till</title></head>
          <body>
            <div class="till"><a href="/total">Total</a></div>
          </body>
        </html>
    """,
    "css": """
        .till > a {
          color: #333;
          margin: 0 auto;
        }
    """,
    "sql": """
        CREATE TABLE items (
            id INTEGER PRIMARY KEY,
            price NUMERIC(8, 2) NOT NULL
        );
        SELECT id, SUM(price) FROM items GROUP BY id;
    """,
    "shell": """
        #!/bin/sh
        set -e
        for file in "$@"; do
            cp "$file" "/tmp/$(basename "$file")"
        done
        echo "copied $#"
    """,
    "json": """
        {
          "name": "till",
          "items": [{"id": 1, "price": 2.5}, {"id": 2, "price": 3}]
        }
    """,
}


def block(*texts: str) -> Block:
    return Block([Document(f"t/{n}", text, "t", "", "ordinary") for n, text in enumerate(texts)])


def dedented(code: str) -> str:
    return "\n".join(line[8:] for line in code.split("\n")).strip()


def language(text: str) -> str:
    return label(block(text))[0][0]


@pytest.mark.parametrize("name", PROSE)
def test_prose_of_many_languages(name: str) -> None:
    expected = {"zh": "zh", "traditional": "zh", "classical": "zh", "english": "en"}
    assert language(PROSE[name]) == expected.get(name, "other")


@pytest.mark.parametrize("name", CODE)
def test_code_of_many_languages(name: str) -> None:
    assert language(dedented(CODE[name])) == "code"


@pytest.mark.parametrize("prose", ["english", "zh"])
@pytest.mark.parametrize("name", CODE)
def test_prose_about_code_is_prose(name: str, prose: str) -> None:
    listing = f"```\n{dedented(CODE[name])}\n```"
    text = f"{PROSE[prose]}\n\n{listing}\n\n{PROSE[prose]}"
    assert language(text) == ("zh" if prose == "zh" else "en")


def test_indented_listings_leave_a_manual_prose() -> None:
    paragraph = PROSE["english"] + " " + PROSE["english"]
    listing = "    $ till open\n    $ till total --all"
    assert language("\n\n".join([paragraph, listing] * 3)) == "en"


def test_a_document_that_is_one_listing_is_code() -> None:
    assert language(f"```\n{dedented(CODE['python'])}\n```") == "code"


def test_comments_in_chinese_leave_code_code() -> None:
    code = dedented(CODE["go"])
    assert (
        language(code.replace("total +=", "// 把每一个值加到总数上去\n        total +=")) == "code"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("丁（dīng）：1.天干的第四位。2.人口：人丁。", "zh"),
        ("使用 `SELECT` 语句可以从 TiDB 的 information_schema 中查询表。", "zh"),
        ("求 $\\sum_{i=1}^{n} a_i b_i c_i$ 的值，其中 $n \\le 5000$。", "zh"),
        ("In Beijing, 王 said that x < 5 and y > 3 hold (see p. 12).", "en"),
        ("Red cotton shirt", "en"),
        ("Angela Merkel, Emmanuel Macron", "en"),
        ("haha yes!!", "en"),
        ("ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east;", "en"),
        ("1024 + 512 = 1536", "en"),
        ("……！！", "en"),
        ("a", "en"),
        ("这首歌叫《さくら》，是一首日本民歌。", "zh"),
        ("café, déjà vu and naïve are words that English took from French", "en"),
    ],
)
def test_short_and_mixed_text(text: str, expected: str) -> None:
    assert language(text) == expected


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (PROSE["zh"], "simplified"),
        (PROSE["traditional"], "traditional"),
        ("山水人生，天地一方。", ""),
        (PROSE["zh"][:30] + PROSE["traditional"][:30], ""),
        (PROSE["japanese"], ""),
        (PROSE["english"] + " 漢語", ""),
    ],
)
def test_script(text: str, script: str) -> None:
    assert label(block(text))[1] == [script]


def test_lines_have_languages_of_their_own() -> None:
    text = "\n".join(
        [
            PROSE["zh"],
            "",
            PROSE["english"],
            PROSE["russian"],
            PROSE["german"],
            "```",
            "total",
            "```",
            "    return total[0];",
            "123",
        ]
    )
    names = [NAMES[number] for number in line_languages(block(text))]
    assert names == ["zh", "", "en", "other", "other", "code", "code", "code", "code", ""]


def test_rough_languages_agree_on_prose() -> None:
    numbers = rough_languages(block(*PROSE.values()))
    assert [NAMES[number] for number in numbers] == label(block(*PROSE.values()))[0]


_PIECES = st.sampled_from(
    [*PROSE.values(), *map(dedented, CODE.values()), "```", "$$", "/*", '"""', "#", "a", "\\", "9"]
)
_TEXTS = st.lists(_PIECES, min_size=1, max_size=4).map("\n".join).map(normalise).filter(bool)


@given(st.lists(st.one_of(_TEXTS, st.text(min_size=1)), min_size=1, max_size=5))
def test_neighbours_in_a_block_change_nothing(texts: list[str]) -> None:
    languages, scripts = label(block(*texts))
    alone = [label(block(text)) for text in texts]
    assert languages == [names[0] for names, _ in alone]
    assert scripts == [found[0] for _, found in alone]
    lines = [number for text in texts for number in line_languages(block(text))]
    assert line_languages(block(*texts)).tolist() == lines
