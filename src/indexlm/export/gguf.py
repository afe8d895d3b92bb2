"""GGUF files, for llama.cpp and what is built on it.

The file says architecture `llama`: the Norm-Head is folded into `output.weight`, the rows of the
q and k projections stand in the order of interleaved RoPE, and nothing else differs. Before the
file gets its name every row of it is unpacked and compared with the model's, then llama.cpp loads
it and is compared with the model.

llama.cpp cuts a conversation that it renders with the chat template into ids with the marker words
read as markers, also where a user typed them; prompts built by chat_format.py cannot be forged.

Shape suffixes: B rows of ids, T positions, V vocabulary, D width, O rows, I columns of a matrix.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from indexlm.errors import DamagedError, UserError, shown
from indexlm.export import hf
from indexlm.export.agreement import Agreement, compare, logits_of, probe_ids
from indexlm.export.gguf_keys import KINDS, config_from, metadata
from indexlm.export.llama_cpp import LOWEST, check_ids, opened, pack
from indexlm.model.norm_head import SMALLEST_NORM
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

NEXT_BEST = {"Q4_K": "Q5_0", "Q6_K": "Q8_0", "Q5_0": "F16", "Q8_0": "F16"}
"""Where a row is no whole number of blocks (256 numbers for the K types, 32 for the others), as
llama.cpp's own quantiser and converter choose."""

FURTHEST = {"f32": 1e-3, "f16": 0.5, "bf16": 2.0}
"""Largest difference of two log-probabilities that rounding explains, in standard deviations of a
position's logits. Measured on networks of random weights, 3 to 36 layers: up to 2e-5, 0.02 and 0.2
(1e-4, 0.2 and 1.3 where they were made unstable); 5.5 and more where rows stand in a wrong order
or the head is not folded. Blocks have no such bound: through 36 layers four bits move logits as far
as a mistake does. Their rows are held to FURTHEST_ROW."""

FURTHEST_ROW = {
    "F32": 1e-6,
    "F16": 1e-3,
    "BF16": 4e-3,
    "Q8_0": 0.03,
    "Q6_K": 0.07,
    "Q5_0": 0.17,
    "Q4_K": 0.22,
}
"""Largest relative error of a row. Twice the worst row measured, of 2,048 numbers from normal to
Cauchy: 0.015, 0.036, 0.086 and 0.11 for the blocks; twice half a step for the floats. A row in
another's place is off by 1.4."""

ROWS_AT_ONCE = 4096
"""Compared together: 34 MB of the released width in float32, with a few copies."""

FLOATS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}

COMPARED = 1_000_000
"""Numbers to compare, about: llama.cpp gives them as JSON, a second per position of 65,029."""

IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF's name of a tensor in `blk.N` -> ours in `model.layers.N`."""


@dataclass(frozen=True)
class Entry:
    """One tensor of the file and the parameter it is made from."""

    name: str
    source: str
    shape: tuple[int, ...]
    type: str
    """Block type or float type, by ggml's name."""
    wanted: str
    """The type that the kind of file asks for."""
    heads: int | None
    """For q and k: how many heads share the rows."""


@dataclass(frozen=True)
class Written:
    agreement: Agreement
    """llama.cpp on the file against the model, in log-probabilities."""
    bytes: int
    otherwise: tuple[str, ...]
    """Tensors that the wanted type cannot pack, with the type they got."""


