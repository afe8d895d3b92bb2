"""Published checkpoints give the logits that the transformers library's Llama gives for them.

The reference is built here, with a fold of its own: nothing of the exporter is used until the last
section. Each of six known mistakes must break the agreement.

Shape suffixes: B rows, T positions, V vocabulary, D width, L positions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from indexlm.export import hf, llama
from indexlm.model.config import ModelConfig
from indexlm.model.norm_head import NormHead
from indexlm.model.transformer import Transformer
from indexlm.serve.engine import Engine, Sampling
from indexlm.tokens.chat_format import Conversation, prompt_ids
from indexlm.tokens.tokenizer import EOS, SPECIAL_PIECES, Tokenizer

# One thread: sums come in one order, and the networks here are too small to share out.
torch.set_num_threads(1)

VOCAB, WIDTH, HEADS, FFN, WINDOW = 512, 64, 4, 192, 64


@dataclass(frozen=True)
class Published:
    """What differs between the checkpoints here."""

    layers: int = 3
    kv_heads: int = HEADS
    rope_ratio: int | None = None


CASES = [
    Published(layers=1),
    Published(),
    Published(layers=36),
    Published(rope_ratio=1),
    Published(rope_ratio=32),
    Published(kv_heads=2),
    Published(layers=36, kv_heads=1, rope_ratio=32),
]


def weights_of(case: Published, embedding_std: float = 0.02) -> dict[str, Tensor]:
    """Raw tensors under their published names. Short embeddings make the norm's epsilon visible,
    head rows of norms between 0.2 and 5 a missing fold."""
    generator = torch.Generator().manual_seed(5)
    kv_width = WIDTH // HEADS * case.kv_heads

    def matrix(rows: int, columns: int, std: float = 0.12) -> Tensor:
        return torch.empty(rows, columns).normal_(std=std, generator=generator)

    def gains() -> Tensor:
        return torch.empty(WIDTH).uniform_(0.5, 1.5, generator=generator)

    weights = {"model.embed_tokens.weight": matrix(VOCAB, WIDTH, embedding_std)}
    for layer in range(case.layers):
        weights |= {
            f"model.layers.{layer}.{name}.weight": tensor
            for name, tensor in {
                "self_attn.q_proj": matrix(WIDTH, WIDTH),
                "self_attn.k_proj": matrix(kv_width, WIDTH),
                "self_attn.v_proj": matrix(kv_width, WIDTH),
                "self_attn.o_proj": matrix(WIDTH, WIDTH),
                "mlp.gate_proj": matrix(FFN, WIDTH),
                "mlp.up_proj": matrix(FFN, WIDTH),
                "mlp.down_proj": matrix(WIDTH, FFN),
                "input_layernorm": gains(),
                "post_attention_layernorm": gains(),
            }.items()
        }
    norms_V1 = torch.empty(VOCAB, 1).normal_(std=0.8, generator=generator).exp().clamp(0.2, 5)
    # Rows that follow embeddings give long embeddings a next token that stands out.
    rows_VD = weights["model.embed_tokens.weight"].roll(1, 0)
    rows_VD = rows_VD * norms_V1 / rows_VD.pow(2).sum(1, keepdim=True).sqrt()
    # Gains of the last norm that keep logits below 2, where bfloat16 has steps of 1/128.
    return weights | {"model.norm.weight": gains() / 4, "lm_head.weight": rows_VD}


def write_published(case: Published, weights: Mapping[str, Tensor], folder: Path) -> Path:
    config: dict[str, Any] = {
        "architectures": ["IndexForCausalLM"],
        "model_type": "index",
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": FFN,
        "num_hidden_layers": case.layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": case.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": WINDOW,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "norm_head": 1,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }
    if case.rope_ratio is not None:
        config["rope_ratio"] = case.rope_ratio
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def transformers_model(
    case: Published,
    weights: Mapping[str, Tensor],
    *,
    fold_along: int | None = 1,
    base: float | None = None,
    eps: float = 1e-6,
    interleaved: bool = False,
    dtype: torch.dtype = torch.float32,
) -> LlamaForCausalLM:
    """The same checkpoint in the transformers library; the keywords are the mistakes."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=FFN,
        num_hidden_layers=case.layers,
        num_attention_heads=HEADS,
        num_key_value_heads=case.kv_heads,
        max_position_embeddings=WINDOW,
        rms_norm_eps=eps,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0 * (case.rope_ratio or 1) if base is None else base,
        },
        tie_word_embeddings=False,
    )
    own = {name: tensor.clone() for name, tensor in weights.items()}
    if fold_along is not None:
        squares = own["lm_head.weight"].double().pow(2).sum(fold_along, keepdim=True)
        own["lm_head.weight"] = (own["lm_head.weight"].double() / squares.sqrt()).float()
    if interleaved:
        # Rows in the order in which rotating halves turns pairs of neighbours.
        for name in own:
            if "q_proj" in name or "k_proj" in name:
                own[name] = own[name].unflatten(0, (-1, 8, 2)).transpose(1, 2).flatten(0, 2)
    model = LlamaForCausalLM(config)
    model.load_state_dict(own)
    return model.eval().to(dtype)


