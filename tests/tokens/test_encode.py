"""Text into a tokens folder: the ids of `encode`, and the same bytes however it was interrupted."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_encode import BATCH, COMMIT, THREADS
from refined import Texts, files_of

from indexlm.errors import UserError
from indexlm.records import MANIFEST, verify
from indexlm.text.jsonl import read_jsonl, write_jsonl
from indexlm.tokens import encode
from indexlm.tokens.shards import CATALOGUE, group_files, read_shards
from indexlm.tokens.tokenizer import EOS, FILE_NAME, Tokenizer

HERE = Path(__file__).parent
STORY = "春天来了，河边的柳树发出新芽。The river was wide and slow, and the boats came home. 🙂\n"

texts = st.dictionaries(
    st.sampled_from(["zh_curated", "en_noisy", "instruction"]),
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
            st.sampled_from([STORY, STORY * 9, "</s><s>reserved_0", "line\u2028line\r\n\x00"]),
        ),
        max_size=12,
    ),
)


def stories(count: int) -> dict[str, list[str]]:
    """Documents of very different length, in two sources and an empty one."""
    return {
        "en_noisy": [f"{number} {STORY * (number % 7)}" for number in range(count)],
        "instruction": [],
        "zh_curated": [f"{number}。{STORY * (number % 3)}" for number in range(count)],
    }


def made(
    files: Mapping[str, list[Path]], tokenizer: Tokenizer, folder: Path, **how: Any
) -> dict[str, bytes]:
    """The files of a tokens folder."""
    made_from = encode.inputs_fingerprint(files, tokenizer)
    encode.write_shards(files, tokenizer, folder, made_from, **({"threads": 2} | how))
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=15, deadline=None)
@given(texts=texts, threads=st.integers(1, 3), batch=st.integers(1, 900), cut=st.integers(1, 5))
def test_ids_are_those_of_encode_however_the_work_is_cut(
    tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
    texts: Texts,
    threads: int,
    batch: int,
    cut: int,
) -> None:
    place = tmp_path_factory.mktemp("encode")
    files = files_of(texts, place / "text", cut=cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "BATCH_BYTES", batch)
        pieces = made(files, tokenizer, place / "a", threads=threads, commit_bytes=2 * batch)
    assert pieces == made(files, tokenizer, place / "b")
    shards = read_shards(place / "a", tokenizer)
    assert shards.keys() == {name for name, some in texts.items() if some}
    for name, shard in shards.items():
        expected = [[*tokenizer.encode(text), EOS] for text in texts[name]]
        found = [shard.ids[i:j].tolist() for i, j in pairwise(shard.offsets)]
        assert found == expected


def test_a_record_is_its_question_and_its_answer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "text" / "instruction.jsonl.zst"
    write_jsonl(path, [{"query": "春天？", "response": "来了", "task": "word", "source": "book"}])
    made(group_files(tmp_path / "text"), tokenizer, tmp_path / "tokens")
    shard = read_shards(tmp_path / "tokens", tokenizer)["instruction"]
    assert shard.ids.tolist() == [*tokenizer.encode("春天？\n来了"), EOS]
    assert shard.origin(0) == "book"


def test_files_of_several_frames_are_read_to_their_end(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    files = files_of({"en": ["river", STORY, "stone"]}, tmp_path / "text", cut=1)
    whole = tmp_path / "one" / "en.jsonl.zst"
    whole.parent.mkdir()
    whole.write_bytes(b"".join(path.read_bytes() for path in files["en"]))
    one = made(group_files(whole.parent), tokenizer, tmp_path / "a")
    three = made(files, tokenizer, tmp_path / "b")
    assert {n: one[n] for n in one if n.startswith("en")} == {
        n: three[n] for n in three if n.startswith("en")
    }


@pytest.fixture(scope="module")
def killed(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where a folder was made in peace, and another under fire; `attempts` tells how."""
    place = tmp_path_factory.mktemp("killed")
    (place / FILE_NAME).write_bytes(tokenizer.path.read_bytes())
    files_of(stories(250), place / "text", cut=100)
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_encode.py"), str(place), "7"],
        capture_output=True,
        text=True,
        check=True,
    )
    (place / "attempts").write_text(done.stdout)
    return place


def attempts_of(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "attempts").read_text().splitlines()]


def test_after_any_kills_the_same_command_gives_the_same_folder(killed: Path) -> None:
    verify(killed / "killed")
    assert contents(killed / "killed") == contents(killed / "whole")
    assert not list(killed.glob(".*.partial"))
    attempts = attempts_of(killed)
    # Before anything was safe, between commits, and after the end of the text.
    assert sum(each["killed"] for each in attempts) == len(attempts) - 1 >= 8
    assert not attempts[0]["half_made"] and sum(each["half_made"] for each in attempts) >= 4
    assert len({tuple(each["begun"]) for each in attempts if each["begun"]}) >= 3
    assert {each["event"] is None for each in attempts} == {True, False}


