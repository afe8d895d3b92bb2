"""Adapters against the PEFT library: its files, its logits, its gradients and its training.

Shape suffixes: B rows, T positions, V vocabulary.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from published import llama
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from indexlm.config import OptimiserConfig, TrainConfig
from indexlm.errors import DamagedError, UserError, shown
from indexlm.export.peft import WEIGHTS, load_adapter, save_adapter
from indexlm.feed.packing import Batch, Segment, collate
from indexlm.model.config import LoraConfig, ModelConfig
from indexlm.model.lora import adapter_state, merge, wrap
from indexlm.model.transformer import Transformer
from indexlm.records import verify
from indexlm.train.loop import Stage, train
from indexlm.train.objectives.language import language_loss

torch.set_num_threads(1)

SHAPE = ModelConfig(
    vocab_size=160, hidden=32, layers=2, heads=4, kv_heads=2, ffn=96, context=24, head_scale=4.0
)
CONFIG = LoraConfig(rank=4, alpha=12, dropout=0.0)
LENGTH = 20


def make_model(seed: int = 1) -> Transformer:
    """Head rows of unequal length: a head that is not folded would be noticed."""
    model = Transformer(SHAPE.model_copy(update={"init_std": 0.1}))
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    model.lm_head.weight.data.mul_(torch.empty(160, 1).normal_(generator=generator).exp())
    return model.eval()


def make_tuned(config: LoraConfig = CONFIG) -> Transformer:
    """A wrapped model whose B is not zero."""
    model = make_model()
    wrap(model, config, 2)
    generator = torch.Generator().manual_seed(3)
    for name, value in adapter_state(model).items():
        if name.endswith("lora_B"):
            value.normal_(std=0.1, generator=generator)
    return model


def llama_of(model: Transformer) -> LlamaForCausalLM:
    """The plain `model` in transformers, its head folded."""
    folded = {"lm_head.weight": model.lm_head.matrix().detach()}
    made: LlamaForCausalLM = llama(model.state_dict() | folded, model.config, fold=False)
    return made


def theirs_of(model: Transformer, config: LoraConfig = CONFIG) -> peft.PeftModel:
    """The base of `make_model` wrapped by PEFT, with A and B of the wrapped `model`."""
    wrapped = peft.get_peft_model(
        llama_of(make_model()),
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(config.targets),
            task_type="CAUSAL_LM",
        ),
    )
    their = dict(wrapped.named_parameters())
    for name, value in adapter_state(model).items():
        their[their_name(name)].data.copy_(value)
    return wrapped


def their_name(name: str) -> str:
    return f"base_model.model.{name}.default.weight"


def batch_of(step: int, rows: int = 4) -> Batch:
    """One document a row, as long as the row, so that plain causal attention sees the same."""
    ids = np.random.default_rng((7, step)).integers(5, 160, size=(rows, LENGTH + 1))
    return collate([[Segment(row[:-1], row[1:])] for row in ids], LENGTH)


IDS_BT = batch_of(0).ids_BT


@torch.no_grad()
def our_logits(model: Transformer) -> Tensor:
    return model.logits(model(IDS_BT))


@torch.no_grad()
def their_logits(model: Any) -> Tensor:
    return model(IDS_BT).logits


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    save_adapter(make_tuned(), CONFIG, folder, "my/base", "made from")
    return folder


# Files.


def test_peft_reads_our_adapter_and_gives_our_logits(saved: Path) -> None:
    tuned = make_tuned()
    theirs = peft.PeftModel.from_pretrained(llama_of(make_model()), str(saved))
    torch.testing.assert_close(our_logits(tuned), their_logits(theirs), rtol=0, atol=1e-5)
    # The adapter has a share in them.
    assert float((their_logits(theirs) - our_logits(make_model())).abs().max()) > 0.1
    with theirs.disable_adapter():
        torch.testing.assert_close(
            their_logits(theirs), our_logits(make_model()), rtol=0, atol=1e-5
        )
    assert theirs.peft_config["default"].base_model_name_or_path == "my/base"


def test_an_adapter_folder_is_sealed_and_holds_two_files(saved: Path) -> None:
    files = verify(saved).files
    assert sorted(files) == ["adapter_config.json", "adapter_model.safetensors"]
    assert verify(saved).fingerprint == "made from"
    weights = load_file(saved / "adapter_model.safetensors")
    assert len(weights) == 2 * 7 * 2
    shape = weights["base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"].shape
    assert shape == (4, 96)


def test_our_adapter_comes_back_bit_for_bit(saved: Path) -> None:
    model, tuned = make_model(), make_tuned()
    assert load_adapter(model, saved) == CONFIG
    assert adapter_state(model).keys() == adapter_state(tuned).keys()
    for name, value in adapter_state(model).items():
        assert torch.equal(value, adapter_state(tuned)[name])
    assert torch.equal(our_logits(model), our_logits(tuned))


def save_as_safetensors(theirs: Any, folder: Path) -> None:
    theirs.save_pretrained(folder)


def save_as_published_script(theirs: Any, folder: Path) -> None:
    """The call of the fine-tuning script published with Index-1.9B."""
    state = {name: p.cpu() for name, p in theirs.named_parameters() if p.requires_grad}
    theirs.save_pretrained(
        folder, state_dict=state, save_function=torch.save, safe_serialization=False
    )
    assert (folder / "adapter_model.bin").is_file()


def save_trainable_parameters(theirs: Any, folder: Path) -> None:
    theirs.save_pretrained(folder)
    (folder / "adapter_model.safetensors").unlink()
    state = {name: p.detach() for name, p in theirs.named_parameters() if p.requires_grad}
    torch.save(state, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "save", [save_as_safetensors, save_as_published_script, save_trainable_parameters]
)
def test_adapters_of_peft_are_read(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    config = LoraConfig(rank=3, alpha=5, dropout=0.2, targets=("k_proj", "o_proj", "up_proj"))
    theirs = theirs_of(make_tuned(config), config).eval()
    save(theirs, tmp_path)
    model = make_model()
    assert load_adapter(model, tmp_path) == config
    torch.testing.assert_close(our_logits(model), their_logits(theirs), rtol=0, atol=1e-5)
    merge(model)
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(our_logits(model), their_logits(merged), rtol=0, atol=1e-5)


def test_a_bfloat16_adapter_is_widened(saved: Path, tmp_path: Path) -> None:
    folder = foreign_copy(saved, tmp_path)
    path = folder / "adapter_model.safetensors"
    weights = {name: value.bfloat16() for name, value in load_file(path).items()}
    save_file(weights, path)
    model = make_model()
    load_adapter(model, folder)
    for name, value in adapter_state(model).items():
        expected = adapter_state(make_tuned())[name].bfloat16().float()
        assert value.dtype == torch.float32 and torch.equal(value, expected)


# Refusals.


def foreign_copy(saved: Path, tmp_path: Path) -> Path:
    """The adapter as somebody else would have it: no manifest."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes((saved / name).read_bytes())
    return folder


