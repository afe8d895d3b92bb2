"""What is said of a model folder: the facts, what is unusual, what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import (
    SHAPE,
    checkpoint,
    config_fields,
    folded_rows,
    raw_tensors,
    write_checkpoint,
)
from sentencepiece import sentencepiece_model_pb2 as proto

from indexlm.errors import UserError
from indexlm.export import hf, inspect, quantise
from indexlm.export.inspect import Inspection, describe
from indexlm.export.quantise import read_config as read_quantised
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import FILE_NAME, Tokenizer


@pytest.fixture(name="shape")
def shape_for_the_tokenizer(tokenizer: Tokenizer) -> ModelConfig:
    return SHAPE.model_copy(update={"vocab_size": tokenizer.vocab_size})


def says(lines: list[str], *words: str) -> bool:
    return any(all(word in line for word in words) for line in lines)


def test_a_download_in_order_has_nothing_wrong(
    tmp_path: Path, tokenizer: Tokenizer, shape: ModelConfig
) -> None:
    found = describe(checkpoint(tmp_path, config=shape, tokenizer_file=tokenizer.path))
    assert found.wrong == []
    norms_V = raw_tensors(shape)["lm_head.weight"].norm(dim=1)
    for words in (
        ("manifest: none",),
        ("IndexForCausalLM, 3 layers, width 64, feed-forward 192, 4 heads of 16",),
        ("context 64 tokens, RoPE base 10,000 (rope_theta absent, rope_ratio absent)",),
        ("norm_head=1, rms_norm_eps=1e-06, torch_dtype='float32'",),
        (f"parameters: {shape.parameters:,}, {shape.non_embedding_parameters:,} without",),
        ("model.safetensors, 1 file", "30 tensors of float32"),
        ("all 30 names and shapes are right (9 x 3 layers + 3)",),
        (f"L2 norms {norms_V.min():.4g} to {norms_V.max():.4g}", ": raw"),
        (f"median {norms_V.median():.4g}",),
        ("ids 0 '<unk>' UNKNOWN, 1 '<s>' CONTROL, 2 '</s>' CONTROL, 3 'reserved_0' CONTROL",),
        ("normaliser 'identity', dummy prefix no, extra white space kept, byte fallback yes",),
        ("as many pieces as the model has rows",),
        ("chat template: none",),
    ):
        assert says(found.lines, *words), f"{words} is not in {found}"
    assert says(found.unusual, "does not have the shape of the published Index-1.9B")
    assert says(found.unusual, "head rows are not of length 1", "blank lines")
    assert len(found.unusual) == 2
    assert str(found).splitlines() == [*found.lines, *(f"unusual: {u}" for u in found.unusual)]


def test_a_folder_of_ours_is_held_to_its_manifest(
    tmp_path: Path, tokenizer: Tokenizer, shape: ModelConfig
) -> None:
    model = Transformer(shape)
    model.load_state_dict(raw_tensors(shape))
    hf.save(model, tokenizer.path, tmp_path / "model", "test", {})
    found = describe(tmp_path / "model")
    assert says(found.lines, "manifest: 5 files are what they were") and found.wrong == []
    card = tmp_path / "model" / "model_card.json"
    card.write_text(card.read_text().replace("{", "[", 1))
    found = describe(tmp_path / "model")
    assert says(found.wrong, "model_card.json was changed") and says(found.lines, "head rows")


def test_the_released_shape_is_known_by_its_parameters(tmp_path: Path) -> None:
    """Without weights, which are then what is wrong."""
    fields = config_fields(ModelConfig(), rope_ratio=32, max_position_embeddings=32768)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    found = describe(tmp_path)
    assert says(found.lines, "2,172,819,456", "1,906,460,672 without", "the shape of Index-1.9B")
    assert says(found.lines, "RoPE base 320,000 (rope_theta absent, rope_ratio 32)")
    assert says(found.unusual, "rope_ratio=32: the 32K model", "only rope_theta")
    assert says(found.wrong, "holds no weights") and says(found.wrong, "no tokenizer at")


def change_tokenizer(folder: Path, change: Callable[[Any], None]) -> None:
    path = folder / FILE_NAME
    model = proto.ModelProto.FromString(path.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())


def store_markers_as_words(model: Any) -> None:
    for index in (3, 4):
        model.pieces[index].type = model.SentencePiece.NORMAL


def rewrite_text(model: Any) -> None:
    model.normalizer_spec.name = "nmt_nfkc"
    model.normalizer_spec.remove_extra_whitespaces = True
    model.normalizer_spec.add_dummy_prefix = True


def spell_no_bytes(model: Any) -> None:
    model.trainer_spec.byte_fallback = False
    for piece in model.pieces:
        if piece.type == model.SentencePiece.BYTE:
            piece.type = model.SentencePiece.UNUSED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (store_markers_as_words, ["id 3 is stored as 'reserved_0' of type NORMAL"]),
        (store_markers_as_words, ["id 4 is stored as 'reserved_1' of type NORMAL"]),
        (rewrite_text, ["normaliser 'nmt_nfkc'", "llama.cpp"]),
        (rewrite_text, ["a space before every text"]),
        (spell_no_bytes, ["no byte fallback"]),
    ],
)
def test_what_other_programs_get_wrong_in_a_tokenizer_is_said(
    tmp_path: Path,
    tokenizer: Tokenizer,
    shape: ModelConfig,
    change: Callable[[Any], None],
    words: list[str],
) -> None:
    checkpoint(tmp_path, config=shape, tokenizer_file=tokenizer.path)
    assert not says(describe(tmp_path).unusual, *words)
    change_tokenizer(tmp_path, change)
    found = describe(tmp_path)
    assert says(found.unusual, *words) and found.wrong == []


def of(folder: Path, **changes: Any) -> Inspection:
    tensors = {name: t.bfloat16() for name, t in raw_tensors().items()}
    fields = config_fields(torch_dtype="bfloat16")
    return describe(
        write_checkpoint(folder, tensors | changes.pop("tensors", {}), fields | changes, "bin")
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["pytorch_model.bin: pickles can run code"]),
        ({"torch_dtype": "float16"}, ["torch_dtype='float16', stored are bfloat16"]),
        ({"norm_head": None}, ["norm_head is not set"]),
        ({"rms_norm_eps": 1e-5}, ["rms_norm_eps=1e-05"]),
        ({"head_scale": 3.5}, ["head_scale=3.5"]),
        ({"tie_word_embeddings": True}, ["a copy of the embedding rows"]),
        (
            {"tensors": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}},
            ["1 rotary_emb.inv_freq buffers"],
        ),
        (
            {"tensors": {"model.norm.weight": torch.ones(64)}},
            ["stored are", "bfloat16", "float32"],
        ),
    ],
)
def test_what_is_unusual_in_config_and_weights_is_said(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    assert not changes or not says(of(tmp_path).unusual, *words)
    assert says(of(tmp_path, **changes).unusual, *words)


def test_folded_rows_and_zero_rows_are_told_from_raw_ones(tmp_path: Path) -> None:
    rows_VD = folded_rows(raw_tensors()["lm_head.weight"])
    rows_VD[7:9] = 0
    found = of(tmp_path, tensors={"lm_head.weight": rows_VD.bfloat16()})
    assert says(found.lines, "head rows: L2 norms 0 to 1", "normalised already (folded)")
    assert says(found.unusual, "2 rows of lm_head.weight are zero")
    assert not says(found.unusual, "not of length 1")
    rows_VD[3, 3] = torch.nan
    rows_VD[4, 4] = torch.inf
    found = of(tmp_path, tensors={"lm_head.weight": rows_VD.bfloat16()})
    assert says(found.wrong, "2 rows of lm_head.weight hold NaN or infinity")


def test_norms_are_those_of_the_rows_whatever_the_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = next(line for line in of(tmp_path).lines if line.startswith("head rows"))
    monkeypatch.setattr(inspect, "ROWS_AT_ONCE", 100)
    assert expected in of(tmp_path).lines


def test_one_wrong_file_does_not_hide_the_others(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Everything is wrong here; each thing is said once."""
    tensors = raw_tensors()
    del tensors["model.norm.weight"]
    write_checkpoint(tmp_path, tensors, config_fields(), "safetensors", tokenizer.path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    found = describe(tmp_path)
    assert says(found.wrong, "tensor model.norm.weight is missing")
    assert says(found.wrong, f"has {tokenizer.vocab_size} pieces", "vocab_size=512")
    assert says(found.wrong, "tokenizer_config.json cannot be used: it is not JSON")
    assert len(found.wrong) == 3 and str(found).count("WRONG: ") == 3
    (tmp_path / "config.json").write_text('{"architectures": ["IndexForCausalLM"], "x": NaN}')
    found = describe(tmp_path)
    assert sum("NaN is no JSON number" in text for text in found.wrong) == 1


def test_many_differences_are_counted_not_listed(tmp_path: Path) -> None:
    found = of(tmp_path, num_hidden_layers=1)
    assert says(found.wrong, "tensor 'model.layers.1.self_attn.q_proj.weight' is unknown")
    assert says(found.wrong, "and 10 more differences") and len(found.wrong) == 10
    found = of(tmp_path, num_hidden_layers=6)
    assert says(
        found.wrong, "model.layers.3.self_attn.q_proj.weight is missing", "takes 57, 30 are"
    )


def one_line_each(found: Inspection) -> bool:
    """Nothing in a file can write a line, or move the cursor."""
    lines = str(found).splitlines()
    count = len(found.lines) + len(found.unusual) + len(found.wrong)
    return len(lines) == count and all(line.isprintable() for line in lines)


def test_what_files_hold_is_shown_on_the_line_of_its_finding(
    tmp_path: Path, tokenizer: Tokenizer, shape: ModelConfig
) -> None:
    forged = "identity\nWRONG: \x1b[2Kall is well\u202e"
    checkpoint(tmp_path, config=shape, tokenizer_file=tokenizer.path)
    assert one_line_each(describe(tmp_path))

    def rename(model: Any) -> None:
        model.normalizer_spec.name = forged
        model.normalizer_spec.remove_extra_whitespaces = True
        model.pieces[3].piece = forged

    change_tokenizer(tmp_path, rename)
    fields = config_fields(shape, rope_parameters={"rope_type": "default", forged: 1})
    fields |= {"torch_dtype": forged, "norm_head": 1}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    found = describe(tmp_path)
    assert one_line_each(found) and found.wrong == []
    assert sum(r"\nWRONG: \x1b" in line for line in str(found).splitlines()) >= 4
    # A name that is no text either.
    data = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(data.replace(forged.encode()[:3], b"\xff\xfe\n"))
    assert one_line_each(describe(tmp_path))


def test_a_tensor_of_another_name_cannot_write_a_line(tmp_path: Path) -> None:
    found = of(tmp_path, tensors={"x\nWRONG: y": torch.ones(2)})
    assert says(found.wrong, r"tensor 'x\nWRONG: y' is unknown") and one_line_each(found)


# Quantised folders


@pytest.fixture(scope="module", params=["int8", "int4"])
def quantised(
    request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    shape = SHAPE.model_copy(update={"vocab_size": tokenizer.vocab_size})
    model = Transformer(shape)
    model.load_state_dict(raw_tensors(shape))
    folder = tmp_path_factory.mktemp("quantised") / "folder"
    card = {"parent": "chat"}
    quantise.export(model, tokenizer, folder, request.param, "test", card, group_size=32)
    return folder


def test_a_quantised_folder_of_ours_is_in_order_and_says_what_it_is(
    quantised: Path, tmp_path: Path
) -> None:
    found = describe(quantised)
    assert found.wrong == [] and one_line_each(found)
    config, layout = read_quantised(quantised)
    each = "int8, a scale for each row" if layout.kind == "int8" else "int4, a scale for each 32"
    for words in (
        ("manifest: ", "files are what they were"),
        (f"quantised: {each}", "transformers and vLLM", "read as float32"),
        (f"{4 * config.parameters / 1e9:.3g} GB",),
        ("config: LlamaForCausalLM, 3 layers, width 64",),
        ("model.safetensors, 1 file", "of int8"),
        ("all 72 names and shapes are right (23 x 3 layers + 3)",),
        ("head rows: ", "normalised already (folded)"),
        ("as many pieces as the model has rows",),
    ):
        assert says(found.lines, *words), f"{words} is not in {found}"
    assert not says(found.unusual, "torch_dtype")
    copy = shutil.copytree(quantised, tmp_path / "copy")
    path = copy / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 4'))
    found = describe(copy)
    assert says(found.wrong, "config.json") and says(found.wrong, "model.layers.3.", "is missing")


def test_where_plain_weights_are_needed_the_parent_of_a_quantised_folder_is_named(
    quantised: Path, tmp_path: Path
) -> None:
    for read in (hf.read_config, hf.load):
        with pytest.raises(UserError, match=r"quantised \('torchao'\); take .* \('chat', by its"):
            read(quantised)
    copy = shutil.copytree(quantised, tmp_path / "copy")
    (copy / "model_card.json").unlink()
    with pytest.raises(UserError, match=r"take the checkpoint that this one was made from$"):
        hf.read_config(copy)


def test_weights_quantised_by_another_method_are_what_is_wrong(tmp_path: Path) -> None:
    found = of(tmp_path, quantization_config={"quant_method": "awq", "bits": 4})
    assert says(found.wrong, "quantization_config is not supported", "'awq'", "was made from")


def test_a_chat_template_is_found_in_either_place(tmp_path: Path) -> None:
    of(tmp_path)
    fields = {"chat_template": "{{ messages }}", "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    found = describe(tmp_path)
    assert says(found.lines, "chat template: tokenizer_config.json and chat_template.jinja")
    assert says(found.unusual, "add_bos_token is set")


def test_a_run_folder_is_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "tiny"}')
    assert not inspect.is_model(tmp_path)
    assert inspect.is_model(checkpoint(tmp_path / "model"))