def export(model: Transformer, tokenizer: Tokenizer, path: Path, kind: str, name: str) -> Written:
    """Write `path`; it appears whole and checked or not at all. `name` is what programs show.

    Raises UserError for an unknown kind, a tokenizer that llama.cpp cannot follow or weights that
    float16 cannot hold, DamagedError where llama.cpp does not compute what the model does.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file, e.g. {path / 'model.gguf'}")
    keys = metadata(model.config, tokenizer, kind, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(model, partial, kind, keys)
        agreement = check(partial, model, tokenizer, kind, keys)
        partial.rename(path)
    except DamagedError as error:
        # The hidden file is gone when the message is read.
        message = str(error).replace(str(partial), str(path))
        raise DamagedError(f"{message}; nothing was written") from error
    finally:
        partial.unlink(missing_ok=True)
    otherwise = tuple(
        f"{entry.name} is {entry.type}, not {entry.wanted}"
        for entry in entries(model, kind)
        if entry.type != entry.wanted
    )
    return Written(agreement, path.stat().st_size, otherwise)


def entries(model: Transformer, kind: str) -> list[Entry]:
    """Every tensor of the file, with its type."""
    config = model.config
    sources = {
        f"blk.{layer}.{ours}.weight": f"model.layers.{layer}.{theirs}.weight"
        for layer in range(config.layers)
        for ours, theirs in IN_BLOCK.items()
    }
    sources |= {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads}
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert sorted(sources.values()) == sorted(shapes), "a parameter that the file has no place for"
    found = []
    for name, source in sources.items():
        wanted = _wanted_type(name, kind, config.layers) if len(shapes[source]) > 1 else "F32"
        type_ = wanted
        while shapes[source][-1] % _block(type_)[0]:
            type_ = NEXT_BEST[type_]
        part = name.split(".")[-2]
        found.append(Entry(name, source, shapes[source], type_, wanted, heads.get(part)))
    return found


def _wanted_type(name: str, kind: str, layers: int) -> str:
    """The mix of Q4_K_M is llama.cpp's: six bits for the head, and for the values and the second
    feed-forward matrix of the first and last eighth of the layers and every third between."""
    if kind != "q4_k_m":
        return kind.upper()
    if name == "output.weight":
        return "Q6_K"
    found = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
    if found:
        layer, eighth = int(found[1]), layers // 8
        if layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2:
            return "Q6_K"
    return "Q4_K"


def write(model: Transformer, path: Path, kind: str, keys: Mapping[str, Any]) -> None:
    """Write the file; one tensor at a time is in memory beside the model."""
    gguf = _package()
    value_types = {
        str: gguf.GGUFValueType.STRING,
        bool: gguf.GGUFValueType.BOOL,
        int: gguf.GGUFValueType.UINT32,
        float: gguf.GGUFValueType.FLOAT32,
        list: gguf.GGUFValueType.ARRAY,
    }
    parameters = dict(model.named_parameters())
    plan = entries(model, kind)
    writer = gguf.GGUFWriter(path, "llama")
    try:
        for key, value in keys.items():
            writer.add_key_value(key, value, value_types[type(value)])
        for entry in plan:
            numbers, size = _block(entry.type)
            total = parameters[entry.source].numel() // numbers * size
            number = gguf.GGMLQuantizationType[entry.type]
            # With the type given, the dtype only says that the shape does not count bytes.
            writer.add_tensor_info(entry.name, entry.shape, None, total, raw_dtype=number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in plan:
            rows = _rows(model, parameters[entry.source], entry)
            writer.write_tensor_data(_packed(rows, entry).numpy())
        for file in writer.fout:
            file.flush()
            os.fsync(file.fileno())
    finally:
        writer.close()


@torch.no_grad()
def _rows(model: Transformer, parameter: Tensor, entry: Entry) -> Tensor:
    """The numbers of one tensor in the file's order, float32 on the CPU."""
    weight_OI = parameter.detach().to("cpu", torch.float32)
    if entry.name == "output.weight":
        head = model.lm_head
        if head.normalise:
            weight_OI = functional.normalize(weight_OI, dim=1, eps=SMALLEST_NORM)
        if head.scale != 1:
            weight_OI = weight_OI * head.scale
    if entry.heads is not None:
        weight_OI = interleave(weight_OI, entry.heads)
    return weight_OI.contiguous()


def interleave(weight_OI: Tensor, heads: int) -> Tensor:
    """Rows of rotate-half RoPE (pairs j and j + N/2) in the order of pairs 2j and 2j + 1."""
    return weight_OI.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def uninterleave(weight_OI: Tensor, heads: int) -> Tensor:
    return weight_OI.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _packed(weight_OI: Tensor, entry: Entry) -> Tensor:
    if entry.type == "F32":
        return weight_OI
    if entry.type == "BF16":
        # numpy knows no bfloat16.
        return weight_OI.bfloat16().view(torch.int16)
    if entry.type == "F16":
        half_OI = weight_OI.half()
        if not half_OI.isfinite().all():
            raise UserError(
                f"{entry.source} has numbers beyond float16's 65,504; choose bf16 or f32"
            )
        return half_OI
    numbers, size = _block(entry.type)
    type_number = int(_package().GGMLQuantizationType[entry.type])
    return pack(weight_OI, type_number, weight_OI.shape[1] // numbers * size)


def _block(type_: str) -> tuple[int, int]:
    """How many numbers a block of the type holds, and its bytes."""
    gguf = _package()
    numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_]]
    return int(numbers), int(size)


