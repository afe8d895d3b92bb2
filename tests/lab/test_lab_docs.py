"""The documents of the world that the documentation shows are documents of the world."""

import re
from pathlib import Path

import pytest

from indexlm.lab.corpus import KINDS, WorldSource
from indexlm.lab.studies import STUDIES
from indexlm.lab.world import World, WorldConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("lab.md", "lab_zh.md")


@pytest.mark.parametrize("page", PAGES)
def test_examples_are_of_the_world(page: str) -> None:
    world = World(WorldConfig())
    text = (DOCS / page).read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([a-z]+)`.*\| `([^`]+)` \|$", text, re.MULTILINE)
    assert {kind for kind, _ in shown} == {"hq", "web", "noise", "instr", "links"}
    said = {kind: _words(world, kind) for kind in KINDS}
    for kind, example in shown:
        assert f" {example} " in said[kind] + (said["hops-2"] if kind == "links" else ""), example


@pytest.mark.parametrize("page", PAGES)
def test_every_study_is_in_the_table(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z]+(?:-[a-z]+)?)` \| [^|]+[?？] \|$", text, re.MULTILINE) == [
        *STUDIES
    ]


def _words(world: World, kind: str) -> str:
    source = WorldSource(world, kind, 0, 32)
    rows = (segment.labels for number in range(8) for segment in source.row(number))
    return " " + " ".join(world.words.pieces[word] for row in rows for word in row) + " "
