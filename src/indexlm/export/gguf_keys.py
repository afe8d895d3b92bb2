"""What a GGUF file says of its network and tokenizer: the keys before the tensors.

llama.cpp puts a space before a text where the file says so; no other rule of SentencePiece for
changing a text before it is cut has a place in the file. Such a tokenizer is written with a warning
that says which texts get other ids.
"""

import logging
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from indexlm.errors import UserError, shown
from indexlm.model.config import ModelConfig
from indexlm.tokens.chat_template import CHAT_TEMPLATE
from indexlm.tokens.tokenizer import (
    ASSISTANT,
    BOS,
    EOS,
    PAD,
    UNK,
    USER,
    Tokenizer,
    read_model,
    with_control_pieces,
)

KINDS = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_k_m": 15}
"""Kind of file -> llama.cpp's number of it, `general.file_type`."""

CONTROL, BYTE = 3, 6
"""Types of pieces, with the same numbers in SentencePiece and GGUF."""

BPE = 2
"""`model_type` of sentencepiece_model.proto."""

log = logging.getLogger("indexlm")


def metadata(
    config: ModelConfig, tokenizer: Tokenizer, kind: str, name: str
) -> dict[str, str | bool | int | float | list[Any]]:
    """The keys of the file. Raises UserError for a tokenizer of a kind that llama.cpp cannot
    follow, warns of one that changes a text in a way that llama.cpp does not."""
    model = with_control_pieces(read_model(tokenizer.path))
    assert len(model.pieces) == config.vocab_size, (
        f"{len(model.pieces)} pieces, the model has {config.vocab_size} rows"
    )
    _refuse_other_kinds(model, tokenizer.path)
    _warn_of_rules(model.normalizer_spec, tokenizer.path)
    types = [piece.type for piece in model.pieces]
    # As ordinary pieces the marker words of a rendered conversation would be spelled out.
    types[USER] = types[ASSISTANT] = CONTROL
    return {
        "general.type": "model",
        "general.name": name,
        "general.file_type": KINDS[kind],
        "general.quantization_version": 2,
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.context,
        "llama.embedding_length": config.hidden,
        "llama.block_count": config.layers,
        "llama.feed_forward_length": config.ffn,
        "llama.attention.head_count": config.heads,
        "llama.attention.head_count_kv": config.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": _as_float32(config.norm_eps),
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": _as_float32(config.rope_base),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [piece.piece for piece in model.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in model.pieces],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.unknown_token_id": UNK,
        "tokenizer.ggml.padding_token_id": PAD,
        # Left out, llama.cpp puts `<s>` and a space before every prompt.
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": model.normalizer_spec.add_dummy_prefix,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _refuse_other_kinds(model: Any, path: Path) -> None:
    byte_pieces = sum(piece.type == BYTE for piece in model.pieces)
    if (
        model.trainer_spec.model_type != BPE
        or byte_pieces != 256
        or not model.normalizer_spec.escape_whitespaces
        or model.trainer_spec.treat_whitespace_as_suffix
    ):
        raise UserError(
            f"{path} is no BPE model with all bytes as pieces and spaces before words, the one "
            "kind that llama.cpp reads like SentencePiece; use a tokenizer of `indexlm tokenizer "
            "train`"
        )


def _warn_of_rules(rule: Any, path: Path) -> None:
    if rule.precompiled_charsmap:
        log.warning(
            f"{path} normalises a text before it is cut (rule {shown(rule.name)}); llama.cpp does "
            "not: full-width letters, ligatures, tabs and whatever else the rule changes get other "
            "ids there than in training"
        )
    if rule.remove_extra_whitespaces:
        log.warning(
            f"{path} removes spaces at both ends of a text and repeated ones; llama.cpp does not: "
            "such texts get other ids there than in training"
        )


def config_from(path: Path, keys: Mapping[str, Any]) -> ModelConfig:
    """The network that the keys of a file describe; its head is a plain one.

    Raises UserError where they describe none.
    """
    try:
        return ModelConfig(
            vocab_size=keys["llama.vocab_size"],
            hidden=keys["llama.embedding_length"],
            layers=keys["llama.block_count"],
            heads=keys["llama.attention.head_count"],
            kv_heads=keys["llama.attention.head_count_kv"],
            ffn=keys["llama.feed_forward_length"],
            context=keys["llama.context_length"],
            rope_base=keys["llama.rope.freq_base"],
            norm_eps=keys["llama.attention.layer_norm_rms_epsilon"],
            norm_head=False,
        )
    except KeyError as error:
        raise UserError(f"{path} has no key {error}: it is no Llama-shaped GGUF file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path} has keys that fit no network: {where} {message}") from error


def _as_float32(value: float) -> float:
    """The number that a float32 field gives back."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
