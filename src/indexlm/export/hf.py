"""Model folders in the published layout: what users download, pass around and train on.

`config.json` (IndexForCausalLM), weights with Llama tensor names and raw head rows (safetensors, or
a pickle when reading), `tokenizer.model`, `generation_config.json`, `model_card.json`. A folder
that was made here has a manifest, and its files are held to it; a download has none.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from torch.overrides import TorchFunctionMode

from indexlm.errors import UserError, shown
from indexlm.export import config_fields, places, weights
from indexlm.export.places import Place
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import MANIFEST, Progress, publish, verify, write_json
from indexlm.runtime import machine_memory
from indexlm.tokens.tokenizer import BOS, EOS, FILE_NAME, PAD, Tokenizer

CONFIG = "config.json"
INDEX_ARCHITECTURE = "IndexForCausalLM"
LLAMA_ARCHITECTURE = "LlamaForCausalLM"
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
LEFTOVER = "rotary_emb.inv_freq"
"""Buffers that early versions of transformers saved; they follow from the config."""

GENERATION = {
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "do_sample": True,
    "temperature": 0.3,
    "top_k": 5,
    "top_p": 0.8,
    "repetition_penalty": 1.1,
}
"""Special ids, and the sampling of the published chat model."""
STORED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def save(
    model: Transformer,
    tokenizer_file: Path,
    folder: Path,
    made_from: str,
    card: dict[str, Any],
    dtype: torch.dtype | None = None,
    shard_bytes: int = weights.SHARD_BYTES,
) -> None:
    """Write a model folder; it appears whole or not at all.

    The rows of the head stay raw. Weights are cast to `dtype`, or kept as they are, and go into
    files of at most `shard_bytes` where one tensor is not longer.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert parameters.keys() == dict(on_meta(model.config).named_parameters()).keys(), (
        "a network with other tensors than the published ones (LoRA that is not merged)"
    )
    stored = dtype or model.lm_head.weight.dtype
    with publish(folder, made_from) as partial:
        weights.write(parameters, partial, stored, shard_bytes)
        shutil.copyfile(tokenizer_file, partial / FILE_NAME)
        write_json(partial / CONFIG, published_config(model.config, stored))
        write_json(partial / "generation_config.json", GENERATION)
        write_json(partial / "model_card.json", card)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    """Read a model folder, in eval mode, weights in `dtype`.

    Takes the published checkpoints (Index, raw or folded head rows) and Llama folders, which have
    a plain head. Memory: the model and one tensor, once config, headers and file sizes agree.
    Raises UserError for what is no such model, DamagedError for a file that is not what it was or
    holds NaN or infinity.
    """
    config = read_config(folder)
    if (folder / MANIFEST).exists():
        verify(folder)
    found = model_tensors(folder)
    model = with_room(config, dtype, folder, differences(config, found))
    parameters = dict(model.named_parameters())
    progress = Progress(f"load {folder.name}", sum(found[name].nbytes for name in parameters))
    for name, parameter in parameters.items():
        tensor = places.read_finite(found[name], name)
        if torch.finfo(dtype).max < torch.finfo(tensor.dtype).max:
            weights.check_fits(name, tensor, dtype)
        parameter.data.copy_(tensor)
        progress.advance(found[name].nbytes)
    progress.close()
    return model.eval()


def with_room(
    config: ModelConfig, dtype: torch.dtype, folder: Path, wrong: list[str]
) -> Transformer:
    """The network of `folder` with memory for its weights, which are not read yet.

    Raises UserError where something is `wrong` with the files or the machine has less memory.
    """
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"{folder}: {wrong[0]}{more}; {CONFIG} and weights are of different models")
    model = on_meta(config).to(dtype)
    needed = sum(parameter.nbytes for parameter in model.parameters())
    if needed > machine_memory():
        raise UserError(
            f"{folder} takes {needed / 1e9:.1f} GB as {_name_of(dtype)}, this machine has "
            f"{machine_memory() / 1e9:.1f} GB; load it in a shorter dtype or on a larger machine"
        )
    # Room for the whole model first: between tensors that stay, those that are read and converted
    # would leave holes, 1.1 GB of them at the released size.
    return model.to_empty(device="cpu")


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype of the weights in a folder's files, read off their largest tensor."""
    found = model_tensors(folder)
    if not found:
        raise UserError(f"{folder}: its weight files hold no tensor")
    return max(found.values(), key=lambda place: place.nbytes).dtype


