"""The fields of a `config.json`, each held to what it may say: a config comes from anywhere.

All raise UserError naming the file, the field, its value and what is supported.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from indexlm.errors import UserError, shown
from indexlm.export.weights import read_json

ROPE_THETA = 10000.0
LARGEST_SIZE = 2**24
"""Of any one dimension in a config. The longest published windows are 10 million tokens."""


def refuse_other_networks(fields: Mapping[str, Any], path: Path) -> None:
    """Fields of Llama's config that change the computation have one supported value each."""
    flag(fields, "tie_word_embeddings", path)
    if "hidden_act" in fields and fields["hidden_act"] != "silu":
        raise UserError(
            f"{path}: hidden_act={shown(fields['hidden_act'])} is not supported; only 'silu' is"
        )
    if (scaling := fields.get("rope_scaling")) is not None:
        raise UserError(
            f"{path}: rope_scaling={shown(scaling)} is not supported; only null is. "
            "Take the checkpoint that this one was made from"
        )
    if fields.get("quantization_config") is not None:
        refuse_quantised(fields["quantization_config"], path)
    for name in ("attention_bias", "mlp_bias"):
        if flag(fields, name, path):
            raise UserError(f"{path}: {name}=true is not supported; the projections have no bias")


def refuse_quantised(how: Any, path: Path) -> NoReturn:
    """Of a folder of `indexlm quantise`, the model card names the parent."""
    method = how.get("quant_method") if isinstance(how, dict) else how
    card = path.with_name("model_card.json")
    parent = read_json(card).get("parent") if card.is_file() else None
    called = "" if parent is None else f" ({shown(parent)}, by its {card.name})"
    raise UserError(
        f"{path}: quantization_config is not supported: the weights are quantised "
        f"({shown(method)}); take the checkpoint that this one was made from{called}"
    )


def rope_base(fields: Mapping[str, Any], path: Path) -> float:
    """(rope_theta or 10,000) x (rope_ratio or 1)."""
    nested = fields.get("rope_parameters")
    theta = number(fields, "rope_theta", path, ROPE_THETA)
    if nested is not None:
        if not isinstance(nested, dict) or nested.get("rope_type", "default") != "default":
            raise UserError(
                f"{path}: rope_parameters={shown(nested)} is not supported; only "
                '{"rope_type": "default", "rope_theta": ...} is'
            )
        if nested.get("partial_rotary_factor", 1) != 1:
            raise UserError(
                f"{path}: partial_rotary_factor={shown(nested['partial_rotary_factor'])} is not "
                "supported; heads are rotated whole"
            )
        inner = number(nested, "rope_theta", path, theta)
        if fields.get("rope_theta") is not None and inner != theta:
            raise UserError(
                f"{path}: rope_theta={theta:g} and rope_parameters.rope_theta={inner:g} "
                "contradict each other; keep one of them"
            )
        theta = inner
    ratio = number(fields, "rope_ratio", path, 1.0)
    if theta != ROPE_THETA and ratio != 1:
        raise UserError(
            f"{path}: rope_theta={theta:g} and rope_ratio={ratio:g} can mean two bases, "
            f"{theta:g} and {theta * ratio:g}; remove rope_ratio for the first, or write the "
            "second as rope_theta alone"
        )
    return theta * ratio


def integer(fields: Mapping[str, Any], name: str, path: Path, default: int | None = None) -> int:
    value = fields.get(name)
    if value is None:
        value = default
    if value is None:
        raise UserError(f"{path} has no {name}; take the {path.name} published with the weights")
    if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
        raise UserError(
            f"{path}: {name}={shown(value)} is not supported; expected a whole number from 1 to "
            f"{LARGEST_SIZE}"
        )
    return value


def number(fields: Mapping[str, Any], name: str, path: Path, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not 0 < value < 1e12:
        raise UserError(
            f"{path}: {name}={shown(value)} is not supported; expected a number above 0"
        )
    return float(value)


def flag(fields: Mapping[str, Any], name: str, path: Path) -> bool:
    value = fields.get(name)
    if value is not None and not (type(value) in (int, bool) and value in (0, 1)):
        raise UserError(
            f"{path}: {name}={shown(value)} is not supported; expected 1, true, 0 or false"
        )
    return bool(value)