def refused(folder: Path, model: Transformer, kind: type[Exception] = UserError) -> str:
    """The message; `model` is as it was."""
    before = model.state_dict()
    with pytest.raises(kind) as caught:
        load_adapter(model, folder)
    assert model.state_dict().keys() == before.keys()
    assert all(p.requires_grad for p in model.parameters())
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("use_rslora", True),
        ("use_dora", True),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 2}),
        ("alpha_pattern", {"q_proj": 2}),
        ("layers_to_transform", [0]),
        ("fan_in_fan_out", True),
        ("trainable_token_indices", [3, 4]),
        ("target_parameters", ["x"]),
        ("a_setting_of_the_future", 1),
        ("init_lora_weights", "pissa"),
        ("target_modules", ["q_proj", "lm_head"]),
        ("target_modules", "all-linear"),
        ("target_modules", None),
        ("target_modules", [{}]),
        ("peft_type", "IA3"),
        ("r", 0),
        ("r", "many"),
        ("lora_alpha", 0.5),
        ("lora_dropout", 2),
    ],
)
def test_what_plain_lora_does_not_have_is_refused_by_name_and_value(
    saved: Path, tmp_path: Path, setting: str, value: Any
) -> None:
    folder = foreign_copy(saved, tmp_path)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {setting: value}), encoding="utf-8")
    message = refused(folder, make_model())
    assert setting in message and str(path) in message
    bad = value[-1] if setting == "target_modules" and isinstance(value, list) else value
    assert shown(bad) in message


