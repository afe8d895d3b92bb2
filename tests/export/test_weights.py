"""Weight files: read as their own libraries read them, and harmless whatever is in them."""

import builtins
import json
import math
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import TINY
from published import FORMS, Form, checkpoint, raw_tensors, write_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from command import PATIENCE
from indexlm.errors import DamagedError, UserError
from indexlm.export import places, weights

MANY = {
    "matrix": torch.arange(12, dtype=torch.float32).view(3, 4),
    "half": torch.linspace(-3, 3, 7).half(),
    "brain": torch.linspace(-3, 3, 8).bfloat16(),
    "double": torch.linspace(0, 1, 5).double(),
    "long": torch.arange(-3, 3),
    "byte": torch.arange(250, 256, dtype=torch.uint8),
    "yes": torch.tensor([True, False]),
    "number": torch.tensor(2.5),
    "none": torch.empty(0, 4),
    "cube": torch.arange(24, dtype=torch.int32).view(2, 3, 4),
}


def read_all(folder: Path) -> dict[str, Tensor]:
    return {name: places.read(place) for name, place in weights.catalogue(folder).items()}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor), name


# What is right is read right


def test_safetensors_are_read_as_their_library_reads_them(tmp_path: Path) -> None:
    save_file(MANY, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = read_all(tmp_path)
    assert_same(found, load_file(tmp_path / "model.safetensors"))
    assert_same(found, MANY)


def test_pickles_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(MANY, path)
    assert_same(read_all(tmp_path), torch.load(path, weights_only=True))
    # A state dict with the versions of its modules, with parameters, and views of one storage.
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    torch.save(module.state_dict(), path)
    assert_same(read_all(tmp_path), module.state_dict())
    torch.save(dict(module.named_parameters()), path)
    assert_same(read_all(tmp_path), {n: p.detach() for n, p in module.named_parameters()})
    whole = torch.arange(20.0).view(5, 4)
    torch.save({"head": whole, "tail": whole[3:]} | {"tied": whole}, path)
    with pytest.raises(DamagedError, match="overlaps"):
        read_all(tmp_path)
    torch.save({"first": whole[:3], "rest": whole[3:], "again": whole[3:]}, path)
    assert_same(read_all(tmp_path), {"first": whole[:3], "rest": whole[3:], "again": whole[3:]})


@pytest.mark.parametrize("form", FORMS)
def test_shards_are_one_checkpoint(tmp_path: Path, form: Form) -> None:
    checkpoint(tmp_path, config=TINY, form=form)
    assert_same(read_all(tmp_path), raw_tensors(TINY))


def test_links_to_shards_elsewhere_are_followed(tmp_path: Path) -> None:
    """As the cache of the hub keeps them."""
    checkpoint(tmp_path / "blobs", config=TINY, form="sharded")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert_same(read_all(tmp_path / "snapshot"), raw_tensors(TINY))


def test_rows_are_read_without_the_rest(tmp_path: Path) -> None:
    checkpoint(tmp_path, config=TINY, form="bin", dtype=torch.bfloat16)
    place = weights.catalogue(tmp_path)["lm_head.weight"]
    expected = raw_tensors(TINY)["lm_head.weight"].bfloat16()
    assert torch.equal(places.read_rows(place, 3, 7), expected[3:7])
    assert places.read_rows(place, 5, 5).shape == (0, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_largest_value_shows_nan_and_infinity_wherever_they_stand(dtype: torch.dtype) -> None:
    values = torch.linspace(-3, 2, 1001).to(dtype)
    assert places.largest(values) == 3
    for at in (0, 500, 1000):
        for value, shows in ((torch.nan, math.isnan), (torch.inf, math.isinf)):
            for sign in (1, -1):
                spoilt = values.clone()
                spoilt[at] = sign * value
                assert shows(places.largest(spoilt))
    # A sum would overflow here.
    assert places.largest(torch.full((9,), torch.finfo(dtype).max, dtype=dtype)) < math.inf


# What is wrong is refused by name


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no weights.*model\.safetensors.*pytorch_model"):
        weights.catalogue(tmp_path)


def safetensors(path: Path, header: Any, body: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def spoilt(**changes: Any) -> dict[str, Any]:
    """Two vectors of four float32; `b` changed."""
    a = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    return {"a": a, "b": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]} | changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "F31"}, "unknown dtype 'F31'"),
        ({"dtype": ["F32"]}, "unknown dtype a list"),
        ({"dtype": "F16"}, "takes 16 bytes, not what its shape needs"),
        ({"shape": [5]}, "takes 16 bytes, not what its shape needs"),
        ({"shape": [-4]}, "shape that is no list of sizes"),
        ({"shape": [4.0]}, "shape that is no list of sizes"),
        ({"shape": [True, 4]}, "shape that is no list of sizes"),
        ({"shape": [2**62, 4]}, "shape that is no list of sizes"),
        ({"data_offsets": [8, 24]}, "overlaps the tensor before it"),
        ({"data_offsets": [0, 16]}, "overlaps the tensor before it"),
        ({"data_offsets": [20, 36]}, "leaves a gap before it"),
        ({"data_offsets": [32, 16]}, "takes -16 bytes"),
        ({"data_offsets": [16]}, "data_offsets that are no two places"),
        ({"data_offsets": [16, 10**400]}, "data_offsets that are no two places"),
        ({"more": 1}, "has the entry"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.safetensors"
    safetensors(path, spoilt(), bytes(32))
    assert len(weights.catalogue(tmp_path)) == 2
    safetensors(path, spoilt(**changes), bytes(32))
    with pytest.raises(DamagedError, match=re.escape(words)) as caught:
        weights.catalogue(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "claims a header"),
        (b"\x01\x00", "claims a header"),
        (struct.pack("<Q", 2**63) + b"{}", "claims a header of 9223372036854775808"),
        (struct.pack("<Q", 10) + b"{}", "it has 10 bytes and claims a header of 10"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "is not JSON"),
        (struct.pack("<Q", 16) + b'{"a": 1, "a": 2}', "a key stands twice"),
        (struct.pack("<Q", 10) + b'{"a": NaN}', "NaN is no JSON number"),
        (struct.pack("<Q", 99_999) + b"[" * 99_999, "is not JSON"),
        (struct.pack("<Q", 2) + b"{}tail", "tensors end at byte 10, the file at 14"),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedError, match=re.escape(words)):
        weights.catalogue(tmp_path)