def load_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    """The tokenizer of a model folder. Raises UserError where it is not the model's."""
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            f"{tokenizer.path} has {tokenizer.vocab_size} pieces, {folder / CONFIG} says "
            f"vocab_size={config.vocab_size}; put the tokenizer there that the model was "
            "trained with"
        )
    return tokenizer


def model_tensors(folder: Path) -> dict[str, Place]:
    """Name -> place of what a model is made of: leftovers dropped, a tied head at the embedding.

    Reads headers only. Raises UserError or DamagedError naming the file.
    """
    fields = read_fields(folder)
    found = {n: p for n, p in weights.catalogue(folder).items() if not n.endswith(LEFTOVER)}
    if config_fields.flag(fields, "tie_word_embeddings", folder / CONFIG) and EMBEDDING in found:
        found[HEAD] = found[EMBEDDING]
    return found


def differences(config: ModelConfig, found: Mapping[str, Place]) -> list[str]:
    """Where tensors in files are not those of the config, one sentence each; allocates nothing."""
    # A network of a billion layers must not even be listed.
    count = 9 * config.layers + 3
    if count > len(found):
        first = next(name for name, _ in tensor_shapes(config) if name not in found)
        return [
            f"tensor {first} is missing: num_hidden_layers={config.layers} takes {count}, "
            f"{len(found)} are there"
        ]
    expected = dict(tensor_shapes(config))
    wrong = []
    owners: dict[tuple[Path, int], str] = {}
    for name, shape in expected.items():
        if name not in found:
            wrong.append(f"tensor {name} is missing")
            continue
        place = found[name]
        if place.shape != shape:
            wrong.append(f"tensor {name} is {list(place.shape)}, expected {list(shape)}")
        if place.dtype not in STORED_DTYPES:
            known = ", ".join(map(_name_of, STORED_DTYPES))
            wrong.append(f"tensor {name} is {_name_of(place.dtype)}, expected one of {known}")
        owner = owners.setdefault((place.file, place.start), name)
        if owner != name and {owner, name} != {EMBEDDING, HEAD}:
            wrong.append(f"tensors {owner} and {name} are the same bytes")
    wrong += [f"tensor {shown(name)} is unknown" for name in found if name not in expected]
    return wrong


def tensor_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor. Only one layer is built: a config can claim millions."""
    one = on_meta(config.model_copy(update={"layers": 1}))
    shapes = {name: tuple(parameter.shape) for name, parameter in one.named_parameters()}
    yield from ((name, shape) for name, shape in shapes.items() if ".0." not in name)
    layer = {name: shape for name, shape in shapes.items() if ".0." in name}
    for number in range(config.layers):
        yield from ((name.replace(".0.", f".{number}."), shape) for name, shape in layer.items())


def published_config(config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The `config.json` of the published checkpoints. The base of a longer window is written as
    they write it: `rope_ratio` times a `rope_theta` of 10,000."""
    fields: dict[str, Any] = {
        "architectures": [INDEX_ARCHITECTURE],
        "model_type": "index",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config_fields.ROPE_THETA,
        "rope_scaling": None,
        "norm_head": int(config.norm_head),
        "tie_word_embeddings": False,
        "initializer_range": config.init_std,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "torch_dtype": _name_of(dtype),
    }
    ratio = config.rope_base / config_fields.ROPE_THETA
    if ratio * config_fields.ROPE_THETA != config.rope_base:
        fields["rope_theta"] = config.rope_base
    elif ratio != 1:
        fields["rope_ratio"] = int(ratio) if ratio.is_integer() else ratio
    if config.head_scale != 1:
        fields["head_scale"] = config.head_scale
    return fields


