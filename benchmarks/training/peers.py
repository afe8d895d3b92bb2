"""The peers, each as its own documentation has it, on packed rows with plain causal attention.

All train with the same AdamW (fused, betas 0.9 and 0.95, decay 0.1) and clip at norm 1.
"""

import tempfile
from typing import Any

import torch
from benchmarks.training.meter import Meter
from benchmarks.training.points import Point
from benchmarks.training.stream import packed_rows
from torch import Tensor, nn

LR, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0


def hf_bare(point: Point, steps: int, meter: Meter, *, compiled: bool) -> dict[str, Any]:
    model = _llama(point)
    rows = torch.from_numpy(packed_rows(point.vocab_size, point.length))
    meter.ready()
    optimiser = _adamw(model)
    forward = torch.compile(model) if compiled else model
    losses = []
    for step in range(steps):
        ids_BT = _batch(rows, point, step)
        optimiser.zero_grad(set_to_none=True)
        loss = forward(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        losses.append(loss.item())
        meter.step_ended()
    return {"losses": losses}


def hf_trainer(point: Point, steps: int, meter: Meter, *, compiled: bool) -> dict[str, Any]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step_ended()

    model = _llama(point)
    rows = packed_rows(point.vocab_size, point.length)
    dataset = [{"input_ids": row, "labels": row} for row in map(torch.from_numpy, rows)]
    meter.ready()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=point.batch,
            learning_rate=LR,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            torch_compile=compiled,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(model, settings, train_dataset=dataset, callbacks=[Steps()])
        trainer.train()
    return {"losses": [line["loss"] for line in trainer.state.log_history if "loss" in line]}


def litgpt(
    point: Point, steps: int, meter: Meter, *, compiled: bool, head_chunk: int = 0
) -> dict[str, Any]:
    """`head_chunk` positions of a row go through the head at a time; 0 is all of them."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        n_layer=point.layers,
        n_embd=point.hidden,
        n_head=point.heads,
        n_query_groups=point.heads,
        intermediate_size=point.ffn,
        vocab_size=point.vocab_size,
        padded_vocab_size=point.vocab_size,
        block_size=point.length,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    torch.manual_seed(0)
    model = GPT(config)
    model.apply(model._init_weights)
    rows = torch.from_numpy(packed_rows(point.vocab_size, point.length + 1))
    meter.ready()
    optimiser = _adamw(model)
    forward = torch.compile(model) if compiled else model
    losses = []
    for step in range(steps):
        batch = _batch(rows, point, step)
        ids_BT, targets_BT = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
        loss = chunked_cross_entropy(forward(ids_BT, lm_head_chunk_size=head_chunk), targets_BT)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        meter.step_ended()
    return {"losses": losses}


def _llama(point: Point) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model: nn.Module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=point.vocab_size,
            hidden_size=point.hidden,
            intermediate_size=point.ffn,
            num_hidden_layers=point.layers,
            num_attention_heads=point.heads,
            num_key_value_heads=point.heads,
            max_position_embeddings=point.length,
            tie_word_embeddings=False,
            use_cache=False,
        )
    )
    return model.train()


def _adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=True)


def _batch(rows: Tensor, point: Point, step: int) -> Tensor:
    """Of one step, [B, T]; the last step's rows are followed by the first ones again."""
    return rows[torch.arange(step * point.batch, (step + 1) * point.batch) % len(rows)]