IDS_BT = torch.randint(5, VOCAB, (8, 40), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def ours_on(model: Transformer, ids_BT: Tensor) -> Tensor:
    return model.logits(model(ids_BT))


@torch.no_grad()
def theirs_on(model: LlamaForCausalLM, ids_BT: Tensor) -> Tensor:
    return model(ids_BT).logits


def furthest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_logits_agree(case: Published, tmp_path: Path) -> None:
    weights = weights_of(case)
    ours = hf.load(write_published(case, weights, tmp_path))
    assert torch.equal(ours.lm_head.weight, weights["lm_head.weight"])  # raw rows are kept
    theirs = transformers_model(case, weights)
    assert furthest(ours_on(ours, IDS_BT), theirs_on(theirs, IDS_BT)) < 1e-5


@pytest.mark.parametrize(
    ("case", "embedding_std"),
    [
        (Published(layers=1), 2.0),
        (Published(), 2.0),
        (Published(kv_heads=2, rope_ratio=32), 2.0),
        (Published(layers=36), 12.0),
    ],
    ids=str,
)
def test_bfloat16_logits_agree_to_its_steps(
    case: Published, embedding_std: float, tmp_path: Path
) -> None:
    """Long embeddings: like a trained model's, the likeliest token stands out from the steps."""
    weights = weights_of(case, embedding_std)
    ours = hf.load(write_published(case, weights, tmp_path), torch.bfloat16)
    ours_BTV = ours_on(ours, IDS_BT)
    rounded = {name: tensor.bfloat16().float() for name, tensor in weights.items()}
    theirs_BTV = theirs_on(transformers_model(case, rounded, dtype=torch.bfloat16), IDS_BT)
    assert ours_BTV.dtype == theirs_BTV.dtype == torch.bfloat16
    assert furthest(ours_BTV, theirs_BTV) < 2e-2
    same = (ours_BTV.argmax(-1) == theirs_BTV.argmax(-1)).float().mean()
    assert float(same) > 0.99
    # Negative control: it is the layers that agree, not only embedding and head.
    turned = transformers_model(case, rounded, base=5e5, dtype=torch.bfloat16)
    assert furthest(ours_BTV, theirs_on(turned, IDS_BT)) > 4e-2


MISTAKES: dict[str, dict[str, Any]] = {
    "no fold": {"fold_along": None},
    "fold along columns": {"fold_along": 0},
    "rope_ratio ignored": {"base": 10000.0},
    "interleaved RoPE": {"interleaved": True},
    "another epsilon": {"eps": 1e-5},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_known_mistake_breaks_the_agreement(mistake: str, tmp_path: Path) -> None:
    case = Published(rope_ratio=32)
    weights = weights_of(case)
    ours_BTV = ours_on(hf.load(write_published(case, weights, tmp_path)), IDS_BT)
    wrong = transformers_model(case, weights, **MISTAKES[mistake])
    assert furthest(ours_BTV, theirs_on(wrong, IDS_BT)) > 1e-3


def test_a_beginning_of_sequence_id_breaks_the_agreement(tmp_path: Path) -> None:
    case = Published()
    weights = weights_of(case)
    ours_BTV = ours_on(hf.load(write_published(case, weights, tmp_path)), IDS_BT)
    begun_BT = torch.cat((torch.ones_like(IDS_BT[:, :1]), IDS_BT), dim=1)
    theirs_BTV = theirs_on(transformers_model(case, weights), begun_BT)
    assert furthest(ours_BTV, theirs_BTV[:, 1:]) > 1e-3


@torch.no_grad()
def test_left_padded_rows_agree(tmp_path: Path) -> None:
    case = Published(kv_heads=2, rope_ratio=32)
    weights = weights_of(case)
    ours = hf.load(write_published(case, weights, tmp_path))
    theirs = transformers_model(case, weights)
    padding_B1 = torch.tensor([[0], [1], [7], [20], [39], [3], [0], [12]])
    visible_BT = torch.arange(IDS_BT.shape[1]) >= padding_B1
    ids_BT = IDS_BT.masked_fill(~visible_BT, 0)
    positions_BT = (visible_BT.long().cumsum(1) - 1).clamp_min(0)
    cache = ours.new_cache(visible_BT)
    ours_BTV = ours.logits(ours(ids_BT, positions_BT=positions_BT, cache=cache))
    output = theirs(ids_BT, attention_mask=visible_BT.long(), position_ids=positions_BT)
    assert furthest(ours_BTV[visible_BT], output.logits[visible_BT]) < 1e-5


@torch.no_grad()
def test_a_cache_filled_step_by_step_agrees(tmp_path: Path) -> None:
    case = Published(kv_heads=2, rope_ratio=32)
    weights = weights_of(case)
    ours = hf.load(write_published(case, weights, tmp_path))
    theirs = transformers_model(case, weights)
    cache, past = ours.new_cache(torch.ones_like(IDS_BT, dtype=torch.bool)), None
    full_BTV = theirs_on(theirs, IDS_BT)
    for at in range(IDS_BT.shape[1]):
        step_B1 = IDS_BT[:, at : at + 1]
        ours_B1V = ours.logits(ours(step_B1, cache=cache))
        output = theirs(step_B1, cache=past, use_cache=True)
        past = output.past_key_values
        assert furthest(ours_B1V, output.logits) < 1e-5
        assert furthest(ours_B1V[:, 0], full_BTV[:, at]) < 1e-5


# The published head


class PublishedHead(nn.Module):
    """The rule of the published code: normalised in training, overwritten once in evaluation."""

    def __init__(self, weight_VD: Tensor) -> None:
        super().__init__()
        self.weight, self.first = nn.Parameter(weight_VD.clone()), True

    def forward(self, hidden_LD: Tensor) -> Tensor:
        if self.training:
            self.first = True
            return hidden_LD @ nn.functional.normalize(self.weight).T
        if self.first:
            self.first = False
            self.weight = nn.Parameter(nn.functional.normalize(self.weight))
        return hidden_LD @ self.weight.T


@torch.no_grad()
def test_the_published_head_gives_our_logits_in_training_and_in_evaluation() -> None:
    raw_VD = weights_of(Published(layers=1))["lm_head.weight"]
    hidden_LD = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(2))
    theirs, ours = PublishedHead(raw_VD), NormHead(VOCAB, WIDTH, normalise=True, scale=1.0)
    ours.weight.data.copy_(raw_VD)
    assert furthest(theirs.train()(hidden_LD), hidden_LD @ ours.matrix().T) < 1e-6
    for _ in range(2):
        assert furthest(theirs.eval()(hidden_LD), hidden_LD @ ours.matrix().T) < 1e-6
    # Theirs has lost its norms, ours has not.
    assert furthest(theirs.weight.norm(dim=1), torch.ones(VOCAB)) < 1e-6
    assert torch.equal(ours.weight, raw_VD)
    # A checkpoint saved from theirs after that reads the same: two folds are one.
    once_VD = ours.matrix()
    ours.weight.data.copy_(theirs.weight)
    torch.testing.assert_close(ours.matrix(), once_VD, rtol=2**-22, atol=0)


# The export


PROMPTS = [
    Conversation("", (), "春天来了"),
    Conversation("学习要有耐心", (), "the river was wide"),
    Conversation("学习", (("河边", "青山"), ("Hello there!", "水声清澈")), "  🙂 one\n\ntwo"),
    Conversation("", (("How are you?", ""),), "中华人民共和国的首都"),
]


def test_an_exported_model_says_in_transformers_what_it_says_here(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden=WIDTH,
        layers=3,
        heads=HEADS,
        kv_heads=2,
        ffn=FFN,
        context=256,
        rope_base=320000.0,
        head_scale=3.0,
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15, generator=generator)
        model.lm_head.weight.mul_(torch.rand(config.vocab_size, 1, generator=generator) * 5 + 0.2)
    llama.export(model.eval(), tokenizer, tmp_path / "exported", "made from", {}, torch.float32)

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert isinstance(theirs, LlamaForCausalLM) and theirs.dtype == torch.float32
    greedy = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=32)
    prompts = [prompt_ids(tokenizer, conversation) for conversation in PROMPTS]
    answers = Engine(model, tokenizer).answers(prompts, greedy)
    for conversation, prompt, answer in zip(PROMPTS, prompts, answers):
        rendered = their_tokenizer.apply_chat_template(
            messages_of(conversation), return_tensors="pt"
        )
        assert rendered["input_ids"].tolist() == [prompt]
        output = theirs.generate(
            # The attention mask with it: without one, `generate` takes a system marker for padding.
            **rendered,
            do_sample=False,
            repetition_penalty=1.0,
            max_new_tokens=32,
            # As in the engine: of the control ids only the end can be drawn.
            suppress_tokens=[i for i in range(len(SPECIAL_PIECES)) if i != EOS],
        )
        assert output[0, len(prompt) :].tolist() == answer + [EOS] * (len(answer) < 32)
    assert len({tuple(answer) for answer in answers}) == len(PROMPTS)


def messages_of(conversation: Conversation) -> list[dict[str, str]]:
    messages = []
    if conversation.system:
        messages.append({"role": "system", "content": conversation.system})
    for said, answered in conversation.history:
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": answered})
    return [*messages, {"role": "user", "content": conversation.query}]
