"""A GGUF file in llama.cpp computes what the model does, and a wrong one never gets its name.

Shape suffixes: B rows, T positions, V vocabulary.
"""

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as reference
import pytest
import sentencepiece
import small_models
import torch
from small_models import make_model
from torch.nn import functional

from indexlm.errors import DamagedError, UserError
from indexlm.export import gguf
from indexlm.export.agreement import Agreement, compare, logits_of, probe_ids
from indexlm.export.gguf_keys import KINDS, metadata
from indexlm.export.llama_cpp import opened
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

SHAPE = small_models.SHAPE.model_copy(update={"vocab_size": 640})
WIDE = small_models.WIDE.model_copy(update={"vocab_size": 640})
GROUPED = SHAPE.model_copy(update={"kv_heads": 2, "rope_base": 320000.0})
PLAIN = SHAPE.model_copy(update={"norm_head": False, "head_scale": 1.0})
UNEVEN = SHAPE.model_copy(update={"hidden": 96, "ffn": 136})


@pytest.fixture(scope="module")
def wide() -> Transformer:
    return make_model(WIDE)


@pytest.fixture(scope="module")
def grouped() -> Transformer:
    return make_model(GROUPED)


def types_in(path: Path) -> dict[str, str]:
    return {t.name: t.tensor_type.name for t in reference.GGUFReader(path).tensors}


def in_llama_cpp(path: Path, model: Transformer, fast: bool = True) -> Agreement:
    """llama.cpp with its own cache, and its own attention if `fast`, against a model of ours."""
    ids_BT = probe_ids(model.config.vocab_size, model.config.context)
    places = range(0, ids_BT.shape[1], 3)
    with opened(path, 256, fast_attention=fast) as llama:
        rows = [llama.log_probabilities(r, places, SHAPE.vocab_size) for r in ids_BT.tolist()]
    ours_BTV = functional.log_softmax(logits_of(model, ids_BT), dim=-1)
    return compare(ours_BTV[:, places], torch.stack(rows))


