"""Model folders: published checkpoints give the published logits, others are refused by name.

Shape suffixes: B rows, T positions, V vocabulary.
"""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from published import (
    FORMS,
    SHAPE,
    Form,
    checkpoint,
    config_fields,
    folded_rows,
    llama_logits,
    published_shapes,
    raw_tensors,
    write_checkpoint,
)
from safetensors import safe_open
from torch import Tensor

from indexlm.errors import DamagedError, UserError
from indexlm.export import hf
from indexlm.export.places import Place
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

IDS_BT = torch.randint(5, SHAPE.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: Transformer) -> Tensor:
    return model.logits(model(IDS_BT)).float()


@torch.no_grad()
def furthest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@cache
def theirs(base: float, fold: bool = True) -> Tensor:
    """What transformers computes of the raw tensors."""
    return llama_logits(raw_tensors(), SHAPE, IDS_BT, base=base, fold=fold)


# Published checkpoints


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("ratio", "base"), [(None, 10000.0), (1, 10000.0), (32, 320000.0)])
def test_a_published_checkpoint_gives_the_logits_of_llama(
    tmp_path: Path, form: Form, ratio: int | None, base: float
) -> None:
    checkpoint(tmp_path, form=form, rope_ratio=ratio)
    ours_BTV = logits(hf.load(tmp_path))
    assert furthest(ours_BTV, theirs(base)) < 1e-5
    # Negative controls: a head that is not folded, and the base of the other window.
    assert furthest(ours_BTV, theirs(base, fold=False)) > 1
    assert furthest(ours_BTV, theirs(330000 - base)) > 0.1


def test_raw_and_folded_head_rows_are_the_same_model(tmp_path: Path) -> None:
    raw = hf.load(checkpoint(tmp_path / "raw"))
    folded = hf.load(checkpoint(tmp_path / "folded", folded=True))
    assert furthest(raw.lm_head.weight, folded.lm_head.weight) > 1
    assert furthest(logits(raw), logits(folded)) < 1e-5


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_short_weights_are_loaded_as_they_are_or_widened(
    tmp_path: Path, form: Form, stored: torch.dtype
) -> None:
    checkpoint(tmp_path, form=form, dtype=stored)
    rounded = {name: tensor.to(stored) for name, tensor in raw_tensors().items()}
    wide, short = hf.load(tmp_path), hf.load(tmp_path, stored)
    for name, tensor in rounded.items():
        assert torch.equal(wide.get_parameter(name), tensor.float())
        assert torch.equal(short.get_parameter(name), tensor)
    theirs_BTV = llama_logits(rounded, SHAPE, IDS_BT)
    assert furthest(logits(wide), theirs_BTV) < 1e-5
    same = logits(short).argmax(-1) == theirs_BTV.argmax(-1)
    assert float(same.float().mean()) > 0.9


def test_a_loaded_model_is_in_eval_mode_and_can_be_trained(tmp_path: Path) -> None:
    model = hf.load(checkpoint(tmp_path))
    assert not model.training and all(p.requires_grad for p in model.parameters())
    model.train()(IDS_BT).sum().backward()
    assert model.model.embed_tokens.weight.grad is not None


def test_a_llama_folder_of_transformers_has_a_plain_head(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        )
    ).eval()
    llama.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["rope_parameters"]["rope_theta"] == 5e5 and fields["head_dim"] == 16
    model = hf.load(tmp_path)
    assert not model.config.norm_head and model.config.rope_base == 5e5
    with torch.no_grad():
        assert furthest(logits(model), llama(IDS_BT).logits) < 1e-5


def test_a_tied_head_is_a_copy_of_the_embedding(tmp_path: Path) -> None:
    tensors = raw_tensors()
    del tensors["lm_head.weight"]
    fields = config_fields(tie_word_embeddings=True)
    model = hf.load(write_checkpoint(tmp_path / "a", tensors, fields))
    head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
    assert torch.equal(head, embedding) and head.data_ptr() != embedding.data_ptr()
    # In a pickle both names may stand for the same bytes, tied or not.
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    for tied in (True, False):
        fields["tie_word_embeddings"] = tied
        again = hf.load(write_checkpoint(tmp_path / "b", tensors, fields, "bin"))
        assert torch.equal(again.lm_head.weight, embedding)


