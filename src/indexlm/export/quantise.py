"""Model folders with integer weights, in the layout that torchao publishes: int8 or int4.

The matrices of the blocks become integers with a scale per row (int8) or a scale and a zero per
group of a row (int4); everything else stays 16 bit. The folder is a Llama folder (the Norm-Head
is folded into the head) whose `quantization_config` and safetensors header say how to read it, so
that transformers and vLLM open it as any other torchao checkpoint. safetensors and JSON only.

Embedding and head are not quantised. At the released shape they are 266 M of 2,173 M parameters,
and int8 would take 0.27 GB off files of 2.44 GB (int8) and 1.55 GB (int4); but torchao's int8
embedding widens the whole table at each call, 1.4 s on two cores at 65,029 x 2,048 against 0.06 ms,
and vLLM takes neither table as integers.

Shape suffixes: R rows (outputs), C columns (inputs), G groups of a row, S columns of one group.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from indexlm.errors import DamagedError, UserError, shown
from indexlm.export import config_fields, hf, hub_tokenizer, llama, places, weights
from indexlm.export.agreement import Agreement, compare, logits_of, probe_ids
from indexlm.export.places import Place
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import MANIFEST, publish, verify, write_json
from indexlm.tokens.tokenizer import Tokenizer

log = logging.getLogger("indexlm")

Kind = Literal["int8", "int4"]

CONFIGS: dict[Kind, str] = {"int8": "Int8WeightOnlyConfig", "int4": "Int4WeightOnlyConfig"}
"""Kind -> torchao's name for it, as `quantization_config` holds it."""

SMALLEST_GROUP = 16
"""A scale and a zero of 16 bits over 8 weights would cost as much as int8."""
KERNEL_GROUPS = (32, 64, 128, 256)
"""Group sizes that torchao documents for its int4 GPU kernels."""

MISREAD = 0.7
"""Largest Frobenius error of a matrix read back, as a share of the matrix. Rounding gives 0.01 in
int8 and 0.1 in int4, at worst 0.5; values in a wrong order give 1.4."""


@dataclass(frozen=True)
class Layout:
    """How the matrices of a folder are stored."""

    kind: Kind
    group_size: int | None
    """Columns that share a scale; None in int8, where a row does."""

    def __str__(self) -> str:
        each = "row" if self.group_size is None else f"{self.group_size} columns"
        return f"{self.kind}, a scale for each {each}"


def export(
    model: Transformer,
    tokenizer: Tokenizer,
    folder: Path,
    kind: Kind,
    made_from: str,
    card: Mapping[str, Any],
    group_size: int = 128,
) -> Agreement:
    """Write a quantised model folder, read it back, and say how far its logits are from `model`'s.

    `kind` is int8 (symmetric, a scale per row) or int4 (a scale and a zero per `group_size`
    columns). The folder appears whole, after it has been read back, or not at all. Memory is that
    of `model`, its folded head, and the float32 model that is read back: 19 GB at the released
    shape in float32. Raises UserError where `group_size` does not fit the matrices or
    torchao is not installed or a weight is no number, DamagedError where the folder does not read
    back as what was written.
    """
    if find_spec("torchao") is None:
        raise UserError("quantising needs torchao; install it: pip install 'indexlm[quantise]'")
    if kind == "int4":
        _check_group_size(model, group_size)
    for name, parameter in model.named_parameters():
        weights.check_fits(name, parameter.detach(), torch.bfloat16)
    notes: dict[str, Any] = {"quantised": kind}
    with publish(folder, made_from, notes) as partial:
        tensors, header = _file_content(model, kind, group_size)
        weights.save_file(tensors, partial / weights.SAFETENSORS, header)
        del tensors
        hub_tokenizer.write(tokenizer, partial, model.config.context)
        fields = llama.llama_config(model.config, torch.bfloat16)
        how = {"quantization_config": _quantization_config(kind, group_size)}
        write_json(partial / hf.CONFIG, fields | how)
        write_json(partial / "generation_config.json", hf.GENERATION)
        write_json(partial / "model_card.json", dict(card))
        read = _read(partial)
        _check_read_back(model, read, partial)
        probe_BT = probe_ids(model.config.vocab_size, model.config.context)
        agreement = compare(logits_of(model, probe_BT), logits_of(read, probe_BT))
        notes["agreement"] = str(agreement)
        before = sum(p.numel() * p.element_size() for p in model.parameters())
        after = (partial / weights.SAFETENSORS).stat().st_size
    log.info(f"{kind}: {before / 1e6:,.1f} MB of weights are now {after / 1e6:,.1f} MB")
    return agreement