def check(
    path: Path, model: Transformer, tokenizer: Tokenizer, kind: str, keys: Mapping[str, Any]
) -> Agreement:
    """Read the file back, run it in llama.cpp and compare. Raises DamagedError for a difference
    that its kind does not explain. Holds the model and some rows; llama.cpp maps the file."""
    reader = _read(path)
    for key, value in keys.items():
        if reader.fields[key].contents() != value:
            raise DamagedError(f"{path}: {key} was not written as given")
    found = {t.name: (t.tensor_type.name, tuple(t.shape.tolist()[::-1])) for t in reader.tensors}
    expected = {entry.name: (entry.type, entry.shape) for entry in entries(model, kind)}
    if found != expected:
        names = sorted(name for name, _ in found.items() ^ expected.items())
        raise DamagedError(f"{path}: {names[0]} was not written as given")
    _check_rows(path, reader, model, kind)
    vocab_size = model.config.vocab_size
    # llama.cpp keeps one place of the window free.
    ids_BT = probe_ids(vocab_size, model.config.context - 1)
    length = ids_BT.shape[1]
    places = range(length - 1, -1, -max(1, ids_BT.numel() * vocab_size // COMPARED))
    logits_BTV = logits_of(model, ids_BT.to(model.lm_head.weight.device)).cpu()[:, list(places)]
    if not logits_BTV.isfinite().all():
        raise UserError("the logits of the model itself are no numbers; there is nothing to export")
    with opened(path, 256, fast_attention=False, float32_cache=True) as llama:
        check_ids(path, llama, tokenizer)
        rows = ids_BT.tolist()
        theirs_BTV = torch.stack([llama.log_probabilities(r, places, vocab_size) for r in rows])
    ours_BTV = functional.log_softmax(logits_BTV, dim=-1).clamp_min(LOWEST)
    agreement = compare(ours_BTV, theirs_BTV)
    # The coarser of the two: the file's numbers, or those that the model computes in.
    allowed = max(FURTHEST.get(kind, math.inf), FURTHEST[FLOATS[model.lm_head.weight.dtype]])
    spread = float(logits_BTV.std(dim=-1).mean())
    if not agreement.furthest <= allowed * spread:
        raise DamagedError(f"{path} is not what the model computes: in llama.cpp {agreement}")
    return agreement


@torch.no_grad()
def _check_rows(path: Path, reader: Any, model: Transformer, kind: str) -> None:
    """Every row of the file, unpacked, against the row of the model that it stands for."""
    parameters = dict(model.named_parameters())
    packed = {tensor.name: tensor for tensor in reader.tensors}
    for entry in entries(model, kind):
        tensor, furthest = packed[entry.name], FURTHEST_ROW[entry.type]
        if entry.name == "output.weight":
            # What the model multiplies by, which it rounds to its own dtype.
            meant_OI = model.lm_head.matrix()
            furthest = max(furthest, FURTHEST_ROW[FLOATS[meant_OI.dtype].upper()])
        else:
            meant_OI = torch.atleast_2d(parameters[entry.source])
        order_O = _order(len(meant_OI), entry.heads)
        data = tensor.data.reshape(len(meant_OI), -1)
        for first in range(0, len(data), ROWS_AT_ONCE):
            chosen = slice(first, first + ROWS_AT_ONCE)
            numbers = _package().quants.dequantize(data[chosen], tensor.tensor_type)
            rows_OI = meant_OI[order_O[chosen].to(meant_OI.device)].to("cpu", torch.float32)
            lengths_O = rows_OI.norm(dim=1)
            # Rows that were never trained can be shorter than the smallest step of a block.
            lengths_O = lengths_O.maximum(lengths_O.median())
            error_O = (torch.tensor(numbers) - rows_OI).norm(dim=1)
            if not (error_O <= furthest * lengths_O).all():
                worst = float((error_O / lengths_O).max())
                raise DamagedError(
                    f"{path}: {entry.name} is not the model's: a row is off by {worst:.2g} of its "
                    f"length, {entry.type} explains {furthest:g}"
                )


def _order(rows: int, heads: int | None) -> Tensor:
    """Which row of the model each row of the file holds, [O]. RoPE of the file's architecture turns
    rows 2j and 2j + 1 of a head together, the model's rows j and j + N/2."""
    at_O = torch.arange(rows)
    if heads is None:
        return at_O
    size = rows // heads
    in_head_O = at_O % size
    return at_O - in_head_O + in_head_O // 2 + in_head_O % 2 * (size // 2)


def load_dequantised(path: Path) -> Transformer:
    """The network of a file that `export` wrote, its blocks unpacked to float32, in eval mode.

    The head is a plain one: its rows are folded. Raises UserError for a file that holds something
    else, DamagedError for one that cannot be read.
    """
    reader = _read(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if "llama." in name}
    config = config_from(path, keys)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    # A network of a billion layers must not even be described.
    if config.layers * len(IN_BLOCK) + 3 != len(tensors):
        raise UserError(f"{path} has {len(tensors)} tensors for {config.layers} blocks")
    plan = entries(hf.on_meta(config), "f32")
    for entry in plan:
        if entry.name not in tensors:
            raise UserError(f"{path} has no tensor {entry.name}")
        shape = tuple(tensors[entry.name].shape.tolist()[::-1])
        if shape != entry.shape:
            raise UserError(f"{path}: {entry.name} is {shape}, its keys say {entry.shape}")
    model = Transformer(config)
    parameters = dict(model.named_parameters())
    for entry in plan:
        packed = tensors[entry.name]
        numbers = _package().quants.dequantize(packed.data, packed.tensor_type)
        weight = torch.from_numpy(numbers.copy()).reshape(entry.shape)
        if entry.heads is not None:
            weight = uninterleave(weight, entry.heads)
        with torch.no_grad():
            parameters[entry.source].copy_(weight)
    return model.eval()


def _read(path: Path) -> Any:
    try:
        return _package().GGUFReader(path)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise DamagedError(f"{path} is not a whole GGUF file: {shown(str(error))}") from error


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise UserError("GGUF files need the package gguf; pip install 'indexlm[gguf]'") from error
    return gguf
