"""A run that was stopped goes on only with what it was started with; anything else is named, and
nothing of it is touched."""

import json
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import (
    PATIENCE,
    SMALL,
    contents,
    refused,
    run_here,
    start,
    succeeded,
    with_corpus,
)
from indexlm.pipeline import Run
from indexlm.records import read_manifest, read_metrics, seal, sha256_file
from indexlm.settings import load_recipe, with_overrides
from indexlm.tokens.tokenizer import FILE_NAME, Tokenizer

STEPS = 400
"""Of a few milliseconds. A signal sent after ten of them comes well before the last."""
MIXTURE = json.dumps({"zh_curated": 0.3, "zh_noisy": 0.3, "en_noisy": 0.4})
SETTINGS = [
    *SMALL,
    f"pretrain.mixture={MIXTURE}",
    f"base.mixture={MIXTURE}",
    f"pretrain.steps={STEPS}",
    *("pretrain.batch=4", "pretrain.micro_batch=2", "pretrain.save_every=8"),
    "pretrain.keep_every=40",
    # The decay of a learning rate to all of itself: branches go on as the trunk does.
    *("pretrain.schedule.warmup=3", "pretrain.schedule.final=1.0"),
]
TRUNK = ["run", "tiny", *SETTINGS, "--only", "trunk"]
FOLDER = Path("runs") / "tiny"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a corpus, its tokens and a finished trunk."""
    place = with_corpus(tmp_path_factory.mktemp("whole"), 300)
    for stage in ("text", "tokenizer", "tokens", "trunk"):
        succeeded(place, *TRUNK[:-1], stage, how=run_here)
    return place


@pytest.fixture(scope="module")
def stopped(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a trunk that was stopped."""
    place = Path(shutil.copytree(whole, tmp_path_factory.mktemp("stopped") / "place"))
    shutil.rmtree(place / FOLDER / "trunk")
    process = start(place, *TRUNK)
    while len(read_metrics(place / FOLDER / "trunk" / "metrics.jsonl")) < 10:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "state saved" in err
    assert 10 <= len(read_metrics(place / FOLDER / "trunk" / "metrics.jsonl")) < STEPS
    return place