@pytest.mark.parametrize("form", ["safetensors", "sharded-bin"])
def test_buffers_of_angles_that_old_files_hold_are_left_out(tmp_path: Path, form: Form) -> None:
    tensors = raw_tensors()
    for layer in range(SHAPE.layers):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    model = hf.load(write_checkpoint(tmp_path, tensors, config_fields(), form))
    assert set(dict(model.named_parameters())) == set(raw_tensors())


# config.json


def read(folder: Path, **changes: Any) -> ModelConfig:
    """The config after changes to the published fields; an ellipsis takes a field out."""
    fields = {n: v for n, v in config_fields(**changes).items() if v is not ...}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return hf.read_config(folder)


def test_fields_that_published_files_leave_out_have_the_published_values(tmp_path: Path) -> None:
    names = ("num_key_value_heads", "rope_ratio", "rope_scaling", "initializer_range")
    for absent in (None, ...):
        config = read(tmp_path, **dict.fromkeys((*names, "rms_norm_eps", "rope_theta"), absent))
        assert config == SHAPE
        assert (config.kv_heads, config.rope_base, config.norm_eps) == (4, 10000.0, 1e-6)
        assert (config.init_std, config.head_scale) == (0.01, 1.0)


@pytest.mark.parametrize(
    ("value", "normalised"),
    [(1, True), (True, True), (0, False), (False, False), (None, False), (..., False)],
)
def test_norm_head_is_written_in_many_ways(tmp_path: Path, value: Any, normalised: bool) -> None:
    assert read(tmp_path, norm_head=value).norm_head is normalised


