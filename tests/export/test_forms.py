"""One model in every form: what is kept, what is cast, what is merged, what tells them apart."""

import shutil
from pathlib import Path

import pytest
import torch
from published import SHAPE, checkpoint, raw_tensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from indexlm.errors import UserError
from indexlm.export import forms, gguf, hf, peft
from indexlm.export.agreement import compare, logits_of, probe_ids
from indexlm.model import lora
from indexlm.model.config import LoraConfig
from indexlm.model.transformer import Transformer
from indexlm.records import read_manifest
from indexlm.tokens.tokenizer import Tokenizer

# One thread: the networks here are too small to share out.
torch.set_num_threads(1)

CONFIG = SHAPE.model_copy(update={"vocab_size": 640})
IDS_BT = probe_ids(640, 64)
RANK = LoraConfig(rank=3, alpha=6)


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A bfloat16 checkpoint as it is published: no manifest, no card."""
    folder = tmp_path_factory.mktemp("download") / "small"
    return checkpoint(folder, config=CONFIG, dtype=torch.bfloat16, tokenizer_file=tokenizer.path)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, download: Path) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "mine"
    model = hf.load(download)
    lora.wrap(model, RANK, 1)
    for value in lora.adapter_state(model).values():
        value.normal_(std=0.1, generator=torch.Generator().manual_seed(5))
    peft.save_adapter(model, RANK, folder, "small", "test")
    return folder


def export(folder: Path, form: forms.Form, out: Path, dtype: str | None = None) -> forms.Made:
    return forms.export(folder, form, out, None, dtype, None)


def stored(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def furthest(one: Transformer, other: Transformer) -> float:
    return float((logits_of(one, IDS_BT) - logits_of(other, IDS_BT)).abs().max())


@pytest.mark.parametrize("form", ["index", "llama", "gguf"])
def test_numbers_are_kept_as_they_are_stored(
    download: Path, tmp_path: Path, form: forms.Form
) -> None:
    made = export(download, form, tmp_path / "out")
    if form == "gguf":
        assert made.path == tmp_path / "out" / "small-bf16.gguf"
        found = gguf.load_dequantised(made.path)
        assert torch.equal(
            found.model.embed_tokens.weight, hf.load(download).model.embed_tokens.weight
        )
    else:
        kept, before = stored(made.path), stored(download)
        assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
        same = [name for name in before if torch.equal(kept[name], before[name])]
        assert len(same) == len(before) - (form == "llama")  # the head is folded there
    assert made.agreement.same_next > 0.9


def test_numbers_are_cast_where_that_is_asked(download: Path, tmp_path: Path) -> None:
    wide = export(download, "index", tmp_path / "wide", "float32")
    for name, tensor in stored(wide.path).items():
        assert torch.equal(tensor, stored(download)[name].float())
    half = export(wide.path, "llama", tmp_path / "half", "float16")
    assert {tensor.dtype for tensor in stored(half.path).values()} == {torch.float16}
    assert 0 < furthest(hf.load(half.path), hf.load(wide.path)) < 0.1


def test_a_weight_that_the_number_cannot_hold_leaves_nothing(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "small", config=CONFIG, tokenizer_file=tokenizer.path)
    tensors = raw_tensors(CONFIG)
    tensors["model.norm.weight"][0] = 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.norm\.weight holds 1e\+06.*choose bfloat16"):
        export(folder, "index", tmp_path / "out", "float16")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("form", ["index", "llama"])
@pytest.mark.parametrize("kind", forms.BLOCK_KINDS)
def test_blocks_are_for_gguf_alone(
    download: Path, tmp_path: Path, form: forms.Form, kind: str
) -> None:
    with pytest.raises(UserError, match=f"--dtype {kind} is a kind of GGUF"):
        export(download, form, tmp_path / "out", kind)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_added_in_float32_and_rounded_once(
    download: Path, adapter: Path, tmp_path: Path
) -> None:
    forms.export(download, "index", tmp_path / "merged", adapter, None, None)
    base, merged, update = stored(download), stored(tmp_path / "merged"), {}
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        update[name.removeprefix("base_model.model.").removesuffix(".weight")] = tensor
    for name, tensor in base.items():
        expected = tensor
        if name.endswith("_proj.weight"):
            part = name.removesuffix(".weight")
            added = 2 * (update[f"{part}.lora_B"] @ update[f"{part}.lora_A"])
            expected = (tensor.float() + added).bfloat16()
            assert not torch.equal(expected, tensor)
        assert torch.equal(merged[name], expected), name


@pytest.mark.parametrize("kind", ["index", "llama", "int8", "int4"])
def test_a_folder_of_any_form_is_opened_with_its_tokenizer(
    download: Path, tokenizer: Tokenizer, tmp_path: Path, kind: str
) -> None:
    if kind in ("int8", "int4"):
        made = forms.quantised(download, kind, tmp_path / kind, 32)
    else:
        made = forms.export(
            download, "llama" if kind == "llama" else "index", tmp_path / kind, None, None, None
        )
    model, found = forms.open_folder(made.path)
    assert found.encode("春天来了, the river") == tokenizer.encode("春天来了, the river")
    assert model.lm_head.weight.dtype == torch.float32 and not model.training
    near = {"index": 0.0, "llama": 0.1, "int8": 0.5, "int4": 8.0}[kind]
    assert furthest(model, hf.load(download)) <= near


def test_the_tokenizer_is_judged_before_the_weights_are_read(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "small", config=SHAPE, tokenizer_file=tokenizer.path)
    (folder / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(UserError, match=r"has 640 pieces, .* vocab_size=512"):
        forms.open_folder(folder)


@pytest.mark.parametrize("kind", ["q8_0", "q4_k_m", "int8", "int4"])
def test_what_is_packed_is_read_back_as_what_the_agreement_says(
    download: Path, tmp_path: Path, kind: str
) -> None:
    made = forms.quantised(download, kind, tmp_path / "small", 32)
    original = logits_of(hf.load(download, torch.bfloat16), IDS_BT)
    found = compare(original, logits_of(forms.read_back(made.path), IDS_BT))
    # What llama.cpp computes from blocks is not to the bit what we do from unpacked ones.
    assert found.same_next == pytest.approx(made.agreement.same_next, abs=0.05)
    assert kind in forms.BLOCK_KINDS or found == made.agreement
    assert 0.3 < found.same_next < 1


def test_tensors_that_are_packed_otherwise_are_told_once_for_all_layers(
    download: Path, tmp_path: Path
) -> None:
    *otherwise, ollama = forms.quantised(download, "q4_k_m", tmp_path / "small", 32).notes
    assert ollama == f"ollama create small -f {tmp_path / 'small' / 'Modelfile'}"
    assert len(otherwise) == len(set(otherwise)) > 0
    assert "blk.*.attn_q.weight is Q5_0, not Q4_K (3 tensors)" in otherwise


def test_equal_exports_are_told_from_all_others(
    download: Path, adapter: Path, tmp_path: Path
) -> None:
    def fingerprint(name: str, form: forms.Form, merge: Path | None, dtype: str | None) -> str:
        forms.export(download, form, tmp_path / name, merge, dtype, None)
        manifest = read_manifest(tmp_path / name)
        assert manifest is not None
        return manifest.fingerprint

    one = fingerprint("one", "index", None, None)
    assert fingerprint("again", "index", None, None) == one
    others = [
        fingerprint("merged", "index", adapter, None),
        fingerprint("wide", "index", None, "float32"),
        fingerprint("llama", "llama", None, None),
    ]
    assert len({one, *others}) == 4


def test_a_folder_is_known_by_its_manifest_and_a_download_by_its_files(
    download: Path, adapter: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(adapter)
    assert manifest is not None and forms.identity(adapter) == manifest.fingerprint
    shutil.copytree(download, tmp_path / "copy")
    assert forms.identity(tmp_path / "copy") == forms.identity(download)
    with (tmp_path / "copy" / "config.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert forms.identity(tmp_path / "copy") != forms.identity(download)