def load(folder: Path) -> Transformer:
    """Read a folder of `export` as a plain float32 model, in eval mode; torchao is not needed.

    The integers are turned into the values they stand for: on a CPU torchao has no int4 product
    and its int8 product widens the matrix at every call (5,888 x 2,048 times one position on two
    cores: 86 ms against 7.5 ms in float32). Raises UserError for what is no such folder,
    DamagedError for a file that is not what it was; files are held to a manifest where there is
    one. Memory: the model and one matrix, once config, headers and file sizes agree.
    """
    read_config(folder)
    if (folder / MANIFEST).exists():
        verify(folder)
    return _read(folder)


def _check_group_size(model: Transformer, group_size: int) -> None:
    widths = {
        module.in_features: name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    fitting = [
        size
        for size in range(SMALLEST_GROUP, min(widths) + 1, 2)
        if all(width % size == 0 for width in widths)
    ]
    # The largest ones are the useful ones: 128 is what most int4 files have.
    nearest = ", ".join(map(str, sorted(fitting, key=lambda size: abs(size - group_size))[:4]))
    remedy = f"sizes that fit every matrix: {nearest}" if fitting else "none fits: ask for int8"
    for width, name in sorted(widths.items()):
        if group_size <= 0 or width % group_size:
            raise UserError(
                f"group size {group_size} does not divide the input width {width} of {name}; "
                f"{remedy}"
            )
    if group_size not in fitting:
        raise UserError(
            f"group size {group_size} is odd or below {SMALLEST_GROUP}, where int4 is no smaller "
            f"than int8; {remedy}"
        )
    if group_size not in KERNEL_GROUPS:
        log.warning(
            f"group size {group_size}: the int4 kernels of GPUs take "
            f"{', '.join(map(str, KERNEL_GROUPS))}; this folder can be read but not served there"
        )


def _is_quantised(name: str) -> bool:
    return name.endswith("_proj.weight")


@torch.no_grad()
def _file_content(
    model: Transformer, kind: Kind, group_size: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of the weight file, made a matrix at a time."""
    # torchao warns of each of its CUDA libraries that a machine without CUDA cannot load.
    logging.getLogger("torchao").setLevel(logging.ERROR)
    # torch, of the way in which torchao 0.18 registers two of its enums.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    tensors: dict[str, Tensor] = {}
    header: dict[str, str] = {}
    names = []
    for name, parameter in model.named_parameters():
        if name == "lm_head.weight":
            value = model.lm_head.matrix().detach().cpu().bfloat16()
        elif parameter.dim() == 1:
            # The gains stay float32: 0.6 MB at the released shape.
            value = parameter.detach().cpu().float()
        elif not _is_quantised(name):
            value = parameter.detach().cpu().bfloat16()
        elif kind == "int8":
            value = _int8(parameter.detach().cpu().float())
        else:
            value = _int4(parameter.detach().cpu().float(), group_size)
        parts, entries = flatten_tensor_state_dict({name: value})
        tensors |= {key: part.contiguous() for key, part in parts.items()}
        header[name] = entries[name]
        names.append(name)
    return tensors, header | {"tensor_names": json.dumps(names), "format": "pt"}


def _int8(weight_RC: Tensor) -> Tensor:
    """torchao's Int8Tensor: w = scale x q, q in [-128, 127], one float32 scale per row."""
    from torchao.quantization import Int8Tensor, PerRow

    exact = Int8Tensor.from_hp(weight_RC, PerRow())
    # Rounded from the exact weights, but labelled bfloat16 as the rest of the file: vLLM copies it
    # into a tensor of the model's dtype and refuses another label.
    tensor: Tensor = Int8Tensor(
        exact.qdata, exact.scale, exact.block_size, torch.bfloat16, zero_point=exact.zero_point
    )
    return tensor


def _int4(weight_RC: Tensor, group_size: int) -> Tensor:
    """torchao's Int4Tensor in its plain layout: w = scale x q + zero, q in [-8, 7].

    Two neighbouring columns share a byte, the first in the low half; scales and zeros are
    bfloat16 [G, R]. torchao itself makes these tensors only where its CUDA library is installed;
    the arithmetic is min-max rounding. Scale and zero are rounded before q is chosen, so that q
    makes up for their rounding.
    """
    from torchao.quantization import Int4Tensor

    weight_RGS = weight_RC.unflatten(1, (-1, group_size))
    low_RG, high_RG = weight_RGS.amin(2), weight_RGS.amax(2)
    # A group of equal weights has no range; its zero then carries the value.
    scale_RG = ((high_RG - low_RG).clamp(min=1e-6) / 15).bfloat16()
    zero_RG = (low_RG + 8 * scale_RG.float()).bfloat16()
    steps_RGS = (weight_RGS - zero_RG.float()[..., None]) / scale_RG.float()[..., None]
    q_RC = steps_RGS.round().clamp(-8, 7).to(torch.int8).flatten(1)
    packed = (q_RC[:, ::2] & 0xF) | (q_RC[:, 1::2] << 4)
    tensor: Tensor = Int4Tensor(
        packed.contiguous(),
        scale_RG.T.contiguous(),
        zero_RG.T.contiguous(),
        [1, group_size],
        weight_RC.shape,
    )
    return tensor


def _quantization_config(kind: Kind, group_size: int) -> dict[str, Any]:
    """torchao's own account of what the integers mean, as transformers and vLLM read it."""
    from torchao.core.config import config_to_dict
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    how = Int8WeightOnlyConfig() if kind == "int8" else Int4WeightOnlyConfig(group_size=group_size)
    return {
        "quant_method": "torchao",
        "quant_type": {"default": config_to_dict(how)},
        "modules_to_not_convert": ["lm_head"],
    }


def _read(folder: Path) -> Transformer:
    """Read a folder of which every file is known to be as it was written."""
    config, layout = read_config(folder)
    found = hf.model_tensors(folder)
    model = hf.with_room(config, torch.float32, folder, differences(config, layout, found))
    for name, parameter in model.named_parameters():
        if _is_quantised(name):
            parts = [places.read_finite(found[part], part) for part in _part_names(name)]
            parameter.data.copy_(_values(parts, layout.kind))
        else:
            parameter.data.copy_(places.read_finite(found[name], name))
    return model.eval()


def read_config(folder: Path) -> tuple[ModelConfig, Layout]:
    """Shape and layout that `config.json` states; reads no other file.

    Raises UserError where there is no quantization_config, or one of another method or program.
    """
    fields, path = hf.read_fields(folder), folder / hf.CONFIG
    how = fields.pop("quantization_config", None)
    if how is None:
        raise UserError(
            f"{path} has no quantization_config; `indexlm quantise` makes folders that have one"
        )
    stated: Any = {}
    if isinstance(how, dict) and how.get("quant_method") == "torchao":
        stated = how.get("quant_type")
        stated = stated.get("default") if isinstance(stated, dict) else None
    kinds = {name: kind for kind, name in CONFIGS.items()}
    name = stated.get("_type") if isinstance(stated, dict) else None
    if not isinstance(name, str) or name not in kinds:
        config_fields.refuse_quantised(how, path)
    config = hf.config_of(fields, path)
    if kinds[name] == "int8":
        return config, Layout("int8", None)
    data = stated.get("_data")
    group_size = data.get("group_size") if isinstance(data, dict) else None
    widths = (config.hidden, config.ffn)
    if type(group_size) is not int or group_size < 2 or group_size % 2:
        raise UserError(f"{path}: group_size={shown(group_size)} is not supported; expected even")
    for width in widths:
        if width % group_size:
            raise UserError(f"{path}: group_size={group_size} does not divide a width of {width}")
    return config, Layout("int4", group_size)


def differences(config: ModelConfig, layout: Layout, found: Mapping[str, Place]) -> list[str]:
    """Where tensors in files are not those of the config, one sentence each; allocates nothing."""
    # Seven matrices of three parts and two gains a layer. A network of a billion layers must not
    # even be listed.
    count = 23 * config.layers + 3
    if count > len(found):
        first = next(name for name, _, _ in _parts(config, layout) if name not in found)
        return [
            f"tensor {first} is missing: num_hidden_layers={config.layers} takes {count} in "
            f"{layout.kind}, {len(found)} are there"
        ]
    wrong = []
    known = set()
    for name, shape, dtypes in _parts(config, layout):
        known.add(name)
        if name not in found:
            wrong.append(f"tensor {name} is missing")
        elif (place := found[name]).shape != shape or place.dtype not in dtypes:
            wrong.append(
                f"tensor {name} is {list(place.shape)} of {place.dtype}, expected {list(shape)} "
                f"of {' or '.join(map(str, dtypes))}"
            )
    return wrong + [f"tensor {shown(name)} is unknown" for name in found if name not in known]


def _parts(
    config: ModelConfig, layout: Layout
) -> Iterator[tuple[str, tuple[int, ...], tuple[torch.dtype, ...]]]:
    """Name, shape and possible dtypes of each tensor of the file."""
    for name, shape in hf.tensor_shapes(config):
        if not _is_quantised(name):
            yield name, shape, hf.STORED_DTYPES
            continue
        rows, columns = shape
        q, scale, zero = _part_names(name)
        if layout.group_size is None:
            yield q, (rows, columns), (torch.int8,)
            yield scale, (rows, 1), hf.STORED_DTYPES
            yield zero, (rows, 1), (torch.int8,)
        else:
            groups = columns // layout.group_size
            yield q, (rows, columns // 2), (torch.int8,)
            yield scale, (groups, rows), hf.STORED_DTYPES
            yield zero, (groups, rows), hf.STORED_DTYPES


def _part_names(name: str) -> list[str]:
    """Tensors of the file that make up one matrix, named as torchao flattens it."""
    prefix = name.removesuffix("weight") + "_weight_"
    return [prefix + part for part in ("qdata", "scale", "zero_point")]


def _values(parts: Sequence[Tensor], kind: Kind) -> Tensor:
    """The float32 matrix, [R, C], that integers, scales and zeros stand for."""
    q, scale, zero = parts[0], parts[1].float(), parts[2].float()
    if kind == "int8":
        return (q.float() - zero) * scale
    # Shifting left and back again keeps the sign of the low half.
    q_RC = torch.stack(((q << 4) >> 4, q >> 4), dim=2).flatten(1).float()
    q_RGS = q_RC.unflatten(1, (scale.shape[0], -1))
    return (q_RGS * scale.T[..., None] + zero.T[..., None]).flatten(1)


@torch.no_grad()
def _check_read_back(model: Transformer, read: Transformer, folder: Path) -> None:
    ours = dict(model.named_parameters())
    for name, value in read.named_parameters():
        weight = ours[name].cpu().float()
        if not _is_quantised(name):
            continue
        if not (value - weight).norm() <= MISREAD * weight.norm():
            raise DamagedError(
                f"{folder}: {name} reads back as other values than were written; "
                "the installed torchao lays its tensors out in another way than 0.17 and 0.18 do"
            )
