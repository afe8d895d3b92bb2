"""Integer folders: other programs see the numbers that we see, and nothing wrong is published."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from indexlm.errors import DamagedError, UserError
from indexlm.export import hf, places, quantise
from indexlm.export.agreement import compare, logits_of, probe_ids
from indexlm.export.weights import SAFETENSORS
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import seal
from indexlm.tokens.tokenizer import Tokenizer

GROUP = 32
CARD = {"name": "test"}
KINDS: tuple[quantise.Kind, ...] = ("int8", "int4")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    """Head rows of very different length and a head scale: a missing fold is far off."""
    torch.set_num_threads(1)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden=64,
        layers=2,
        heads=4,
        kv_heads=2,
        ffn=192,
        context=64,
        head_scale=3.0,
        rope_base=320000.0,
    )
    network = Transformer(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(std=0.15, generator=generator)
        rows_V1 = torch.empty(config.vocab_size, 1).normal_(generator=generator).exp()
        network.lm_head.weight.mul_(rows_V1)
    return network.eval()


@pytest.fixture(scope="module")
def folders(
    model: Transformer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A finished folder of each kind."""
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp("quantised") / kind
        quantise.export(model, tokenizer, made[kind], kind, "source", CARD, GROUP)
    return made


@torch.no_grad()
def transformers_logits(network: Any, ids_BT: Tensor) -> Tensor:
    logits: Tensor = network(ids_BT).logits.float()
    return logits


