"""Conversations of any maker become the same records; what cannot be used is counted by reason."""

import gzip
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.errors import UserError
from indexlm.text.conversations import CUT, read_conversations
from indexlm.text.normalise import normalise

Row = dict[str, Any]


def write(path: Path, rows: list[Any], as_list: bool = False) -> Path:
    content = json.dumps(rows) if as_list else "".join(json.dumps(row) + "\n" for row in rows)
    packers = {".gz": gzip.compress, ".zst": zstandard.compress}
    packer = packers.get(path.suffix, lambda content: content)
    path.write_bytes(packer(content.encode()))
    return path


def read(path: Path) -> tuple[list[Row], dict[str, int]]:
    left_out: Counter[str] = Counter()
    return list(read_conversations(path, left_out)), dict(left_out)


def test_a_record_is_what_the_corpus_gives(tmp_path: Path) -> None:
    row = {
        "system": "简短。",
        "history": [["一加一？", "二。"]],
        "query": "二加二？",
        "response": "四。",
        "source": "exercises",
    }
    assert read(write(tmp_path / "mine.jsonl", [row])) == (
        [
            {
                "id": "mine/1",
                "language": "zh",
                "kind": "conversation",
                "system": "简短。",
                "history": [["一加一？", "二。"]],
                "query": "二加二？",
                "response": "四。",
            }
        ],
        {},
    )


# Formats


def as_query(row: Row) -> Row:
    return row


def as_alpaca(row: Row) -> Row:
    instruction, _, given = row["query"].partition("\n")
    if normalise(given) != given:  # a line end of its own, which is not the border
        instruction, given = row["query"], ""
    rest = {"system": row["system"], "history": row["history"], "output": row["response"]}
    return {"instruction": instruction, "input": given, **rest}


def roles(row: Row) -> list[tuple[str, str]]:
    said = [("system", row["system"])] if row["system"] else []
    for user, assistant in [*row["history"], (row["query"], row["response"])]:
        said += [("user", user), ("assistant", assistant)]
    return said


def as_messages(row: Row) -> Row:
    return {"messages": [{"role": role, "content": text} for role, text in roles(row)]}


def as_sharegpt(row: Row) -> Row:
    names = {"user": "human", "assistant": "gpt"}
    said = [{"from": names[role], "value": text} for role, text in roles({**row, "system": ""})]
    return {"conversations": said, "system": row["system"]}


FORMATS = (as_query, as_alpaca, as_messages, as_sharegpt)

letters = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('你好 \n\u2028{}"\\'))
texts = st.text(letters, min_size=1, max_size=12).map(normalise).filter(bool)
rows_of_texts = st.fixed_dictionaries(
    {
        "system": st.just("") | texts,
        "history": st.lists(st.tuples(texts, texts).map(list), max_size=3),
        # An instruction and its input are one question of two lines.
        "query": st.lists(texts, min_size=1, max_size=2).map("\n".join).map(normalise),
        "response": texts,
    }
)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(rows_of_texts, min_size=1, max_size=4),
    suffix=st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz"]),
    as_list=st.booleans(),
)
def test_every_format_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], suffix: str, as_list: bool
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    as_list = as_list and ".jsonl" not in suffix
    read_back = []
    for form in (*FORMATS, lambda row: FORMATS[len(row["query"]) % len(FORMATS)](row)):
        path = write(folder / f"rows{suffix}", [form(row) for row in rows], as_list)
        records, left_out = read(path)
        assert left_out == {}
        read_back.append(records)
        # What was read is itself a file that can be read.
        assert read(write(folder / f"rows{suffix}", records, as_list)) == (records, {})
    assert [{key: record[key] for key in rows[0]} for record in read_back[0]] == rows
    assert all(records == read_back[0] for records in read_back)


@pytest.mark.parametrize(
    ("query", "response", "given", "language"),
    [
        ("Name a colour.", "Blue.", {}, "en"),
        ("写一个循环", "for i in range(10): print(i)", {}, "zh"),
        ("Lifelong Kindergarten Group做什么？", "教育项目。", {}, "zh"),
        ("1+1=", "2", {"language": "zh"}, "zh"),
        ("Bonjour", "Salut", {"lang": "fr"}, "en"),
    ],
)
def test_the_language_is_the_rows_own_or_told_by_script(
    tmp_path: Path, query: str, response: str, given: dict[str, str], language: str
) -> None:
    path = write(tmp_path / "a.jsonl", [{"query": query, "response": response, **given}])
    assert [record["language"] for record in read(path)[0]] == [language]


def test_texts_are_normalised_like_the_corpus(tmp_path: Path) -> None:
    row = {
        "instruction": "\ufeffAdd:\r\n",
        "input": " １\u3000+ １ ",
        "output": "２\u200b\n\n\n\n。",
    }
    [record] = read(write(tmp_path / "a.jsonl", [row]))[0]
    assert (record["query"], record["response"]) == ("Add:\n1 + 1", "2\n\n。")


# What is left out

GOOD = {"query": "问", "response": "答"}