@pytest.fixture
def place(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run, to be changed."""
    return Path(shutil.copytree(stopped, tmp_path / "place"))


def resealed(folder: Path) -> None:
    """As a stage would have left `folder` that was made from the same settings."""
    manifest = read_manifest(folder)
    assert manifest is not None
    seal(folder, manifest.fingerprint, manifest.notes)


def logged(place: Path, stage: str) -> list[dict[str, Any]]:
    entries = read_metrics(place / FOLDER / stage / "metrics.jsonl")
    return [{k: v for k, v in entry.items() if k not in ("seconds", "scores")} for entry in entries]


def weights(place: Path, stage: str) -> str:
    """SHA-256 of the state in which a stage ended."""
    newest = max((place / FOLDER / stage / "checkpoints").iterdir())
    return sha256_file(newest / "__0_0.distcp")


# Other data


def test_one_changed_byte_of_the_tokens_is_named_with_both_hashes(place: Path) -> None:
    path = place / FOLDER / "tokens" / "zh_noisy.ids"
    before = sha256_file(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    # Nor are the settings of the refused start kept.
    message = refused(place, *TRUNK, "pretrain.micro_batch=4", code=1, how=run_here)
    for words in ("tokens/zh_noisy.ids was changed", sha256_file(path)[:12], before[:12]):
        assert words in message


def test_tokens_of_the_same_documents_in_another_order_are_refused(place: Path) -> None:
    tokens = place / FOLDER / "tokens"
    before = sha256_file(tokens / "zh_noisy.ids")
    ids = np.fromfile(tokens / "zh_noisy.ids", np.uint16)
    offsets = np.fromfile(tokens / "zh_noisy.offsets", np.int64)
    documents = [ids[first:last] for first, last in pairwise(offsets)][::-1]
    np.concatenate(documents).tofile(tokens / "zh_noisy.ids")
    np.cumsum([0, *map(len, documents)], dtype=np.int64).tofile(tokens / "zh_noisy.offsets")
    resealed(tokens)
    after = sha256_file(tokens / "zh_noisy.ids")
    message = refused(place, *TRUNK, how=run_here)
    assert f"tokens/zh_noisy.ids was {before[:12]}, is {after[:12]}" in message
    assert "zh_curated" not in message and "undo the change" in message


def test_tokens_without_one_source_are_refused(place: Path) -> None:
    """Whether the mixture asks for it or not."""
    tokens = place / FOLDER / "tokens"
    for name in ("zh_ordinary", "zh_noisy"):
        before = sha256_file(tokens / f"{name}.ids")
        catalogue = json.loads((tokens / "sources.json").read_text(encoding="utf-8"))
        del catalogue["sources"][name]
        (tokens / "sources.json").write_text(json.dumps(catalogue), encoding="utf-8")
        for file in (f"{name}.ids", f"{name}.offsets", f"{name}.origins"):
            (tokens / file).unlink()
        resealed(tokens)
        message = refused(place, *TRUNK, how=run_here)
        assert f"tokens/{name}.ids was {before[:12]}, is absent" in message


def test_another_tokenizer_is_refused(place: Path, tokenizer: Tokenizer) -> None:
    path = place / FOLDER / "tokenizer" / FILE_NAME
    content = path.read_bytes()
    before = sha256_file(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    message = refused(place, *TRUNK, code=1, how=run_here)
    for words in (f"tokenizer/{FILE_NAME} was changed", sha256_file(path)[:12], before[:12]):
        assert words in message
    shutil.copy(tokenizer.path, path)
    resealed(path.parent)
    message = refused(place, *TRUNK, how=run_here)
    assert "was encoded by tokenizer" in message and tokenizer.fingerprint[:12] in message


# Other settings


@pytest.mark.parametrize(
    "setting",
    [
        "pretrain.optimiser.lr=0.002",
        "pretrain.steps=401",
        "pretrain.batch=8",
        "pretrain.schedule.warmup=4",
        "pretrain.skip_above=0",
        'pretrain.mixture={"zh_curated": 1}',
    ],
)
def test_another_setting_of_the_stage_is_refused_until_it_is_undone(
    place: Path, setting: str
) -> None:
    message = refused(place, *TRUNK, setting, how=run_here)
    assert message.count(" was ") - message.count(" was made from") == 1
    assert "settings pretrain was " in message and ", is " in message
    for remedy in ("undo the change", "name another --out", f"delete {FOLDER / 'trunk'}"):
        assert remedy in message


def test_a_change_before_the_stage_is_refused_before_anything_is_made_anew(place: Path) -> None:
    """Else text and tokens would be made twice more: for the change, and when it is undone."""
    before = contents(place)
    message = refused(place, "run", "tiny", *SETTINGS, "text.rules.min_chars=9", how=run_here)
    assert "stage tokens was " in message and "undo the change" in message
    assert contents(place) == before


IDLE = [
    *("pretrain.micro_batch=4", "pretrain.save_every=7", "pretrain.keep_every=0"),
    *("hardware.recompute=true", "hardware.async_save=true", "tensorboard=false"),
]


def test_settings_that_decide_nothing_may_change_and_the_trunk_goes_on(
    whole: Path, place: Path
) -> None:
    said = succeeded(place, *TRUNK, *IDLE, how=run_here)
    assert "trunk: going on from step" in said
    losses = [[entry["loss"] for entry in logged(each, "trunk")] for each in (whole, place)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    # Nor do these, which a run of one thread cannot try.
    others = ["threads=2", "hardware.device=cuda", "hardware.dtype=bfloat16"]
    recipe = load_recipe(place / FOLDER / "config.json")
    for setting in (*IDLE, *others, "hardware.head_parallel=2", "hardware.compile=true"):
        changed = Run(with_overrides(recipe, [setting]), place)
        assert changed.made_from("trunk") == Run(recipe, place).made_from("trunk"), setting


def test_without_a_change_the_trunk_ends_as_one_that_was_not_stopped(
    whole: Path, place: Path
) -> None:
    succeeded(place, *TRUNK, how=run_here)
    assert logged(place, "trunk") == logged(whole, "trunk")
    assert weights(place, "trunk") == weights(whole, "trunk")


# Damage and disks


def test_a_trunk_without_a_whole_checkpoint_is_not_begun_anew(place: Path) -> None:
    checkpoints = sorted((place / FOLDER / "trunk" / "checkpoints").iterdir())
    for each in checkpoints:
        (each / ".metadata").unlink()
    message = refused(place, *TRUNK, code=1, how=run_here)
    for each in checkpoints:
        assert f"{each.name}/.metadata is missing" in message
    assert f"delete {FOLDER / 'trunk'} to start this stage anew" in message


def test_a_disk_without_room_for_the_checkpoints_is_refused_before_the_first_step(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The free space is made up: a file system that small cannot be mounted without privileges."""
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    for begun in (True, False):
        if not begun:
            shutil.rmtree(place / FOLDER / "trunk")
        message = refused(place, *TRUNK, how=run_here)
        assert "checkpoints take" in message and "the disk has 1,000 free" in message
        assert "name an --out elsewhere" in message
    monkeypatch.undo()
    succeeded(place, *TRUNK, how=run_here)


# Branches


def test_a_branch_from_a_kept_step_goes_on_as_the_trunk_does(whole: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(whole, tmp_path / "place"))
    kept = sorted(each.name for each in (place / FOLDER / "trunk" / "checkpoints").iterdir())
    steps = [*range(40, 361, 40), 392, 400]
    assert kept == [f"step-{step:08d}" for step in steps], kept
    branch = ["run", "tiny", *SETTINGS, "base.from_step=360", "base.steps=40", "--only", "base"]
    succeeded(place, *branch, how=run_here)
    assert logged(place, "base") == logged(place, "trunk")[360:]
    assert weights(place, "base") == weights(place, "trunk")
    fresh = [*branch[:-2], "base.keep_optimiser=false", "--only", "base"]
    succeeded(place, *fresh, how=run_here)
    one, other = (logged(each, stage)[-40] for each, stage in ((place, "base"), (whole, "trunk")))
    assert one["loss"] == other["loss"] and one["step"] == other["step"] == 360
    assert weights(place, "base") != weights(place, "trunk")


def test_a_branch_from_a_step_that_was_not_kept_is_refused(whole: Path) -> None:
    before = contents(whole)
    branch = ["run", "tiny", *SETTINGS, "base.from_step=30", "base.steps=5", "--only", "base"]
    message = refused(whole, *branch, how=run_here)
    assert "no checkpoint of step 30, but of 40, 80, 120" in message
    assert "pretrain.keep_every" in message
    assert contents(whole) == before


def test_a_step_that_will_not_be_kept_is_refused_before_the_trunk_is_trained(place: Path) -> None:
    before = contents(place)
    branch = ["run", "tiny", *SETTINGS, "base.from_step=30", "base.steps=5"]
    message = refused(place, *branch, how=run_here)
    assert "base.from_step=30 is no step that the trunk will keep" in message
    assert "a multiple of pretrain.keep_every=40" in message
    assert contents(place) == before


def test_a_branch_from_no_step_leaves_no_folder(whole: Path) -> None:
    run = ["branch", str(FOLDER), "--out", "runs/early"]
    message = refused(whole, *run, "base.from_step=30", how=run_here)
    assert "no checkpoint of step 30" in message
    assert not (whole / "runs" / "early").exists()
