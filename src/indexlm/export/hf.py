"""Model folders in the published layout: what users pass around.

`config.json` (IndexForCausalLM), `model.safetensors` with Llama tensor names and raw head rows,
`tokenizer.model`, `generation_config.json`, `model_card.json`. safetensors and JSON only.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from indexlm.errors import DamagedError, UserError
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import publish, verify, write_json
from indexlm.tokens.tokenizer import BOS, EOS, FILE_NAME, PAD

WEIGHTS = "model.safetensors"


def save(
    model: Transformer, tokenizer_file: Path, folder: Path, made_from: str, card: dict[str, Any]
) -> None:
    """Write a model folder; it appears whole or not at all."""
    from safetensors.torch import save_file

    with publish(folder, made_from) as partial:
        weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
        save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
        shutil.copyfile(tokenizer_file, partial / FILE_NAME)
        write_json(partial / "config.json", published_config(model.config))
        generation = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
        sampling = {"do_sample": True, "temperature": 0.3, "top_k": 5, "top_p": 0.8}
        write_json(
            partial / "generation_config.json",
            generation | sampling | {"repetition_penalty": 1.1},
        )
        write_json(partial / "model_card.json", card)


def load(folder: Path) -> Transformer:
    """Read a model folder, in eval mode. Raises UserError for what is not one, DamagedError for
    a file that is not what it was."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a model folder: it has no config.json; "
            "after `indexlm run tiny` there is one in runs/tiny/models/chat"
        )
    verify(folder)
    config = _read_config(folder / "config.json")
    model = Transformer(config)
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise DamagedError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    expected = dict(model.named_parameters())
    for name in sorted(expected.keys() ^ weights.keys()):
        raise UserError(f"{folder / WEIGHTS}: tensor {name} is missing or unknown")
    model.load_state_dict(weights)
    return model.eval()


def published_config(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of the published checkpoints."""
    return {
        "architectures": ["IndexForCausalLM"],
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
        "rope_theta": config.rope_base,
        "rope_scaling": None,
        "norm_head": int(config.norm_head),
        "head_scale": config.head_scale,
        "tie_word_embeddings": False,
        "initializer_range": config.init_std,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "torch_dtype": "float32",
    }


def _read_config(path: Path) -> ModelConfig:
    fields = json.loads(path.read_text(encoding="utf-8"))
    return ModelConfig(
        vocab_size=fields["vocab_size"],
        hidden=fields["hidden_size"],
        layers=fields["num_hidden_layers"],
        heads=fields["num_attention_heads"],
        kv_heads=fields["num_key_value_heads"],
        ffn=fields["intermediate_size"],
        context=fields["max_position_embeddings"],
        rope_base=fields["rope_theta"],
        norm_eps=fields["rms_norm_eps"],
        norm_head=bool(fields["norm_head"]),
        head_scale=fields["head_scale"],
        init_std=fields["initializer_range"],
    )
