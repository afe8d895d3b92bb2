"""A Llama folder computes what the model does, in transformers too, or it is not published.

Shape suffixes: B rows, T positions, V vocabulary, D width.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM

from indexlm.config import TokenizerConfig
from indexlm.errors import DamagedError, UserError
from indexlm.export import hf, llama
from indexlm.export.agreement import logits_of
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.records import verify
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.tokens.train_bpe import train

# One thread: sums come in one order, and the networks here are too small to share out.
torch.set_num_threads(1)

IDS_BT = torch.randint(5, 640, (4, 30), generator=torch.Generator().manual_seed(1))
CARD = {"name": "small"}


def make_model(**changes: Any) -> Transformer:
    """Gains around 1, short embeddings, head rows of very different length."""
    shape = {"vocab_size": 640, "hidden": 64, "layers": 3, "heads": 4, "kv_heads": 4, "ffn": 192}
    model = Transformer(ModelConfig.model_validate(shape | {"context": 64} | changes))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(std=0.02 if "embed" in name else 0.15, generator=generator)
        rows_V1 = torch.empty(640, 1).normal_(std=0.8, generator=generator).exp()
        model.lm_head.weight.mul_(rows_V1)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Transformer:
    """Shared: no test changes it."""
    return make_model(kv_heads=2, rope_base=320000.0, head_scale=3.0)


def logits_in_transformers(folder: Path) -> Tensor:
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(theirs, LlamaForCausalLM)
    with torch.no_grad():
        return theirs(IDS_BT).logits


def furthest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kv_heads": 1, "layers": 1},
        {"rope_base": 320000.0, "head_scale": 3.0},
        {"norm_head": False, "head_scale": 0.5},
        {"norm_eps": 1e-5},
    ],
    ids=str,
)
def test_transformers_computes_the_same_logits(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = make_model(**changes)
    agreement = llama.export(model, tokenizer, tmp_path / "llama", "made from", CARD, torch.float32)
    assert (agreement.furthest, agreement.same_next, agreement.positions) == (0, 1, 96)
    assert furthest(logits_in_transformers(tmp_path / "llama"), logits_of(model, IDS_BT)) < 2e-5


def test_the_head_is_folded_and_everything_else_is_as_it_was(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    raw = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    llama.export(model, tokenizer, tmp_path / "llama", "made from", CARD, torch.float32)
    stored = load_file(tmp_path / "llama" / "model.safetensors")
    assert stored.keys() == raw.keys()
    for name in stored:
        assert torch.equal(model.state_dict()[name], raw[name])  # the model itself is unchanged
        if name != "lm_head.weight":
            assert torch.equal(stored[name], raw[name])
    rows_VD = raw["lm_head.weight"].double()
    expected_VD = 3 * rows_VD / rows_VD.pow(2).sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(stored["lm_head.weight"].double(), expected_VD, rtol=4e-7, atol=0)


def test_the_config_is_plain_llama_with_the_base_that_the_model_turns_by(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "llama"
    llama.export(model, tokenizer, folder, "made from", CARD, torch.float32)
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert not fields.keys() & {"norm_head", "rope_ratio", "head_scale", "auto_map"}
    expected = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rope_theta": 320000.0,
        "max_position_embeddings": 64,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    assert fields | expected == fields
    verify(folder)
    assert json.loads((folder / "model_card.json").read_text(encoding="utf-8")) == CARD


def test_the_published_sampling_goes_with_it(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    llama.export(model, tokenizer, tmp_path / "llama", "made from", CARD, torch.float32)
    said = GenerationConfig.from_pretrained(tmp_path / "llama")
    assert (said.do_sample, said.temperature, said.top_k, said.top_p) == (True, 0.3, 5, 0.8)
    assert said.repetition_penalty == 1.1
    assert (said.bos_token_id, said.eos_token_id, said.pad_token_id) == (1, 2, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_shorter_dtype_is_rounded_to_once(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = tmp_path / "llama"
    agreement = llama.export(model, tokenizer, folder, "made from", CARD, dtype)
    assert 0 < agreement.furthest < 1 and agreement.same_next > 0.9
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    # The folded rows in float32, cast once: a fold in the shorter dtype would differ.
    head_VD = model.lm_head.matrix().detach()
    assert torch.equal(stored["lm_head.weight"], head_VD.to(dtype))
    short_VD = model.lm_head.weight.detach().to(dtype)
    twice_VD = 3 * short_VD / short_VD.norm(dim=1, keepdim=True)
    assert not torch.equal(stored["lm_head.weight"], twice_VD)
    assert logits_in_transformers(folder).dtype == dtype


def test_a_bfloat16_model_stays_one_and_can_be_written_in_float32(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    short = make_model().bfloat16()
    kept = llama.export(short, tokenizer, tmp_path / "kept", "made from", CARD, torch.bfloat16)
    widened = llama.export(short, tokenizer, tmp_path / "widened", "made from", CARD, torch.float32)
    assert kept.furthest == widened.furthest == 0
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("kept", "widened"))
    for name in one:
        assert one[name].dtype == torch.bfloat16 and other[name].dtype == torch.float32
        assert torch.equal(one[name].float(), other[name])


def test_our_reader_takes_it_as_a_plain_head_and_exports_the_same_bytes(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    llama.export(model, tokenizer, tmp_path / "once", "made from", CARD, torch.float32)
    found = hf.load(tmp_path / "once")
    assert not found.config.norm_head and found.config.rope_base == 320000.0
    assert torch.equal(logits_of(found, IDS_BT), logits_of(model, IDS_BT))
    llama.export(
        found,
        Tokenizer.load(tmp_path / "once"),
        tmp_path / "twice",
        "made from",
        CARD,
        torch.float32,
    )
    contents = [verify(tmp_path / name).files for name in ("once", "twice")]
    assert contents[0] == contents[1]


def test_large_models_go_into_several_files_with_an_index(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    llama.export(model, tokenizer, tmp_path / "one", "made from", CARD, torch.float32)
    llama.export(
        model,
        tokenizer,
        tmp_path / "several",
        "made from",
        CARD,
        torch.float32,
        shard_bytes=200_000,
    )
    folder = tmp_path / "several"
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    count = len(files)
    assert count > 2
    assert files == [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    content: dict[str, Tensor] = {}
    for file in files:
        tensors = load_file(folder / file)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 200_000
        content |= tensors
    whole = load_file(tmp_path / "one" / "model.safetensors")
    assert content.keys() == whole.keys()
    assert all(torch.equal(content[name], whole[name]) for name in whole)
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    assert torch.equal(logits_in_transformers(folder), logits_in_transformers(tmp_path / "one"))


def test_nothing_but_the_head_is_copied(model: Transformer) -> None:
    plain = dict(llama.folded(model).named_parameters())
    for name, parameter in model.named_parameters():
        shared = plain[name].data_ptr() == parameter.data_ptr()
        assert shared == (name != "lm_head.weight")


# What does not compute the same is not published


def flip_one_bit(tensors: dict[str, Tensor]) -> None:
    rows = tensors["model.layers.1.self_attn.k_proj.weight"].clone()
    rows.view(torch.int32)[3, 5] ^= 1
    tensors["model.layers.1.self_attn.k_proj.weight"] = rows


def leave_the_head_raw(tensors: dict[str, Tensor]) -> None:
    tensors["lm_head.weight"] = 2 * tensors["lm_head.weight"]


@pytest.mark.parametrize("damage", [flip_one_bit, leave_the_head_raw])
def test_tensors_that_come_back_different_are_not_published(
    model: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[dict[str, Tensor]], None],
) -> None:
    folder = tmp_path / "llama"
    llama.export(model, tokenizer, folder, "first", CARD, torch.float32)
    write = safetensors.torch.save_file

    def damaged(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        tensors = dict(tensors)
        damage(tensors)
        write(tensors, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", damaged)
    message = "weight came back different; nothing was published"
    with pytest.raises(DamagedError, match=f"^{re.escape(str(folder))}: .*{message}"):
        llama.export(model, tokenizer, folder, "second", CARD, torch.float32)
    assert verify(folder).fingerprint == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


@pytest.mark.parametrize("field", ["rope_theta", "rms_norm_eps"])
def test_a_config_that_says_something_else_is_not_published(
    model: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
) -> None:
    right = llama.llama_config
    monkeypatch.setattr(
        llama, "llama_config", lambda config, dtype: right(config, dtype) | {field: 0.5}
    )
    with pytest.raises(AssertionError, match="was read back"):
        llama.export(model, tokenizer, tmp_path / "llama", "made from", CARD, torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_a_dtype_cannot_hold_are_not_published(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = 1e6
    with pytest.raises(UserError, match=r"down_proj.weight holds 1e\+06, too much for .*float16"):
        llama.export(model, tokenizer, tmp_path / "llama", "made from", CARD, torch.float16)
    assert list(tmp_path.iterdir()) == []
    llama.export(model, tokenizer, tmp_path / "llama", "made from", CARD, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_that_disagree_are_not_published(
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
) -> None:
    """A fold that does not give the model's own head: file and intention agree, logits do not."""
    model = make_model()
    # The same weights without the normalisation.
    plain = llama.folded(make_model(norm_head=False))
    monkeypatch.setattr(llama, "folded", lambda model: plain)
    with pytest.raises(DamagedError, match=r"logits within .*; nothing was published") as caught:
        llama.export(model, tokenizer, tmp_path / "llama", "made from", CARD, dtype)
    assert str(caught.value).startswith(f"{tmp_path / 'llama'}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_logits_that_are_no_numbers_are_not_published(
    tokenizer: Tokenizer, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Every weight is a number, their sums are not; the likeliest token is the same then."""
    loud = make_model()
    loud.model.layers[1].mlp.up_proj.weight.mul_(1e30)
    loud.model.layers[1].mlp.down_proj.weight.mul_(1e30)
    with pytest.raises(DamagedError, match=r"logits within nan.*; nothing was published"):
        llama.export(loud, tokenizer, tmp_path / "llama", "made from", CARD, dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_with_more_pieces_than_the_model_has_rows_is_refused(
    model: Transformer, bilingual: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    larger = train(bilingual, TokenizerConfig(vocab_size=660), tmp_path / "larger.model")
    with pytest.raises(UserError, match=r"larger\.model has 660 pieces, the model rows for 640"):
        llama.export(model, larger, tmp_path / "llama", "made from", CARD, torch.float32)
