"""The plan: its memory is what training takes, and what does not fit is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from indexlm import plan
from indexlm.config import with_overrides
from indexlm.errors import UserError
from indexlm.export import gguf, hf, quantise
from indexlm.model import costs
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.sizes import SIZES
from indexlm.model.transformer import Transformer
from indexlm.recipes import long32k, lora, tiny
from indexlm.records import write_json
from indexlm.tokens.tokenizer import Tokenizer

GIB = 2**30
ACTIVATIONS = {
    "vocab_size": 512,
    "hidden": 64,
    "layers": 12,
    "heads": 2,
    "kv_heads": 2,
    "ffn": 184,
    "context": 256,
}
"""At 32 rows three times as many bytes in activations as in everything else."""
VOCABULARY = {
    "vocab_size": 65029,
    "hidden": 192,
    "layers": 2,
    "heads": 3,
    "kv_heads": 3,
    "ffn": 544,
    "context": 64,
}
"""Nearly all in the embedding, the head and its logits."""
STATE = {
    "vocab_size": 512,
    "hidden": 1024,
    "layers": 6,
    "heads": 8,
    "kv_heads": 8,
    "ffn": 2944,
    "context": 32,
}
"""Nearly all in the blocks' weights, gradients and moments."""


def peak(model: dict[str, int], rows: int, lora: dict[str, float] | None) -> int:
    """Of a process that trains two steps, resident bytes."""
    asked = json.dumps({"model": model, "rows": rows, "lora": lora})
    script = Path(__file__).with_name("peak_memory.py")
    done = subprocess.run(
        [sys.executable, str(script), asked], capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("model", "rows"),
    [(ACTIVATIONS, 32), (VOCABULARY, 4), (STATE, 2)],
    ids=["activations", "vocabulary", "state"],
)
def test_training_takes_the_memory_that_the_plan_states(model: dict[str, int], rows: int) -> None:
    stated = sum(plan.training_memory(ModelConfig(**model), rows, model["context"]).values())
    assert stated > 2 * plan.IMPORTS
    ratio = peak(model, rows, None) / stated
    assert 0.7 < ratio < 1.15, ratio


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_lora_takes_the_memory_that_the_plan_states(dropout: float) -> None:
    settings = {"rank": 16, "dropout": dropout}
    parts = plan.lora_memory(ModelConfig(**ACTIVATIONS), 24, 256, LoraConfig(**settings))
    stated = sum(parts.values())
    assert stated > 2 * plan.IMPORTS
    ratio = peak(ACTIVATIONS, 24, settings) / stated
    assert 0.7 < ratio < 1.15, ratio


def test_the_released_model_is_fine_tuned_where_it_cannot_be_trained() -> None:
    model = ModelConfig()
    full = plan.training_memory(model, 1, 384)
    state = full["weights"] + full["gradients"] + full["moments of AdamW"]
    assert state == 16 * 2_172_819_456
    tuned = plan.lora_memory(model, 1, 384, LoraConfig())
    assert tuned["frozen weights"] == 4 * 2_172_819_456
    assert tuned["adapter"] + tuned["gradients"] + tuned["moments of AdamW"] == 16 * 46_301_184
    assert 12 * GIB < sum(tuned.values()) < 20 * GIB < 36 * GIB < sum(full.values())


def test_the_pairs_of_dpo_are_two_rows_and_their_logits_are_held_whole() -> None:
    recipe = tiny.recipe()
    need = plan.training_bytes(recipe, recipe.dpo)
    rows, model = 2 * recipe.dpo.micro_batch, recipe.model
    language = sum(plan.training_memory(model, rows, model.context).values())
    labels = recipe.dpo.micro_batch * (256 + recipe.dpo.max_new_tokens)
    assert need == language + 4 * 5120 * (3 * labels - 2 * 512)


@pytest.mark.parametrize("memory", [2 * GIB, 24 * GIB, 400 * GIB])
def test_the_largest_micro_batch_fits_and_one_row_more_does_not(memory: int) -> None:
    def parts_of(rows: int) -> dict[str, int]:
        return plan.lora_memory(SIZES["300m"], rows, 384, LoraConfig())

    most = plan.largest_micro_batch(parts_of, memory)
    assert sum(parts_of(most + 1).values()) > memory
    assert most == 0 or sum(parts_of(most).values()) <= memory
    assert (most == 0) == (memory == 2 * GIB)


