"""Checkpoints: what is saved comes back bit for bit, and nothing damaged is ever loaded."""

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from workshop import Workshop

from indexlm.errors import DamagedError, UserError
from indexlm.train import checkpoint
from indexlm.train.checkpoint import Checkpoints


def state_of(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight.lm_head.weight": torch.randn(40, 16, generator=generator),
        "weight.model.norm.weight": torch.randn(16, generator=generator),
        "exp_avg.model.norm.weight": torch.randn(16, generator=generator).bfloat16(),
        "step.model.norm.weight": torch.tensor(float(seed)),
    }


def loaded(path: Path) -> dict[str, Tensor]:
    state = {name: torch.zeros_like(value) for name, value in state_of(0).items()}
    checkpoint.load(path, state)
    return state


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = int(np.random.default_rng(len(content)).integers(len(content)))
    content[place] ^= 1 << (place % 8)
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [flip_a_bit, cut_short, empty, Path.unlink]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    for step in (4, 8):
        Checkpoints(folder, "inputs").save(step, state_of(step))
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """Checkpoints of steps 4 and 8, free to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "checkpoints"))


def file_names() -> list[str]:
    """The files of a checkpoint, which `test_these_are_all_the_files` holds to be all."""
    return [".metadata", "__0_0.distcp", "manifest.json"]


def test_these_are_all_the_files(folder: Path) -> None:
    assert sorted(path.name for path in step_folder(folder, 8).iterdir()) == file_names()


def test_a_checkpoint_comes_back_bit_for_bit_and_in_place(folder: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in state_of(8).items()}
    live = dict(state)
    assert checkpoint.load(step_folder(folder, 8), state) == 8
    for name, value in state_of(8).items():
        assert state[name] is live[name]
        assert torch.equal(state[name], value) and state[name].dtype == value.dtype


def test_part_of_a_state_can_be_loaded(folder: Path) -> None:
    part = {"weight.model.norm.weight": torch.zeros(16)}
    checkpoint.load(step_folder(folder, 4), part)
    assert torch.equal(part["weight.model.norm.weight"], state_of(4)["weight.model.norm.weight"])


def test_a_ctrl_c_while_a_checkpoint_loads_is_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no failure of the checkpoint, which is what torch makes of it."""
    read = FileSystemReader.read_data

    def interrupted(self: FileSystemReader, *planned: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return read(self, *planned)

    monkeypatch.setattr(FileSystemReader, "read_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loaded(step_folder(folder, 8))


@pytest.mark.parametrize("name", file_names())
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_named_and_nothing_is_loaded(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(step_folder(folder, 8) / name)
    state = {key: torch.zeros_like(value) for key, value in state_of(8).items()}
    with pytest.raises(DamagedError, match=name):
        checkpoint.load(step_folder(folder, 8), state)
    assert all(not value.any() for value in state.values())


@pytest.mark.parametrize("name", file_names())
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    assert checkpoint.newest(folder, "inputs") == step_folder(folder, 8)
    damage(step_folder(folder, 8) / name)
    assert checkpoint.newest(folder, "inputs") == step_folder(folder, 4)
    # It is made again in its place.
    Checkpoints(folder, "inputs").save(8, state_of(80))
    newest = checkpoint.newest(folder, "inputs")
    assert newest == step_folder(folder, 8)
    assert torch.equal(
        loaded(newest)["weight.lm_head.weight"], state_of(80)["weight.lm_head.weight"]
    )


def test_any_flipped_bit_of_the_manifest_is_noticed(folder: Path) -> None:
    """The number of steps stands in it: a wrong one would be a run that repeats or leaves out."""
    path = step_folder(folder, 8) / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 7)
        path.write_bytes(flipped)
        with pytest.raises(DamagedError, match=r"manifest\.json"):
            checkpoint.load(step_folder(folder, 8), {})


def assert_refused(folder: Path, name: str) -> None:
    """Step 8 is not loaded, by `load` or by `newest`, which falls back to step 4."""
    state = {key: torch.full_like(value, 7) for key, value in state_of(8).items()}
    with pytest.raises(DamagedError) as refused:
        checkpoint.load(step_folder(folder, 8), state)
    said = str(refused.value)
    assert f"step-00000008/{name}" in said or (name == "manifest.json" and name in said), said
    assert all(bool((value == 7).all()) for value in state.values())
    assert checkpoint.newest(folder, "inputs") == step_folder(folder, 4)


def file_of_many(generator: random.Random, folder: Path) -> Path:
    """Now as likely as it is large, where a disk would hit it, now any."""
    files = [step_folder(folder, 8) / name for name in file_names()]
    sizes = [file.stat().st_size for file in files] if generator.random() < 0.5 else None
    return generator.choices(files, sizes)[0]


def test_none_of_a_hundred_flipped_bits_is_loaded(folder: Path) -> None:
    generator = random.Random(100)
    hit = set()
    for _ in range(100):
        path = file_of_many(generator, folder)
        hit.add(path.name)
        content = path.read_bytes()
        place, bit = generator.randrange(len(content)), generator.randrange(8)
        changed = bytes([content[place] ^ 1 << bit])
        path.write_bytes(content[:place] + changed + content[place + 1 :])
        assert_refused(folder, path.name)
        path.write_bytes(content)
    assert hit == set(file_names())
    assert checkpoint.newest(folder, "inputs") == step_folder(folder, 8)


def test_none_of_twenty_truncations_is_loaded(folder: Path) -> None:
    generator = random.Random(20)
    for _ in range(20):
        path = file_of_many(generator, folder)
        content = path.read_bytes()
        path.write_bytes(content[: generator.randrange(len(content))])
        assert_refused(folder, path.name)
        path.write_bytes(content)
    assert checkpoint.newest(folder, "inputs") == step_folder(folder, 8)


@pytest.mark.parametrize("name", file_names())
def test_a_lost_file_is_named_and_so_is_the_checkpoint_gone_back_to(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (step_folder(folder, 8) / name).unlink()
    assert_refused(folder, name)
    (said,) = caplog.messages
    assert "step-00000008" in said and name in said and "falling back to step-00000004" in said
    # Nor does a stage that starts from this one take an older state without a word.
    with pytest.raises(DamagedError, match=name):
        checkpoint.load(checkpoint.last(folder), {})


def test_a_stage_without_a_whole_checkpoint_does_not_start_over(
    workshop: Workshop,
) -> None:
    """Its steps may have taken days, and a copy of one checkpoint may exist."""
    stage = workshop.stage(12)
    workshop.run("run", stage)
    folder = workshop.folder / "run" / "checkpoints"
    for each in folder.iterdir():
        cut_short(each / "__0_0.distcp")
    before = {path: path.stat().st_mtime_ns for path in (workshop.folder / "run").rglob("*")}
    with pytest.raises(DamagedError, match=r"no checkpoint in .* is whole") as refused:
        workshop.run("run", stage)
    for word in ("step-00000008/__0_0.distcp", "step-00000012/__0_0.distcp", "restore one"):
        assert word in str(refused.value)
    assert {p: p.stat().st_mtime_ns for p in (workshop.folder / "run").rglob("*")} == before


# Those that are kept


def test_the_newest_two_are_kept(folder: Path) -> None:
    Checkpoints(folder, "inputs").save(12, state_of(12))
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000008", "step-00000012"]
    assert checkpoint.last(folder) == step_folder(folder, 12)


def test_no_checkpoint_is_none_to_go_on_with(folder: Path) -> None:
    assert checkpoint.newest(folder / "nowhere", "inputs") is None


def test_other_inputs_are_refused_with_both_fingerprints_of_each_part(tmp_path: Path) -> None:
    old = {"settings": "a" * 64, "tokens/zh.ids": "b" * 64, "seed": "c" * 64}
    Checkpoints(tmp_path, "old", old).save(4, state_of(4))
    assert checkpoint.newest(tmp_path, "old", old) == step_folder(tmp_path, 4)
    new = old | {"tokens/zh.ids": "d" * 64, "tokens/en.ids": "e" * 64}
    # Also where the fingerprint of the whole has not moved: files can be changed under it.
    for made_from in ("old", "new"):
        with pytest.raises(UserError) as refused:
            checkpoint.newest(tmp_path, made_from, new)
        said = str(refused.value)
        assert "tokens/zh.ids was bbbbbbbbbbbb, is dddddddddddd" in said
        assert "tokens/en.ids was absent, is eeeeeeeeeeee" in said
        assert "settings" not in said and "cccc" not in said
        assert "name another --out" in said


def test_a_save_under_other_inputs_clears_the_way(folder: Path) -> None:
    """A later step of an abandoned run neither displaces a new checkpoint nor passes for it."""
    Checkpoints(folder, "other inputs").save(2, state_of(2))
    assert checkpoint.newest(folder, "other inputs") == step_folder(folder, 2)
    assert checkpoint.last(folder) == step_folder(folder, 2)


def test_an_unfinished_checkpoint_does_not_exist(folder: Path) -> None:
    partial = folder / ".step-00000012.partial"
    shutil.copytree(step_folder(folder, 8), partial)
    assert checkpoint.newest(folder, "inputs") == step_folder(folder, 8)
    Checkpoints(folder, "inputs").save(12, state_of(12))
    assert not partial.exists()


@pytest.mark.parametrize("background", [False, True])
def test_multiples_of_keep_every_are_kept_beside_the_newest_two(
    tmp_path: Path, background: bool
) -> None:
    saves = Checkpoints(tmp_path, "inputs", keep_every=6, background=background)
    for step in range(2, 23, 2):
        saves.save(step, state_of(step))
    saves.wait()
    saves.close()
    kept = [6, 12, 18, 20, 22]
    assert sorted(tmp_path.iterdir()) == [step_folder(tmp_path, step) for step in kept]
    for step in kept:
        assert checkpoint.load(checkpoint.at_step(tmp_path, step), state_of(step)) == step
        assert float(loaded(step_folder(tmp_path, step))["step.model.norm.weight"]) == step
    with pytest.raises(UserError, match=r"no checkpoint of step 8, but of 6, 12, 18, 20, 22;"):
        checkpoint.at_step(tmp_path, 8)


def test_a_copy_in_the_background_is_of_the_moment_of_the_call(tmp_path: Path) -> None:
    saves = Checkpoints(tmp_path, "inputs", background=True)
    for step in range(1, 21):
        state = state_of(step)
        saves.save(step, state)
        for value in state.values():
            value.fill_(-1)
        saves.wait()
        found = loaded(step_folder(tmp_path, step))
        assert all(torch.equal(found[name], value) for name, value in state_of(step).items())
    saves.close()
