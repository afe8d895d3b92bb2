"""A model folder in the hands of a user: judged, checked, carried elsewhere, made smaller."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from command import flipped, refused, run, run_here, succeeded, with_corpus, write_model
from indexlm.export import gguf, hf, peft
from indexlm.export.agreement import logits_of, probe_ids
from indexlm.model import lora
from indexlm.model.config import LoraConfig
from indexlm.records import verify
from indexlm.tokens.tokenizer import Tokenizer

# One thread: the networks here are too small to share out.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """`model`, an `adapter` of it, `deeper` and `wider` models, one with `more` rows than its
    tokenizer has pieces, and refined text in `clean`."""
    place = with_corpus(tmp_path_factory.mktemp("models"), 300)
    write_model(place / "model", tokenizer)
    write_model(place / "deeper", tokenizer, layers=3)
    write_model(place / "wider", tokenizer, ffn=96)
    write_model(place / "more", tokenizer, vocab_size=700)
    network = hf.load(place / "model")
    rank_2 = LoraConfig(rank=2, alpha=4)
    lora.wrap(network, rank_2, 1)
    with torch.no_grad():
        for value in lora.adapter_state(network).values():
            value.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    peft.save_adapter(network, rank_2, place / "adapter", "model", "test")
    succeeded(place, "data", "refine", "corpus", "--out", "clean", how=run_here)
    return place


def results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def furthest(one: Path, other: Path) -> float:
    """Of two model folders, the largest difference of two logits."""
    ids_BT = probe_ids(640, 64)
    ours_BTV, theirs_BTV = (logits_of(hf.load(folder), ids_BT) for folder in (one, other))
    return float((ours_BTV - theirs_BTV).abs().max())


# Out and back


@pytest.mark.parametrize("form", ["index", "llama"])
def test_a_folder_in_either_layout_is_the_same_model(
    place: Path, tmp_path: Path, form: str
) -> None:
    out = tmp_path / form
    told = succeeded(place, "export", "model", "--to", form, "--out", str(out))
    assert f"{out}: 0.3 MB, read back: logits within 0, same next token at 100.0%" in told
    assert furthest(out, place / "model") < 1e-5
    checked = succeeded(place, "verify", str(out), how=run_here)
    assert "files are what they were (SHA-256)" in checked and "WRONG" not in checked
    ask = ["--prompt", "春天来了", "--temperature", "0"]
    answers = {run_here(place, "chat", name, *ask)[1] for name in ("model", str(out))}
    assert len(answers) == 1 and answers != {"\n"}
    card = json.loads((out / "model_card.json").read_text(encoding="utf-8"))
    assert card == {"name": "small", "parent": "model", "form": form}


def test_an_adapter_is_merged_on_the_way_out(place: Path, tmp_path: Path) -> None:
    export = ["export", "model", "--to", "llama", "--adapter", "adapter"]
    succeeded(place, *export, "--out", str(tmp_path / "merged"), how=run_here)
    network = hf.load(place / "model")
    peft.load_adapter(network, place / "adapter")
    ids_BT = probe_ids(640, 64)
    merged_BTV = logits_of(hf.load(tmp_path / "merged"), ids_BT)
    torch.testing.assert_close(merged_BTV, logits_of(network, ids_BT), rtol=0, atol=1e-4)
    assert furthest(tmp_path / "merged", place / "model") > 0.1


def test_a_gguf_folder_holds_the_file_and_its_modelfile(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "gguf"
    told = succeeded(place, "export", "model", "--to", "gguf", "--out", str(out))
    assert f"{out}/model-f32.gguf: 0.3 MB, read back: logits within" in told
    assert f"ollama create model -f {out}/Modelfile" in told
    assert verify(out).files.keys() == {"model-f32.gguf", "Modelfile"}
    assert "2 files are what they were" in succeeded(place, "verify", str(out), how=run_here)
    network = gguf.load_dequantised(out / "model-f32.gguf")
    ids_BT = probe_ids(640, 64)
    expected_BTV = logits_of(hf.load(place / "model"), ids_BT)
    torch.testing.assert_close(logits_of(network, ids_BT), expected_BTV, rtol=0, atol=1e-4)
    recipe = (out / "Modelfile").read_text(encoding="utf-8")
    assert recipe.startswith("FROM ./model-f32.gguf\n") and "PARAMETER num_ctx 64\n" in recipe


def test_a_gguf_file_is_put_where_it_is_asked_for_and_never_over_another(
    place: Path, tmp_path: Path
) -> None:
    export = ["export", str(place / "model"), "--to", "gguf", "--out"]
    succeeded(tmp_path, *export, "a.gguf", "--dtype", "q8_0", "--system", "你是助手。")
    first = (tmp_path / "Modelfile").read_text(encoding="utf-8")
    assert first.startswith("FROM ./a.gguf\n") and 'SYSTEM """你是助手。"""\n' in first
    assert "a.gguf exists; name another --out" in refused(tmp_path, *export, "a.gguf")
    told = succeeded(tmp_path, *export, "b.gguf", "--dtype", "float16", how=run_here)
    assert "ollama create model -f b.Modelfile" in told
    assert (tmp_path / "Modelfile").read_text(encoding="utf-8") == first
    second = (tmp_path / "b.Modelfile").read_text(encoding="utf-8")
    assert second.startswith("FROM ./b.gguf\n") and "SYSTEM" not in second
    assert (tmp_path / "a.gguf").stat().st_size < (tmp_path / "b.gguf").stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.gguf", "b.gguf", "Modelfile", "b.Modelfile")
    }


# Smaller


@pytest.mark.parametrize("kind", ["q8_0", "int8"])
def test_a_smaller_model_is_told_with_what_it_costs(place: Path, tmp_path: Path, kind: str) -> None:
    command = ["quantise", "model", "--to", kind, "--data", "clean", "--limit", "8"]
    told = succeeded(place, *command, "--out", str(tmp_path / "small"))
    made = tmp_path / "small"
    if kind == "q8_0":
        made = made / "model-q8_0.gguf"
    size = sum(f.stat().st_size for f in ([made] if made.is_file() else made.iterdir()))
    assert f"{made}: {size / 1e6:,.1f} MB, read back: logits within" in told
    loss = json.loads((tmp_path / "small.loss.json").read_text(encoding="utf-8"))
    assert {"zh", "en", "zh_ordinary", "en_noisy"} < loss["text"].keys()
    judge = ["eval", "model", "--data", "clean", "--tasks", "bits_per_byte", "--out"]
    succeeded(place, *judge, str(tmp_path / "scores"), how=run_here)
    bits = results(tmp_path / "scores")["text"]["bits_per_byte"]
    for name, text in loss["text"].items():
        assert text["original"] == pytest.approx(bits[name]["value"], rel=1e-6)
        assert text["difference"] == pytest.approx(text["changed"] - text["original"], abs=1e-9)
        assert 0 < abs(text["difference"]) < 0.1 and 0 < text["kl_mean"] < 0.01 < text["same_next"]
        (row,) = (line for line in told.splitlines() if line.startswith(f"  {name} ("))
        shown = [f"{text['original']:.4f}", f"{text['changed']:.4f}", f"{text['difference']:+.4f}"]
        assert row.split()[3:6] == shown and f"({text['documents']} documents)" in row


def test_what_quantise_makes_is_opened_and_found_whole(place: Path, tmp_path: Path) -> None:
    command = ["quantise", "model", "--to", "int8", "--data", "clean", "--limit", "8"]
    out = str(tmp_path / "int8")
    succeeded(place, *command, "--out", out, how=run_here)
    answer = succeeded(place, "chat", out, "--prompt", "春天来了", "--temperature", "0")
    assert answer.strip()
    judge = ["eval", out, "--data", "clean", "--tasks", "bits_per_byte", "--out", f"{out}-scores"]
    succeeded(place, *judge, how=run_here)
    loss = json.loads((tmp_path / "int8.loss.json").read_text(encoding="utf-8"))
    value = results(tmp_path / "int8-scores")["text"]["bits_per_byte"]["zh"]["value"]
    assert value == pytest.approx(loss["text"]["zh"]["changed"], rel=1e-6)
    assert "WRONG" not in succeeded(place, "verify", out, how=run_here)


# Checked


def test_a_damaged_model_is_told_by_verify_and_used_by_nothing(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = write_model(tmp_path / "model", tokenizer) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(flipped(content, len(content) - 9, len(content) - 8))
    code, out, err = run(tmp_path, "verify", "model")
    assert code == 1 and "WRONG: model/model.safetensors was changed" in out
    assert "model cannot be used as a model" in err and "Traceback" not in err
    for verb in (["export", "model", "--to", "llama"], ["export", "model", "--to", "gguf"]):
        message = refused(tmp_path, *verb, "--out", "new", code=1, how=run_here)
        assert "model/model.safetensors was changed" in message


def test_a_size_a_model_and_a_recipe_are_planned(place: Path) -> None:
    assert "2,172,819,456" in succeeded(place, "plan", "1.9b")
    told = succeeded(place, "plan", "model", "--memory", "2", "--length", "32", how=run_here)
    assert "window 64" in told and "largest micro-batch in 2.00 GiB, rows of 32 tokens" in told
    told = succeeded(place, "plan", "tiny", "model=10m", how=run_here)
    assert "12 layers x 256" in told and "vocabulary 5,120, window 256" in told
    told = succeeded(place, "plan", "lora", "parent=model", "sft.length=48", how=run_here)
    assert "memory of LoRA, GiB, rank 32, dropout 0.1, micro-batch of 4 x 48 tokens" in told


# What cannot be done

LLAMA = ["export", "model", "--out", "new", "--to", "llama"]
GGUF = ["export", "model", "--to", "gguf"]
INT4 = ["quantise", "model", "--data", "clean", "--to", "int4", "--out", "new"]
INT8 = ["quantise", "model", "--data", "clean", "--to", "int8"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "nowhere", *LLAMA[2:]], ["nowhere is not a model folder"]),
        (["export", "clean", *LLAMA[2:]], ["clean is not a model folder"]),
        (["export", "more", *LLAMA[2:]], ["has 640 pieces", "vocab_size=700"]),
        (["export", "model", "--out", "new", "--to", "onnx"], ["'onnx' is not one of", "'gguf'"]),
        ([*LLAMA, "--dtype", "int8"], ["'int8' is not one of", "'q4_k_m'"]),
        ([*LLAMA, "--dtype", "q8_0"], ["--dtype q8_0 is a kind of GGUF", "--to gguf"]),
        ([*LLAMA, "--system", "x"], ["--system is for the Modelfile", "not for --to llama"]),
        ([*LLAMA, "--adapter", "nowhere"], ["nowhere is not an adapter folder"]),
        ([*LLAMA, "--adapter", "model"], ["model is not an adapter folder"]),
        (["export", "deeper", *LLAMA[2:], "--adapter", "adapter"], ["adapter of another model?"]),
        (["export", "wider", *LLAMA[2:], "--adapter", "adapter"], ["adapter of another model?"]),
        ([*LLAMA, "--out", "model"], ["model exists; name another --out"]),
        ([*LLAMA, "--out", "corpus/rows.jsonl/new"], ["is a file, not a folder"]),
        ([*GGUF, "--out", "model"], ["model exists; name another --out"]),
        ([*GGUF, "--out", "corpus/rows.jsonl"], ["exists; name another --out"]),
        ([*GGUF, "--out", "corpus/rows.jsonl/new"], ["is a file, not a folder"]),
        ([*GGUF, "--out", "corpus/rows.jsonl/new.gguf"], ["is a file, not a folder"]),
        ([*GGUF, "--out", "new", "--system", 'a """ b'], ['holds """']),
        ([*GGUF, "--out", "new.gguf", "--system", 'a """ b'], ['holds """']),
        ([*INT4, "--group-size", "24"], ["group size 24 does not divide", "16, 32"]),
        ([*INT4, "--group-size", "8"], ["--group-size", "16"]),
        ([*INT8, "--out", "model"], ["model exists; name another --out"]),
        ([*INT8, "--out", "new.gguf"], ["new.gguf", "folder"]),
        (["quantise", "more", *INT4[2:]], ["has 640 pieces", "vocab_size=700"]),
        (["quantise", "model", "--data", "corpus", *INT4[4:]], ["corpus holds no refined text"]),
        (["chat", "more", "--prompt", "x"], ["has 640 pieces", "vocab_size=700"]),
        (["chat", "model", "--prompt", "x", "--max-new-tokens", "64"], ["window of 64", "lower"]),
        (["plan", "nothing"], ["nothing to plan is called 'nothing'", "1.9b", "long32k"]),
        (["plan", "10m", "pretrain.steps=5"], ["only a recipe has settings"]),
        (["plan", "model", "--length", "65"], ["--length 65: the window has 64 positions"]),
        (["plan", "lora", "parent=model"], ["sft.length=384", "window of 64"]),
        (["plan", "long32k", "parent=nowhere"], ["nowhere is not a model folder"]),
        (["run", "tiny", "model=12m"], ["'12m' no named size", "10m-deep"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_with_a_model_is_refused_and_changes_nothing(
    place: Path, arguments: Sequence[str], words: Sequence[str]
) -> None:
    message = refused(place, *arguments, how=run_here)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("kind", ["q8_0", "int8"])
def test_nothing_that_is_there_is_written_over(place: Path, tmp_path: Path, kind: str) -> None:
    """Whatever it is called: a folder whose name looks like a file's is a folder."""
    (tmp_path / "mine.gguf").mkdir()
    (tmp_path / "mine.gguf" / "letter.txt").write_text("keep me", encoding="utf-8")
    (tmp_path / "file.gguf").write_text("keep me too", encoding="utf-8")
    command = ["quantise", str(place / "model"), "--data", str(place / "clean"), "--to", kind]
    for out in ("mine.gguf", "file.gguf"):
        assert out in refused(tmp_path, *command, "--out", out, how=run_here)