@pytest.mark.parametrize("field", ["init_lora_weights", "target_modules", "r", "x\n\x1b[2J"])
def test_settings_cannot_write_a_line_or_at_length(saved: Path, tmp_path: Path, field: str) -> None:
    folder = foreign_copy(saved, tmp_path)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for value in ("x\nWRONG: \x1b[2J", ["x\nWRONG: \x1b[2J"], "long" * 10_000):
        path.write_text(json.dumps(settings | {field: value}), encoding="utf-8")
        message = refused(folder, make_model())
        assert message.isprintable() and len(message) < 1000


def test_the_settings_that_peft_writes_are_not_refused(tmp_path: Path) -> None:
    """All of them, at their defaults, of the installed version."""
    theirs_of(make_tuned()).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert len(settings) > 30
    load_adapter(make_model(), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff", '{"r": 4, "r": 4}'])
def test_settings_that_cannot_be_read_are_named(saved: Path, tmp_path: Path, text: str) -> None:
    folder = foreign_copy(saved, tmp_path)
    (folder / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "adapter_config.json" in refused(folder, make_model(), DamagedError)


def changed_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop(FIRST), r"layers.0.self_attn.q_proj.lora_A' is missing"),
        (lambda w: w.update({FIRST: w[FIRST][:, 1:].clone()}), r"[4, 31], this model and r=4"),
        (lambda w: w.update({FIRST: w[FIRST].to(torch.int8)}), r"torch.int8"),
        (lambda w: w.update({FIRST: w[FIRST].to(torch.float8_e5m2)}), r"torch.float8"),
        (lambda w: w.update({"x\nWRONG": torch.ones(2)}), r"'x\nWRONG' is not an A or B"),
        (lambda w: w.update({FIRST.replace(".0.", ".9."): w[FIRST].clone()}), r"layers.9."),
        (lambda w: w.update({"base_model.model.lm_head.weight": torch.ones(2)}), r"lm_head"),
        (lambda w: w.update({FIRST.replace("_A", "_A.default"): torch.ones(2)}), r"once each"),
    ],
)
def test_weights_that_do_not_fit_the_model_are_refused(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], said: str
) -> None:
    folder = foreign_copy(saved, tmp_path)
    changed_tensors(folder, change)
    message = refused(folder, make_model())
    assert said in message and "adapter_model.safetensors" in message


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_an_adapter_that_is_no_numbers_is_refused(
    saved: Path, tmp_path: Path, value: float
) -> None:
    folder = foreign_copy(saved, tmp_path)
    changed_tensors(folder, lambda w: w[FIRST].view(-1)[3].fill_(value))
    message = refused(folder, make_model(), DamagedError)
    assert "layers.0.self_attn.q_proj.lora_A' holds NaN or infinity" in message


@pytest.mark.parametrize(
    ("name", "words"), [(FIRST, "this model and r=4 need [4, 32]"), ("x", "'x' is not an A or B")]
)
def test_nothing_is_read_of_an_adapter_that_does_not_fit(
    saved: Path, tmp_path: Path, name: str, words: str
) -> None:
    """In a sparse file, a tensor of a terabyte after the others."""
    folder = foreign_copy(saved, tmp_path)
    shapes = {key: tuple(t.shape) for key, t in load_file(folder / WEIGHTS).items() if key != name}
    header, end = {}, 0
    for key, shape in {**shapes, name: (2**38,)}.items():
        first, end = end, end + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [first, end]}
    text = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    assert words in refused(folder, make_model())


def test_an_adapter_of_another_model_is_refused(saved: Path) -> None:
    deeper = Transformer(SHAPE.model_copy(update={"layers": 3}))
    deeper.initialise(1)
    assert "layers.2" in refused(saved, deeper)
    wider = Transformer(SHAPE.model_copy(update={"hidden": 64, "vocab_size": 32}))
    wider.initialise(1)
    assert "[64, 4]; is it an adapter of another" in refused(saved, wider)


def test_a_rank_that_the_weights_do_not_have_allocates_nothing(saved: Path, tmp_path: Path) -> None:
    folder = foreign_copy(saved, tmp_path)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"r": 10**12}), encoding="utf-8")
    assert "r=1000000000000" in refused(folder, make_model())