def read_config(folder: Path) -> ModelConfig:
    """The shape that `config.json` states; fields that published files leave out have defaults.

    Raises UserError naming a field and value that is not supported, DamagedError for no JSON.
    """
    return config_of(read_fields(folder), folder / CONFIG)


def config_of(fields: Mapping[str, Any], path: Path) -> ModelConfig:
    """`read_config` of the fields that stand in `path`."""
    index = _architecture(fields, path) == INDEX_ARCHITECTURE
    config_fields.refuse_other_networks(fields, path)
    heads = config_fields.integer(fields, "num_attention_heads", path)
    hidden = config_fields.integer(fields, "hidden_size", path)
    stated = {
        "vocab_size": config_fields.integer(fields, "vocab_size", path),
        "hidden": hidden,
        "layers": config_fields.integer(fields, "num_hidden_layers", path),
        "heads": heads,
        "kv_heads": config_fields.integer(fields, "num_key_value_heads", path, heads),
        "ffn": config_fields.integer(fields, "intermediate_size", path),
        "context": config_fields.integer(fields, "max_position_embeddings", path),
        "rope_base": config_fields.rope_base(fields, path),
        "norm_eps": config_fields.number(fields, "rms_norm_eps", path, 1e-6),
        "norm_head": config_fields.flag(fields, "norm_head", path),
        "head_scale": config_fields.number(fields, "head_scale", path, 1.0),
        "init_std": config_fields.number(fields, "initializer_range", path, 0.01),
    }
    neutral = {"norm_head": 0, "rope_ratio": 1, "head_scale": 1}
    own = [name for name, value in neutral.items() if fields.get(name) not in (None, value)]
    if own and not index:
        raise UserError(
            f"{path}: architectures is [{LLAMA_ARCHITECTURE!r}], which has no {', '.join(own)}; "
            f"write [{INDEX_ARCHITECTURE!r}] for an Index model or remove the fields"
        )
    if (
        fields.get("head_dim") is not None
        and config_fields.integer(fields, "head_dim", path) * heads != hidden
    ):
        raise UserError(
            f"{path}: head_dim={fields['head_dim']} is not supported; expected hidden_size / "
            f"num_attention_heads = {hidden / heads:g}"
        )
    try:
        return ModelConfig.model_validate(stated)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path} describes no network: {where} {message}".strip()) from error


def read_fields(folder: Path) -> dict[str, Any]:
    """The fields of `config.json` as they are written."""
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} is not a model folder: it has no {CONFIG}; "
            "after `indexlm run tiny` there is one in runs/tiny/models/chat"
        )
    return weights.read_json(folder / CONFIG)


def _architecture(fields: Mapping[str, Any], path: Path) -> str:
    known = [[INDEX_ARCHITECTURE], [LLAMA_ARCHITECTURE]]
    stated = fields.get("architectures")
    if stated not in known:
        inner = stated[0] if isinstance(stated, list) and len(stated) == 1 else stated
        raise UserError(
            f"{path}: architectures={shown(inner)} is not supported; only "
            f"{INDEX_ARCHITECTURE} and {LLAMA_ARCHITECTURE} checkpoints can be read"
        )
    return str(stated[0])


class _NotDrawn(TorchFunctionMode):
    """Leaves out the first normal weights of an embedding: without memory they mean nothing, and
    on the meta device they would import torch's compiler, 2 seconds of every start."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is nn.init.normal_:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def on_meta(config: ModelConfig) -> Transformer:
    """The network without memory for its weights."""
    with torch.device("meta"), _NotDrawn():
        return Transformer(config)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
