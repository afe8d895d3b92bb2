"""What a model folder holds, in words: the facts that decide how a checkpoint must be read.

For a download that nobody vouches for: no weight file is read whole, and of the head a few thousand
rows at a time. NaN in another tensor is found when the model is loaded.

Shape suffixes: V vocabulary, D width.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from indexlm.errors import DamagedError, UserError, shown
from indexlm.export import config_fields, hf, places, quantise, weights
from indexlm.export.places import Place
from indexlm.export.quantise import Layout
from indexlm.model.config import ModelConfig
from indexlm.records import MANIFEST, verify
from indexlm.tokens.tokenizer import FILE_NAME, SPECIAL_PIECES, USER, Tokenizer, read_model

ROWS_AT_ONCE = 4096
UNIT = 0.01
"""A row whose norm is this close to 1 is normalised; rounding to bfloat16 moves it by 0.001."""
MOST_SHOWN = 8
PUBLISHED = ModelConfig()

Found = TypeVar("Found")


@dataclass(frozen=True)
class Inspection:
    """What was found in a folder; as a text, one finding a line."""

    lines: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)
    """What is in order but is read wrongly by some programs, or not what one may expect."""
    wrong: list[str] = field(default_factory=list)
    """Why the folder cannot be used as a model."""

    def __str__(self) -> str:
        unusual = [f"unusual: {text}" for text in self.unusual]
        return "\n".join([*self.lines, *unusual, *(f"WRONG: {text}" for text in self.wrong)])


def is_model(folder: Path) -> bool:
    """Whether it is a model folder; the config.json of a run stands beside no weights."""
    return (folder / hf.CONFIG).is_file() and any((folder / n).is_file() for n in weights.FILES)


def describe(folder: Path) -> Inspection:
    """Everything that can be said of a model folder; a wrong file does not hide the others.

    With a manifest of ours, all files are held to it first.
    """
    found = Inspection()
    _try(found, lambda: _manifest(folder, found))
    shape = _try(found, lambda: _config(folder, found))
    config, layout = shape or (None, None)
    _try(found, lambda: _weights(folder, config, layout, found))
    _try(found, lambda: _tokenizer(folder, config, found))
    _try(found, lambda: _template(folder, found))
    return found


def _try(found: Inspection, section: Callable[[], Found]) -> Found | None:
    try:
        return section()
    except (UserError, DamagedError) as error:
        # One broken config.json is met by several sections.
        if str(error) not in found.wrong:
            found.wrong.append(str(error))
        return None


def _manifest(folder: Path, found: Inspection) -> None:
    if not (folder / MANIFEST).exists():
        found.lines.append(f"manifest: none, as in any download; no hash says what {folder} was")
        return
    manifest = verify(folder)
    found.lines.append(f"manifest: {len(manifest.files)} files are what they were (SHA-256)")


def _config(folder: Path, found: Inspection) -> tuple[ModelConfig, Layout | None]:
    """Shape, and how the integers of a quantised folder are stored."""
    fields = hf.read_fields(folder)
    layout = None
    if fields.get("quantization_config") is None:
        config = hf.read_config(folder)
    else:
        config, layout = quantise.read_config(folder)
        found.lines.append(
            f"quantised: {layout}, in the layout of torchao, for transformers and vLLM; here it "
            f"is read as float32, {4 * config.parameters / 1e9:.3g} GB, for chat and evaluation"
        )
    keys = "" if config.kv_heads == config.heads else f", keys and values {config.kv_heads}"
    found.lines.extend(
        [
            f"config: {fields['architectures'][0]}, {config.layers} layers, width {config.hidden}, "
            f"feed-forward {config.ffn}, {config.heads} heads of {config.head_dim}{keys}, "
            f"vocabulary {config.vocab_size:,}",
            f"config: context {config.context:,} tokens, RoPE base {config.rope_base:,.10g} "
            f"({_rope_origin(fields)})",
            f"config: norm_head={shown(fields.get('norm_head'))}, "
            f"rms_norm_eps={config.norm_eps:g}, torch_dtype={shown(_stated_dtype(fields))}",
            f"parameters: {config.parameters:,}, {config.non_embedding_parameters:,} without "
            "embedding and head",
        ]
    )
    free = {n: getattr(PUBLISHED, n) for n in ("context", "rope_base", "init_std")}
    if config.model_copy(update=free) == PUBLISHED:
        found.lines[-1] += ": the shape of Index-1.9B"
    else:
        found.unusual.append("the network does not have the shape of the published Index-1.9B")
    ratio = config.rope_base / config_fields.ROPE_THETA
    if fields.get("rope_ratio") not in (None, 1):
        found.unusual.append(
            f"rope_ratio={ratio:g}: {'the 32K model; ' if ratio == 32 else ''}a program that "
            "reads only rope_theta runs it with a wrong RoPE base and no error"
        )
    if fields["architectures"] == [hf.INDEX_ARCHITECTURE] and not config.norm_head:
        found.unusual.append("norm_head is not set: the head is plain, published models have it")
    if config.norm_eps != PUBLISHED.norm_eps:
        found.unusual.append(f"rms_norm_eps={config.norm_eps:g}; published models have 1e-06")
    if config.head_scale != 1:
        found.unusual.append(
            f"head_scale={config.head_scale:g} multiplies the logits; other programs ignore it"
        )
    if fields.get("tie_word_embeddings"):
        found.unusual.append("tie_word_embeddings=true: the head is a copy of the embedding rows")
    return config, layout


def _rope_origin(fields: Mapping[str, Any]) -> str:
    stated = [
        f"{name} {'absent' if fields.get(name) is None else shown(fields[name])}"
        for name in ("rope_theta", "rope_ratio")
    ]
    nested = fields.get("rope_parameters") or {}
    inner = [n for n in ("rope_type", "rope_theta") if n in nested]
    return ", ".join(stated + [f"rope_parameters.{n} {shown(nested[n])}" for n in inner])


def _stated_dtype(fields: Mapping[str, Any]) -> Any:
    """transformers 5 writes `dtype` in the place of `torch_dtype`."""
    return fields.get("torch_dtype", fields.get("dtype"))


def _weights(
    folder: Path, config: ModelConfig | None, layout: Layout | None, found: Inspection
) -> None:
    entry = weights.entry(folder)
    everything = weights.catalogue(folder)
    tensors = hf.model_tensors(folder)
    files = {place.file for place in everything.values()}
    dtypes = Counter(str(place.dtype).removeprefix("torch.") for place in tensors.values())
    size = sum(file.stat().st_size for file in files)
    found.lines.append(
        f"weights: {entry.name}, {len(files)} file{'s' * (len(files) != 1)}, {size / 1e9:.3g} GB; "
        + ", ".join(f"{count} tensors of {name}" for name, count in dtypes.items())
    )
    if entry.name.startswith(weights.PICKLE):
        found.unusual.append(
            f"{entry.name}: pickles can run code where a program unpickles them; here they are "
            "read as data"
        )
    if leftovers := sum(name.endswith(hf.LEFTOVER) for name in everything):
        found.unusual.append(f"{leftovers} {hf.LEFTOVER} buffers are left over and not used")
    stated = _stated_dtype(hf.read_fields(folder))
    if layout is None and (len(dtypes) > 1 or stated not in (None, *dtypes)):
        found.unusual.append(f"torch_dtype={shown(stated)}, stored are {', '.join(dtypes)}")
    if config is None:
        return
    if layout is None:
        wrong = hf.differences(config, tensors)
    else:
        wrong = quantise.differences(config, layout, tensors)
    found.wrong.extend(wrong[:MOST_SHOWN])
    if len(wrong) > MOST_SHOWN:
        found.wrong.append(f"and {len(wrong) - MOST_SHOWN} more differences of names and shapes")
    if not wrong:
        found.lines.append(
            f"weights: all {len(tensors)} names and shapes are right "
            f"({9 if layout is None else 23} x {config.layers} layers + 3)"
        )
        _head(tensors[hf.HEAD], config, found)


def _head(place: Place, config: ModelConfig, found: Inspection) -> None:
    norms_V = _row_norms(place)
    if not bool(norms_V.isfinite().all()):
        count = int((~norms_V.isfinite()).sum())
        found.wrong.append(f"{count} rows of {hf.HEAD} hold NaN or infinity")
        return
    zero = int((norms_V == 0).sum())
    folded = bool(((norms_V - 1).abs() < UNIT)[norms_V > 0].all())
    found.lines.append(
        f"head rows: L2 norms {norms_V.min():.4g} to {norms_V.max():.4g}, median "
        f"{norms_V.median():.4g}: {'normalised already (folded)' if folded else 'raw'}"
    )
    if zero:
        found.unusual.append(f"{zero} rows of {hf.HEAD} are zero")
    if config.norm_head and not folded:
        found.unusual.append(
            "head rows are not of length 1, as published: a converter that ignores norm_head "
            "gives a model that answers with blank lines"
        )


def _row_norms(place: Place) -> Tensor:
    """L2 norm of each row of a matrix, float32 [V]."""
    rows = place.shape[0]
    parts = [
        places.read_rows(place, first, min(first + ROWS_AT_ONCE, rows)).float().norm(dim=1)
        for first in range(0, rows, ROWS_AT_ONCE)
    ]
    return torch.cat(parts)


def _tokenizer(folder: Path, config: ModelConfig | None, found: Inspection) -> None:
    model = read_model(folder / FILE_NAME)
    kinds = model.SentencePiece.Type
    special = [(p.piece, kinds.Name(p.type)) for p in model.pieces[: len(SPECIAL_PIECES)]]
    rule = model.normalizer_spec
    spelled = sum(piece.type == kinds.Value("BYTE") for piece in model.pieces)
    found.lines.extend(
        [
            f"tokenizer: {len(model.pieces):,} pieces; ids "
            + ", ".join(f"{i} {shown(text)} {kind}" for i, (text, kind) in enumerate(special)),
            f"tokenizer: normaliser {shown(rule.name)}, dummy prefix "
            f"{'yes' if rule.add_dummy_prefix else 'no'}, extra white space "
            f"{'removed' if rule.remove_extra_whitespaces else 'kept'}, byte fallback "
            f"{'yes' if spelled == 256 else 'no'}",
        ]
    )
    for index, (text, kind) in enumerate(special[USER:], start=USER):
        if (text, kind) != (SPECIAL_PIECES[index], "CONTROL"):
            found.unusual.append(
                f"id {index} is stored as {shown(text)} of type {kind}: a converter that keeps "
                f"it spells the marker {SPECIAL_PIECES[index]} out; here it is a control piece"
            )
    if rule.precompiled_charsmap or rule.remove_extra_whitespaces:
        found.unusual.append(
            f"the tokenizer rewrites text (normaliser {shown(rule.name)}): decoding does not give "
            "the text back, and programs without its rules (llama.cpp) give other ids"
        )
    if rule.add_dummy_prefix:
        found.unusual.append("the tokenizer puts a space before every text (dummy prefix)")
    if spelled != 256:
        found.unusual.append("no byte fallback: characters without a piece are left out")
    if config is None:
        Tokenizer.load(folder)
    else:
        hf.load_tokenizer(folder, config)
        found.lines.append("tokenizer: as many pieces as the model has rows")


def _template(folder: Path, found: Inspection) -> None:
    path = folder / "tokenizer_config.json"
    fields = weights.read_json(path) if path.exists() else {}
    places_of_it = [path.name] if fields.get("chat_template") is not None else []
    if (folder / "chat_template.jinja").is_file():
        places_of_it.append("chat_template.jinja")
    found.lines.append(
        f"chat template: {' and '.join(places_of_it) or 'none'}; prompts are built as ids here, "
        "without one"
    )
    if fields.get("add_bos_token"):
        found.unusual.append(
            "add_bos_token is set: published models are prompted without a first <s>"
        )
