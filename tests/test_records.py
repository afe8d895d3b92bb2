"""The run folder: all or nothing when it is written, and never trusted blindly when it is read."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.errors import DamagedError, UserError
from indexlm.records import (
    MANIFEST,
    Metrics,
    Progress,
    clock,
    fingerprint,
    only_writer,
    publish,
    read_manifest,
    read_metrics,
    seal,
    sha256_file,
    verify,
    write_json,
)

FILES = {"a.bin": bytes(range(64)), "empty": b"", "深/文 件.txt": "你好".encode()}


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def names(folder: Path) -> list[str]:
    """All that is in a folder, hidden files too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    with publish(tmp_path / "made", "inputs", {"步": 3}) as folder:
        fill(folder)
    return tmp_path / "made"


# Publishing


def test_a_folder_appears_at_once_with_everything_in_it(tmp_path: Path) -> None:
    final = tmp_path / "models" / "base"
    with publish(final, "inputs") as folder:
        fill(folder)
        assert not final.exists()
    assert names(final) == sorted([*FILES, "深", MANIFEST])
    assert [path.name for path in final.parent.iterdir()] == ["base"]
    assert verify(final).fingerprint == "inputs"


def test_notes_that_the_body_fills_are_kept(tmp_path: Path) -> None:
    notes: dict[str, object] = {}
    with publish(tmp_path / "made", "inputs", notes):
        notes["词"] = [1, 2.5, None]
    assert verify(tmp_path / "made").notes == {"词": [1, 2.5, None]}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), publish(tmp_path / "made", "inputs") as folder:
        fill(folder)
        raise error
    assert names(tmp_path) == []


def test_an_exception_leaves_what_was_finished_before(finished: Path) -> None:
    before = verify(finished)
    with pytest.raises(InterruptedError), publish(finished, "other inputs") as folder:
        (folder / "a.bin").write_bytes(b"half")
        raise InterruptedError
    assert verify(finished) == before
    assert [path.name for path in finished.parent.iterdir()] == ["made"]


def test_a_folder_made_anew_holds_nothing_of_the_old_one(finished: Path) -> None:
    with publish(finished, "other inputs") as folder:
        (folder / "new").write_bytes(b"1")
    assert names(finished) == [MANIFEST, "new"]
    assert verify(finished).fingerprint == "other inputs"


def test_a_killed_run_leaves_no_finished_folder_and_does_not_disturb_the_next(
    tmp_path: Path,
) -> None:
    final = tmp_path / "made"
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom indexlm.records import publish\n"
        "with publish(Path(sys.argv[1]), 'inputs') as folder:\n"
        "    (folder / 'a.bin').write_bytes(b'half')\n    (folder / 'left over').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(final)], check=False)
    assert done.returncode == -signal.SIGKILL
    # The run was really in the middle.
    assert any(name.endswith("left over") for name in names(tmp_path))
    assert not final.exists() and read_manifest(final) is None
    with publish(final, "inputs") as folder:
        fill(folder)
    assert names(tmp_path) == sorted(["made", *(f"made/{n}" for n in [*FILES, "深", MANIFEST])])
    verify(final)