def talk(*said: str, **more: Any) -> Row:
    """`user:text` and so on as messages."""
    pairs = [each.partition(":") for each in said]
    return {"messages": [{"role": role, "content": text} for role, _, text in pairs], **more}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": "问", "response": " \n"}, "no answer"),
        ({"instruction": "问", "output": None}, "no answer"),
        (talk("user:问"), "no answer"),
        (talk("user:问", "assistant:", "user:问", "assistant:答"), "no answer"),
        (talk("system:简短"), "no answer"),
        (talk(), "no answer"),
        ({"query": "", "response": "答"}, "an empty text"),
        ({"instruction": "", "input": "", "output": "答"}, "an empty text"),
        ({**GOOD, "history": [["问", ""]]}, "an empty text"),
        (talk("user:", "assistant:答"), "an empty text"),
        (talk("assistant:答", "user:问", "assistant:答"), "a wrong order of roles"),
        (talk("user:问", "user:问", "assistant:答"), "a wrong order of roles"),
        (talk("user:问", "assistant:答", "assistant:答"), "a wrong order of roles"),
        (talk("user:问", "assistant:答", "system:简短"), "a wrong order of roles"),
        (talk("system:一", "system:二", "user:问", "assistant:答"), "a wrong order of roles"),
        (talk("user:问", "tool:结果", "assistant:答"), "an unknown role"),
        ({"messages": [{"role": 1, "content": "问"}]}, "an unknown role"),
        ({"messages": ["问"]}, "a message that is no object"),
        ({"conversations": "问"}, "messages that are no list"),
        (talk("system:一", "user:问", "assistant:答", system="二"), "two system texts"),
        ({"query": ["问"], "response": "答"}, "a text that is no string"),
        ({**GOOD, "system": 5}, "a text that is no string"),
        ({**GOOD, "history": "问"}, "a history that is no list"),
        ({**GOOD, "history": [["问"]]}, "a history that is not made of pairs"),
        ({"query": "问", "response": "\ud800"}, "not UTF-8"),
        ({"query": "问", "chosen": "答", "rejected": "错"}, "unknown fields"),
        ({"text": "running text"}, "unknown fields"),
        ({}, "unknown fields"),
        (["问", "答"], "not an object"),
        (5, "not an object"),
    ],
)
@pytest.mark.parametrize("as_list", [False, True])
def test_a_row_that_cannot_be_used_is_counted_by_its_reason(
    tmp_path: Path, row: Any, reason: str, as_list: bool
) -> None:
    path = write(tmp_path / "a.json", [GOOD, row, row, GOOD], as_list)
    records, left_out = read(path)
    assert [record["id"] for record in records] == ["a/1", "a/4"]
    assert left_out == {reason: 2}
    alone = write(tmp_path / f"b.{'json' if as_list else 'jsonl'}", [row], as_list)
    with pytest.raises(UserError, match=r"no conversation can be used; a row has") as caught:
        read(alone)
    place = f"{alone}: row 1" if as_list else f"{alone}:1"
    assert str(caught.value).startswith(f"{place}: {reason}")


def test_a_line_of_another_encoding_is_counted_and_a_whole_file_is_told_its_own(
    tmp_path: Path,
) -> None:
    good, old = json.dumps(GOOD).encode(), '{"query": "问", "response": "答"}'.encode("gb18030")
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, old, b"", good]))
    records, left_out = read(tmp_path / "a.jsonl")
    assert len(records) == 2 and left_out == {"not UTF-8": 1}
    (tmp_path / "b.jsonl").write_bytes(old)
    with pytest.raises(UserError, match=r"b\.jsonl:1: not UTF-8 .*iconv -f gb18030"):
        read(tmp_path / "b.jsonl")


def test_what_is_left_out_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD, talk("user:问"), [], talk("user:问")])
    with caplog.at_level(logging.WARNING, logger="indexlm"):
        list(read_conversations(path))
    [told] = [record.getMessage() for record in caplog.records]
    assert told == f"{path}: 1 conversations; left out: no answer (2), not an object (1)"
    caplog.clear()
    list(read_conversations(write(tmp_path / "b.jsonl", [GOOD])))
    assert caplog.records == []


@pytest.mark.parametrize(
    "row",
    [
        talk("user:问", "assistant:答", "user:还有？"),
        {"query": "还有？", "response": "", "history": [["问", "答"]]},
    ],
)
def test_an_unanswered_end_is_cut_off(tmp_path: Path, row: Row) -> None:
    [record], left_out = read(write(tmp_path / "a.jsonl", [row]))
    assert (record["history"], record["query"], record["response"]) == ([], "问", "答")
    assert left_out == {CUT: 1}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"query": "q", "response": "a"}\n{"query": oops}\n', ["a.jsonl:2", "column"]),
        ("b.jsonl", b'{"query": ' + b"1" * 5000 + b"}", ["b.jsonl:1", "not JSON"]),
        ("c.jsonl", b"[" * 100_000, ["c.jsonl:1", "not JSON"]),
        ("d.json", b'[{"query": "q"},\n oops]', ["d.json", "line 2"]),
        ("e.json", '["问"]'.encode("gb18030"), ["e.json", "iconv -f gb18030"]),
        ("f.jsonl", b"", ["f.jsonl has no row"]),
        ("g.json", b"[]", ["g.json has no row"]),
        ("h.jsonl.gz", b"not gzip", ["h.jsonl.gz", "cannot be unpacked"]),
        ("i.jsonl.gz", gzip.compress(b'{"query": "q"}' * 99)[:-12], ["i.jsonl.gz", "cut short"]),
        ("j.json.zst", b"not zstd", ["j.json.zst", "cannot be unpacked"]),
        ("k.csv", b"query,response", ["k.csv", "unknown kind", "jsonl"]),
        ("l.txt.gz", b"x", ["l.txt.gz", "unknown kind"]),
    ],
)
def test_a_wrong_file_is_named_with_its_place(
    tmp_path: Path, name: str, content: bytes, words: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    assert [word for word in words if word not in str(error.value)] == []


def test_a_path_that_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"none\.jsonl does not exist"):
        read(tmp_path / "none.jsonl")