def test_a_kill_costs_at_most_a_commit_and_what_is_being_encoded(killed: Path) -> None:
    files = [path for paths in group_files(killed / "text").values() for path in paths]
    lines = [
        [len(json.dumps(row, ensure_ascii=False).encode()) + 1 for row in read_jsonl(path)]
        for path in files
    ]
    before = [sum(map(sum, lines[:number])) for number in range(len(lines))]
    most = COMMIT + (2 * THREADS + 2) * (BATCH + max(map(max, filter(None, lines))))
    assert sum(map(sum, lines)) > 4 * most

    def place(there: list[int]) -> int:
        return before[there[0]] + there[1]

    attempts = [each for each in attempts_of(killed) if each["begun"]]
    redone = [place(one["read"]) - place(next_one["begun"]) for one, next_one in pairwise(attempts)]
    assert 0 < max(redone) <= most


def interrupted(files: Mapping[str, list[Path]], tokenizer: Tokenizer, folder: Path) -> None:
    """Leaves a folder half made: Ctrl-C arrives when a part of it is safe."""

    def append(self: Any, encoded: Any, append: Any = encode._Source.append) -> None:
        append(self, encoded)
        if self.documents >= 30:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encode, "BATCH_BYTES", BATCH)
        patch.setattr(encode._Source, "append", append)
        made(files, tokenizer, folder, commit_bytes=COMMIT)
    assert "place" in json.loads((folder.parent / ".tokens.partial" / CATALOGUE).read_text())


def test_other_text_or_another_tokenizer_does_not_go_on_with_what_is_there(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    files = files_of(stories(60), tmp_path / "text")
    other = files_of({"en_noisy": ["another text"]}, tmp_path / "other")
    changed = tmp_path / "changed.model"
    changed.write_bytes(tokenizer.path.read_bytes() + b"\x12\x00")
    for place, (text, model) in enumerate(((other, tokenizer), (files, Tokenizer(changed)))):
        folder = tmp_path / str(place) / "tokens"
        interrupted(files, tokenizer, folder)
        found = made(text, model, folder)
        assert found == made(text, model, tmp_path / str(place) / "anew")
    # Negative control: the same text and tokenizer do go on.
    folder = tmp_path / "again" / "tokens"
    interrupted(files, tokenizer, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "_batches", lambda inputs, start: ())
        made(files, tokenizer, folder)
    assert read_shards(folder, tokenizer)["en_noisy"].ids.size > 0


def test_a_finished_folder_is_left_as_it_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = files_of(stories(5), tmp_path / "text")
    made(files, tokenizer, tmp_path / "tokens")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").iterdir()}
    made(files, tokenizer, tmp_path / "tokens")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").iterdir()} == times
    assert not list(tmp_path.glob(".*.partial"))


def test_two_processes_do_not_make_the_same_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = files_of(stories(5), tmp_path / "text")
    partial = tmp_path / ".tokens.partial"
    partial.mkdir()
    held = os.open(partial, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="in use by another process"):
        made(files, tokenizer, tmp_path / "tokens")
    os.close(held)
    assert MANIFEST in made(files, tokenizer, tmp_path / "tokens")


FULL = """
import resource, sys
from pathlib import Path
from killed_encode import make
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    make(Path(sys.argv[1]), "full")
except OSError as error:
    print(error)
"""


def test_a_full_disk_is_named_and_the_same_command_goes_on(killed: Path) -> None:
    def start(most: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(killed), str(most)],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert f"too large: '{killed / '.full.partial'}'" in start(6000)
    assert start(1 << 30) == ""
    assert contents(killed / "full") == contents(killed / "whole")


PEAK = """
import re, sys
from pathlib import Path
from killed_encode import encode, make
encode.BATCH_BYTES = 50_000
make(Path(sys.argv[1]), sys.argv[2])
# getrusage would count what the parent had before this program began.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    peaks = []
    for name, count in (("short", 5000), ("long", 30_000)):
        place = tmp_path / name
        files_of({"en": [f"{number} {STORY}" for number in range(count)]}, place / "text")
        (place / FILE_NAME).write_bytes(tokenizer.path.read_bytes())
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(place), "tokens"],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    size = (tmp_path / "long" / "tokens" / "en.ids").stat().st_size
    # The lines alone are 5 MB, their ids 2 MB.
    assert size > 1.5e6 and peaks[1] - peaks[0] < 3000
