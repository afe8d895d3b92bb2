"""From a model folder on, as a user goes: fine-tuning, a longer window, and stops on the way."""

import json
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from command import (
    PATIENCE,
    contents,
    lines,
    refused,
    run_here,
    start,
    succeeded,
    with_corpus,
    write_model,
)
from indexlm.config import Continuation
from indexlm.export import hf
from indexlm.export.agreement import logits_of
from indexlm.model.transformer import Transformer, with_window
from indexlm.pipeline import Run
from indexlm.records import read_manifest, read_metrics, verify
from indexlm.settings import load_recipe
from indexlm.stages.inputs import held_out_texts
from indexlm.tokens.shards import read_shards
from indexlm.tokens.tokenizer import EOS, FILE_NAME, Tokenizer

# One thread: sums come in one order, and the networks here are too small to share out.
torch.set_num_threads(1)

SUMS = [{"query": f"{n} 加一等于几？", "response": f"{n + 1}。"} for n in range(60)]
TURNS = [
    {
        "system": "你是助手。",
        "history": [["1 加一？", "2。"], [f"{n} 加二？", f"{n + 2}。"]],
        "query": "再见",
        "response": "好",
    }
    for n in range(9)
]
LONG = {"query": "长" * 100, "response": "短"}

# 60 sums are about 30 rows: 450 steps of a few milliseconds, a checkpoint every 20. A signal sent
# after 60 of them comes before the last.
QUICK = ["threads=1", "lora.rank=4", "sft.optimiser.lr=0.01", "sft.batch=4", "sft.micro_batch=2"]
TUNE = ["finetune", "model", "--data", "sums.jsonl", *QUICK, "sft.epochs=60", "sft.save_every=20"]
BRIEF = ["finetune", "model", "--data", "sums.jsonl", *QUICK, "sft.epochs=1"]
LENGTHEN = [
    *("run", "long-tiny", "parent=model", 'text.inputs=["corpus"]', "threads=1"),
    *("window.context=128", "window.rope_base=20000", "pretrain.steps=240"),
    *("pretrain.optimiser.lr=0.005", "pretrain.save_every=20", 'sft.files=["sums.jsonl"]'),
    *("sft.epochs=40", "sft.save_every=20", 'lora={"rank": 2, "alpha": 4, "dropout": 0.1}'),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A model, conversations and text, `tuned` and `long` made of them by real commands."""
    place = with_corpus(tmp_path_factory.mktemp("continuation"), 300)
    write_model(place / "model", tokenizer)
    (place / "sums.jsonl").write_bytes(lines(SUMS))
    succeeded(place, *TUNE, "--out", "tuned")
    succeeded(place, *LENGTHEN, "--out", "long")
    return place


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """What a test may change: the model, the conversations and the finished `tuned`."""
    for name in ("model", "tuned"):
        shutil.copytree(place / name, tmp_path / name)
    shutil.copy2(place / "sums.jsonl", tmp_path)
    return tmp_path


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def logged(folder: Path) -> list[dict[str, Any]]:
    """The steps of a stage without the times, which no two runs share."""
    entries = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]


def mean_loss(entries: Sequence[dict[str, Any]]) -> float:
    return sum(entry["loss"] for entry in entries) / len(entries)


# What a fine-tuning leaves


def test_finetuning_leaves_a_model_and_an_adapter_that_give_each_other_to_the_bit(
    place: Path, tmp_path: Path
) -> None:
    tuned, adapter = place / "tuned" / "models" / "tuned", place / "tuned" / "models" / "adapter"
    assert {"model.safetensors", FILE_NAME} < verify(tuned).files.keys()
    assert "adapter_model.safetensors" in verify(adapter).files
    merge = ["export", "model", "--to", "index", "--adapter", str(adapter)]
    succeeded(place, *merge, "--out", str(tmp_path / "merged"))
    merged = (tmp_path / "merged" / "model.safetensors").read_bytes()
    assert merged == (tuned / "model.safetensors").read_bytes()
    assert merged != (place / "model" / "model.safetensors").read_bytes()
    before, after = weights(place / "model"), weights(tuned)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == ("_proj" not in name), name


def test_the_conversations_are_learned(place: Path) -> None:
    entries = logged(place / "tuned" / "sft")
    assert len(entries) == 450 and mean_loss(entries[-8:]) < 0.5 * mean_loss(entries[:8])
    asked = ["--prompt", "7 加一等于几？", "--temperature", "0"]
    answers = {
        name: run_here(place, "chat", name, *asked)[1] for name in ("model", "tuned/models/tuned")
    }
    assert answers["tuned/models/tuned"].strip().endswith("。") and len(set(answers.values())) == 2


def test_an_adapter_names_the_model_that_it_was_trained_beside(place: Path) -> None:
    """After further pre-training that is not the parent, whose weights and angles differ."""
    for run, base in (("tuned", "model"), ("long", "long/models/pretrained")):
        path = place / run / "models" / "adapter" / "adapter_config.json"
        fields = json.loads(path.read_text(encoding="utf-8"))
        assert fields["base_model_name_or_path"] == base


def test_a_handful_of_conversations_is_one_step_and_that_one_trains(
    place: Path, tmp_path: Path
) -> None:
    """A cosine that had come to zero in its last step would leave the parent."""
    (tmp_path / "few.jsonl").write_bytes(lines(SUMS[:2]))
    few = ["finetune", str(place / "model"), "--data", "few.jsonl", "--full", "threads=1"]
    succeeded(tmp_path, *few, "--out", "out", "sft.epochs=1", how=run_here)
    steps = read_metrics(tmp_path / "out" / "sft" / "metrics.jsonl")
    assert len(steps) == 1 and steps[0]["lr"] > 0
    before = hf.load(place / "model").state_dict()
    after = hf.load(tmp_path / "out" / "models" / "tuned").state_dict()
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_the_answers_and_their_ends_alone_carry_loss(
    place: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Counted here from the texts; one row a step, so that each row is seen once."""
    (tmp_path / "sums.jsonl").write_bytes(lines([*SUMS, LONG]))
    (tmp_path / "turns.json").write_text(json.dumps(TURNS), encoding="utf-8")
    tune = ["finetune", str(place / "model"), "--data", "sums.jsonl", "--data", "turns.json"]
    one_row = ["sft.batch=1", "sft.micro_batch=1", "sft.epochs=1"]
    told = succeeded(tmp_path, *tune, *QUICK, *one_row, "--out", "new", how=run_here)
    assert "sft: 69 conversations in" in told and "(1 are longer and left out)" in told

    def size(*texts: str) -> int:
        return sum(len(tokenizer.encode(text)) for text in texts)

    units = sum(size(row["response"]) + 1 for row in SUMS)
    tokens = sum(size(row["query"], row["response"]) + 2 for row in SUMS)
    for row in TURNS:
        turns = [*row["history"], [row["query"], row["response"]]]
        units += sum(size(answer) + 1 for _, answer in turns)
        tokens += size(row["system"]) + 1 + sum(size(*turn) + 2 for turn in turns)
    entries = logged(tmp_path / "new" / "sft")
    assert sum(entry["units"] for entry in entries) == units
    assert sum(entry["tokens"] for entry in entries) == tokens


def test_all_weights_are_trained_where_that_is_asked_and_no_adapter_is_left(
    place: Path, tmp_path: Path
) -> None:
    full = [each for each in BRIEF if not each.startswith("lora.")]
    full[1:4] = [str(place / "model"), "--data", str(place / "sums.jsonl")]
    succeeded(tmp_path, *full, "--full", "--out", "new", how=run_here)
    assert [path.name for path in (tmp_path / "new" / "models").iterdir()] == ["tuned"]
    before, after = weights(place / "model"), weights(tmp_path / "new" / "models" / "tuned")
    assert [name for name, tensor in before.items() if torch.equal(tensor, after[name])] == []


# Once more


def test_the_same_command_again_makes_nothing_anew(place: Path) -> None:
    before = contents(place)
    again = succeeded(place, *TUNE, "--out", "tuned", how=run_here)
    again += succeeded(place, "resume", "tuned", how=run_here)
    assert again.count("finished before") == 4
    assert contents(place) == before


def test_a_changed_setting_sets_what_it_touches_aside(copy: Path) -> None:
    tuned = copy / "tuned"
    folders = ("sft", "models/tuned", "models/adapter")
    old = {name: verify(tuned / name).files for name in folders}
    tokenizer_before = read_manifest(tuned / "tokenizer")
    assert "tokenizer: finished before" in succeeded(copy, *BRIEF, "--out", "tuned", how=run_here)
    kept = {path.name.rsplit("-", 1)[0]: verify(path) for path in (tuned / "superseded").iterdir()}
    assert {name: kept[name.replace("/", "-")].files for name in folders} == old
    assert read_manifest(tuned / "tokenizer") == tokenizer_before
    for name in folders:
        assert verify(tuned / name).files != old[name]


def test_an_adapter_does_not_stay_beside_a_model_that_it_does_not_give(copy: Path) -> None:
    full = [each for each in BRIEF if not each.startswith("lora.")]
    succeeded(copy, *full, "--full", "--out", "tuned", how=run_here)
    assert [path.name for path in (copy / "tuned" / "models").iterdir()] == ["tuned"]


def test_a_lost_adapter_is_made_again(copy: Path) -> None:
    adapter = copy / "tuned" / "models" / "adapter"
    before = verify(adapter).files
    shutil.rmtree(adapter)
    succeeded(copy, *TUNE, "--out", "tuned", how=run_here)
    assert verify(adapter).files == before


def test_another_parent_and_other_conversations_are_another_run(copy: Path) -> None:
    recipe = load_recipe(copy / "tuned" / "config.json")
    assert isinstance(recipe, Continuation) and recipe.sft is not None
    named = recipe.sft.model_copy(update={"files": (str(copy / "sums.jsonl"),)})
    recipe = recipe.model_copy(update={"parent": str(copy / "model"), "sft": named})

    def made_from(stage: str) -> str:
        return Run(recipe, copy / "tuned").made_from(stage)

    before = {stage: made_from(stage) for stage in ("tokenizer", "sft")}
    assert {stage: made_from(stage) for stage in before} == before
    (copy / "sums.jsonl").write_bytes(lines(SUMS[:50]))
    assert made_from("tokenizer") == before["tokenizer"] and made_from("sft") != before["sft"]
    (copy / "sums.jsonl").unlink()
    shutil.copy2(copy / "model" / FILE_NAME, copy)
    shutil.rmtree(copy / "model")
    write_model(copy / "model", Tokenizer.load(copy), rope_base=20000.0)
    assert made_from("tokenizer") != before["tokenizer"]


# A longer window


def test_a_longer_window_stands_in_the_config_of_both_models(place: Path) -> None:
    for name in ("pretrained", "tuned"):
        folder = place / "long" / "models" / name
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert fields["max_position_embeddings"] == 128
        assert (fields["rope_theta"], fields["rope_ratio"]) == (10000.0, 2)
        assert (hf.load(folder).config.context, hf.load(folder).config.rope_base) == (128, 20000)


def test_positions_past_the_old_window_are_learned(place: Path, tokenizer: Tokenizer) -> None:
    entries = logged(place / "long" / "pretrain")
    assert mean_loss(entries[-8:]) < 0.5 * mean_loss(entries[:8])
    shards = read_shards(place / "long" / "tokens", tokenizer)
    assert all(shards[name].lengths.max() > 64 for name in ("zh_ordinary", "en_ordinary"))
    texts = held_out_texts(place / "long" / "text")
    rows = [[EOS, *tokenizer.encode(text)] for group in texts.values() for text in group]
    ids_BT = torch.tensor([row[:128] for row in rows if len(row) >= 128])
    assert len(ids_BT) > 3

    def loss_past_the_old_window(model: Transformer) -> float:
        logits_BTV = logits_of(model, ids_BT)[:, 64:-1]
        return float(cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 65:].flatten()))

    before = loss_past_the_old_window(with_window(hf.load(place / "model"), 128, 20000.0))
    after = loss_past_the_old_window(hf.load(place / "long" / "models" / "pretrained"))
    assert after < 0.5 * before


