"""`eval` in the hands of a user: one command, whatever stops it, and what it says and leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

import benchmark_files
from command import (
    PATIENCE,
    contents,
    refused,
    run,
    run_here,
    standing_still,
    start,
    succeeded,
    with_corpus,
    write_model,
)
from hub_server import served
from indexlm.records import verify
from indexlm.tokens.tokenizer import Tokenizer

# One thread: the networks here are too small to share out.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """`model` with a window of 64 and `wide` with one of 700, one with `more` rows than its
    tokenizer has pieces, refined text in `clean`, benchmarks in `data`."""
    place = with_corpus(tmp_path_factory.mktemp("evaluation"), 300)
    write_model(place / "model", tokenizer)
    write_model(place / "wide", tokenizer, context=700, init_std=0.2)
    write_model(place / "more", tokenizer, vocab_size=700)
    benchmark_files.mmlu(place / "data")
    benchmark_files.arc_easy(place / "data")
    # The last to be scored, and by far the longest: time for a signal after the first parts.
    benchmark_files.hellaswag(place / "data", items=400)
    (place / "mine.toml").write_text(MINE, encoding="utf-8")
    (place / "data" / "rivers").mkdir()
    rows = [f'{{"q": "Is it {n}?", "o": ["yes", "no"], "a": "no"}}\n' for n in range(6)]
    (place / "data" / "rivers" / "rivers.jsonl").write_text("".join(rows), encoding="utf-8")
    succeeded(place, "data", "refine", "corpus", "--out", "clean", how=run_here)
    return place


MINE = """
name = "rivers"
title = "Rivers"
language = "en"
source = "made for tests"
[forms.mine]
test = "rivers.jsonl"
question = "{q}"
options = "o"
answer = "a"
answers = "text"
[prompts.contents]
style = "contents"
question = "{question}"
neutral = "So:"
"""
BENCHMARKS = ["eval", "wide", "--data", "data", "--tasks", "mmlu,arc_easy,hellaswag"]


def results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def without_times(folder: Path) -> Any:
    found = results(folder)
    for task in found["tasks"].values():
        for prompt in task["prompts"].values():
            del prompt["seconds"]
    return found, {path.name: path.read_text() for path in (folder / "items").iterdir()}


# Benchmarks


@pytest.fixture(scope="module")
def unbroken(place: Path) -> Path:
    """The results of all three benchmarks by one process that nothing stops."""
    told = succeeded(place, *BENCHMARKS, "--out", "unbroken", how=run_here)
    assert (place / "unbroken" / "table.txt").read_text(encoding="utf-8") in told + "\n"
    return place / "unbroken"


def test_one_command_leaves_scores_answers_a_table_and_a_page(place: Path, unbroken: Path) -> None:
    kept = verify(unbroken).files.keys()
    names = [f"{t}.{p}" for t in ("mmlu", "arc_easy", "hellaswag") for p in ("letters", "contents")]
    assert kept == {
        *("results.json", "table.txt", "index.html"),
        *(f"items/{name}.jsonl" for name in names),
    }
    found = results(unbroken)
    assert found["format"] == 1 and found["text"] == {}
    assert found["model"]["name"] == "wide" and found["model"]["window"] == 700
    assert found["model"]["vocab_size"] == 640 and found["model"]["parameters"] > 1000
    assert found["settings"]["limit"] is None and found["settings"]["start"] == "none"
    assert found["tasks"].keys() == {"mmlu", "arc_easy", "hellaswag"}
    table = (unbroken / "table.txt").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith(("mmlu ", "arc_easy "))]
    chances = {line.split()[-1] for line in rows if "±" in line}
    assert len(rows) >= 10 and chances == {"25.0", "25.4"}
    assert "= chance" in table and "mmlu, higher of both styles (as the report prints it)" in table
    assert "tokens computed of" in table
    assert "<html" in (unbroken / "index.html").read_text(encoding="utf-8")
    assert not (place / "unbroken.work").exists()
    line = json.loads((unbroken / "items/mmlu.letters.jsonl").read_text().splitlines()[0])
    assert line.keys() == {
        *("subject", "id", "place", "prompt_sha256", "answer", "logprobs", "tokens"),
        *("characters", "unconditional", "choices"),
    }
    assert line["place"] == "test/anatomy_test.csv:1" and len(line["logprobs"]) == 4


def test_rows_of_subjects_and_published_scores_are_shown_where_asked(place: Path) -> None:
    ask = ["eval", "wide", "--data", "data", "--tasks", "mmlu", "--limit", "2"]
    told = succeeded(place, *ask, "--by-subject", "--beside", "report", how=run_here)
    assert {f"mmlu/{name}" for name in benchmark_files.SUBJECTS} <= set(told.split())
    assert "mmlu/stem" in told and "Index-1.9B-Pure" in told and "wide (here)" in told
    told = succeeded(place, *ask, "--beside", "Phi-2", "--prompts", "letters", how=run_here)
    assert "Phi-2" in told and "Index-1.9B-Pure" not in told and "mmlu, higher" not in told


def test_a_benchmark_of_ones_own_is_a_file(place: Path, tmp_path: Path) -> None:
    ask = ["eval", "wide", "--tasks", "mine.toml,arc_easy", "--data", "data", "--out"]
    told = succeeded(place, *ask, str(tmp_path / "out"), how=run_here)
    assert "rivers" in told and "50.0" in told
    assert (
        results(tmp_path / "out")["tasks"]["rivers"]["prompts"]["contents"]["micro"]["items"] == 6
    )


def test_benchmarks_and_text_are_judged_by_one_command(place: Path, tmp_path: Path) -> None:
    """Each finds its folder among those that are given."""
    ask = ["eval", "wide", "--tasks", "bits_per_byte,arc_easy,starter,mmlu", "--limit", "3"]
    out = tmp_path / "out"
    where = ["--data", "clean", "--data", "data", "--out", str(out)]
    told = succeeded(place, *ask, *where, how=run_here)
    found = results(out)
    assert found["tasks"].keys() == {"arc_easy", "mmlu"}
    assert {"zh", "en"} < found["text"]["bits_per_byte"].keys() and "bits per byte" in told
    assert "items/bits_per_byte.jsonl" in verify(out).files


# Stopped and shared out


def pieces(work: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in work.glob("*.json")}


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_run_that_was_stopped_goes_on_and_ends_as_an_unbroken_one(
    place: Path, unbroken: Path, blow: signal.Signals
) -> None:
    out = f"stopped-{blow.name}"
    work = place / f"{out}.work"
    process = start(place, *BENCHMARKS, "--out", out)
    while len(pieces(work)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(blow)
    _, said = process.communicate(timeout=PATIENCE)
    if blow is signal.SIGINT:
        assert process.returncode == 130 and f"kept in {work.name}" in said
    finished = pieces(work)
    assert 3 <= len(finished) < 12 and not (place / out).exists()
    told = succeeded(place, *BENCHMARKS, "--out", out)
    assert f"{len(finished)} of 12 parts are finished already" in told
    assert_same(place / out, unbroken)
    assert not work.exists()


def assert_same(one: Path, other: Path) -> None:
    """Every choice the same, and numbers as far as batches of another composition allow."""
    names = {path.name for path in (other / "items").iterdir()}
    assert {path.name for path in (one / "items").iterdir()} == names
    for name in names:
        pairs = zip(
            *((f / "items" / name).read_text().splitlines() for f in (one, other)), strict=True
        )
        for line, wanted in ((json.loads(a), json.loads(b)) for a, b in pairs):
            assert line.pop("logprobs") == pytest.approx(wanted.pop("logprobs"), abs=1e-4)
            if line["unconditional"]:
                near = pytest.approx(wanted.pop("unconditional"), abs=1e-4)
                assert line.pop("unconditional") == near
            assert line == wanted


def test_another_model_takes_nothing_over(place: Path, tokenizer: Tokenizer) -> None:
    """Though it stands in the same place and what is kept is there."""
    bad = place / "data" / "bad"
    benchmark_files.mmlu(bad)
    path = bad / "mmlu/test/marketing_test.csv"
    path.write_text(path.read_text() + "river?,a,b,c,d,E\n")
    write_model(place / "changed", tokenizer, context=700)
    ask = ["eval", "changed", "--data", "data/bad", "--tasks", "mmlu", "--out", "changed-out"]
    assert run_here(place, *ask)[0] == 2
    assert "6 of 6 parts are finished" in run_here(place, *ask)[2]
    for file in (place / "changed").iterdir():
        file.unlink()
    write_model(place / "changed", tokenizer, context=700, layers=3)
    code, _, said = run_here(place, *ask)
    assert code == 2 and "finished already" not in said


def test_two_processes_give_what_one_gives(place: Path, unbroken: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "indexlm.cli", *BENCHMARKS, "--out", "shared"]
    done = subprocess.run(
        command, cwd=place, env={**os.environ}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert_same(place / "shared", unbroken)
    # One of them speaks.
    assert done.stdout.count("accuracy in percent") == 1
    ours, theirs = results(place / "shared"), results(unbroken)
    for name, task in theirs["tasks"].items():
        for prompt, part in task["prompts"].items():
            found = ours["tasks"][name]["prompts"][prompt]
            assert (found["computed"], found["naive"]) == (part["computed"], part["naive"])


# What cannot be done


def test_one_bad_file_leaves_the_other_subjects_shown_and_kept(place: Path, tmp_path: Path) -> None:
    """Exit code 2 with file, line and value; mended, the same command does what is missing."""
    benchmark_files.mmlu(tmp_path / "data")
    path = tmp_path / "data/mmlu/test/marketing_test.csv"
    good = path.read_text(encoding="utf-8")
    path.write_text(good + "river?,a,b,c,d,E\n", encoding="utf-8")
    out = tmp_path / "out"
    ask = ["eval", "wide", "--data", str(tmp_path / "data"), "--tasks", "mmlu", "--out", str(out)]
    code, shown, said = run_here(place, *ask)
    assert code == 2 and not out.exists()
    assert "marketing_test.csv:15: the answer 'E' is none of A, B, C, D" in said
    assert "1 of 4 subjects could not be scored" in said
    assert f"3 others are scored and kept in {out}.work" in said
    assert "mmlu" in shown and "40" in shown
    path.write_text(good, encoding="utf-8")
    assert "6 of 8 parts are finished already" in succeeded(place, *ask, how=run_here)
    assert len(results(out)["tasks"]["mmlu"]["prompts"]["letters"]["subjects"]) == 4
    # Without --out they are shown.
    path.write_text(good + "river?,a,b,c,d,E\n", encoding="utf-8")
    code, shown, said = run_here(place, *ask[:-2])
    assert code == 2 and "mmlu" in shown and "with --out they would be kept" in said


NEEDLE = ["eval", "model", "--data", "clean", "--tasks", "needle", "--out", "new"]
ARC = ["eval", "wide", "--data", "data", "--tasks", "arc_easy", "--out", "new"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*NEEDLE, "--tasks", "needle,recall"], ["no task 'recall'", "bits_per_byte, starter"]),
        ([*NEEDLE, "--lengths", "64,many"], ["--lengths 64,many", "256,1024"]),
        ([*NEEDLE, "--depths", "half"], ["--depths half"]),
        ([*NEEDLE, "--depths", "101"], ["depth 101 is not a percentage"]),
        ([*NEEDLE, "--lengths", "65"], ["65 tokens are beyond the model's window of 64"]),
        ([*NEEDLE, "--lengths", "20"], ["20 tokens have no room for a needle"]),
        ([*NEEDLE, "--out", "model"], ["model exists; name another --out"]),
        ([*NEEDLE, "--data", "clean"], ["clean and clean are both refined text"]),
        (["eval", "more", *NEEDLE[2:]], ["has 640 pieces", "vocab_size=700"]),
        (["eval", "more", *ARC[2:]], ["has 640 pieces", "vocab_size=700"]),
        (["eval", "nowhere", *ARC[2:]], ["nowhere"]),
        ([*ARC, "--tasks", "mmul"], ["no task 'mmul'; did you mean mmlu?", "own"]),
        ([*ARC, "--tasks", ","], ["--tasks names no task"]),
        ([*ARC, "--tasks", "missing.toml"], ["there is no file missing.toml"]),
        ([*ARC, "--tasks", "mine.toml,./mine.toml"], ["./mine.toml is called 'rivers'"]),
        (["eval", "wide", "--tasks", "arc_easy"], ["--data is missing"]),
        ([*ARC[:3], "clean", *ARC[4:]], ["clean has no files of arc_easy"]),
        ([*ARC, "--data", "clean"], ["--data clean holds nothing for these tasks"]),
        ([*ARC, "--tasks", "starter,arc_easy"], ["data holds no refined text"]),
        ([*ARC, "--lengths", "64"], ["--lengths is for the needle test", "arc_easy,needle"]),
        ([*NEEDLE, "--shots", "0"], ["--shots is for benchmarks", "--tasks needle,mmlu"]),
        ([*NEEDLE, "--beside", "report"], ["--beside is for benchmarks"]),
        ([*ARC, "--beside", "Index-7B"], ["--beside Index-7B: write report, or of Index-1.9B"]),
        ([*ARC, "--prompts", "cloze"], ["arc_easy has no prompt 'cloze'"]),
        ([*ARC, "--subjects", "anatomy"], ["arc_easy has no subject 'anatomy'"]),
        ([*ARC, "--limit", "0"], ["--limit"]),
        ([*ARC, "--overflow", "ignore"], ["'ignore' is not one of", "'fewer'"]),
        ([*ARC, "--out", "wide"], ["wide exists; name another --out"]),
        ([*ARC, "--out", "/proc/new"], ["nothing can be written to /proc", "another --out"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_judged_is_refused_and_leaves_nothing(
    place: Path, arguments: Sequence[str], words: Sequence[str]
) -> None:
    message = refused(place, *arguments, how=run_here)
    assert [word for word in words if word not in message] == [], message


def test_a_second_run_into_the_same_folder_is_refused(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(place, *BENCHMARKS, "--out", str(out))
    while not pieces(out.with_name("out.work")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    with standing_still(process):
        code, _, said = run_here(place, *BENCHMARKS, "--out", str(out))
    process.communicate(timeout=PATIENCE)
    assert code == 2 and "is in use by another process" in said
    assert process.returncode == 0 and verify(out)


# Text of one's own


def test_the_needle_test_keeps_and_shows_every_cell(place: Path, tmp_path: Path) -> None:
    command = ["eval", "model", "--data", "clean", "--tasks", "needle", "--lengths", "60,64"]
    options = ["--items", "2", "--depths", "0,100", "--out"]
    told = succeeded(place, *command, *options, str(tmp_path / "one"))
    assert "needle test, 2 items a cell; trained window 64" in told
    cells = results(tmp_path / "one")["text"]["needle"]["cells"]
    assert [(cell["language"], cell["length"], cell["depth"]) for cell in cells] == [
        *[("en", 60, 0), ("zh", 60, 0), ("en", 60, 100), ("zh", 60, 100)],
        *[("en", 64, 0), ("zh", 64, 0), ("en", 64, 100), ("zh", 64, 100)],
    ]
    assert verify(tmp_path / "one").files.keys() == {"results.json", "table.txt"}
    again = succeeded(place, *command, *options, str(tmp_path / "two"), how=run_here)
    assert again == told
    assert results(tmp_path / "two") == results(tmp_path / "one")


def test_lengths_past_the_window_are_run_where_that_is_asked(place: Path) -> None:
    command = ["eval", "model", "--data", "clean", "--tasks", "needle", "--lengths", "96"]
    ask = [*command, "--items", "1", "--depths", "50"]
    message = refused(place, *ask, how=run_here)
    assert "96 tokens are beyond the model's window of 64" in message
    plain, ntk = ["--beyond", "plain"], ["--beyond", "ntk", "--factor", "4"]
    for beyond, words in ((plain, "extrapolated"), (ntk, "NTK x 4")):
        told = succeeded(place, *ask, *beyond, how=run_here)
        assert f"trained window 64, beyond it {words}" in told
    assert "--factor 4 is of NTK" in refused(place, *ask, *plain, "--factor", "4", how=run_here)
    bits = ["eval", "model", "--data", "clean", "--tasks", "bits_per_byte"]
    assert "--beyond is for the needle" in refused(place, *bits, *plain, how=run_here)


def test_nothing_is_left_in_the_folder_where_one_works(place: Path, tmp_path: Path) -> None:
    """Where no --out is given."""
    before = contents(place)
    ask = ["eval", str(place / "wide"), "--data", str(place / "data"), "--tasks", "arc_easy"]
    succeeded(tmp_path, *ask, "--limit", "2", how=run_here)
    assert contents(place) == before and contents(tmp_path) == {}


def test_refusals_need_no_data(place: Path, tmp_path: Path) -> None:
    ask = ["eval", "wide", "--tasks", "safety", "--out", str(tmp_path / "out")]
    code, shown, said = run(place, *ask)
    assert code == 0, said
    found = results(tmp_path / "out")["text"]["safety"]
    assert found["groups"]["all"]["pairs"] == found["pairs"] and "unsafe refused" in shown
    assert "items/safety.safe.jsonl" in verify(tmp_path / "out").files
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Unsafe refused" in page and "Benchmark" not in page


def test_benchmarks_of_the_hub_are_downloaded_once_and_nothing_else_of_them(
    place: Path, tmp_path: Path
) -> None:
    rows = [
        {"question": f"Which is {n}?", "subject": "anatomy", "choices": [*"pqrs"], "answer": n % 4}
        for n in range(8)
    ]
    files = {"README.md": b"---\nlicense: mit\n---\n"}
    for number, part in enumerate(("anatomy/test", "anatomy/dev", "auxiliary_train/train")):
        packed = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[: 8 - number]), packed)
        files[f"{part}-00000-of-00001.parquet"] = packed.getvalue().to_pybytes()
    asked = ("eval", str(place / "model"), "--tasks", "mmlu", "--data", "hub", "--overflow", "cut")
    with served({"cais/mmlu": files}) as there:
        reach = {"HF_ENDPOINT": there.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        code, out, err = run(tmp_path, *asked, **reach)
        assert code == 0, err
        assert there.given() == [
            "README.md",
            "dev-00000-of-00001.parquet",
            "test-00000-of-00001.parquet",
        ]
    code, again, err = run(tmp_path, *asked, **reach)
    assert code == 0, err
    assert again.splitlines()[:3] == out.splitlines()[:3]
    assert "letters" in out
    message = refused(tmp_path, *asked[:3], "cmmlu", *asked[4:], changes=True, **reach)
    assert "the hub has no files of cmmlu" in message


def test_what_lies_where_pieces_are_kept_is_not_taken_away(place: Path) -> None:
    (place / "own.work" / "album").mkdir(parents=True)
    (place / "own.work" / "album" / "photo.txt").write_text("sea", encoding="utf-8")
    ask = ["eval", "wide", "--data", "data", "--tasks", "mmlu", "--limit", "2", "--out", "own"]
    assert "holds album, which is none" in refused(place, *ask, how=run_here)


def test_options_that_nothing_asked_for_uses_are_refused_before_the_work(place: Path) -> None:
    ask = ["eval", "wide", "--data", "data", "--tasks"]
    message = refused(place, *ask, "mine.toml", "--beside", "report", "--out", "s", how=run_here)
    assert "nothing is published of rivers" in message
    for option in (("--depths", "50"), ("--items", "3")):
        assert f"{option[0]} is for the needle test" in refused(
            place, *ask, "mmlu", *option, how=run_here
        )


def test_a_benchmark_of_ones_own_does_not_pass_for_another(place: Path) -> None:
    named = MINE.replace('name = "rivers"', 'name = "mmlu"')
    (place / "named.toml").write_text(named, encoding="utf-8")
    message = refused(
        place, "eval", "wide", "--data", "data", "--tasks", "named.toml", how=run_here
    )
    assert "a task that is built in" in message
