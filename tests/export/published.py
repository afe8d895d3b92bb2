"""Seeded checkpoints in the layout of the published ones, stated here once more and independently.

Small, but with everything that a wrong reader trips over: head rows of very different length, a
longer window's rope_ratio, shards, pickles, bfloat16.

Shape suffixes: B rows, T positions, V vocabulary, D width.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from indexlm.model.config import ModelConfig

SHAPE = ModelConfig(
    vocab_size=512, hidden=64, layers=3, heads=4, kv_heads=4, ffn=192, context=64, init_std=0.01
)

Form = Literal["safetensors", "sharded", "bin", "sharded-bin"]
FORMS: tuple[Form, ...] = ("safetensors", "sharded", "bin", "sharded-bin")


def published_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the 9 x layers + 3 tensors."""
    width, keys = config.hidden, config.kv_heads * (config.hidden // config.heads)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, width)}
    for layer in range(config.layers):
        for name, shape in {
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
            "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (config.ffn, width),
            "mlp.up_proj": (config.ffn, width),
            "mlp.down_proj": (width, config.ffn),
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes | {
        "model.norm.weight": (width,),
        "lm_head.weight": (config.vocab_size, width),
    }


def raw_tensors(config: ModelConfig = SHAPE, seed: int = 7) -> dict[str, Tensor]:
    """Weights under which every layer has a share in the result; norms of the head's rows are
    spread over 0.2 to 5, so that a head that is not folded cannot pass."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in published_shapes(config).items():
        tensor = torch.empty(shape)
        if len(shape) == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.normal_(std=0.02 if "embed" in name else 0.15, generator=generator)
        tensors[name] = tensor
    norms_V1 = torch.empty(config.vocab_size, 1).normal_(std=0.8, generator=generator).exp()
    tensors["lm_head.weight"] = folded_rows(tensors["lm_head.weight"]) * norms_V1.clamp(0.2, 5)
    return tensors


def folded_rows(rows_VD: Tensor) -> Tensor:
    return functional.normalize(rows_VD, dim=1)


def config_fields(config: ModelConfig = SHAPE, **changes: Any) -> dict[str, Any]:
    """config.json as it is published: no rope_theta, no head_scale, remote code named."""
    fields = {
        "architectures": ["IndexForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_index.IndexForCausalLM"},
        "model_type": "index",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "max_length": config.context,
        "rms_norm_eps": config.norm_eps,
        "rope_ratio": None,
        "rope_scaling": None,
        "norm_head": 1,
        "tie_word_embeddings": False,
        "initializer_range": 0.01,
        "pretraining_tp": 1,
        "use_cache": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }
    return fields | changes


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, Tensor],
    fields: Mapping[str, Any],
    form: Form = "safetensors",
    tokenizer_file: Path | None = None,
) -> Path:
    """A model folder of given tensors, without a manifest; three shards where it is sharded."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    stem, suffix = ("pytorch_model", "bin") if form.endswith("bin") else ("model", "safetensors")
    names = list(tensors)
    parts = {f"{stem}.{suffix}": names}
    if form.startswith("sharded"):
        parts = {f"{stem}-0000{n}-of-00003.{suffix}": names[n - 1 :: 3] for n in (1, 2, 3)}
        index = {"metadata": {}, "weight_map": {n: file for file, ns in parts.items() for n in ns}}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")
    for file, held in parts.items():
        content = {name: tensors[name] for name in held}
        if suffix == "bin":
            torch.save(content, folder / file)
        else:
            save_file(content, folder / file, metadata={"format": "pt"})
    if tokenizer_file is not None:
        shutil.copyfile(tokenizer_file, folder / "tokenizer.model")
    return folder


def checkpoint(
    folder: Path,
    *,
    config: ModelConfig = SHAPE,
    form: Form = "safetensors",
    dtype: torch.dtype = torch.float32,
    rope_ratio: int | None = None,
    folded: bool = False,
    tokenizer_file: Path | None = None,
) -> Path:
    """The usual variants; `rope_ratio=32` is the 32K model."""
    tensors = raw_tensors(config)
    if folded:
        tensors["lm_head.weight"] = folded_rows(tensors["lm_head.weight"])
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    fields = config_fields(
        config, rope_ratio=rope_ratio, torch_dtype=str(dtype).removeprefix("torch.")
    )
    return write_checkpoint(folder, stored, fields, form, tokenizer_file)


def llama(
    tensors: Mapping[str, Tensor], config: ModelConfig, *, base: float = 10000.0, fold: bool = True
) -> Any:
    """transformers' Llama with these tensors, its head folded, at the effective RoPE base."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden,
            intermediate_size=config.ffn,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            max_position_embeddings=config.context,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": base},
            tie_word_embeddings=False,
        )
    )
    weights = {name: tensor.float() for name, tensor in tensors.items()}
    if fold:
        weights["lm_head.weight"] = folded_rows(weights["lm_head.weight"])
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def llama_logits(
    tensors: Mapping[str, Tensor],
    config: ModelConfig,
    ids_BT: Tensor,
    *,
    base: float = 10000.0,
    fold: bool = True,
) -> Tensor:
    """What it computes."""
    return llama(tensors, config, base=base, fold=fold)(ids_BT).logits
