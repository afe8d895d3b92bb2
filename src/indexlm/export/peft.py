"""LoRA adapters in the layout of the PEFT library, out and in.

`adapter_config.json` beside `adapter_model.safetensors`, whose keys are ours between
`base_model.model.` and `.weight`: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
An adapter does not touch the head, so it fits the published model and its folded Llama form alike.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from indexlm.errors import UserError, shown
from indexlm.export import hf, places, weights
from indexlm.export.pickled import read_pickled
from indexlm.export.places import Place
from indexlm.export.weights import read_json
from indexlm.model import lora
from indexlm.model.config import PROJECTIONS, LoraConfig
from indexlm.model.transformer import Transformer
from indexlm.records import MANIFEST, publish, verify, write_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
READABLE = (WEIGHTS, "adapter_model.bin", "pytorch_model.bin")
"""In the order of preference; the last one holds a PEFT model's trainable parameters."""

# A state dict of a PEFT model names the adapter, "default"; the library's own files leave it out.
KEY = re.compile(r"base_model\.model\.(model\.layers\.[\w.]+\.lora_[AB])(?:\.default)?\.weight")

NO_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}
"""Settings that do not change what an adapter computes."""

FIELDS = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout"}

REMEDY = "merge it with PEFT's merge_and_unload() and load the merged model"


def save_adapter(
    model: Transformer, config: LoraConfig, folder: Path, base_name: str, made_from: str
) -> None:
    """Write the adapter of a wrapped `model`; the folder appears whole or not at all.

    `config` is the one it was wrapped with; `base_name` is where PEFT looks for the base model.
    """
    state = lora.adapter_state(model)
    assert {name: tuple(value.shape) for name, value in state.items()} == _shapes(model, config)
    named = {f"base_model.model.{name}.weight": value for name, value in state.items()}
    with publish(folder, made_from) as partial:
        weights.save_file(named, partial / WEIGHTS)
        write_json(partial / CONFIG, _peft_settings(config, base_name))


def load_adapter(model: Transformer, folder: Path) -> LoraConfig:
    """Wrap `model` and fill the update from a PEFT folder; `model` is unchanged if it is refused.

    Raises UserError for what is no adapter, asks for more than plain LoRA or does not fit the
    model, DamagedError for a file that is not what it was or holds NaN or infinity. Nothing is
    read before names, shapes and dtypes are known to fit.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is not an adapter folder: it has no {CONFIG}")
    if (folder / MANIFEST).is_file():
        verify(folder)
    config = _read_config(folder / CONFIG)
    path = next((folder / name for name in READABLE if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no weights: none of {', '.join(READABLE)}")
    found = _named(path)
    expected = _shapes(model, config)
    for name in sorted(expected.keys() ^ found.keys()):
        what = "missing" if name in expected else "not one of this model and its target_modules"
        raise UserError(
            f"{path}: tensor {shown(name)} is {what}; is it an adapter of another model?"
        )
    for name, place in found.items():
        if place.shape != expected[name] or place.dtype not in hf.STORED_DTYPES:
            raise UserError(
                f"{path}: {name} is {place.dtype} {list(place.shape)}, this model and r="
                f"{config.rank} need {list(expected[name])}; is it an adapter of another model?"
            )
    tensors = {name: places.read_finite(place, name) for name, place in found.items()}
    lora.wrap(model, config, seed=0)
    for name, parameter in lora.adapter_state(model).items():
        parameter.copy_(tensors[name])
    return config


def _peft_settings(config: LoraConfig, base_name: str) -> dict[str, Any]:
    """The settings that PEFT reads; those left out are None or off in it."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "use_dora": False,
    }


def _read_config(path: Path) -> LoraConfig:
    """Raises UserError naming each setting that plain LoRA does not have."""
    settings = read_json(path)
    if settings.get("peft_type") != "LORA":
        kind = shown(settings.get("peft_type"))
        raise UserError(f"{path}: peft_type={kind}, not 'LORA'; {REMEDY}")
    targets = settings.get("target_modules")
    others = [t for t in targets if t not in PROJECTIONS] if isinstance(targets, list) else []
    if not isinstance(targets, list) or not targets or others:
        stated = f" holds {shown(others[0])}" if others else f"={shown(targets)}"
        raise UserError(
            f"{path}: target_modules{stated}: supported is a list of {', '.join(PROJECTIONS)}; "
            + REMEDY
        )
    # What changes the base weights at the start (pissa, olora, loftq) needs those, not ours.
    if settings.get("init_lora_weights", True) not in (True, False, "gaussian"):
        raise UserError(
            f"{path}: init_lora_weights={shown(settings['init_lora_weights'])} is not supported; "
            + REMEDY
        )
    read = {"peft_type", "target_modules", "init_lora_weights", *FIELDS}
    for name, value in settings.items():
        # Off is written in several ways: null, false, {}, [], and "none" for the bias.
        if name not in read | NO_EFFECT and value and value != "none":
            raise UserError(
                f"{path}: the setting {shown(name)}, {shown(value)}, is not supported; {REMEDY}"
            )
    for name in FIELDS:
        if name not in settings:
            raise UserError(f"{path} does not say {name}")
    numbers = {ours: settings[theirs] for theirs, ours in FIELDS.items()}
    try:
        return LoraConfig(**numbers, targets=tuple(p for p in PROJECTIONS if p in targets))
    except ValidationError as error:
        theirs = {ours: name for name, ours in FIELDS.items()}
        said = [
            f"{theirs[str(e['loc'][0])]}={shown(e['input'])}: {e['msg']}" for e in error.errors()
        ]
        raise UserError(f"{path}: " + "; ".join(said)) from error


def _named(path: Path) -> dict[str, Place]:
    """Where the tensors lie, by our names. Raises UserError for one that is no A or B."""
    stored = read_pickled(path) if path.suffix == ".bin" else weights.tensors_of(path)
    found = {}
    for key, place in stored.items():
        match = KEY.fullmatch(key)
        if match is None or match[1] in found:
            raise UserError(
                f"{path}: tensor {shown(key)} is not an A or B of a projection, once each; {REMEDY}"
            )
        found[match[1]] = place
    return found


def _shapes(model: Transformer, config: LoraConfig) -> dict[str, tuple[int, int]]:
    """Name -> shape of every A and B that wrapping gives to `model`, wrapped or not."""
    shapes = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in config.targets:
            assert isinstance(module, nn.Linear | lora.LoraLinear)
            outputs, inputs = module.weight.shape
            shapes[f"{name}.lora_A"] = (config.rank, inputs)
            shapes[f"{name}.lora_B"] = (outputs, config.rank)
    return shapes
