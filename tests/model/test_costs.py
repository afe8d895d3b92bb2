"""The formulas against what torch counts: FLOPs of its kernels, bytes its backward pass reads."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from indexlm.model import costs, lora
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.transformer import Block, Transformer

ROWS, LENGTH = 2, 136
"""Rows longer than one block of queries: for those attention has a kernel of its own."""
SHAPES = {
    "deep": ModelConfig(
        vocab_size=96, hidden=32, layers=5, heads=4, kv_heads=4, ffn=92, context=LENGTH
    ),
    "grouped queries": ModelConfig(
        vocab_size=200, hidden=48, layers=2, heads=6, kv_heads=2, ffn=64, context=LENGTH
    ),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request: pytest.FixtureRequest) -> ModelConfig:
    return request.param


def ids_of(model: ModelConfig, length: int = LENGTH, rows: int = ROWS) -> torch.Tensor:
    return torch.randint(0, model.vocab_size, (rows, length))


def counted(model: Transformer, ids_BT: torch.Tensor, backward: bool) -> int:
    """FLOPs that torch counts. Its counter does not know the fused attention of CPUs, and counts
    the plain one, which computes the masked half as well."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        logits_BTV = model.logits(model(ids_BT))
        if backward:
            logits_BTV.sum().backward()
    return counter.get_total_flops()


def test_the_forward_pass_takes_the_flops_that_torch_counts(shape: ModelConfig) -> None:
    unmasked = costs.attention_flops(shape, LENGTH) - costs.attention_flops(shape, (LENGTH + 1) / 2)
    expected = ROWS * LENGTH * (costs.forward_flops_per_token(shape, LENGTH) + unmasked)
    assert counted(Transformer(shape), ids_of(shape), backward=False) == expected


def test_training_takes_the_flops_that_torch_counts(shape: ModelConfig) -> None:
    unmasked = costs.attention_flops(shape, LENGTH) - costs.attention_flops(shape, (LENGTH + 1) / 2)
    expected = ROWS * LENGTH * (costs.training_flops_per_token(shape, LENGTH) + 3 * unmasked)
    assert counted(Transformer(shape), ids_of(shape), backward=True) == expected


def test_lora_takes_the_flops_that_torch_counts(shape: ModelConfig) -> None:
    """Less what the first block saves: nothing below it is trained, so that its q, k and v have no
    gradient for their input."""
    settings = LoraConfig(rank=3, dropout=0.0)
    model = Transformer(shape)
    lora.wrap(model, settings, seed=1)
    unmasked = costs.attention_flops(shape, LENGTH) - costs.attention_flops(shape, (LENGTH + 1) / 2)
    of_first = sum(
        2 * outputs * inputs + 2 * settings.rank * inputs
        for name, (outputs, inputs) in costs.projection_shapes(shape).items()
        if name in ("q_proj", "k_proj", "v_proj")
    )
    a_token = costs.lora_flops_per_token(shape, LENGTH, settings) + 3 * unmasked - of_first
    assert counted(model, ids_of(shape), backward=True) == ROWS * LENGTH * a_token


@torch.no_grad()
def test_reading_a_prompt_and_writing_on_take_the_flops_that_torch_counts(
    shape: ModelConfig,
) -> None:
    """With a cache, one position at a time: then no half is masked."""
    model = Transformer(shape).eval()
    cache = model.new_cache(torch.ones(1, LENGTH, dtype=torch.bool))
    steps = []
    for position in range(LENGTH):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            hidden_11D = model(ids_of(shape, 1, 1), cache=cache)
            if position == LENGTH - 1:
                model.logits(hidden_11D)
        steps.append(counter.get_total_flops())
    assert steps[-1] == costs.decode_flops(shape, LENGTH - 1)
    assert sum(steps) == costs.prefill_flops(shape, LENGTH)