@pytest.mark.parametrize(
    ("changes", "base"),
    [
        ({}, 1e4),
        ({"rope_ratio": 1}, 1e4),
        ({"rope_ratio": 32}, 3.2e5),
        ({"rope_ratio": 32, "rope_theta": 10000}, 3.2e5),
        ({"rope_theta": 320000.0}, 3.2e5),
        ({"rope_theta": 320000.0, "rope_ratio": 1.0}, 3.2e5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, 5e5),
        ({"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 5e5}, 5e5),
    ],
)
def test_the_rope_base_is_theta_times_ratio(
    tmp_path: Path, changes: dict[str, Any], base: float
) -> None:
    assert read(tmp_path, **changes).rope_base == base


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_theta": 5e5, "rope_ratio": 32}, ["rope_theta=500000", "rope_ratio=32", "remove"]),
        ({"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 1e5}, ["100000", "500000", "keep"]),
        ({"rope_parameters": {"rope_type": "yarn"}}, ["rope_parameters", "default"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor=0.5"]),
        ({"rope_parameters": [1]}, ["rope_parameters=a list of 1"]),
        ({"rope_scaling": {"type": "dynamic"}}, ["rope_scaling=a dict of 1", "null"]),
        ({"rope_ratio": "32"}, ["rope_ratio='32'", "number above 0"]),
        ({"rope_ratio": 0}, ["rope_ratio=0", "number above 0"]),
        ({"rope_theta": True}, ["rope_theta=True"]),
        ({"rope_theta": 1e300}, ["rope_theta=1e+300"]),
        ({"hidden_act": "gelu"}, ["hidden_act='gelu'", "silu"]),
        ({"norm_head": 2}, ["norm_head=2", "true"]),
        ({"norm_head": "yes"}, ["norm_head='yes'"]),
        ({"attention_bias": True}, ["attention_bias=true"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["quantised ('gptq')", "made from"]),
        ({"quantization_config": "x\nWRONG"}, ["quantization_config", r"'x\nWRONG'"]),
        ({"architectures": ["MistralForCausalLM"]}, ["'MistralForCausalLM'", "IndexForCausalLM"]),
        ({"architectures": ...}, ["architectures=None"]),
        ({"architectures": ["LlamaForCausalLM"]}, ["norm_head", "IndexForCausalLM"]),
        ({"head_dim": 32}, ["head_dim=32", "16"]),
        ({"vocab_size": ...}, ["has no vocab_size", "config.json"]),
        ({"vocab_size": 10**12}, ["vocab_size=1000000000000", "16777216"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers=0"]),
        ({"hidden_size": 64.0}, ["hidden_size=64.0"]),
        ({"num_attention_heads": True}, ["num_attention_heads=True"]),
        ({"num_attention_heads": 3, "num_key_value_heads": 3}, ["hidden=64", "heads=3"]),
        ({"rms_norm_eps": -1}, ["rms_norm_eps=-1"]),
        ({"head_scale": float("inf")}, ["Infinity is no JSON number"]),
        ({"tie_word_embeddings": "no"}, ["tie_word_embeddings='no'"]),
    ],
)
def test_what_is_not_supported_is_named_with_its_value_and_the_remedy(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises((UserError, DamagedError)) as caught:
        read(tmp_path, **changes)
        hf.load(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "config.json") in message
    assert [word for word in words if word not in message] == [], message


def test_a_folder_that_is_no_models_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a model folder: it has no config\.json"):
        hf.load(tmp_path)


# Config against weights


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 128}, r"embed_tokens.weight is \[512, 64\], expected \[512, 128\] \(and"),
        ({"vocab_size": 511}, r"is \[512, 64\], expected \[511, 64\] \(and 1 more\)"),
        ({"num_hidden_layers": 4}, r"model.layers.3.\S+ is missing: \S+=4 takes 39, 30 are"),
        ({"num_hidden_layers": 2}, r"tensor 'model.layers.2.\S+ is unknown \(and 8 more\)"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers=10000000 takes 90000003, 30 are there"),
        (
            {"vocab_size": 2**24, "hidden_size": 2**24, "intermediate_size": 2**24},
            r"is \[512, 64\], expected \[16777216, 16777216\]",
        ),
    ],
)
def test_a_config_of_another_model_is_refused(
    tmp_path: Path, changes: dict[str, int], words: str
) -> None:
    write_checkpoint(tmp_path, raw_tensors(), config_fields(**changes))
    with pytest.raises(UserError, match=words):
        hf.load(tmp_path)


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    tensors = raw_tensors()
    for name, other, words in (
        ("model.norm.weight", torch.ones(64).double(), "is float64, expected one of float32"),
        ("model.norm.weight", torch.ones(64).to(torch.float8_e4m3fn), "is float8_e4m3fn"),
        ("model.norm.bias", torch.ones(64), "tensor 'model.norm.bias' is unknown"),
    ):
        write_checkpoint(tmp_path, tensors | {name: other}, config_fields())
        with pytest.raises(UserError, match=words):
            hf.load(tmp_path)
    key = "model.layers.0.self_attn.k_proj.weight"
    shared = tensors | {key: tensors["model.layers.0.self_attn.q_proj.weight"]}
    (tmp_path / "model.safetensors").unlink()
    write_checkpoint(tmp_path, shared, config_fields(), "bin")
    with pytest.raises(UserError, match=r"q_proj.weight and .*k_proj.weight are the same bytes"):
        hf.load(tmp_path)


# What is written


def made(folder: Path, config: ModelConfig, tokenizer: Tokenizer, **options: Any) -> Transformer:
    model = Transformer(config)
    model.load_state_dict(raw_tensors(config))
    hf.save(model, tokenizer.path, folder, "test", {"of": "a test"}, **options)
    return model.eval()


@pytest.mark.parametrize(
    "config",
    [
        SHAPE,
        SHAPE.model_copy(update={"rope_base": 320000.0, "head_scale": 3.5, "init_std": 0.1}),
        SHAPE.model_copy(update={"rope_base": 12345.678, "norm_eps": 1e-5, "kv_heads": 2}),
        SHAPE.model_copy(update={"norm_head": False, "rope_base": 500000.0}),
    ],
)
@pytest.mark.parametrize("shard_bytes", [2**30, 100_000, 1])
def test_what_was_saved_is_loaded_the_same(
    tmp_path: Path, tokenizer: Tokenizer, config: ModelConfig, shard_bytes: int
) -> None:
    model = made(tmp_path / "model", config, tokenizer, shard_bytes=shard_bytes)
    again = hf.load(tmp_path / "model")
    assert again.config == config
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)
    assert torch.equal(logits(again), logits(model))
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    if shard_bytes == 2**30:
        assert [file.name for file in files] == ["model.safetensors"]
        return
    assert len(files) > 1 and files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    held: dict[str, str] = {}
    for file in files:
        with safe_open(file, "pt") as content:
            sizes = {name: content.get_tensor(name).nbytes for name in content.keys()}  # noqa: SIM118
        assert sum(sizes.values()) <= shard_bytes or len(sizes) == 1
        held |= dict.fromkeys(sizes, file.name)
    assert held == index["weight_map"]
    assert index["metadata"]["total_size"] == config.parameters * 4


def test_a_short_dtype_is_written_and_stated(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = made(tmp_path / "model", SHAPE, tokenizer, dtype=torch.bfloat16)
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    assert fields["torch_dtype"] == "bfloat16"
    again = hf.load(tmp_path / "model", torch.bfloat16)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight.bfloat16())
    # What is loaded short is saved short.
    hf.save(again, tokenizer.path, tmp_path / "again", "test", {})
    first, second = (tmp_path / n / "model.safetensors" for n in ("model", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_the_longer_window_is_written_as_published(tmp_path: Path, tokenizer: Tokenizer) -> None:
    made(tmp_path / "4k", SHAPE, tokenizer)
    made(tmp_path / "32k", SHAPE.model_copy(update={"rope_base": 320000.0}), tokenizer)
    short, long = (json.loads((tmp_path / n / "config.json").read_text()) for n in ("4k", "32k"))
    assert short["rope_theta"] == 10000 and "rope_ratio" not in short
    assert long["rope_theta"] == 10000 and long["rope_ratio"] == 32
    assert "head_scale" not in short and short["norm_head"] == 1


def test_a_published_checkpoint_comes_out_as_it_went_in(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """Raw rows too: what other trainers go on from."""
    checkpoint(tmp_path / "in", rope_ratio=32, dtype=torch.bfloat16)
    model = hf.load(tmp_path / "in", torch.bfloat16)
    logits(model)
    hf.save(model, tokenizer.path, tmp_path / "out", "test", {})
    files = [safe_open(tmp_path / name / "model.safetensors", "pt") for name in ("in", "out")]
    assert set(files[0].keys()) == set(files[1].keys())
    for name in files[0].keys():  # noqa: SIM118
        assert torch.equal(files[0].get_tensor(name), files[1].get_tensor(name))
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    published = config_fields(rope_ratio=32, torch_dtype="bfloat16")
    assert {n: fields[n] for n in fields if n in published} == {
        n: published[n] for n in fields if n in published
    }
    assert fields.keys() - published.keys() == {"rope_theta"}


def test_36_layers_are_the_327_published_names(tmp_path: Path, tokenizer: Tokenizer) -> None:
    narrow = SHAPE.model_copy(update={"layers": 36, "hidden": 8, "heads": 2, "kv_heads": 2})
    made(tmp_path / "model", narrow, tokenizer)
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as content:
        names = set(content.keys())
    assert names == set(published_shapes(ModelConfig())) and len(names) == 327


def test_the_released_shape_is_expected_tensor_by_tensor(tmp_path: Path) -> None:
    """Without its 8 GB: places are enough to compare."""
    file = tmp_path / "model.safetensors"
    shapes = published_shapes(ModelConfig())
    found = {
        name: Place(file, torch.bfloat16, shape, start)
        for start, (name, shape) in enumerate(shapes.items())
    }
    assert hf.differences(ModelConfig(), found) == []
    assert sum(place.nbytes for place in found.values()) == 2 * 2_172_819_456
    norm = found.pop("model.norm.weight")
    [said] = hf.differences(ModelConfig(), found)
    assert "tensor model.norm.weight is missing: num_hidden_layers=36 takes 327, 326 are" in said
    found["model.norm.bias"] = norm
    assert hf.differences(ModelConfig(), found) == [
        "tensor model.norm.weight is missing",
        "tensor 'model.norm.bias' is unknown",
    ]


def test_the_names_and_shapes_that_are_expected_are_those_of_the_network() -> None:
    for layers in (1, 12):
        config = SHAPE.model_copy(update={"layers": layers, "kv_heads": 2})
        own = {name: tuple(p.shape) for name, p in Transformer(config).named_parameters()}
        assert dict(hf.tensor_shapes(config)) == own


def test_a_claim_of_many_layers_is_refused_at_the_first_tensor_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where there are as many tensors as layers: no such network is described."""
    place = Place(tmp_path / "model.safetensors", torch.float32, (64,), 0)
    found = {f"x{number}": place for number in range(10_000)}
    built = []
    on_meta = hf.on_meta
    monkeypatch.setattr(hf, "on_meta", lambda config: built.append(config) or on_meta(config))
    [said] = hf.differences(SHAPE.model_copy(update={"layers": 10_000}), found)
    assert "embed_tokens.weight is missing: num_hidden_layers=10000 takes 90003, 10000" in said
    assert [config.layers for config in built] == [1]


# NaN and infinity


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("stored", hf.STORED_DTYPES)
@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight"])
def test_weights_that_are_no_numbers_are_refused_by_file_and_tensor(
    tmp_path: Path, name: str, stored: torch.dtype, value: float
) -> None:
    tensors = {key: tensor.to(stored) for key, tensor in raw_tensors().items()}
    tensors[name].view(-1)[5] = torch.finfo(stored).max
    hf.load(write_checkpoint(tmp_path, tensors, config_fields()))
    tensors[name].view(-1)[-3] = value
    write_checkpoint(tmp_path, tensors, config_fields())
    words = re.escape(f"model.safetensors cannot be used: tensor '{name}' holds NaN or infinity")
    with pytest.raises(DamagedError, match=words):
        hf.load(tmp_path)


def test_a_weight_that_the_wanted_dtype_cannot_hold_is_named(tmp_path: Path) -> None:
    tensors = raw_tensors()
    tensors["model.norm.weight"][7] = -1e5
    write_checkpoint(tmp_path, tensors, config_fields())
    norm = hf.load(tmp_path, torch.bfloat16).model.norm.weight.detach()
    assert float(norm[7]) < -9e4
    with pytest.raises(UserError, match=r"model.norm.weight holds 100000, too much for .*float16"):
        hf.load(tmp_path, torch.float16)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers_are_not_written(
    tmp_path: Path, tokenizer: Tokenizer, value: float, dtype: torch.dtype | None
) -> None:
    model = Transformer(SHAPE)
    model.load_state_dict(raw_tensors())
    model.model.norm.weight.data[3] = value
    with pytest.raises(UserError, match=r"model.norm.weight holds NaN or infinity: .*diverged"):
        hf.save(model, tokenizer.path, tmp_path / "model", "test", {}, dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_more_than_the_published_tensors_is_not_written(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = Transformer(SHAPE)
    model.model.layers[0].register_parameter("more", torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(AssertionError, match="other tensors than the published"):
        hf.save(model, tokenizer.path, tmp_path / "model", "test", {})
    assert not (tmp_path / "model").exists()


def test_a_folder_with_a_manifest_is_held_to_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    made(tmp_path / "model", SHAPE, tokenizer)
    file = tmp_path / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedError, match=r"model.safetensors was changed .*SHA-256"):
        hf.load(tmp_path / "model")


# The tokenizer beside it


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    right = SHAPE.model_copy(update={"vocab_size": tokenizer.vocab_size})
    made(tmp_path / "model", right, tokenizer)
    found = hf.load_tokenizer(tmp_path / "model", hf.read_config(tmp_path / "model"))
    assert found.fingerprint == tokenizer.fingerprint
    words = f"has {tokenizer.vocab_size} pieces, .*config.json says vocab_size=512"
    with pytest.raises(UserError, match=words):
        hf.load_tokenizer(tmp_path / "model", SHAPE)


# Memory

PEAK = """
import sys
from pathlib import Path
import torch
from indexlm.export import hf

def peak():
    [line] = [l for l in open("/proc/self/status") if l.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
hf.load(Path(sys.argv[1]))
before = peak()
model = hf.load(Path(sys.argv[2]))
print(peak() - before)
assert "torch._dynamo" not in sys.modules, "loading has imported the compiler: seconds of a start"
"""


def test_loading_takes_the_model_and_one_tensor(tmp_path: Path) -> None:
    """The hardest way: a pickle in bfloat16, loaded as float32."""
    wide = SHAPE.model_copy(update={"hidden": 512, "ffn": 2048, "layers": 6, "vocab_size": 4096})
    checkpoint(tmp_path / "small")
    checkpoint(tmp_path / "wide", config=wide, form="bin", dtype=torch.bfloat16)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "wide")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size = wide.parameters * 4
    # Some room for what the allocator keeps; the file's own weights beside them would be 1.5.
    assert size * 0.9 < int(done.stdout) < size * 1.4


def test_a_model_larger_than_the_machine_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path)
    monkeypatch.setattr(hf, "machine_memory", lambda: SHAPE.parameters * 3)
    with pytest.raises(UserError, match="as float32, this machine has"):
        hf.load(tmp_path)
    assert hf.load(tmp_path, torch.bfloat16).lm_head.weight.dtype == torch.bfloat16


def test_head_rows_of_the_fixture_are_as_uneven_as_they_should_be() -> None:
    norms_V = raw_tensors()["lm_head.weight"].norm(dim=1)
    assert 0.19 < float(norms_V.min()) < 0.3 and 3 < float(norms_V.max()) < 5.01
    assert furthest(folded_rows(raw_tensors()["lm_head.weight"]).norm(dim=1), torch.ones(1)) < 1e-6
    assert re.fullmatch("[a-z_.0-9]+", next(iter(raw_tensors())))
