"""Characters in a file: equal in, equal out, whole or not at all."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexlm.errors import DamagedError, UserError
from indexlm.roleplay.card import Card, Dialogue, Line
from indexlm.roleplay.store import Store


def card(name: str = "诸葛亮", text: str = "主公") -> Card:
    lines = (Line("备", "先生"), Line(name, text), Line("", "（风起）"))
    return Card(name, ("孔明",), "军师", (Dialogue("1", "第一回", lines), Dialogue("2", "", ())))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(name=texts, text=texts)
def test_a_card_comes_back_as_it_went_in(tmp_path: Path, name: str, text: str) -> None:
    store = Store(tmp_path / "characters.sqlite")
    identity = store.add(card(name, text), replace=True)
    assert store.get(identity) == card(name, text)


def test_found_by_id_name_and_alias_in_another_process_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "characters.sqlite"
    identity = Store(path).add(card())
    store = Store(path)
    assert store.get(identity) == store.get("诸葛亮") == store.get("孔明") == card()
    assert [(e.id, e.name, e.description, e.lines) for e in store.list()] == [
        (identity, "诸葛亮", "军师", 1)
    ]


def test_a_name_goes_before_an_alias(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    store.add(card())
    store.add(card("孔明"))
    assert store.get("孔明").name == "孔明"


def test_an_equal_name_is_refused_until_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    identity = store.add(card())
    with pytest.raises(UserError, match=f"{identity}.*--replace"):
        store.add(card(text="别的话"))
    assert store.get(identity) == card()
    assert store.add(card(text="别的话"), replace=True) == identity
    assert store.get(identity) == card(text="别的话")
    assert len(store.list()) == 1


def test_a_failed_replacement_leaves_the_old_card(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    store.add(card())
    half = Card("诸葛亮", (), "", (Dialogue("1", "s", (Line("诸葛亮", "\ud800"),)),))
    with pytest.raises(UnicodeEncodeError):
        store.add(half, replace=True)
    assert store.get("诸葛亮") == card()


@pytest.mark.parametrize("name", ["../../x", "a/b", "${HOME}", "'; DROP TABLE character; --", "."])
def test_a_name_is_data_and_never_a_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "store"
    store = Store(folder / "c.sqlite")
    identity = store.add(card(name))
    assert store.get(name) == card(name)
    assert name not in identity
    assert {path.name for path in tmp_path.iterdir()} == {"store"}
    assert all(path.name.startswith("c.sqlite") for path in folder.iterdir())


def test_reading_where_nothing_is_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none.sqlite")
    assert store.list() == []
    with pytest.raises(UserError, match=r"none\.sqlite has no character"):
        store.get("诸葛亮")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    store.add(card())
    with pytest.raises(UserError, match=r"'关羽'.*诸葛亮"):
        store.get("关羽")


def test_a_file_that_is_no_store_is_named_and_not_touched(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database " * 100)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    before = {path: path.read_bytes() for path in (text, foreign)}
    with pytest.raises(DamagedError, match=r"notes\.txt"):
        Store(text)
    with pytest.raises(UserError, match=r"foreign\.sqlite.*another program"):
        Store(foreign)
    with pytest.raises(UserError, match="folder"):
        Store(tmp_path)
    assert before == {path: path.read_bytes() for path in (text, foreign)}


def test_a_file_cut_short_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    Store(path).add(card(text="长" * 20_000))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    path.write_bytes(path.read_bytes()[:8192])
    with pytest.raises(DamagedError, match=r"c\.sqlite"):
        Store(path).get("诸葛亮")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    Store(path).add(card())
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(UserError, match="version 9"):
        Store(path)