def test_json_is_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    write_json(path, {"文": 1})
    with pytest.raises(TypeError):
        write_json(path, {"文": 2, "bad": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"文": 1}
    write_json(path, [])
    assert names(tmp_path) == ["times.json"]


# Damage


def test_a_whole_folder_passes_and_its_manifest_says_what_is_in_it(finished: Path) -> None:
    manifest = verify(finished)
    assert manifest.fingerprint == "inputs" and manifest.notes == {"步": 3}
    assert {name: entry["bytes"] for name, entry in manifest.files.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    assert all(e["sha256"] == sha256_file(finished / n) for n, e in manifest.files.items())


def refused(folder: Path, name: str) -> None:
    with pytest.raises(DamagedError, match=re.escape(str(folder / name))) as caught:
        verify(folder)
    assert f"delete {folder}" in str(caught.value)


@settings(max_examples=60)
@given(data=st.data())
def test_a_flipped_bit_in_any_file_is_found_and_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    fill(folder)
    seal(folder, "inputs", {"步": 3})
    name = data.draw(st.sampled_from(["a.bin", "深/文 件.txt", MANIFEST]))
    content = bytearray((folder / name).read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(content)
    refused(folder, name)
    content[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(content)
    verify(folder)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_file_cut_short_or_grown_is_found_and_named(finished: Path, name: str) -> None:
    content = (finished / name).read_bytes()
    for other in (*(content[:kept] for kept in range(len(content))), content + b"\0"):
        (finished / name).write_bytes(other)
        refused(finished, name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(finished: Path, name: str) -> None:
    (finished / name).unlink()
    refused(finished, name)
    (finished / name).mkdir()
    refused(finished, name)


def test_a_folder_without_a_manifest_is_not_finished(finished: Path) -> None:
    (finished / MANIFEST).unlink()
    assert read_manifest(finished) is None
    with pytest.raises(DamagedError, match=rf"{re.escape(str(finished))} has no manifest\.json"):
        verify(finished)


def forget_a_file(content: dict[str, dict[str, object]]) -> None:
    del content["files"]["a.bin"]


def claim_other_inputs(content: dict[str, object]) -> None:
    content["fingerprint"] = "other inputs"


def change_a_note(content: dict[str, dict[str, object]]) -> None:
    content["notes"]["步"] = 4


def drop_the_seal(content: dict[str, object]) -> None:
    del content["sha256"]


@pytest.mark.parametrize(
    "tamper", [forget_a_file, claim_other_inputs, change_a_note, drop_the_seal]
)
def test_a_manifest_changed_by_hand_is_refused(
    finished: Path, tamper: Callable[[dict[str, object]], None]
) -> None:
    content = json.loads((finished / MANIFEST).read_text(encoding="utf-8"))
    write_json(finished / MANIFEST, content)
    verify(finished)
    tamper(content)
    write_json(finished / MANIFEST, content)
    refused(finished, MANIFEST)


@pytest.mark.parametrize("content", ["", "null", "5", '"text"', "[]", "{}", "[1, 2]", "\x00"])
def test_a_manifest_that_is_something_else_is_refused(finished: Path, content: str) -> None:
    (finished / MANIFEST).write_text(content, encoding="utf-8")
    refused(finished, MANIFEST)
    with pytest.raises(DamagedError):
        read_manifest(finished)


def test_a_manifest_of_any_length_is_refused_unread(finished: Path) -> None:
    """A downloaded folder can hold one of a terabyte, or a link to what never ends."""
    with (finished / MANIFEST).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(
        DamagedError, match=r"manifest.json cannot be read: .* at most 8388608 bytes"
    ):
        read_manifest(finished)
    (finished / MANIFEST).unlink()
    (finished / MANIFEST).symlink_to("/dev/zero")
    with pytest.raises(
        DamagedError, match=r"manifest.json cannot be read: .* at most 8388608 bytes"
    ):
        read_manifest(finished)


def test_a_manifest_cannot_write_a_line(finished: Path) -> None:
    """The remedy fits a folder that was made and one that was downloaded."""
    content = json.loads((finished / MANIFEST).read_text(encoding="utf-8"))
    del content["sha256"]
    for change in ({"files": {"x\nWRONG: \x1b": {"bytes": "many", "sha256": ""}}}, {"y\nz": 1}):
        changed = content | change
        write_json(finished / MANIFEST, changed | {"sha256": fingerprint(changed)})
        with pytest.raises(DamagedError, match=r"delete .* and make or download it anew") as caught:
            read_manifest(finished)
        assert str(caught.value).isprintable()


def test_fingerprints_are_of_values_and_not_of_their_order_or_process() -> None:
    assert fingerprint({"a": 1, "b": (2, "中")}) == fingerprint({"b": [2, "中"], "a": 1})
    different = [fingerprint(*p) for p in [(), (1,), ("1",), (1, 2), ([1, 2],), (12,), (None,)]]
    assert len(set(different)) == len(different)
    # The spelling is fixed: another one would make every finished folder look changed.
    spelt = hashlib.sha256('["stage",{"seed":1,"词":0.5}]'.encode()).hexdigest()
    assert fingerprint("stage", {"词": 0.5, "seed": 1}) == spelt


# One writer


HOLD = (
    "import sys\nfrom pathlib import Path\nfrom indexlm.records import only_writer\n"
    "with only_writer(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


@contextmanager
def another_writer(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that holds the folder until its input ends or it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_by_name_until_the_first_ends(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    with another_writer(folder) as process:
        with pytest.raises(UserError, match=re.escape(str(folder))) as caught, only_writer(folder):
            pytest.fail("two writers in one folder")
        assert "in use by another process" in str(caught.value) and "--out" in str(caught.value)
        with only_writer(folder.with_name("other")):
            pass
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
        with only_writer(folder):
            pass


def test_a_killed_writer_frees_the_folder(tmp_path: Path) -> None:
    with another_writer(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with only_writer(tmp_path):
            pass


def test_a_writer_that_fails_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError), only_writer(tmp_path):
        raise InterruptedError
    with only_writer(tmp_path), pytest.raises(UserError), only_writer(tmp_path):
        pytest.fail("two writers in one folder")


# Metrics


def test_metrics_are_cut_back_to_the_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path, 0)
    for step in range(6):
        first.write({"step": step, "loss": 1 / (step + 3), "来源": "中"})
        # Whole on disk before the next one, so that a kill loses at most the one being written.
        assert len(read_metrics(path)) == step + 1
    first.close()
    again = Metrics(path, 4)
    assert [entry["step"] for entry in read_metrics(path)] == [0, 1, 2, 3]
    again.write({"step": 4, "loss": 0.5})
    again.close()
    assert [entry["step"] for entry in read_metrics(path)] == [0, 1, 2, 3, 4]
    assert read_metrics(path)[2] == {"step": 2, "loss": 1 / 5, "来源": "中"}
    Metrics(path, 0).close()
    assert path.read_bytes() == b"" and names(tmp_path) == ["metrics.jsonl"]


def test_a_last_line_cut_anywhere_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [f'{{"step": {step}, "来源": "中文"}}\n'.encode() for step in range(3)]
    for kept in range(len(lines[2])):
        path.write_bytes(lines[0] + lines[1] + lines[2][:kept])
        assert [entry["step"] for entry in read_metrics(path)] == [0, 1]
        Metrics(path, 3).close()
        assert path.read_bytes() == lines[0] + lines[1]


def test_no_metrics_are_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


# Progress


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (65, "1:05"),
        (3599.6, "1:00:00"),
        (3700, "1:01:40"),
        (360_000, "100:00:00"),
    ],
)
def test_a_clock_shows_hours_only_where_there_are_any(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@given(st.floats(0, 1e7))
def test_a_clock_reads_back_to_the_second(seconds: float) -> None:
    parts = [int(part) for part in clock(seconds).split(":")]
    assert all(part < 60 for part in parts[1:])
    assert sum(part * 60**place for place, part in enumerate(reversed(parts))) == round(seconds)


def overdue(progress: Progress) -> Progress:
    """Last shown, and begun, a hundred seconds ago."""
    progress.started -= 100
    progress.shown -= 100
    return progress


def test_a_log_says_share_count_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "indexlm")
    progress = overdue(Progress("tokens", 4000))
    progress.advance(1000)
    # Again at once is not due.
    progress.advance(1000)
    assert caplog.messages == ["tokens:  25% 1,000/4,000, 5:00 left"]


def test_more_than_was_expected_is_not_negative_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "indexlm")
    overdue(Progress("tokens", 10)).advance(11)
    overdue(Progress("tokens", 0)).advance(5)
    assert caplog.messages == ["tokens: 100% 11/10, 0:00 left", "tokens: 100% 5/0, 0:00 left"]


def test_a_terminal_shows_one_line_and_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.openpty()
    with os.fdopen(writer, "w", encoding="utf-8", closefd=True) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = overdue(Progress("trunk", 2))
        progress.advance()
        overdue(progress).advance()
        progress.close()
        terminal.flush()
        shown = os.read(reader, 4096).decode()
    os.close(reader)
    assert "\n" not in shown
    assert shown.split("\r\x1b[K") == [
        "",
        "trunk:  50% 1/2, 1:40 left",
        "trunk: 100% 2/2, 0:00 left",
        "",
    ]