def test_a_recipe_larger_than_the_machine_is_refused_with_what_to_lower() -> None:
    recipe = with_overrides(tiny.recipe(), ["sft.batch=2000000", "sft.micro_batch=2000000"])
    with pytest.raises(UserError, match=r"tiny: sft needs about .* lower sft.micro_batch=2000000"):
        plan.check_memory(recipe)


def test_a_continuation_is_judged_in_its_own_window_and_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "machine_memory", lambda: 24 * GIB)
    fine_tuning = lora.recipe()
    with pytest.raises(UserError, match=r"lora: sft needs about .* lower sft.micro_batch=4 or"):
        plan.check_continuation_memory(fine_tuning, ModelConfig())
    one_row = with_overrides(fine_tuning, ["sft.micro_batch=1"])
    plan.check_continuation_memory(one_row, ModelConfig())
    with pytest.raises(UserError, match="or set lora"):
        plan.check_continuation_memory(with_overrides(one_row, ["lora=null"]), ModelConfig())
    small = SIZES["100m"]
    plan.check_continuation_memory(with_overrides(fine_tuning, ["lora=null"]), small)
    with pytest.raises(UserError, match=r"long32k: pretrain needs about .*pretrain.length=32768"):
        plan.check_continuation_memory(long32k.recipe(), small)


@pytest.mark.parametrize("name", SIZES)
def test_every_size_can_be_described(name: str) -> None:
    model = plan.find(name)
    assert isinstance(model, ModelConfig)
    text = plan.describe(model, 80e9, 24 * GIB, 128)
    assert f"{model.parameters:,}" in text and f"{model.non_embedding_parameters:,}" in text
    assert f"{costs.training_flops_per_token(model, 128):.4g} FLOPs a token" in text
    assert "24.00 GiB, rows of 128 tokens" in text


def test_a_model_folder_is_described_by_its_shape_without_reading_weights(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", hf.published_config(ModelConfig(context=32768)))
    assert plan.find(str(tmp_path)) == ModelConfig(context=32768)
    recipe = with_overrides(lora.recipe(), [f"parent={tmp_path}"])
    text = plan.describe(recipe, 80e9, 24 * GIB)
    assert "memory of LoRA, GiB, rank 32, dropout 0.1, micro-batch of 4 x 384 tokens" in text
    assert "window 32,768" in text
    with pytest.raises(UserError, match="it has no config"):
        plan.find(str(tmp_path.parent))


def test_a_recipe_is_described_with_its_steps_and_times() -> None:
    text = plan.describe(tiny.recipe(), 80e9)
    assert "micro-batch of 8 x 256 tokens" in text
    # 2,048,000 tokens of 9.663 MFLOPs at 80 GFLOPs a second.
    assert "1,000 steps  2,048,000 tokens  about 4:07" in text


def test_what_cannot_be_planned_is_named() -> None:
    with pytest.raises(UserError, match=r"nothing to plan is called '2b'; name a size \(1m, 3m"):
        plan.find("2b")
    with pytest.raises(UserError, match="--length 257: the window has 256 positions"):
        plan.describe(tiny.recipe(), 80e9, length=257)


def test_the_columns_of_a_table_end_in_line() -> None:
    title, *lines = plan.describe(SIZES["1.9b"], 80e9, 24 * GIB).split("\n\n")[0].split("\n")
    assert title.startswith("parameters: 36 layers x 2048, 16 heads of 128")
    assert len({len(line) for line in lines}) == 1
    assert lines[-2].split() == ["all", "2,172,819,456"]


def test_the_bytes_of_the_weights_are_those_that_are_written(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """The files hold them, and a header or the vocabulary."""
    shape = {"hidden": 128, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 384, "context": 32}
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **shape))
    model.initialise(1)
    stated = costs.weight_bytes(model.config)
    written = {"q8_0": gguf.export(model, tokenizer, tmp_path / "m.gguf", "q8_0", "m").bytes}
    for kind in ("int8", "int4"):
        quantise.export(model, tokenizer, tmp_path / kind, kind, "test", {})
        written[kind] = (tmp_path / kind / "model.safetensors").stat().st_size
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        hf.save(model, tokenizer.path, tmp_path / name, "test", {}, dtype)
        written[name] = (tmp_path / name / "model.safetensors").stat().st_size
    assert written.keys() == stated.keys()
    for name, size in written.items():
        assert 0 < size - stated[name] < 24_000, (name, size, stated[name])