def test_fine_tuning_goes_on_from_the_longer_model(place: Path, tmp_path: Path) -> None:
    models = place / "long" / "models"
    base, tuned = weights(models / "pretrained"), weights(models / "tuned")
    assert torch.equal(base["lm_head.weight"], tuned["lm_head.weight"])
    assert not torch.equal(base["lm_head.weight"], weights(place / "model")["lm_head.weight"])
    merge = ["export", str(models / "pretrained"), "--to", "index", "--out", "merged"]
    succeeded(tmp_path, *merge, "--adapter", str(models / "adapter"), how=run_here)
    stored = [folder / "model.safetensors" for folder in (tmp_path / "merged", models / "tuned")]
    assert stored[0].read_bytes() == stored[1].read_bytes()


# Stops


def interrupted(place: Path, command: Sequence[str], stage: Path, step: int, how: int) -> str:
    """Start the command, send a signal once `stage` has logged `step` steps; what it said then."""
    process = start(place, *command)
    deadline = time.monotonic() + PATIENCE
    while len(read_metrics(stage / "metrics.jsonl")) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(how)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == (-how if how == signal.SIGKILL else 130), err
    assert read_manifest(stage) is None
    return err


def test_a_finetuning_stopped_and_killed_ends_as_one_that_was_not(
    place: Path, tmp_path: Path
) -> None:
    for name in ("model", "sums.jsonl"):
        (tmp_path / name).symlink_to(place / name)
    command = [*TUNE, "--out", "tuned"]
    stage = tmp_path / "tuned" / "sft"
    told = interrupted(tmp_path, command, stage, 30, signal.SIGTERM)
    assert "Traceback" not in told and "state saved" in told
    assert not (tmp_path / "tuned" / "models").exists()
    interrupted(tmp_path, command, stage, 60, signal.SIGKILL)
    assert "going on from step" in succeeded(tmp_path, *command)
    for name in ("models/tuned", "models/adapter"):
        assert verify(tmp_path / "tuned" / name).files == verify(place / "tuned" / name).files
    assert logged(stage) == logged(place / "tuned" / "sft")


