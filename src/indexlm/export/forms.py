"""One model folder in every form that a command can ask for, each checked before it is there."""

import math
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from indexlm.errors import DamagedError, UserError
from indexlm.export import gguf, hf, llama, modelfile, peft, quantise, weights
from indexlm.export.agreement import Agreement, compare, logits_of, probe_ids
from indexlm.model import lora
from indexlm.model.transformer import Transformer
from indexlm.records import fingerprint, publish, read_manifest
from indexlm.tokens.tokenizer import Tokenizer

Form = Literal["index", "llama", "gguf"]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FLOAT_KINDS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
BLOCK_KINDS = ("q8_0", "q4_k_m")


@dataclass(frozen=True)
class Made:
    """What a command made, and how far it is from the model."""

    path: Path
    bytes: int
    agreement: Agreement
    notes: tuple[str, ...] = ()


def export(
    folder: Path, form: Form, out: Path, adapter: Path | None, dtype: str | None, system: str | None
) -> Made:
    """Write `out` from a model folder. `dtype` is a name of DTYPES, or for GGUF one of BLOCK_KINDS;
    None keeps what is stored. `system` is the system text of an Ollama Modelfile.

    Raises UserError where form and `dtype` do not go together and for what cannot be read.
    """
    if dtype in BLOCK_KINDS and form != "gguf":
        raise UserError(f"--dtype {dtype} is a kind of GGUF; use --to gguf, or `indexlm quantise`")
    if system is not None and form != "gguf":
        raise UserError(f"--system is for the Modelfile of --to gguf, not for --to {form}")
    places = _places(out, form == "gguf", system)
    model, tokenizer = _opened(folder, adapter)
    made_from = _made_from(folder, adapter, form, dtype)
    if form == "gguf":
        return _gguf(model, tokenizer, places, _kind(model, dtype), folder, system, made_from)
    card = _card(folder, adapter, form)
    number = DTYPES[dtype] if dtype is not None else model.lm_head.weight.dtype
    if form == "llama":
        agreement = llama.export(model, tokenizer, out, made_from, card, number)
    else:
        agreement = _index(model, tokenizer, out, made_from, card, number)
    return Made(out, _size(out), agreement)


def quantised(folder: Path, kind: str, out: Path, group_size: int) -> Made:
    """`out` from a model folder in fewer bits: GGUF kinds, or torchao's int8 and int4."""
    places = _places(out, kind in BLOCK_KINDS, None)
    model, tokenizer = _opened(folder, None)
    made_from = _made_from(folder, None, kind, str(group_size))
    if kind in BLOCK_KINDS:
        return _gguf(model, tokenizer, places, kind, folder, None, made_from)
    card = _card(folder, None, kind)
    bits = cast(quantise.Kind, kind)
    agreement = quantise.export(model, tokenizer, out, bits, made_from, card, group_size)
    return Made(out, _size(out), agreement)


def open_folder(folder: Path) -> tuple[Transformer, Tokenizer]:
    """The model of a folder in float32, in eval mode, and its tokenizer; also a quantised one.

    Raises UserError for what is no model folder, DamagedError for a file that is not what it was.
    """
    if hf.read_fields(folder).get("quantization_config") is not None:
        model = quantise.load(folder)
        return model, hf.load_tokenizer(folder, model.config)
    # The tokenizer first: reading gigabytes can wait until it is known to be the model's.
    tokenizer = hf.load_tokenizer(folder, hf.read_config(folder))
    return hf.load(folder), tokenizer


def read_back(path: Path) -> Transformer:
    """The float32 network of what `quantised` wrote."""
    return gguf.load_dequantised(path) if path.is_file() else quantise.load(path)


def _opened(folder: Path, adapter: Path | None) -> tuple[Transformer, Tokenizer]:
    """The model as it is stored, with the adapter merged."""
    model = hf.load(folder, hf.stored_dtype(folder))
    if adapter is not None:
        peft.load_adapter(model, adapter)
        lora.merge(model)
    return model.eval(), hf.load_tokenizer(folder, model.config)


