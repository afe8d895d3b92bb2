"""Studies in a real process: shared arms once, going on after a kill, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from small_studies import HEADS, RATES, install

from indexlm.cli import lab as cli_lab
from indexlm.cli import main
from indexlm.errors import UserError
from indexlm.lab import studies
from indexlm.lab.studies import STUDIES, study
from indexlm.lab.study import FIRST_SEED
from indexlm.lab.suite import Asked, named_arms, read_outcomes, run_studies
from indexlm.records import only_writer

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The studies of the report are not run here."""
    before = dict(STUDIES)
    install()
    yield
    STUDIES.clear()
    STUDIES.update(before)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both studies, by the real command."""
    out = tmp_path_factory.mktemp("lab")
    done = lab(out, "run", "all", "--out", "results")
    assert done.returncode == 0, done.stderr
    return out / "results"


def lab(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(), *arguments], cwd=place, env=environment(), capture_output=True, text=True
    )


def lab_here(place: Path, *arguments: str) -> tuple[int, str, str]:
    """As `lab`, in this process: exit code, stdout, stderr. Saves the seconds that torch takes."""
    out, err, code = StringIO(), StringIO(), 0
    with (
        chdir(place),
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.object(sys, "argv", ["indexlm", "lab", *arguments]),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def command() -> list[str]:
    return [sys.executable, str(HERE / "small_studies.py"), "lab"]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def arms_in(out: Path) -> dict[str, int]:
    """Name of each finished arm's file -> when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("work/arms/*.json")}


def test_an_arm_that_two_studies_need_is_run_once(ran: Path) -> None:
    needed = [
        arm.fingerprint()
        for each in (RATES, HEADS)
        for by_seed in named_arms(each, Asked("quick", ran)).values()
        for arm in by_seed.values()
    ]
    assert len(needed) == 12
    assert len(set(needed)) == len(arms_in(ran)) == 9
    rates, heads = read_outcomes(ran)
    large, head = rates["arms"][0]["seeds"], heads["arms"][0]["seeds"]
    assert (rates["arms"][0]["name"], heads["arms"][0]["name"]) == ("large", "Norm-Head")
    assert large == head


def test_the_same_command_again_changes_nothing(ran: Path) -> None:
    before = {path: path.read_bytes() for path in ran.glob("*.*")}
    stamps = arms_in(ran)
    run_studies(["little-rates", "little-heads"], Asked("quick", ran))
    assert arms_in(ran) == stamps
    assert {path: path.read_bytes() for path in ran.glob("*.*")} == before


def test_what_is_kept_is_what_a_repository_may_hold(ran: Path) -> None:
    assert {path.name for path in ran.iterdir()} == {
        *("little-rates.json", "little-rates.html", "little-heads.json", "little-heads.html"),
        *("index.html", "work"),
    }
    assert (ran / "work" / ".gitignore").read_text() == "*\n"
    assert list((ran / "work" / "work").iterdir()) == []


def test_a_page_is_there_as_soon_as_the_arms_of_its_study_are_done(tmp_path: Path) -> None:
    """What fails in the last arm of the second study costs nothing of the first."""
    out = tmp_path / "results"
    last = named_arms(HEADS, Asked("quick", out))["plain head"][FIRST_SEED + 2]
    in_the_way = out / "work" / "work" / last.fingerprint()[:16]
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder")
    with pytest.raises(OSError, match=in_the_way.name):
        run_studies([RATES.name, HEADS.name], Asked("quick", out, workers=1))
    assert (out / "little-rates.html").exists()
    assert not (out / "little-heads.json").exists()


def test_pages_are_made_of_the_results_alone(ran: Path, tmp_path: Path) -> None:
    for path in ran.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert lab_here(tmp_path, "report", ".")[0] == 0
    for name in ("index", "little-rates", "little-heads"):
        page = f"{name}.html"
        assert (tmp_path / page).read_bytes() == (ran / page).read_bytes()


