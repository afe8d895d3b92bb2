"""An output is trusted when it is whole and made from just this, and only then."""

from pathlib import Path

import pytest

from indexlm.text.work import MARKER, finished, once


class Maker:
    """Counts how often it was asked."""

    def __init__(self, content: bytes = b"some bytes") -> None:
        self.content, self.calls = content, 0

    def __call__(self, path: Path) -> dict[str, int]:
        self.calls += 1
        path.write_bytes(self.content)
        return {"documents": 3}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_finished_is_not_made_again(tmp_path: Path) -> None:
    maker = Maker()
    first = once(tmp_path / "deep" / "out", "a", maker)
    again = once(tmp_path / "deep" / "out", "a", maker)
    assert maker.calls == 1
    assert first == again and again.notes == {"documents": 3} and again.bytes == 10
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["out", f"out{MARKER}"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        flip,
        lambda path: flip(path.with_name(path.name + MARKER)),
        lambda path: path.with_name(path.name + MARKER).unlink(),
        lambda path: path.with_name(path.name + MARKER).write_bytes(b""),
        lambda path: path.with_name(path.name + MARKER).write_bytes(b"[]"),
    ],
    ids=["missing", "cut", "flipped", "marker flipped", "no marker", "empty marker", "list"],
)
def test_what_is_damaged_is_made_again(damage: object, tmp_path: Path) -> None:
    maker = Maker()
    once(tmp_path / "out", "a", maker)
    assert callable(damage)
    damage(tmp_path / "out")
    assert finished(tmp_path / "out", "a") is None
    once(tmp_path / "out", "a", maker)
    assert maker.calls == 2 and finished(tmp_path / "out", "a") is not None


def test_what_was_made_from_something_else_is_made_again(tmp_path: Path) -> None:
    once(tmp_path / "out", "a", Maker())
    other = Maker(b"other")
    once(tmp_path / "out", "b", other)
    assert other.calls == 1 and (tmp_path / "out").read_bytes() == b"other"


def test_a_maker_that_fails_leaves_the_old_output_and_nothing_else(tmp_path: Path) -> None:
    once(tmp_path / "out", "a", Maker())

    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        once(tmp_path / "out", "b", fails)
    assert finished(tmp_path / "out", "a") is not None
    assert len(list(tmp_path.iterdir())) == 2