@pytest.mark.parametrize(
    "config", [SHAPE, GROUPED, PLAIN, UNEVEN], ids=["full", "grouped", "plain head", "uneven"]
)
def test_llama_cpp_computes_what_the_model_does(
    config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    written = gguf.export(make_model(config), tokenizer, tmp_path / "m.gguf", "f32", "test")
    assert written.agreement.furthest < 1e-4
    assert written.agreement.same_next == 1.0
    assert written.bytes == (tmp_path / "m.gguf").stat().st_size
    assert written.otherwise == ()
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(("fast", "furthest"), [(False, 1e-2), (True, 2e-2)])
def test_llama_cpp_with_its_default_cache_is_close(
    grouped: Transformer, tokenizer: Tokenizer, tmp_path: Path, fast: bool, furthest: float
) -> None:
    """Keys and values in float16; the fast attention sums in float16 as well."""
    gguf.export(grouped, tokenizer, tmp_path / "m.gguf", "f32", "test")
    agreement = in_llama_cpp(tmp_path / "m.gguf", grouped, fast)
    assert 1e-4 < agreement.furthest < furthest
    assert agreement.same_next == 1.0


@pytest.mark.parametrize(
    ("kind", "furthest", "same_next", "unpacked"),
    # How near llama.cpp is to the model, and to the model of the unpacked blocks: there it differs
    # by the rounding of the activations alone.
    [
        ("f16", 0.05, 0.97, 0.05),
        ("bf16", 0.3, 0.95, 0.2),
        ("q8_0", 0.8, 0.9, 0.6),
        ("q4_k_m", 8.0, 0.4, 0.8),
    ],
)
def test_coarser_files_are_near_and_their_unpacked_blocks_nearer(
    kind: str,
    furthest: float,
    same_next: float,
    unpacked: float,
    wide: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.gguf"
    agreement = gguf.export(wide, tokenizer, path, kind, "test").agreement
    assert agreement.furthest < furthest
    assert agreement.same_next > same_next
    assert in_llama_cpp(path, gguf.load_dequantised(path)).furthest < unpacked


def test_a_float32_file_comes_back_as_the_model(
    grouped: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    gguf.export(grouped, tokenizer, path, "f32", "test")
    back = gguf.load_dequantised(path)
    assert not back.config.norm_head
    ids_BT = probe_ids(SHAPE.vocab_size, SHAPE.context)
    assert compare(logits_of(grouped, ids_BT), logits_of(back, ids_BT)).furthest < 1e-5
    ours, theirs = dict(grouped.named_parameters()), dict(back.named_parameters())
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == [
        "lm_head.weight"
    ]


def test_matrices_of_four_bits_have_the_mix_of_llama_cpp(
    wide: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    keys = metadata(WIDE, tokenizer, "q4_k_m", "test")
    gguf.write(wide, tmp_path / "m.gguf", "q4_k_m", keys)
    types = types_in(tmp_path / "m.gguf")
    six_bits = {"output.weight"}
    for layer in (0, 3, 6, 7):
        six_bits |= {f"blk.{layer}.attn_v.weight", f"blk.{layer}.ffn_down.weight"}
    assert {name for name, kind in types.items() if kind == "Q6_K"} == six_bits
    norms = {name for name in types if "norm" in name}
    assert {name for name, kind in types.items() if kind == "F32"} == norms
    assert {types[name] for name in types.keys() - six_bits - norms} == {"Q4_K"}


def test_rows_that_are_no_whole_blocks_get_the_next_best_type_and_are_named(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = make_model(UNEVEN)
    eight = gguf.export(model, tokenizer, tmp_path / "8.gguf", "q8_0", "test")
    assert eight.otherwise == tuple(
        f"blk.{layer}.ffn_down.weight is F16, not Q8_0" for layer in range(3)
    )
    four = gguf.export(model, tokenizer, tmp_path / "4.gguf", "q4_k_m", "test")
    assert "output.weight is Q8_0, not Q6_K" in four.otherwise
    assert "token_embd.weight is Q5_0, not Q4_K" in four.otherwise
    assert "blk.2.attn_v.weight is Q8_0, not Q6_K" in four.otherwise
    assert "blk.0.ffn_down.weight is F16, not Q4_K" in four.otherwise
    types = types_in(tmp_path / "4.gguf")
    assert {line.split()[2].rstrip(",") for line in four.otherwise} == {"Q8_0", "Q5_0", "F16"}
    assert all(types[line.split()[0]] == line.split()[2].rstrip(",") for line in four.otherwise)


def test_the_keys_say_how_text_becomes_ids(
    grouped: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    gguf.export(grouped, tokenizer, tmp_path / "m.gguf", "f16", "my model")
    reader = reference.GGUFReader(tmp_path / "m.gguf")
    keys = {name: field.contents() for name, field in reader.fields.items()}
    assert keys["general.architecture"] == "llama"
    assert keys["general.name"] == "my model"
    assert keys["general.file_type"] == 1
    assert keys["llama.rope.freq_base"] == 320000.0
    assert keys["llama.attention.head_count_kv"] == 2
    for switch in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        assert keys[f"tokenizer.ggml.{switch}"] is False
    pieces, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert pieces == [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
    assert types[:5] == [2, 3, 3, 3, 3]
    assert types[5:261] == [6] * 256
    rows = {t.name: t for t in reader.tensors}["output.weight"].data.astype("float32")
    norms = torch.from_numpy(rows).norm(dim=1)
    assert norms.sub(SHAPE.head_scale).abs().max() < 2e-3


def unfold(model: Transformer) -> None:
    model.lm_head.normalise = False


def leave_rows_of(projection: str) -> Callable[[Transformer], None]:
    """What the file gets where the exporter does not change the order of rows."""

    def change(model: Transformer) -> None:
        heads = model.config.heads if projection == "q_proj" else model.config.kv_heads
        for name, weight in model.named_parameters():
            if projection in name:
                weight.copy_(gguf.uninterleave(weight, heads))

    return change


def turn_one_row_of_the_last_layer(model: Transformer) -> None:
    model.model.layers[2].mlp.up_proj.weight[77].neg_()


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        (unfold, r"output\.weight"),
        (leave_rows_of("q_proj"), r"blk\.0\.attn_q\.weight"),
        (leave_rows_of("k_proj"), r"blk\.0\.attn_k\.weight"),
        (turn_one_row_of_the_last_layer, r"blk\.2\.ffn_up\.weight"),
    ],
    ids=["head", "q", "k", "one row"],
)
@pytest.mark.parametrize("kind", list(KINDS))
@torch.no_grad()
def test_a_file_of_wrong_weights_is_refused(
    change: Callable[[Transformer], None],
    tensor: str,
    kind: str,
    grouped: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    wrong = copy.deepcopy(grouped)
    change(wrong)
    keys = metadata(GROUPED, tokenizer, kind, "test")
    gguf.write(wrong, tmp_path / "m.gguf", kind, keys)
    with pytest.raises(DamagedError, match=f"{tensor} is not the model's: a row is off by"):
        gguf.check(tmp_path / "m.gguf", grouped, tokenizer, kind, keys)


@pytest.mark.parametrize("kind", ["q8_0", "q4_k_m"])
def test_an_exporter_that_leaves_the_order_of_rows_ends_in_a_message_with_the_name_asked_for(
    kind: str,
    grouped: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gguf, "interleave", lambda weight_OI, heads: weight_OI)
    path = tmp_path / "m.gguf"
    with pytest.raises(DamagedError, match=r"attn_q\.weight is not the model's") as caught:
        gguf.export(grouped, tokenizer, path, kind, "test")
    assert str(caught.value).startswith(f"{path}: ")
    assert ".partial" not in str(caught.value)
    assert str(caught.value).endswith("; nothing was written")
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_rows_of_heavy_tails_and_rows_never_trained_are_no_mistake(
    wide: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Rows shorter than the smallest step of a block, and single numbers far out."""
    tailed = copy.deepcopy(wide)
    for number, parameter in enumerate(tailed.parameters()):
        if parameter.dim() > 1:
            generator = torch.Generator().manual_seed(number)
            draws = torch.empty_like(parameter).normal_(generator=generator)
            parameter.mul_(draws.exp())
    tailed.model.embed_tokens.weight[100:200] *= 1e-9
    tailed.lm_head.weight[7] = 0
    for kind in ("q8_0", "q4_k_m"):
        gguf.export(tailed, tokenizer, tmp_path / f"{kind}.gguf", kind, "test")


@torch.no_grad()
def test_a_model_whose_logits_are_no_numbers_is_refused(
    grouped: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    loud = copy.deepcopy(grouped)
    loud.model.layers[1].mlp.up_proj.weight.mul_(1e30)
    loud.model.layers[1].mlp.down_proj.weight.mul_(1e30)
    for kind in ("f32", "bf16"):
        with pytest.raises(UserError, match="logits of the model itself are no numbers"):
            gguf.export(loud, tokenizer, tmp_path / "m.gguf", kind, "test")
    assert list(tmp_path.iterdir()) == []


def as_ordinary_pieces(keys: dict[str, Any]) -> None:
    types = keys["tokenizer.ggml.token_type"]
    keys["tokenizer.ggml.token_type"] = [*types[:3], 1, 1, *types[5:]]


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda keys: keys.__delitem__(key)


def with_a_space_in_the_template(keys: dict[str, Any]) -> None:
    template = keys["tokenizer.chat_template"]
    keys["tokenizer.chat_template"] = template.replace("'reserved_0'", "'reserved_0 '")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (as_ordinary_pieces, "renders a conversation as other ids"),
        (with_a_space_in_the_template, "renders a conversation as other ids"),
        (without("tokenizer.ggml.add_bos_token"), "cuts .* into other ids"),
        (without("tokenizer.ggml.add_space_prefix"), "cuts .* into other ids"),
        (without("llama.rope.freq_base"), "is not what the model computes"),
    ],
    ids=["markers", "template", "beginning of sequence", "space before", "rope"],
)
def test_a_file_of_wrong_keys_is_refused(
    change: Callable[[dict[str, Any]], None],
    complaint: str,
    grouped: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    keys = metadata(GROUPED, tokenizer, "f32", "test")
    change(keys)
    gguf.write(grouped, tmp_path / "m.gguf", "f32", keys)
    with pytest.raises(DamagedError, match=complaint):
        gguf.check(tmp_path / "m.gguf", grouped, tokenizer, "f32", keys)


def test_a_file_that_differs_from_what_was_written_is_refused(
    grouped: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    keys = metadata(GROUPED, tokenizer, "f32", "test")
    gguf.write(grouped, path, "f32", keys)
    with pytest.raises(DamagedError, match=r"general\.name was not written as given"):
        gguf.check(path, grouped, tokenizer, "f32", keys | {"general.name": "other"})
    with pytest.raises(DamagedError, match=r"attn_k\.weight was not written as given"):
        gguf.check(path, grouped, tokenizer, "f16", keys)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match="is not a whole GGUF file"):
        gguf.check(path, grouped, tokenizer, "f32", keys)
    path.write_bytes(b"")
    with pytest.raises(DamagedError, match="is not a whole GGUF file"):
        gguf.load_dequantised(path)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("llama.embedding_length", 128, r"attn_norm\.weight is \(64,\), its keys say \(128,\)"),
        ("llama.block_count", 2, "has 30 tensors for 2 blocks"),
        ("llama.attention.head_count_kv", 3, "keys that fit no network"),
        ("llama.vocab_size", None, "has no key 'llama.vocab_size'"),
        ("llama.embedding_length", 0, "keys that fit no network: hidden .*greater than"),
    ],
)
def test_a_file_of_another_network_is_not_taken_for_ours(
    key: str,
    value: int | None,
    complaint: str,
    grouped: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    keys = metadata(GROUPED, tokenizer, "f32", "test") | {key: value}
    given = {name: value for name, value in keys.items() if value is not None}
    gguf.write(grouped, tmp_path / "m.gguf", "f32", given)
    with pytest.raises(UserError, match=complaint) as caught:
        gguf.load_dequantised(tmp_path / "m.gguf")
    assert "\n" not in str(caught.value)


def test_a_failed_export_leaves_what_was_there(
    grouped: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"an older file")
    broken = copy.deepcopy(grouped)
    with torch.no_grad():
        broken.model.layers[2].mlp.up_proj.weight[0, 0] = 70000.0
    with pytest.raises(UserError, match=r"layers\.2\.mlp\.up_proj.* choose bf16 or f32"):
        gguf.export(broken, tokenizer, path, "f16", "test")
    with torch.no_grad():
        broken.model.layers[2].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(DamagedError, match=r"blk\.2\.ffn_up\.weight .* off by nan"):
        gguf.export(broken, tokenizer, path, "q8_0", "test")
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]
    assert path.read_bytes() == b"an older file"


def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    grouped: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "m.gguf"
    with pytest.raises(UserError, match="kind='q3' is not one of f32, f16"):
        gguf.export(grouped, tokenizer, path, "q3", "test")
    with pytest.raises(UserError, match="is a folder; name a file"):
        gguf.export(grouped, tokenizer, tmp_path, "f32", "test")
    assert not path.parent.exists()


@pytest.fixture
def other(
    tmp_path: Path, bilingual: dict[str, tuple[str, ...]]
) -> Callable[[dict[str, Any]], Tokenizer]:
    """A tokenizer of SentencePiece's own trainer, some settings as asked."""

    def train(options: dict[str, Any]) -> Tokenizer:
        settings = {
            "model_type": "bpe",
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "byte_fallback": True,
        }
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter([*bilingual["zh"], *bilingual["en"]]),
            model_prefix=str(tmp_path / "other"),
            vocab_size=480,
            hard_vocab_limit=False,
            control_symbols=["reserved_0", "reserved_1"],
            minloglevel=2,
            **(settings | options),
        )
        return Tokenizer(tmp_path / "other.model")

    return train


def with_rows_for(tokenizer: Tokenizer) -> Transformer:
    return make_model(GROUPED.model_copy(update={"vocab_size": tokenizer.vocab_size}))


@pytest.mark.parametrize(
    "options",
    [{"byte_fallback": False}, {"model_type": "unigram"}, {"treat_whitespace_as_suffix": True}],
    ids=str,
)
def test_a_tokenizer_of_a_kind_that_llama_cpp_does_not_know_is_refused(
    options: dict[str, Any], other: Callable[[dict[str, Any]], Tokenizer]
) -> None:
    tokenizer = other(options)
    config = GROUPED.model_copy(update={"vocab_size": tokenizer.vocab_size})
    with pytest.raises(UserError, match="no BPE model with all bytes as pieces and spaces before"):
        metadata(config, tokenizer, "f32", "test")


PREFIX = {"add_dummy_prefix": True}
NFKC = {"normalization_rule_name": "nmt_nfkc"}
TRIM = {"remove_extra_whitespaces": True}


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (PREFIX, []),
        (NFKC, ["rule 'nmt_nfkc'.*full-width letters"]),
        (TRIM, ["removes spaces at both ends"]),
        (PREFIX | NFKC | TRIM, ["rule 'nmt_nfkc'", "removes spaces at both ends"]),
        ({"normalization_rule_name": "nfkc_cf"}, ["rule 'nfkc_cf'"]),
    ],
    ids=str,
)
def test_rules_of_a_tokenizer_that_llama_cpp_lacks_are_named_and_the_rest_has_the_same_ids(
    options: dict[str, Any],
    warnings: list[str],
    other: Callable[[dict[str, Any]], Tokenizer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokenizer = other(options)
    path = tmp_path / "m.gguf"
    with caplog.at_level("WARNING", logger="indexlm"):
        gguf.export(with_rows_for(tokenizer), tokenizer, path, "f16", "test")
    assert len(caplog.messages) == len(warnings)
    for message, expected in zip(caplog.messages, warnings, strict=True):
        assert re.search(expected, message) and str(tokenizer.path) in message
    plain, changed = "你好 the river was wide.", " Ａ１ ﬁ  x "
    with opened(path, 64) as llama:
        assert llama.tokenize(plain, markers=False) == tokenizer.encode(plain)
        same = llama.tokenize(changed, markers=False) == tokenizer.encode(changed)
    assert same == (warnings == [])


def test_a_space_that_the_file_does_not_ask_for_is_refused_whatever_the_rules(
    other: Callable[[dict[str, Any]], Tokenizer], tmp_path: Path
) -> None:
    """Other rules of a tokenizer do not make the comparison of ids blind."""
    tokenizer = other(PREFIX | NFKC | TRIM)
    model = with_rows_for(tokenizer)
    keys = metadata(model.config, tokenizer, "f32", "test")
    keys["tokenizer.ggml.add_space_prefix"] = False
    gguf.write(model, tmp_path / "m.gguf", "f32", keys)
    with pytest.raises(DamagedError, match=r"cuts .* into other ids"):
        gguf.check(tmp_path / "m.gguf", model, tokenizer, "f32", keys)


@pytest.mark.parametrize("package", ["gguf", "xllamacpp"])
def test_a_missing_package_is_named_with_its_extra(
    package: str,
    grouped: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}; pip install 'indexlm\[gguf\]'"):
        gguf.export(grouped, tokenizer, tmp_path / "m.gguf", "q8_0", "test")
    assert list(tmp_path.iterdir()) == []
