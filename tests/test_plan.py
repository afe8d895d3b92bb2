"""The plan: its memory is what training takes, its charts are the schedules, its epochs the rows
that are dealt, and what does not fit is named."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm import plan
from indexlm.config import Recipe, ScheduleConfig
from indexlm.errors import UserError
from indexlm.export import gguf, hf, quantise
from indexlm.model import costs
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.sizes import SIZES
from indexlm.model.transformer import Transformer
from indexlm.plan import learning_rates, memory
from indexlm.plan.learning_rates import Curve
from indexlm.recipes import long32k, lora, tiny
from indexlm.records import write_json
from indexlm.settings import with_overrides
from indexlm.text.jsonl import write_jsonl
from indexlm.tokens.encode import write_shards
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.train.objectives import chunks

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


def measured(model: dict[str, int], rows: int, lora: dict[str, float] | None) -> dict[str, int]:
    """Resident bytes of a process: what Python and torch hold, and the peak of two steps."""
    asked = json.dumps({"model": model, "rows": rows, "lora": lora})
    script = Path(__file__).with_name("peak_memory.py")
    done = subprocess.run(
        [sys.executable, str(script), asked], capture_output=True, text=True, check=True
    )
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def assert_stated(parts: dict[str, int], found: dict[str, int], most: float) -> None:
    """A build of torch for CUDA holds twice what one for processors does, so that what is trained
    is held to the plan apart from it. How much the heap keeps of what was freed differs by a tenth
    from run to run; of few large tensors it keeps nothing, so that one part less is seen there."""
    stated = sum(parts.values()) - plan.IMPORTS
    assert stated > plan.IMPORTS
    ratio = (found["peak"] - found["imports"]) / stated
    assert 0.7 < ratio < most, ratio
    assert 0.5 < found["imports"] / plan.IMPORTS < 2, found


@pytest.mark.parametrize(
    ("model", "rows", "most"),
    [(ACTIVATIONS, 48, 1.25), (VOCABULARY, 4, 1.05), (STATE, 2, 1.25)],
    ids=["activations", "vocabulary", "state"],
)
def test_training_takes_the_memory_that_the_plan_states(
    model: dict[str, int], rows: int, most: float
) -> None:
    parts = plan.training_memory(ModelConfig(**model), rows, model["context"])
    assert_stated(parts, measured(model, rows, None), most)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_lora_takes_the_memory_that_the_plan_states(dropout: float) -> None:
    settings = {"rank": 16, "dropout": dropout}
    parts = plan.lora_memory(ModelConfig(**ACTIVATIONS), 24, 256, LoraConfig(**settings))
    assert_stated(parts, measured(ACTIVATIONS, 24, settings), 1.25)


def test_the_released_model_is_fine_tuned_where_it_cannot_be_trained() -> None:
    model = ModelConfig()
    full = plan.training_memory(model, 1, 384)
    state = full["weights"] + full["gradients"] + full["moments of AdamW"]
    assert state == 16 * 2_172_819_456
    tuned = plan.lora_memory(model, 1, 384, LoraConfig())
    assert tuned["frozen weights"] == 4 * 2_172_819_456
    assert tuned["adapter"] + tuned["gradients"] + tuned["moments of AdamW"] == 16 * 46_301_184
    assert 12 * GIB < sum(tuned.values()) < 20 * GIB < 36 * GIB < sum(full.values())


def test_the_pairs_of_dpo_are_two_rows_each() -> None:
    recipe = with_overrides(tiny.recipe(), ["threads=1"])
    assert isinstance(recipe, Recipe)
    rows, model = 2 * recipe.dpo.micro_batch, recipe.model
    language = sum(plan.training_memory(model, rows, model.context).values())
    assert plan.training_bytes(recipe, recipe.dpo) == language


def test_each_lane_has_gradients_and_a_head_of_its_own() -> None:
    one, three = (
        with_overrides(tiny.recipe(), [f"threads={threads}", "pretrain.micro_batch=4"])
        for threads in (1, 3)
    )
    assert isinstance(one, Recipe) and isinstance(three, Recipe)
    more = plan.training_bytes(three, three.pretrain) - plan.training_bytes(one, one.pretrain)
    model = one.model
    head = 3 * 4 * model.vocab_size * model.hidden
    logits = 2 * 4 * model.vocab_size * (3 * 341 - 512)
    assert more == 2 * (4 * model.parameters + head) + logits
    alone = with_overrides(three, ["pretrain.micro_batch=1"])
    assert isinstance(alone, Recipe)
    same = with_overrides(one, ["pretrain.micro_batch=1"])
    assert isinstance(same, Recipe)
    assert plan.training_bytes(alone, alone.pretrain) == plan.training_bytes(same, same.pretrain)


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
    monkeypatch.setattr(memory, "memory_for", lambda device: 24 * GIB)
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


def changed(*overrides: str) -> Recipe:
    recipe = with_overrides(tiny.recipe(), overrides)
    assert isinstance(recipe, Recipe)
    return recipe


def dots(lines: list[str]) -> set[tuple[int, int]]:
    """(column from the left, height from the bottom) of the dots of a chart's braille."""
    rows = [line.split("┤")[1] for line in lines if "┤" in line]
    assert len(rows) == 8 and all(len(row) <= 60 for row in rows)
    bits = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]
    return {
        (2 * at + across, 4 * (8 - number) - 1 - down)
        for number, row in enumerate(rows)
        for at, cell in enumerate(row)
        for bit, (down, across) in enumerate(bits)
        if (ord(cell) - 0x2800) >> bit & 1
    }


