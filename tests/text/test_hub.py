"""Datasets of the hub, against a server that speaks what the client asks for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from raw_files import lines, packed, parquet

from hub_server import served
from indexlm.errors import UserError
from indexlm.text.reading import hub

CARD = b"---\nlicense: cc-by-4.0\nlanguage:\n- zh\n---\n# Tales\n"
TALES = {
    "README.md": CARD,
    "data/zh/a.jsonl.gz": packed(lines([{"text": "从前有座山。"}]), ".gz"),
    "data/zh/b.txt": "山里有座庙。".encode(),
    "data/en/c.parquet": parquet([{"text": "Once upon a time.", "license": "MIT"}]),
    "data/en/pictures.bin": b"\0" * 100,
}

FETCH = """
import json, sys
from pathlib import Path
from indexlm.config import ReadingConfig, TextConfig
from indexlm.errors import UserError
from indexlm.text.reading.sources import input_files, read_records

for name in sys.argv[1:]:
    try:
        files = input_files([name], Path("downloads"))
    except UserError as error:
        print(json.dumps(str(error)))
        continue
    found = []
    for file in files:
        for record, _ in read_records(file, TextConfig(), ReadingConfig()):
            found.append([record.id, record.text, record.source, record.license])
    print(json.dumps(found))
"""


def fetched(place: Path, url: str, *names: str, **settings: str) -> list[Any]:
    """Of each name its documents or the message, as another process finds them."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *names],
        cwd=place,
        env={**environment, "HF_ENDPOINT": url, "HF_HOME": str(place / "home"), **settings},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_dataset_is_downloaded_once_and_read_like_files(tmp_path: Path) -> None:
    zh = [
        ["some/tales/data/zh/a-1", "从前有座山。", "some/tales", "cc-by-4.0"],
        ["some/tales/data/zh/b", "山里有座庙。", "some/tales", "cc-by-4.0"],
    ]
    en = [["some/tales/data/en/c-1", "Once upon a time.", "some/tales", "MIT"]]
    with served({"some/tales": TALES}) as there:
        assert fetched(tmp_path, there.url, "hub:some/tales:data/zh") == [zh]
        got = [path for command, path in there.asked if command == "GET" and "/resolve/" in path]
        assert sorted(path.rpartition("/")[2] for path in got) == [
            "README.md",
            "a.jsonl.gz",
            "b.txt",
        ]
        there.asked.clear()
        assert fetched(tmp_path, there.url, "hub:some/tales") == [en + zh]
        assert there.given() == ["c.parquet"]
        url = there.url
    # The server is gone: what is there is enough for one who has it, whole, and for no other.
    found = fetched(tmp_path, url, "hub:some/tales", "hub:some/poems")
    assert found[0] == en + zh
    assert "hub:some/poems is not downloaded and the hub cannot be reached" in found[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "downloads"]


def test_a_download_that_breaks_off_goes_on(tmp_path: Path) -> None:
    text = "山" * 400_000
    files = {"a.txt": text.encode()}
    with served({"some/tales": files}, break_off={"a.txt"}) as there:
        [found] = fetched(tmp_path, there.url, "hub:some/tales")
        assert "".join(record[1] for record in found) == text
        assert there.given() == ["a.txt", "a.txt"]


def test_a_quarantine_of_strangers_is_not_read(tmp_path: Path) -> None:
    """It could name any file of this machine."""
    files = {"a.txt": b"a text", "b.quarantine.jsonl.zst": packed(b"{}", ".zst")}
    with served({"some/tales": files}) as there:
        [found] = fetched(tmp_path, there.url, "hub:some/tales")
    assert [record[0] for record in found] == ["some/tales/a"]


def test_what_cannot_be_had_is_said_with_the_remedy(tmp_path: Path) -> None:
    datasets = {
        "some/gated": 403,
        "some/broken": 500,
        "some/pictures": {"README.md": CARD, "a.bin": b"x"},
        "some/tales": TALES,
    }
    names = ["gated", "nowhere", "broken", "pictures", "tales:data/fr"]
    with served(datasets) as there:
        gated, nowhere, broken, pictures, folder = fetched(
            tmp_path, there.url, *(f"hub:some/{name}" for name in names)
        )
        [offline] = fetched(tmp_path, there.url, "hub:some/tales", HF_HUB_OFFLINE="1")
    assert "hub:some/gated is given to those who accept its terms" in gated and "hf auth" in gated
    assert "the hub has no dataset some/nowhere, or it is private" in nowhere
    assert "hub:some/broken" in broken and "500" in broken
    assert "hub:some/pictures holds" in pictures and "txt, jsonl or parquet" in pictures
    assert "hub:some/tales:data/fr: the dataset has no txt" in folder and "'data/fr'" in folder
    assert "hub:some/tales is not downloaded and the hub cannot be reached" in offline


@pytest.mark.parametrize(
    ("card", "terms"),
    [
        (CARD, "cc-by-4.0"),
        (b"---\nlicense:\n- mit\n- cc0-1.0\n---\n", "mit, cc0-1.0"),
        (b"---\nlicense: other\nlicense_name: own-terms\n---\n", "own-terms"),
        (b"---\nlicense: other\n---\n", "other"),
        (b"# no metadata\n", ""),
        (b"---\nlanguage: zh\n---\n", ""),
        (b"---\n: [\n---\n", ""),
        (b"---\nlicense: " + b"[" * 10_000 + b"\n---\n", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_the_license_is_what_the_card_states(tmp_path: Path, card: bytes, terms: str) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(card)
    assert hub.license_of(path) == terms
    assert hub.license_of(tmp_path / "nowhere.md") == ""


@pytest.mark.parametrize("name", ["tales", "a/b/c", "", "/x", "a/b:../c", "-/..", "a b/c"])
def test_what_is_no_name_is_refused_before_anything_is_asked(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no dataset; write hub:OWNER/NAME"):
        hub.fetch(name, tmp_path)


def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['huggingface_hub'] = None\n" + FETCH
    done = subprocess.run(
        [sys.executable, "-c", code, "hub:some/tales"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "pip install 'indexlm[hub]'" in done.stdout, done.stderr