def test_a_header_longer_than_any_checkpoint_needs_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000))
        file.truncate(100_000_000)
    with pytest.raises(DamagedError, match="a header of 90000000 bytes"):
        weights.catalogue(tmp_path)


def test_a_pointer_of_git_lfs_is_no_damage_but_a_missing_download(tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4350000000\n"
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} is a Git LFS pointer.*git lfs pull"):
            weights.catalogue(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "name",
    [
        *("../../x", "../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", ""),
        *("a\\b.safetensors", ".hidden.safetensors", "model.txt", "x\0.safetensors", "\ud800"),
        "x" * 300 + ".safetensors",
        *(None, 1, ["model.safetensors"], {"a": "b"}),
    ],
)
@pytest.mark.parametrize("form", ["sharded", "sharded-bin"])
def test_an_index_names_files_beside_it_and_no_others(
    tmp_path: Path, form: Form, name: Any
) -> None:
    folder = checkpoint(tmp_path / "model", config=TINY, form=form)
    (tmp_path / "model.safetensors").write_bytes(b"never opened")
    [index] = folder.glob("*.index.json")
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = name
    index.write_text(json.dumps(content))
    with pytest.raises(DamagedError, match=r"is not the name of a \.\w+ file beside it") as caught:
        weights.catalogue(folder)
    assert str(index) in str(caught.value)


def other_file(map_: dict[str, str]) -> None:
    map_["lm_head.weight"] = map_["model.embed_tokens.weight"]


def one_more(map_: dict[str, str]) -> None:
    map_["more.weight"] = map_["lm_head.weight"]


def one_less(map_: dict[str, str]) -> None:
    del map_["model.embed_tokens.weight"]


def absent_file(map_: dict[str, str]) -> None:
    map_["more.weight"] = "model-00000-of-00003.safetensors"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_file, "the index says 'model-0000"),
        (one_more, "'more.weight' is not in"),
        (one_less, "'model.embed_tokens.weight' is in .* the index says no file"),
        (absent_file, "model-00000-of-00003.safetensors cannot be used: there is no such file"),
        (dict.clear, "weight_map=a dict of 0"),
    ],
)
def test_an_index_and_its_shards_tell_the_same(
    tmp_path: Path, change: Callable[[dict[str, str]], None], words: str
) -> None:
    checkpoint(tmp_path, config=TINY, form="sharded")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))
    with pytest.raises(DamagedError, match=words):
        weights.catalogue(tmp_path)


# Pickles


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Evil(torch.nn.Module):
    """A whole model, as `torch.save(model)` writes it."""


def attacks(witness: Path) -> dict[str, Any]:
    command = f"touch {witness}"
    return {
        "os.system": Calls(os.system, command),
        "eval": Calls(builtins.eval, f"open({str(witness)!r}, 'w')"),
        "exec": Calls(builtins.exec, f"open({str(witness)!r}, 'w')"),
        "subprocess": Calls(subprocess.check_call, ["touch", str(witness)]),
        "open": Calls(open, str(witness), "w"),
        "torch.load": Calls(torch.load, str(witness)),
        "getattr": Calls(getattr, "text", "join"),
        "memory": Calls(bytearray, 3 * 10**9),
        "tensor": Calls(torch.Tensor, 10**9),
        "module": Evil(),
    }


