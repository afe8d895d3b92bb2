"""transformers' Llama in a plain loop: float32 weights under bfloat16 autocast, fused AdamW, its
fastest attention of those in PyTorch (plain causal, so that no mask is made)."""

import time

import torch
from benchmarks.gpu.points import Point
from benchmarks.training.stream import packed_rows

from indexlm.model.config import ModelConfig


def hf(
    point: Point, config: ModelConfig, device: str, steps: int
) -> tuple[list[float], list[float]]:
    """(times at which steps began, losses); the loss of a step is read once, at its end."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden,
                intermediate_size=config.ffn,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads,
                max_position_embeddings=config.context,
                tie_word_embeddings=False,
                use_cache=False,
                attn_implementation="sdpa",
            )
        )
    model.train()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    if point.row == "hf_layers_compiled":
        for layer in model.model.layers:
            layer.compile()
    if point.row == "hf_compiled":
        model.compile()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    rows = torch.from_numpy(packed_rows(config.vocab_size, config.context)).to(device)
    parts = point.batch // point.micro_batch
    marks, losses = [], []
    for step in range(steps):
        marks.append(time.perf_counter())
        optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for part in range(parts):
            first = (step * point.batch + part * point.micro_batch) % (len(rows) - point.batch)
            ids_BT = rows[first : first + point.micro_batch]
            with torch.autocast(device, torch.bfloat16):
                loss = model(input_ids=ids_BT, labels=ids_BT).loss / parts
            loss.backward()
            total += loss.detach()
            del loss
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(total.item())
    marks.append(time.perf_counter())
    return marks, losses