def _index(
    model: Transformer,
    tokenizer: Tokenizer,
    out: Path,
    made_from: str,
    card: dict[str, Any],
    dtype: torch.dtype,
) -> Agreement:
    unchecked = out.with_name(f".{out.name}.unchecked")
    shutil.rmtree(unchecked, ignore_errors=True)
    try:
        hf.save(model, tokenizer.path, unchecked, made_from, card, dtype)
        agreement = _compare_index(model, hf.load(unchecked, dtype), dtype)
        if agreement is None:
            raise DamagedError(f"{out} read back is not the model; nothing was published")
        unchecked.rename(out)
    finally:
        shutil.rmtree(unchecked, ignore_errors=True)
    return agreement


def _compare_index(model: Transformer, found: Transformer, dtype: torch.dtype) -> Agreement | None:
    """None where a weight is not the one that was meant, or a logit is no number."""
    meant = dict(model.named_parameters())
    for name, parameter in found.named_parameters():
        if not torch.equal(parameter, meant[name].to(dtype)):
            return None
    ids_BT = probe_ids(model.config.vocab_size, model.config.context)
    agreement = compare(logits_of(model, ids_BT), logits_of(found, ids_BT))
    return agreement if math.isfinite(agreement.furthest) else None


@dataclass(frozen=True)
class _Places:
    """Where a GGUF file and its Modelfile go: two files, or both into a folder that is made."""

    out: Path
    recipe: Path
    is_file: bool


def _places(out: Path, is_gguf: bool, system: str | None) -> _Places:
    """Raises UserError where a target is taken, before gigabytes are read."""
    if out.exists():
        raise UserError(f"{out} exists; name another --out or remove it")
    if not is_gguf or out.suffix != ".gguf":
        if out.suffix == ".gguf":
            raise UserError(f"{out}: this form is a folder, not a .gguf file; name a folder")
        return _Places(out, out / "Modelfile", is_file=False)
    modelfile.modelfile(out.name, 1, system)  # refuses a text that the format cannot hold
    recipe = out.with_name("Modelfile")
    if recipe.exists():
        # That of another file in the folder.
        recipe = out.with_suffix(".Modelfile")
    if recipe.exists():
        raise UserError(f"{recipe} exists; name another --out or remove it")
    return _Places(out, recipe, is_file=True)


def _gguf(
    model: Transformer,
    tokenizer: Tokenizer,
    places: _Places,
    kind: str,
    folder: Path,
    system: str | None,
    made_from: str,
) -> Made:
    name = folder.resolve().name

    def write(path: Path, recipe: Path) -> gguf.Written:
        written = gguf.export(model, tokenizer, path, kind, name)
        text = modelfile.modelfile(path.name, model.config.context, system)
        recipe.write_text(text, encoding="utf-8")
        return written

    if places.is_file:
        path = places.out
        written = write(path, places.recipe)
    else:
        path = places.out / f"{name}-{kind}.gguf"
        with publish(places.out, made_from) as partial:
            written = write(partial / path.name, partial / places.recipe.name)
    notes = (*_by_kind(written.otherwise), f"ollama create {name.lower()} -f {places.recipe}")
    return Made(path, written.bytes, written.agreement, notes)


def _by_kind(otherwise: Sequence[str]) -> list[str]:
    """One line for a tensor of all layers: 36 layers can have 250 that are packed otherwise."""
    counts = Counter(re.sub(r"blk\.\d+\.", "blk.*.", line) for line in otherwise)
    return [f"{line} ({count} tensors)" if count > 1 else line for line, count in counts.items()]


def _kind(model: Transformer, dtype: str | None) -> str:
    if dtype in BLOCK_KINDS:
        return dtype
    return FLOAT_KINDS[DTYPES[dtype] if dtype is not None else model.lm_head.weight.dtype]


def identity(folder: Path) -> str:
    """What tells one model or adapter folder from another: its manifest, or, of a download, the
    sizes and times of its files."""
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.fingerprint
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return fingerprint([[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files])


def _made_from(folder: Path, adapter: Path | None, *how: str | None) -> str:
    merged = None if adapter is None else identity(adapter)
    return fingerprint(identity(folder), merged, how)


def _card(folder: Path, adapter: Path | None, form: str) -> dict[str, Any]:
    """The parent's model card, with where this one comes from."""
    path = folder / "model_card.json"
    card = weights.read_json(path) if path.is_file() else {}
    card |= {"parent": folder.resolve().name, "form": form}
    return card if adapter is None else card | {"adapter": adapter.resolve().name}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