curves = st.builds(
    Curve,
    name=st.just("x"),
    schedule=st.builds(
        ScheduleConfig,
        shape=st.sampled_from(["wsd", "cosine", "linear"]),
        warmup=st.integers(0, 90),
        decay_shape=st.sampled_from(["linear", "exponential", "sqrt"]),
        final=st.floats(0, 1),
    ),
    peak=st.sampled_from([5e-4, 3e-3, 1.0]),
    first=st.just(0),
    last=st.integers(91, 1500),
    decay=st.integers(0, 80),
)


@given(curves)
@settings(max_examples=100, deadline=None, database=None)
def test_a_chart_has_the_extremes_of_its_schedule_in_every_column(curve: Curve) -> None:
    rates = [curve.rate(step) for step in range(curve.last)]
    lines = learning_rates.chart([curve])
    assert lines[0].split()[0] == f"{max(rates):.3g}" and lines[7].split()[0] == "0"
    assert lines[-1].split() == ["1", f"{curve.last:,}"]
    drawn = dots(lines)
    heights = [round(rate / max(rates) * 31) for rate in rates]
    assert max(height for _, height in drawn) == 31
    assert min(height for _, height in drawn) == min(heights)
    for across in range(120):
        begin = across * curve.last // 120
        end = max((across + 1) * curve.last // 120, begin + 1)
        here = heights[begin:end]
        column = {height for at, height in drawn if at == across}
        # All that is between, and a joint to the column before it.
        assert set(range(min(here), max(here) + 1)) <= column
        near = heights[max(begin - 1 - curve.last // 120, 0) : end]
        assert min(near) <= min(column) and max(column) <= max(near)


def test_a_trunk_and_its_branches_share_a_chart() -> None:
    recipe = changed("base.from_step=500", "pretrain.schedule.decay_shape=sqrt", "pure.steps=1000")
    text = plan.learning_rate_charts(recipe)[0]
    assert text.startswith("learning rate of pretrain over steps\n     0.003 ┤")
    assert "trunk: steps 1 to 1,000, warm-up 30, peak 0.003, last 0.003" in text
    branch = "1 - sqrt decay of 330 steps to 0.01 of the peak, last 3e-05"
    assert f"base: steps 501 to 830, {branch}" in text
    assert "pure: steps 1,001 to 2,000, 1 - sqrt decay of 1,000 steps" in text
    lines = text.splitlines()[1:-3]
    assert lines[-1].split() == ["1", "1,000", "2,000"]
    assert lines[-1].index("1,000") == 12 + 30 - 5
    drawn = dots(lines)
    # Column 49 is step 817 to 833, where base has all but ended and the trunk is at its peak.
    assert {height for at, height in drawn if at == 49} >= {0, 31}
    assert min(height for at, height in drawn if at == 119) == 0


def test_every_training_stage_is_charted_and_the_chart_is_part_of_the_plan() -> None:
    text = plan.describe(tiny.recipe(), 80e9)
    for name in ("pretrain", "sft", "dpo", "character.sft", "character.dpo"):
        assert f"learning rate of {name} over steps" in text
    assert (
        "sft: steps 1 to 60, warm-up 5, peak 0.0015, cosine to 0.1 of the peak, last 0.00015"
        in text
    )
    charts = plan.learning_rate_charts(long32k.recipe())
    assert "pretrain: steps 1 to 2,384, warm-up 100, peak 1e-05, cosine to 0.1" in charts[0]
    assert "warm-up in 2% of the steps to 5e-06, then a cosine to 0.1 of it" in charts[1]
    assert plan.learning_rate_charts(lora.recipe())[0].startswith("learning rate of sft: warm-up")


def test_an_exponential_decay_to_nothing_is_said_to_end_above_it() -> None:
    recipe = changed(
        "pretrain.schedule.decay_shape=exponential", "pretrain.schedule.final=0", "base.steps=10"
    )
    text = plan.learning_rate_charts(recipe)[0]
    assert "exponential decay of 10 steps to 1e-08 of the peak" in text
    assert "(an exponential never comes to 0 and is ended at 1e-08), last 3e-11" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["pretrain.schedule.shape=cosine"], "base and pure start at the peak, which only wsd"),
        (["pure.from_step=29"], "pure.from_step=29 lies in the warm-up"),
    ],
)
def test_a_schedule_that_cannot_be_run_is_refused(settings: list[str], message: str) -> None:
    plan.check_schedules(tiny.recipe())
    with pytest.raises(UserError, match=message):
        plan.check_schedules(changed(*settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["pretrain.steps=29"], "pretrain.schedule.warmup=30: in 29 steps"),
        (["dpo.steps=5"], "dpo.schedule.warmup=5: of 5 steps none is left for the cosine"),
        (["character.sft.schedule.warmup=99"], "character.sft.schedule.warmup=99: of 50 steps"),
    ],
)
def test_a_run_cut_short_in_its_warm_up_is_warned_of(
    settings: list[str], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    plan.check_schedules(tiny.recipe())
    assert not caplog.records
    plan.check_schedules(changed(*settings))
    assert message in caplog.text


TOKENS = dict.fromkeys(tiny.STABLE, 100_000) | {"instruction": 2_560}


def test_epochs_are_the_rows_that_the_feed_deals() -> None:
    """A trunk of 96 steps and a branch of 32, 8 rows a step: blocks of 256 rows are whole."""
    phases = [(96, {"a": 3.0, "b": 1.0}), (32, {"a": 1.0, "b": 0.5, "c": 0.5})]
    tokens = {"a": 64 * 50 + 63, "b": 10, "c": 64 * 400}
    found = plan.data_epochs(phases, tokens, batch=8, length=64, seed=7)
    # 50 whole rows of a; b is shorter than a row and is one.
    assert found == {"a": (576 + 128) / 50, "b": 192 + 64, "c": 64 / 400}
    lacking = plan.data_epochs(phases, tokens | {"c": 0}, batch=8, length=64, seed=7)
    assert lacking == found | {"c": math.inf}


def test_both_branches_go_on_from_what_the_trunk_has_read() -> None:
    recipe = changed("pure.from_step=500")
    found = plan.recipe_epochs(recipe, TOKENS, recipe.model.context)
    assert list(found) == ["trunk and base", "trunk and pure"]
    rows = 8 * (1000 * tiny.STABLE["zh_ordinary"] + 330 * tiny.DECAY["zh_ordinary"] * 0.93)
    assert found["trunk and base"]["zh_ordinary"] == pytest.approx(rows / 390, rel=0.02)
    rows = 8 * (500 * tiny.STABLE["zh_ordinary"] + 330 * tiny.DECAY["zh_ordinary"])
    assert found["trunk and pure"]["zh_ordinary"] == pytest.approx(rows / 390, rel=0.02)
    assert found["trunk and base"]["instruction"] == pytest.approx(8 * 330 * 0.07 / 10, rel=0.02)
    assert "instruction" not in found["trunk and pure"]
    text = plan.describe(recipe, 80e9, tokens=TOKENS)
    table = text[text.index("times that pre-training reads each source") :].splitlines()
    times = found["trunk and base"]["instruction"]
    assert table[2].split() == [
        "en_curated",
        "100,000",
        *(f"{sources['en_curated']:.2f}" for sources in found.values()),
    ]
    assert table[-4].split() == ["instruction", "2,560", f"{times:.2f}", "0.00"]
    continued = plan.recipe_epochs(long32k.tiny(), TOKENS, 1024)["pretrain"]
    assert all(0 < times < 10 for times in continued.values())


def test_a_source_that_is_read_too_often_is_named_with_the_path_that_reads_it() -> None:
    plan.check_epochs(tiny.recipe(), TOKENS)
    plan.check_epochs(changed("pretrain.max_epochs=20"), TOKENS)
    with pytest.raises(UserError) as caught:
        plan.check_epochs(changed("pretrain.max_epochs=15"), TOKENS)
    message = str(caught.value)
    assert message.startswith("pretrain.max_epochs=15: trunk and base would read instruction 18.")
    assert "(2,560 tokens); lower the steps or the shares" in message
    assert "trunk and pure" not in message and "zh_" not in message


def test_the_tokens_of_a_run_are_known_when_they_are_encoded(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    assert plan.tokens_of_run(tmp_path) is None
    text = tmp_path / "en_curated.jsonl.zst"
    write_jsonl(text, [{"text": "Hello there!", "source": "letters"}])
    write_shards({"en_curated": [text]}, tokenizer, tmp_path / "tokens", "here", threads=1)
    expected = len(tokenizer.encode("Hello there!")) + 1
    assert plan.tokens_of_run(tmp_path) == {"en_curated": expected}


def test_the_chunks_that_are_planned_for_are_those_of_the_loss() -> None:
    """The plan does not import the loss, which would load torch."""
    assert (memory.CHUNK, memory.CHUNK_ON_GPU) == (chunks.CHUNK, chunks.CHUNK_ON_GPU)