def test_a_longer_window_killed_in_both_stages_ends_as_one_that_was_not(
    place: Path, tmp_path: Path
) -> None:
    for name in ("model", "sums.jsonl", "corpus"):
        (tmp_path / name).symlink_to(place / name)
    command, run = [*LENGTHEN, "--out", "long"], tmp_path / "long"
    interrupted(tmp_path, command, run / "pretrain", 50, signal.SIGKILL)
    interrupted(tmp_path, command, run / "sft", 50, signal.SIGKILL)
    told = succeeded(tmp_path, *command)
    assert "pretrain: finished before" in told and "sft: going on from step" in told
    for name in ("models/pretrained", "models/tuned", "models/adapter"):
        assert verify(run / name).files == verify(place / "long" / name).files
    for name in ("pretrain", "sft"):
        assert logged(run / name) == logged(place / "long" / name)
    assert not list(run.rglob(".*.partial"))


# What cannot be done

TO_NEW = ["--data", "sums.jsonl", "--out", "new", "threads=1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", *TO_NEW], ["nowhere is not a model folder", "no config.json"]),
        (["corpus", *TO_NEW], ["corpus is not a model folder"]),
        (["model", "--out", "new"], ["Missing option '--data'"]),
        (["model", "--data", "sums.jsonl"], ["Missing option '--out'"]),
        (["model", *TO_NEW, "--data", "gone.jsonl"], ["gone.jsonl does not exist"]),
        (["model", *TO_NEW, "--data", "corpus"], ["sft.files: corpus", ".jsonl"]),
        (["model", *TO_NEW, "sft.epoch=1"], ["'sft.epoch'", "did you mean sft.epochs?"]),
        (["model", *TO_NEW, "sft.epochs=0"], ["sft.epochs=0", "greater than 0"]),
        (["model", *TO_NEW, "sft.batch=3"], ["batch=3 is not a multiple of micro_batch=4"]),
        (["model", *TO_NEW, "sft.length=65"], ["sft.length=65", "window of 64", "window.context"]),
        (["model", *TO_NEW, "lora.targets=[]"], ["lora.targets=[]", "at least 1"]),
        (["model", *TO_NEW, "lora.rank=0"], ["lora.rank=0"]),
        (["model", *TO_NEW, "--full", "lora.rank=8"], ["'lora.rank'", "no section 'lora'"]),
        (["model", *TO_NEW, "sft=null"], ["there is nothing to train"]),
        (["model", *TO_NEW, "model=1m"], ["unknown setting 'model'"]),
        (["model", *TO_NEW, "sft.micro_batch=1000000", "sft.batch=1000000"], ["sft needs about"]),
        (["model", "--data", "sums.jsonl", "--out", "corpus"], ["name another --out"]),
        (["model", "--data", "sums.jsonl", "--out", "sums.jsonl"], ["name a folder with --out"]),
        (["model", "--data", "sums.jsonl", "--out", "model"], ["model"]),
        (["model", "--data", "sums.jsonl", "--out", "long"], ["belongs to recipe 'long-tiny'"]),
        (["other", *TO_NEW], ["has 640 pieces", "vocab_size=700"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_finetuning_that_cannot_work_is_refused_before_anything_is_written(
    place: Path, tokenizer: Tokenizer, arguments: Sequence[str], words: Sequence[str]
) -> None:
    if not (place / "other").exists():
        write_model(place / "other", tokenizer, vocab_size=700)
    message = refused(place, "finetune", *arguments, how=run_here)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("useless.jsonl", b'{"a": 1}\n', ["useless.jsonl", "unknown fields (a)", '"query"']),
        ("empty.jsonl", b"", ["empty.jsonl has no row"]),
        ("broken.jsonl", b'{"query": oops}\n', ["broken.jsonl:1 is not JSON"]),
        ("sums.txt", b"hello\n", ["sums.txt is of an unknown kind", "jsonl"]),
        ("long.jsonl", lines([LONG]), ["none of 1 conversations fits a row of 64 tokens"]),
    ],
)
def test_conversations_of_no_use_are_named_and_leave_no_run(
    place: Path, tmp_path: Path, name: str, content: bytes, words: Sequence[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    tune = ["finetune", str(place / "model"), "--data", name, "--out", "new", "threads=1"]
    message = refused(tmp_path, *tune, how=run_here)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["parent=nowhere"], ["nowhere is not a model folder"]),
        (["pretrain.length=129"], ["pretrain.length=129", "window of 128"]),
        (["window.contxt=256"], ["did you mean window.context?"]),
        (["window.rope_base=0"], ["window.rope_base=0"]),
        (["text=null"], ["pretrain and text go together"]),
        (["pretrain.mixture.fr_noisy=1"], ["no text is of source 'fr_noisy'", "zh_curated"]),
        (['sft.files=["nowhere"]'], ["nowhere does not exist"]),
        (["sft.files=sums.jsonl"], ["write a list", """sft.files='["sums.jsonl"]'"""]),
        (["--only", "sft"], ["stage sft needs tokenizer, text, tokens, pretrain first"]),
        (["--only", "trunk"], ["no stage 'trunk'; the stages are tokenizer, text, tokens"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_longer_window_that_cannot_work_is_refused_before_anything_is_written(
    place: Path, settings: Sequence[str], words: Sequence[str]
) -> None:
    message = refused(place, *LENGTHEN, *settings, "--out", "new", how=run_here)
    assert [word for word in words if word not in message] == [], message


def test_wrong_text_leaves_no_run(place: Path, tmp_path: Path) -> None:
    for name in ("model", "sums.jsonl"):
        (tmp_path / name).symlink_to(place / name)
    asked = [*LENGTHEN, 'text.inputs=["nowhere"]', "--out", "new"]
    assert "nowhere does not exist" in refused(tmp_path, *asked, how=run_here)


def test_a_run_whose_parent_has_gone_says_so(copy: Path) -> None:
    shutil.rmtree(copy / "model")
    assert "model is not a model folder" in refused(copy, "resume", "tuned", how=run_here)