def in_transformers(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def halves(qdata: Tensor) -> Tensor:
    """The two integers of each byte, low half first, from their definition in two's complement."""
    unsigned = qdata.view(torch.uint8).int()
    pairs = torch.stack((unsigned % 16, unsigned // 16), dim=2).flatten(1)
    return torch.where(pairs > 7, pairs - 16, pairs)


def projections(network: nn.Module) -> dict[str, nn.Linear]:
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.endswith("_proj")
    }


def test_transformers_reads_an_int8_folder_as_it_is(
    model: Transformer, folders: dict[str, Path]
) -> None:
    from torchao.quantization import Int8Tensor

    theirs = in_transformers(folders["int8"])
    linears = projections(theirs)
    assert len(linears) == 7 * model.config.layers
    assert all(isinstance(linear.weight, Int8Tensor) for linear in linears.values())
    ids_BT = probe_ids(model.config.vocab_size, model.config.context)
    found_BTV = transformers_logits(theirs, ids_BT)
    assert compare(logits_of(quantise.load(folders["int8"]), ids_BT), found_BTV).furthest < 1e-4
    # What was rounded away is far outside the tolerance.
    assert compare(logits_of(model, ids_BT), found_BTV).furthest > 1e-2


def test_transformers_reads_an_int4_folder_as_it_is(
    model: Transformer, folders: dict[str, Path]
) -> None:
    """torchao multiplies int4 on GPUs only; with its own idea of the values we agree."""
    from torchao.prototype.gptq.api import _int4_row_dequantize_zp
    from torchao.quantization import Int4Tensor

    theirs = in_transformers(folders["int4"])
    for linear in projections(theirs).values():
        packed = linear.weight
        assert isinstance(packed, Int4Tensor)
        assert packed.shape == (linear.out_features, linear.in_features)
        assert packed.block_size == [1, GROUP]
        value_RC = _int4_row_dequantize_zp(
            halves(packed.qdata), packed.scale.float(), packed.zero_point.float(), GROUP
        )
        linear.weight = nn.Parameter(value_RC, requires_grad=False)
    ids_BT = probe_ids(model.config.vocab_size, model.config.context)
    found_BTV = transformers_logits(theirs, ids_BT)
    assert compare(logits_of(quantise.load(folders["int4"]), ids_BT), found_BTV).furthest < 1e-4
    assert compare(logits_of(model, ids_BT), found_BTV).furthest > 1e-1


def test_int8_integers_are_those_that_torchao_chooses(
    model: Transformer, folders: dict[str, Path]
) -> None:
    from torchao.core.config import config_from_dict
    from torchao.quantization import quantize_

    fields = json.loads((folders["int8"] / "config.json").read_text())
    how = config_from_dict(fields["quantization_config"]["quant_type"]["default"])
    reference = copy.deepcopy(model)
    quantize_(reference, how)
    stored = load_file(folders["int8"] / SAFETENSORS)
    for name, linear in projections(reference).items():
        assert torch.equal(stored[f"{name}._weight_qdata"], linear.weight.qdata)
        assert torch.equal(stored[f"{name}._weight_scale"], linear.weight.scale)


def rebuilt(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder as vLLM makes them: from the file's own header."""
    from safetensors import safe_open
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    with safe_open(folder / SAFETENSORS, framework="pt") as file:
        parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tensors, left = unflatten_tensor_state_dict(parts, file.metadata())
    assert left == {}
    return dict(tensors)


def test_an_engine_can_copy_int8_rows_into_a_merged_matrix_of_its_own(
    model: Transformer, folders: dict[str, Path]
) -> None:
    """vLLM makes one bfloat16 matrix for q, k and v, quantises it and copies our rows into it."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    stored = rebuilt(folders["int8"])
    prefix = "model.layers.0.self_attn."
    parts = [stored[f"{prefix}{name}_proj.weight"] for name in "qkv"]
    rows = sum(part.shape[0] for part in parts)
    engine = nn.Sequential(nn.Linear(model.config.hidden, rows, bias=False, dtype=torch.bfloat16))
    quantize_(engine, Int8WeightOnlyConfig())
    merged, at = engine[0].weight.data, 0
    for part in parts:
        merged.narrow(0, at, part.shape[0]).copy_(part)
        at += part.shape[0]
    ours = quantise.load(folders["int8"]).model.layers[0].self_attn
    expected = torch.cat([ours.q_proj.weight, ours.k_proj.weight, ours.v_proj.weight])
    assert torch.equal(merged.dequantize(torch.float32), expected)


@pytest.mark.parametrize(("axis", "start", "end"), [(0, 24, 48), (1, GROUP, 3 * GROUP)])
def test_an_engine_can_cut_int4_matrices_for_several_devices(
    folders: dict[str, Path], axis: int, start: int, end: int
) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    part = rebuilt(folders["int4"])[name].narrow(axis, start, end - start)
    q_RGS = halves(part.qdata).unflatten(1, (-1, GROUP)).float()
    found_RGS = q_RGS * part.scale.float().T[..., None] + part.zero_point.float().T[..., None]
    whole = quantise.load(folders["int4"]).get_parameter(name)
    assert torch.equal(found_RGS.flatten(1), whole.narrow(axis, start, end - start))


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_off_by_half_a_step_at_most(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, kind: quantise.Kind
) -> None:
    odd = copy.deepcopy(model)
    weight = odd.model.layers[0].self_attn.q_proj.weight
    with torch.no_grad():
        weight[0] = 0
        weight[1] = 0.3
        weight[2, 5] = 40.0
        weight[3] += 10
        weight[4] *= 1e-4
    quantise.export(odd, tokenizer, tmp_path / kind, kind, "source", CARD, GROUP)
    read = quantise.load(tmp_path / kind)
    for name, linear in projections(odd).items():
        groups_RGS = linear.weight.detach().unflatten(1, (-1, GROUP))
        error_RG = (read.get_parameter(f"{name}.weight") - linear.weight).detach().abs()
        error_RG = error_RG.unflatten(1, (-1, GROUP)).amax(2)
        if kind == "int4":
            step_RG = (groups_RGS.amax(2) - groups_RGS.amin(2)) / 15
            # A bfloat16 zero is off by 2^-9 of itself, and at the ends nothing makes up for it.
            slack_RG = groups_RGS.abs().amax(2) * 2**-8
        else:
            step_RG = groups_RGS.abs().amax((1, 2), keepdim=True)[..., 0] / 127
            slack_RG = step_RG / 100
        assert bool((error_RG <= step_RG / 2 + slack_RG + 1e-6).all())
    assert torch.equal(read.model.layers[0].self_attn.q_proj.weight[0], torch.zeros(64))


def test_embedding_and_folded_head_are_kept_to_sixteen_bits_and_gains_exactly(
    model: Transformer, folders: dict[str, Path]
) -> None:
    for folder in folders.values():
        read = quantise.load(folder)
        head = model.lm_head.matrix().detach()
        assert torch.equal(read.lm_head.matrix(), head.bfloat16().float())
        embedding = model.model.embed_tokens.weight.detach()
        assert torch.equal(read.model.embed_tokens.weight, embedding.bfloat16().float())
        assert torch.equal(read.model.norm.weight, model.model.norm.weight)


def test_the_weight_file_has_the_promised_size(
    model: Transformer, folders: dict[str, Path]
) -> None:
    linears = [linear.weight for linear in projections(model).values()]
    integers, rows = sum(w.numel() for w in linears), sum(w.shape[0] for w in linears)
    tables = 2 * model.model.embed_tokens.weight.numel()
    gains = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    expected = {
        "int8": integers + 5 * rows + 2 * tables + 4 * gains,
        "int4": integers / 2 + 4 * integers / GROUP + 2 * tables + 4 * gains,
    }
    for kind, folder in folders.items():
        data = (folder / SAFETENSORS).read_bytes()
        header = int.from_bytes(data[:8], "little")
        assert len(data) - 8 - header == expected[kind]


def test_the_report_compares_the_published_folder_with_the_source(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ids_BT = probe_ids(model.config.vocab_size, model.config.context)
    furthest = []
    for kind in KINDS:
        told = quantise.export(model, tokenizer, tmp_path / kind, kind, "source", CARD, GROUP)
        read = quantise.load(tmp_path / kind)
        assert told == compare(logits_of(model, ids_BT), logits_of(read, ids_BT))
        furthest.append(told.furthest)
    assert 0 < furthest[0] < furthest[1]


def test_exporting_leaves_the_source_as_it_was(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantise.export(model, tokenizer, tmp_path / "int4", "int4", "source", CARD, GROUP)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_sixteen_bit_model_gives_the_integers_of_its_values(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    half = copy.deepcopy(model).bfloat16()
    quantise.export(half, tokenizer, tmp_path / "half", "int8", "source", CARD)
    quantise.export(half.float(), tokenizer, tmp_path / "full", "int8", "source", CARD)
    stored, expected = (load_file(tmp_path / n / SAFETENSORS) for n in ("half", "full"))
    integers = [name for name in stored if name.endswith("qdata")]
    assert integers and all(torch.equal(stored[name], expected[name]) for name in integers)


def test_a_folder_holds_safetensors_json_and_the_tokenizer_alone(
    folders: dict[str, Path],
) -> None:
    for folder in folders.values():
        endings = {path.suffix for path in folder.iterdir()}
        assert endings == {".json", ".safetensors", ".model"}
        fields = json.loads((folder / "config.json").read_text())
        assert fields["architectures"] == ["LlamaForCausalLM"]
        assert "norm_head" not in fields and "head_scale" not in fields


@pytest.mark.parametrize(
    ("group_size", "said"),
    [
        (128, "128 does not divide the input width 64.*64, 32, 16"),
        (48, "48 does not divide the input width 64.*32, 64, 16"),
        (0, "0 does not divide"),
        (8, "below 16.*16, 32, 64"),
    ],
)
def test_a_group_size_that_does_not_fit_is_refused_with_those_that_do(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, group_size: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        quantise.export(model, tokenizer, tmp_path / "x", "int4", "source", CARD, group_size)
    assert list(tmp_path.iterdir()) == []


def test_where_no_group_size_fits_int8_is_the_remedy(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden=40, heads=2, kv_heads=2, layers=1, ffn=56
    )
    with pytest.raises(UserError, match="none fits: ask for int8"):
        quantise.export(Transformer(config), tokenizer, tmp_path / "x", "int4", "source", CARD)


def test_without_torchao_the_extra_is_named(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"indexlm\[quantise\]"):
        quantise.export(model, tokenizer, tmp_path / "x", "int8", "source", CARD)


def test_a_folder_that_reads_back_wrong_is_not_published(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves of a byte swapped, as another packing would have them."""
    folder = tmp_path / "int4"
    quantise.export(model, tokenizer, folder, "int4", "source", CARD, GROUP)
    before = (folder / SAFETENSORS).read_bytes()
    right = quantise._int4

    def swapped(weight_RC: Tensor, group_size: int) -> Tensor:
        pairs_RC = weight_RC.unflatten(1, (-1, 2)).flip(2).flatten(1)
        return right(pairs_RC, group_size)

    monkeypatch.setattr(quantise, "_int4", swapped)
    with pytest.raises(DamagedError, match=r"q_proj\.weight reads back as other values"):
        quantise.export(model, tokenizer, folder, "int4", "source", CARD, GROUP)
    assert (folder / SAFETENSORS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["int4"]


def test_a_changed_byte_is_found_before_anything_is_read(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(folders["int8"], folder)
    data = bytearray((folder / SAFETENSORS).read_bytes())
    data[-1] ^= 1
    (folder / SAFETENSORS).write_bytes(data)
    with pytest.raises(DamagedError, match="SHA-256"):
        quantise.load(folder)


def test_other_folders_are_refused_by_name(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        quantise.load(tmp_path)
    hf.save(model, tokenizer.path, tmp_path / "plain", "source", CARD)
    with pytest.raises(UserError, match="no quantization_config"):
        quantise.load(tmp_path / "plain")


# Folders from elsewhere: nothing of them is trusted


def copied(folders: dict[str, Path], tmp_path: Path, kind: str) -> Path:
    """As it arrives without its manifest."""
    folder = shutil.copytree(folders[kind], tmp_path / f"copy-{kind}")
    (folder / "manifest.json").unlink()
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_its_manifest_is_read_the_same(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    whole, copy = (quantise.load(f) for f in (folders[kind], copied(folders, tmp_path, kind)))
    assert whole.config == copy.config
    for name, parameter in whole.named_parameters():
        assert torch.equal(copy.get_parameter(name), parameter)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("how", "called"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Other"}}}, "torchao"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": ["x"]}}}, "torchao"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "torchao"),
        ({"quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, "None"),
        ([1], "a list of 1"),
        ("x\nWRONG", r"x\nWRONG"),
    ],
)
def test_weights_quantised_in_another_way_are_refused_with_the_remedy(
    folders: dict[str, Path], tmp_path: Path, how: Any, called: str, sealed: bool
) -> None:
    folder = copied(folders, tmp_path, "int8")
    change_config(folder, quantization_config=how)
    if sealed:
        seal(folder, "elsewhere")
    for read in (quantise.load, quantise.read_config):
        with pytest.raises(
            UserError, match=r"not supported: .* take the checkpoint that"
        ) as caught:
            read(folder)
        message = str(caught.value)
        assert called in message and str(folder / "config.json") in message
        assert message.isprintable()


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("int8", {"num_hidden_layers": 20_000}, "num_hidden_layers=20000 takes 460003 in int8, 49"),
        ("int4", {"num_hidden_layers": 3}, r"layers.2.\S+ is missing: .*takes 72 in int4, 49 are"),
        ("int4", {"num_hidden_layers": 1}, r"'model.layers.1.\S+ is unknown \(and 22 more\)"),
        ("int8", {"hidden_size": 2**24, "head_dim": 2**22}, r"expected \[640, 16777216\]"),
        (
            "int8",
            {"vocab_size": 9},
            r"embed_tokens.weight is \[640, 64\] of \S+ expected \[9, 64\]",
        ),
        ("int8", {"num_hidden_layers": -1}, "num_hidden_layers=-1 is not supported"),
        ("int8", {"vocab_size": "many"}, "vocab_size='many'"),
        ("int4", {"hidden_size": None}, "has no hidden_size"),
        ("int4", {"num_attention_heads": 3}, "heads"),
        ("int4", {"rope_theta": "x"}, "rope_theta='x'"),
        ("int4", {"architectures": ["Other"]}, "architectures='Other'"),
    ],
)
def test_a_config_of_another_shape_is_refused_before_a_network_is_built(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    folder = copied(folders, tmp_path, kind)
    change_config(folder, **changes)
    built = []
    on_meta = hf.on_meta
    monkeypatch.setattr(hf, "on_meta", lambda config: built.append(config) or on_meta(config))
    monkeypatch.setattr(places, "read", lambda place: pytest.fail("a tensor was read"))
    with pytest.raises(UserError, match=words) as caught:
        quantise.load(folder)
    assert str(folder) in str(caught.value)
    assert {config.layers for config in built} <= {1}


@pytest.mark.parametrize("group_size", [None, "32", True, 0, -32, 31, 48, 2**40])
def test_a_group_size_that_cannot_be_is_refused(
    folders: dict[str, Path], tmp_path: Path, group_size: Any
) -> None:
    folder = copied(folders, tmp_path, "int4")
    how = json.loads((folder / "config.json").read_text())["quantization_config"]
    how["quant_type"]["default"]["_data"]["group_size"] = group_size
    change_config(folder, quantization_config=how)
    with pytest.raises(UserError, match=f"group_size={group_size!r}"):
        quantise.load(folder)
    # One that can be is held to the scales.
    how["quant_type"]["default"]["_data"]["group_size"] = 64
    change_config(folder, quantization_config=how)
    with pytest.raises(UserError, match=r"_weight_scale is \[2, 64\] of \S+ expected \[1, 64\]"):
        quantise.load(folder)


def test_parts_of_another_kind_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = copied(folders, tmp_path, "int8")
    first = "model.layers.0.self_attn.q_proj._weight_"
    tensors = load_file(folder / SAFETENSORS)
    for name, other, words in (
        (
            f"{first}qdata",
            torch.zeros(64, 64),
            r"qdata is \[64, 64\] of torch.float32, expected .*int8",
        ),
        (f"{first}scale", torch.zeros(64, 2), r"scale is \[64, 2\] of torch.float32, expected"),
        ("x\nWRONG", torch.zeros(1), r"tensor 'x\\nWRONG' is unknown"),
    ):
        save_file(tensors | {name: other}, folder / SAFETENSORS)
        with pytest.raises(UserError, match=words):
            quantise.load(folder)


def test_a_model_larger_than_the_machine_is_not_begun(
    folders: dict[str, Path], model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "machine_memory", lambda: model.config.parameters * 3)
    with pytest.raises(UserError, match="as float32, this machine has"):
        quantise.load(folders["int4"])


# NaN and infinity


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["model.norm.weight", "lm_head.weight", "scale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_folder_that_holds_no_numbers_is_refused_by_tensor(
    folders: dict[str, Path], tmp_path: Path, kind: str, part: str, value: float
) -> None:
    from safetensors.torch import save_file

    folder = copied(folders, tmp_path, kind)
    tensors = load_file(folder / SAFETENSORS)
    name = next(name for name in tensors if name.endswith(part))
    tensors[name].view(-1)[1] = value
    save_file(tensors, folder / SAFETENSORS)
    with pytest.raises(DamagedError, match=f"tensor '{name}' holds NaN or infinity"):
        quantise.load(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_is_no_numbers_is_not_written(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, kind: quantise.Kind, value: float
) -> None:
    broken = copy.deepcopy(model)
    broken.get_parameter("model.layers.0.mlp.up_proj.weight").data[3, 5] = value
    with pytest.raises(UserError, match=r"layers.0.mlp.up_proj.weight holds NaN or infinity"):
        quantise.export(broken, tokenizer, tmp_path / "x", kind, "source", CARD, GROUP)
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_that_reads_back_as_nan_is_not_taken_for_right(
    model: Transformer, tmp_path: Path
) -> None:
    read = copy.deepcopy(model)
    quantise._check_read_back(model, read, tmp_path)
    read.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 5] = torch.nan
    with pytest.raises(DamagedError, match=r"layers.1.mlp.up_proj.weight reads back as other"):
        quantise._check_read_back(model, read, tmp_path)
