"""Model folders that run in transformers, vLLM and SGLang unchanged: LlamaForCausalLM.

The Norm-Head is folded: `lm_head.weight` holds its normalised rows times the head's scale, in the
place of the raw rows, and `rope_theta` is the base that the model turns by. Nothing else differs
from the published layout. It is a form to run: the raw rows, which training needs, are not in it.

Id 0 is both padding and the system marker, as published. `generate` of transformers takes it for
padding where it gets no attention mask; the tokenizer gives one that does not.

Before the folder gets its name it is read back: every tensor must be the one that was meant, and
the logits those of the model. That holds a second model in memory, in the dtype of the first, the
folded head and one tensor more: 19 GB in all for the released size in float32, 10 in bfloat16.
Writing holds the head and, where the dtype changes, one file of at most 4 GiB beside the model.
"""

import math
from pathlib import Path
from typing import Any

import torch

from indexlm.errors import DamagedError, UserError
from indexlm.export import hf, hub_tokenizer, weights
from indexlm.export.agreement import Agreement, compare, logits_of, probe_ids
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import publish, write_json
from indexlm.tokens.tokenizer import BOS, EOS, PAD, Tokenizer


def export(
    model: Transformer,
    tokenizer: Tokenizer,
    folder: Path,
    made_from: str,
    card: dict[str, Any],
    dtype: torch.dtype,
    shard_bytes: int = weights.SHARD_BYTES,
) -> Agreement:
    """Write `folder`; it appears whole and checked or not at all, its weights in `dtype`.

    Returns how far the logits of the folder, read back, are from the model's. Raises UserError
    where the tokenizer is not the model's or has no equal in the other programs and where a weight
    is too large for the dtype, DamagedError where the folder does not compute what the model does.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{tokenizer.path} has {tokenizer.vocab_size} pieces, the model rows for "
            f"{model.config.vocab_size}; export the model with the tokenizer it was trained with"
        )
    with publish(folder, made_from) as partial:
        hub_tokenizer.write(tokenizer, partial, model.config.context)
        write_json(partial / hf.CONFIG, llama_config(model.config, dtype))
        write_json(partial / "generation_config.json", hf.GENERATION)
        write_json(partial / "model_card.json", card)
        plain = folded(model)
        tensors = {name: parameter.detach() for name, parameter in plain.named_parameters()}
        weights.write(tensors, partial, dtype, shard_bytes)
        return _check(model, plain, partial, dtype, folder)


def llama_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """The `config.json`, with the names that every version of transformers reads."""
    return {
        "architectures": [hf.LLAMA_ARCHITECTURE],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "initializer_range": config.init_std,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


@torch.no_grad()
def folded(model: Transformer) -> Transformer:
    """The same network with a plain head; every other tensor is shared with `model`."""
    plain = {"norm_head": False, "head_scale": 1.0}
    copy = hf.on_meta(model.config.model_copy(update=plain))
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    copy.load_state_dict(tensors | {"lm_head.weight": model.lm_head.matrix()}, assign=True)
    return copy.eval()


def _check(
    model: Transformer, plain: Transformer, partial: Path, dtype: torch.dtype, folder: Path
) -> Agreement:
    """Compare what lies in `partial` with what was meant (`plain`) and with the model itself;
    messages name `folder`, which it is to become."""
    own = model.lm_head.weight.dtype
    found = hf.load(partial, own)
    assert found.config == plain.config, f"{found.config} was read back, {plain.config} written"
    meant = dict(plain.named_parameters())
    for name, parameter in found.named_parameters():
        if not torch.equal(parameter, meant[name].to(dtype).to(own)):
            raise DamagedError(f"{folder}: {name} came back different; nothing was published")
    ids_BT = probe_ids(model.config.vocab_size, model.config.context)
    ours_BTV = logits_of(model, ids_BT)
    agreement = compare(ours_BTV, logits_of(found, ids_BT))
    # Unrounded, both compute the same sums. How far rounding moves logits depends on the model (36
    # layers of random weights: a sixth of the largest, 94 of 100 tokens stay); a head that is not
    # folded keeps 2 to 8 of 100 tokens, another RoPE base 13 to 38.
    if torch.promote_types(dtype, own) == dtype:
        agrees = agreement.furthest <= 1e-4 * float(ours_BTV.abs().max())
    else:
        agrees = agreement.same_next > 0.5
    # Of logits that are all NaN the likeliest token is the same one on both sides.
    if not (agrees and math.isfinite(agreement.furthest)):
        raise DamagedError(f"{folder}: {agreement}; nothing was published")
    return agreement