def archive(path: Path, pickled: bytes, packing: int = zipfile.ZIP_STORED) -> None:
    """A .bin as torch.save makes it, with another description of what is in it."""
    torch.save(raw_tensors(TINY), path)
    with zipfile.ZipFile(path) as source:
        records = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", packing) as made:
        for name, content in records.items():
            made.writestr(name, pickled if name.endswith("/data.pkl") else content)


@pytest.mark.parametrize("attack", attacks(Path()))
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_runs_code_runs_none(tmp_path: Path, attack: str, protocol: int) -> None:
    witness, path = tmp_path / "witness", tmp_path / "pytorch_model.bin"
    content = {"lm_head.weight": attacks(witness)[attack]}
    archive(path, pickle.dumps(content, protocol))
    with pytest.raises((UserError, DamagedError), match=re.escape(str(path))) as caught:
        weights.catalogue(tmp_path)
    if protocol != 0:
        assert "nothing was run" in str(caught.value)
    assert not witness.exists()
    # The same as a plain pickle, without an archive around it.
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(UserError, match="nothing of it was unpickled"):
        weights.catalogue(tmp_path)
    assert not witness.exists()


def test_the_attacks_do_run_where_a_pickle_is_unpickled(tmp_path: Path) -> None:
    """Negative control of the test above."""
    for name in ("os.system", "eval", "exec", "subprocess", "open"):
        witness = tmp_path / name
        pickle.loads(pickle.dumps(attacks(witness)[name], 2))
        assert witness.exists()


def test_what_is_no_dict_of_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    for content, words in (
        ({"model": raw_tensors(TINY)}, "'model' is no tensor; save the model's state dict alone"),
        ({"step": 3}, "'step' is no tensor"),
        (torch.ones(3), "not a dict of tensors"),
        ({"a": torch.ones(3, 4).T}, "not stored row by row"),
        ({"a": torch.ones(3, 1).expand(3, 4)}, "not stored row by row"),
        ({"a": torch.ones(3).to_sparse()}, "no such thing"),
    ):
        torch.save(content, path)
        with pytest.raises((UserError, DamagedError), match=words):
            weights.catalogue(tmp_path)


def test_a_packed_archive_is_not_unpacked(tmp_path: Path) -> None:
    """200 MB of zeros in 200 kB."""
    path = tmp_path / "pytorch_model.bin"
    archive(path, bytes(200_000_000), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 300_000
    with pytest.raises(DamagedError, match=r"is packed, which torch\.save never does"):
        weights.catalogue(tmp_path)


@pytest.mark.parametrize("left", [0, 1, 2, 30, 500, 0.3, 0.9, -1])
def test_a_pickle_cut_short_is_refused(tmp_path: Path, left: float) -> None:
    path = checkpoint(tmp_path, config=TINY, form="bin") / "pytorch_model.bin"
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if 0 < left < 1 else int(left)])
    with pytest.raises((UserError, DamagedError), match=re.escape(str(path))):
        weights.catalogue(tmp_path)


def test_a_changed_weight_in_an_archive_is_seen_when_it_is_read(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, config=TINY, form="bin") / "pytorch_model.bin"
    place = weights.catalogue(tmp_path)["lm_head.weight"]
    data = bytearray(path.read_bytes())
    data[place.start + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="CRC-32"):
        read_all(tmp_path)


# All of it at once


def test_spoilt_files_are_refused_or_loaded_right_and_take_no_memory() -> None:
    """2,000 of them in a process that may take no more than 2 GB over what it began with."""
    program = Path(__file__).with_name("hostile_files.py")
    done = subprocess.run(
        [sys.executable, str(program), "20240614", "2000"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes.keys() == {"loaded", "refused"}, outcomes
    assert sum(outcomes.values()) == 2000
    # Neither is rare: spoiling that hits nothing, or too much, would prove nothing.
    assert outcomes["loaded"] > 50 and outcomes["refused"] > 1500


def test_other_weights_in_the_place_of_the_right_ones_would_be_noticed(tmp_path: Path) -> None:
    """Negative control of the comparison in the child process."""
    from hostile_files import outcome

    expected = raw_tensors(TINY)
    folder = checkpoint(tmp_path, config=TINY)
    assert outcome(folder, expected) == "loaded"
    other = expected | {"model.norm.weight": expected["model.norm.weight"] + 1}
    write_checkpoint(folder, other, json.loads((folder / "config.json").read_text()))
    assert outcome(folder, expected) == "loaded other weights"


def test_what_is_written_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    """The library makes its files private; a model folder is passed around."""
    before = os.umask(0o027)
    try:
        weights.save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640