def test_damaged_files_are_named_and_nothing_is_loaded(saved: Path, tmp_path: Path) -> None:
    folder = foreign_copy(saved, tmp_path)
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert str(path) in refused(folder, make_model(), DamagedError)
    # Our own folders carry hashes, which notice a flipped bit too.
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (folder / "manifest.json").write_bytes((saved / "manifest.json").read_bytes())
    assert "SHA-256" in refused(folder, make_model(), DamagedError)


class Harm:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harm-was-done"),))


@pytest.mark.parametrize("content", [Harm(), {"a": Harm()}, {"a": 1}, [torch.ones(1)], None])
def test_a_pickle_of_more_than_tensors_is_refused_and_not_run(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = foreign_copy(saved, tmp_path)
    (folder / "adapter_model.safetensors").unlink()
    path = folder / "adapter_model.bin"
    torch.save(content, path)
    with pytest.raises((UserError, DamagedError), match=r"adapter_model\.bin"):
        load_adapter(make_model(), folder)
    assert not Path("harm-was-done").exists()
    path.write_bytes(path.read_bytes()[:50])
    assert path.name in refused(folder, make_model(), DamagedError)


def test_folders_without_an_adapter_are_refused(saved: Path, tmp_path: Path) -> None:
    assert "has no adapter_config.json" in refused(tmp_path, make_model())
    folder = foreign_copy(saved, tmp_path)
    (folder / "adapter_model.safetensors").unlink()
    assert "none of adapter_model.safetensors, adapter_model.bin" in refused(folder, make_model())


# Training.


def their_loss(theirs: Any, batch: Batch) -> Tensor:
    logits = theirs(batch.ids_BT).logits.flatten(0, 1)
    return functional.cross_entropy(logits, batch.labels_BT.flatten(), reduction="sum")


def test_gradients_of_a_and_b_are_those_of_peft() -> None:
    tuned = make_tuned()
    theirs = theirs_of(tuned)
    batch = batch_of(1)
    ours, units, _ = language_loss(tuned, batch)
    (ours / units).backward()
    (their_loss(theirs, batch) / units).backward()
    their = dict(theirs.named_parameters())
    for name, parameter in tuned.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
            continue
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 1e-3
        torch.testing.assert_close(
            parameter.grad, their[their_name(name)].grad, rtol=1e-4, atol=1e-6
        )


@dataclass(frozen=True)
class WholeRows:
    """Steps of two micro-batches of unpacked rows."""

    names = ()

    def documents(self, step: int) -> list[str]:
        return []

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        yield batch_of(2 * step)
        yield batch_of(2 * step + 1)


def test_five_steps_of_the_loop_give_the_adapter_that_peft_gives(tmp_path: Path) -> None:
    """From a fresh adapter, with clipping; a plain AdamW over whole batches on their side."""
    # An epsilon above the rounding of the gradients: AdamW would turn their noise into steps.
    settings = OptimiserConfig(lr=1e-3, weight_decay=0.0, eps=1e-6, clip=0.3)
    ours = make_model()
    wrap(ours, CONFIG, 5)
    theirs = theirs_of(ours).train()
    stage = Stage(
        "lora",
        TrainConfig(steps=5, batch=8, micro_batch=4, optimiser=settings),
        language_loss,
        WholeRows(),
        lambda step: 1 - step / 10,
        0,
        5,
        "inputs",
    )
    train(ours, stage, tmp_path / "run")
    trainable = [p for p in theirs.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.0)
    for step in range(5):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / 10)
        optimiser.zero_grad()
        loss = sum(their_loss(theirs, batch) for batch in WholeRows().micro_batches(step))
        (loss / (8 * LENGTH)).backward()
        torch.nn.utils.clip_grad_norm_(trainable, 0.3)
        optimiser.step()
    their = dict(theirs.named_parameters())
    fresh = make_model()
    wrap(fresh, CONFIG, 5)
    for name, value in adapter_state(ours).items():
        torch.testing.assert_close(value, their[their_name(name)].data, rtol=0, atol=2e-6)
        assert float((value - adapter_state(fresh)[name]).abs().max()) > 1e-3