def test_a_kill_costs_no_finished_arm_and_changes_no_number(ran: Path, tmp_path: Path) -> None:
    """SIGKILL of the whole process group when two arms are done; the same command goes on."""
    arguments = ["run", "little-rates", "--out", "out", "--workers", "1"]
    process = subprocess.Popen(
        [*command(), *arguments], cwd=tmp_path, env=environment(), start_new_session=True
    )
    out, deadline = tmp_path / "out", time.monotonic() + 120
    while len(arms_in(out)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = arms_in(out)
    assert 2 <= len(kept) < 6
    assert not (out / "little-rates.json").exists()
    done = lab(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    after = arms_in(out)
    assert len(after) == 6
    assert {name: after[name] for name in kept} == kept
    killed, undisturbed = (
        json.loads((each / "little-rates.json").read_text()) for each in (out, ran)
    )
    assert killed["seeds"] == [100, 101, 102]
    for name in ("verdict", "sentence", "claims", "shown"):
        assert killed[name] == undisturbed[name], name
    assert [_scores(arm) for arm in killed["arms"]] == [_scores(arm) for arm in undisturbed["arms"]]


def _scores(arm: dict[str, Any]) -> Any:
    return {seed: left["scores"] for seed, left in arm["seeds"].items()}


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*command(), "run", "all", "--out", "out", "--workers", "1"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not arms_in(tmp_path / "out") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on in out" in said
    assert "Traceback" not in said


def test_other_seeds_are_other_arms_and_more_are_added_to_what_there_is(
    ran: Path, tmp_path: Path
) -> None:
    """Verdicts of seeds that nobody has looked at; none of them is taken from what there is."""
    out = tmp_path / "out"
    arguments = ["run", "little-rates", "--out", "out", "--workers", "1", "--first-seed", "7"]
    code, _, err = lab_here(tmp_path, *arguments, "--seeds", "2")
    assert code == 0, err
    (first,) = read_outcomes(out)
    assert (first["seeds"], first["verdict"]) == ([7, 8], "inconclusive")
    command = "indexlm lab run little-rates --preset quick --seeds 2 --first-seed 7"
    assert first["made"]["command"] == command
    assert command in (out / "little-rates.html").read_text()
    assert read_outcomes(ran)[0]["made"]["command"] == "indexlm lab run little-rates --preset quick"
    stamps = arms_in(out)
    assert not stamps.keys() & arms_in(ran).keys()
    (more,) = run_studies(["little-rates"], Asked("quick", out, first_seed=7, workers=1))
    assert (more["seeds"], more["verdict"]) == ([7, 8, 9], "reproduced")
    assert more["made"]["command"].endswith("--preset quick --first-seed 7")
    assert {name: arms_in(out)[name] for name in stamps} == stamps


def test_the_command_s_first_seed_is_that_of_the_studies() -> None:
    assert cli_lab.FIRST_SEED == FIRST_SEED


# What is refused.


def test_a_folder_is_one_command_s_at_a_time(ran: Path, tmp_path: Path) -> None:
    arguments = ["run", "little-rates", "--out", "out"]
    with only_writer(tmp_path / "out" / "work"):
        code, out, err = lab_here(tmp_path, *arguments)
    assert (code, out) == (2, "")
    assert "out/work is in use by another process; wait for it or name another --out" in err
    assert not arms_in(tmp_path / "out") and not list((tmp_path / "out").glob("*.*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "little-rate"], "did you mean little-rates?"),
        (["run", "little_heads"], "did you mean little-heads?"),
        (
            ["run", "little-rates", "quantum"],
            "'quantum' is no study; there are little-rates, little-heads",
        ),
        (["run", "little-rates", "--preset", "gpu"], "has no preset gpu; it has quick, full"),
        (["run", "all", "quantum"], "'quantum' is no study"),
        (["run", "little-rates", "--preset", "tiny"], "'tiny' is not one of"),
        (["run", "little-rates", "--seeds", "0"], "Invalid value for '--seeds'"),
        (["run", "little-rates", "--first-seed", "-1"], "Invalid value for '--first-seed'"),
        (["run"], "Missing argument"),
        (["run", "little-rates", "--out", "file"], "file is a file, not a folder"),
        (["run", "little-rates", "--out", "file/in/it"], "file is a file, not a folder"),
        (["run", "little-rates", "--out", "/proc/lab"], "nothing can be written to /proc"),
        (["run", "little-rates", "--out", "broken"], "broken/x.json is no result of a study"),
        (["run", "little-rates", "--text", "empty"], "--text and --tokenizer belong together"),
        (["run", "little-rates", "--tokenizer", "file"], "--text and --tokenizer belong together"),
        (
            ["run", "little-rates", "--text", "empty", "--tokenizer", "file"],
            "empty holds no refined text; give the --out of",
        ),
        (["report", "empty"], "empty holds no result of a study"),
        (["report", "broken"], "broken/x.json is no result of a study"),
        (["list", "broken"], "broken/x.json is no result of a study"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.json").write_text('{"study": 3')
    before = sorted(tmp_path.rglob("*"))
    code, out, err = lab_here(tmp_path, *arguments)
    assert (code, out) == (2, ""), err
    assert said in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(RATES.seeds, "gpu", 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="use --preset full"):
        run_studies(["little-rates"], Asked("gpu", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_smaller_preset_does_not_replace_a_larger_one(ran: Path, tmp_path: Path) -> None:
    full = json.loads((ran / "little-rates.json").read_text()) | {"preset": "full"}
    (tmp_path / "little-rates.json").write_text(json.dumps(full))
    with pytest.raises(UserError, match="of the preset full, and quick would replace it"):
        run_studies(["little-rates"], Asked("quick", tmp_path))


@pytest.mark.parametrize(
    "other", [{"seeds": 2}, {"first_seed": 101}, {"seeds": 9, "first_seed": 200}]
)
def test_seeds_of_a_result_are_not_lost(ran: Path, tmp_path: Path, other: dict[str, int]) -> None:
    shutil.copy(ran / "little-rates.json", tmp_path)
    with pytest.raises(
        UserError, match="has seeds that would be lost: 100, 101, 102; name another"
    ):
        run_studies(["little-rates"], Asked("quick", tmp_path, **other))
    assert not list(tmp_path.glob("work/arms/*"))


def test_list_shows_what_is_asked_and_what_was_found(ran: Path) -> None:
    _, shown, _ = lab_here(ran.parent, "list", "results")
    assert "Does the larger rate end lower?" in shown and "较大的学习率" in shown
    assert "verdict: reproduced; seeds: quick 3, full 4" in shown
    assert "verdict: opposite" in shown
    assert "verdict" not in lab_here(ran.parent, "list")[1]


# The studies of the report.


def test_every_study_loads_and_names_what_it_compares() -> None:
    STUDIES.clear()
    STUDIES.update(_own())
    for name in STUDIES:
        each = study(name)
        assert {"quick", "full"} <= each.seeds.keys(), name
        assert min(each.seeds.values()) >= 3, name
        for preset in each.seeds:
            arms = named_arms(each, Asked(preset, Path(), seeds=1))
            for claim in each.claims:
                named = {claim.treatment, claim.control}
                assert claim.made is not None or named <= arms.keys(), (name, claim.name)


def _own() -> dict[str, str]:
    """As the package has them, whatever this process did to the table."""
    import ast

    tree = ast.parse(Path(studies.__file__).read_text(encoding="utf-8"))
    (table,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
    found = ast.literal_eval(table)
    assert isinstance(found, dict)
    return found