def kept_bytes(model: Transformer, packed: bool = True) -> int:
    """Storages, each once, that the trunk's backward pass will read, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids_BT = ids_of(model.config)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(
            ids_BT,
            positions_BT=torch.arange(LENGTH).repeat(ROWS, 1),
            documents_BT=torch.zeros_like(ids_BT) if packed else None,
        )
    return sum(storage.nbytes() for storage in kept.values())


def test_training_keeps_the_bytes_that_autograd_saves(shape: ModelConfig) -> None:
    parts = costs.activation_bytes(shape, LENGTH)
    assert kept_bytes(Transformer(shape)) == ROWS * LENGTH * sum(parts.values())


@pytest.mark.parametrize("targets", [lora.PROJECTIONS, ("q_proj", "v_proj", "down_proj")])
def test_the_fused_kernel_keeps_the_bytes_that_autograd_saves(
    shape: ModelConfig, targets: tuple[lora.Projection, ...]
) -> None:
    """Without documents; then it reads neither a mask nor their starts."""
    settings = LoraConfig(rank=3, dropout=0.0, targets=targets)
    tuned = Transformer(shape)
    lora.wrap(tuned, settings, seed=1)
    for model, parts, first in (
        (Transformer(shape), costs.activation_bytes(shape, LENGTH, fused=True), 0),
        (tuned, costs.lora_activation_bytes(shape, LENGTH, settings, fused=True), shape.hidden),
    ):
        expected = sum(parts.values()) - parts["attention mask"] - 8 - 4 * first
        assert parts["attention mask"] == 4 * LENGTH
        assert kept_bytes(model, packed=False) == ROWS * LENGTH * expected


def test_recomputed_blocks_keep_their_inputs_alone(
    shape: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Block.forward

    def recomputed(block: Block, x_BTD: torch.Tensor, *others: object) -> object:
        return checkpoint(lambda x: plain(block, x, *others), x_BTD, use_reentrant=True)

    monkeypatch.setattr(Block, "forward", recomputed)
    parts = costs.activation_bytes(shape, LENGTH, checkpointed=True)
    # The tables of RoPE and the starts of documents are handed on, not saved, and the inside of a
    # block is not there yet.
    outside = sum(parts[name] for name in ("block inputs", "ends")) - 8 * shape.head_dim - 8
    assert kept_bytes(Transformer(shape)) == ROWS * LENGTH * (outside + 4 * shape.hidden)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("targets", [lora.PROJECTIONS, ("q_proj", "v_proj", "down_proj")])
def test_lora_keeps_the_bytes_that_autograd_saves(
    shape: ModelConfig, dropout: float, targets: tuple[lora.Projection, ...]
) -> None:
    """Less what the first block saves: the input of its norm, and in dropout the factors of a
    gradient that nobody asks for."""
    settings = LoraConfig(rank=3, dropout=dropout, targets=targets)
    model = Transformer(shape).train()
    lora.wrap(model, settings, seed=1)
    first = shape.hidden
    if dropout:
        first += shape.hidden * len({"q_proj", "k_proj", "v_proj"} & set(targets))
    parts = costs.lora_activation_bytes(shape, LENGTH, settings)
    assert kept_bytes(model) == ROWS * LENGTH * (sum(parts.values()) - 4 * first)


def test_parts_and_adapters_have_the_parameters_of_the_network(shape: ModelConfig) -> None:
    model = Transformer(shape)
    parts = costs.parameters_by_part(shape)
    assert sum(parts.values()) == shape.parameters
    assert parts["attention"] == sum(
        p.numel() for name, p in model.named_parameters() if "self_attn" in name
    )
    assert parts["norms"] == sum(p.numel() for p in model.parameters() if p.dim() == 1)
    settings = LoraConfig(rank=3, targets=("k_proj", "up_proj"))
    lora.wrap(model, settings, seed=1)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == costs.lora_parameters(shape, settings)


def test_the_published_adapter_has_46_million_parameters() -> None:
    assert costs.lora_parameters(ModelConfig(), LoraConfig()) == 46_301_184


def test_a_cache_takes_what_is_stated_for_each_token(shape: ModelConfig) -> None:
    cache = Transformer(shape).new_cache(torch.ones(ROWS, LENGTH, dtype=torch.bool))
    held = sum(layer.keys_BHSN.nbytes + layer.values_BHSN.nbytes for layer in cache.layers)
    assert held == ROWS * LENGTH * costs.cache_bytes_per_token(shape)


def test_grouped_queries_save_weights_and_cache_but_no_attention_arithmetic() -> None:
    whole = ModelConfig()
    grouped = ModelConfig(kv_heads=4)
    assert costs.cache_bytes_per_token(grouped) * 4 == costs.cache_bytes_per_token(whole)
    assert costs.attention_flops(grouped, 100) == costs.attention_flops(whole, 100)
    assert costs.trunk_weights(grouped) < costs.trunk_weights(whole)
