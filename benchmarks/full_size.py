"""The released shape, 36 x 2048 with 65,029 pieces, through every door: seconds and peak memory.

    python -m benchmarks.full_size --work DIR [--out docs/full_size/results.json]

Writes a random checkpoint in the published layout (bfloat16, raw head rows, two shards) and a
made-up tokenizer of 65,029 pieces, then runs the real commands on it, each in a process of its own:
verify, chat, export to the Llama layout and to GGUF, and two LoRA steps. Needs 24 GiB of memory and
25 GB of disk in DIR; nothing is downloaded. The weights are random, so only shapes, memory, time
and the agreement of the exports mean anything.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import islice, product
from pathlib import Path

RELEASED = 2_172_819_456


def make_tokenizer(path: Path, size: int) -> None:
    """Specials, bytes, the commonest block of Chinese characters, then pairs of them."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    from indexlm.tokens.tokenizer import SPECIAL_PIECES

    model = proto.ModelProto()
    for number, piece in enumerate(SPECIAL_PIECES):
        model.pieces.add(piece=piece, score=0.0, type=2 if number == 0 else 3)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=6)
    ascii_and_space = [chr(code) for code in range(33, 127)] + ["\u2581"]
    han = [chr(code) for code in range(0x4E00, 0x9FA6)]
    singles = ascii_and_space + han
    pairs = ("".join(pair) for pair in product(han[:400], repeat=2))
    left = size - len(model.pieces) - len(singles)
    for rank, piece in enumerate([*islice(pairs, left), *singles]):
        model.pieces.add(piece=piece, score=float(-rank), type=1)
    model.trainer_spec.model_type = 2
    model.trainer_spec.vocab_size = len(model.pieces)
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    assert len(model.pieces) == size
    path.write_bytes(model.SerializeToString())


def make_checkpoint(folder: Path) -> None:
    """Random bfloat16 weights in the published layout, head rows of very different length."""
    import torch

    from indexlm.export import hf
    from indexlm.model.config import ModelConfig
    from indexlm.model.transformer import Transformer

    config = ModelConfig()
    with torch.device("meta"):
        model = Transformer(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.02, generator=generator)
            if name == "lm_head.weight":
                lengths_V1 = torch.empty(config.vocab_size, 1).normal_(generator=generator).exp()
                parameter.mul_(lengths_V1.to(torch.bfloat16))
    assert sum(p.numel() for p in model.parameters()) == RELEASED
    tokenizer = folder.with_name("tokenizer.model")
    make_tokenizer(tokenizer, config.vocab_size)
    hf.save(model, tokenizer, folder, "random", {"recipe": "random weights"})


def measured(arguments: list[str]) -> dict[str, object]:
    """Run a command; its seconds, peak resident memory and what it said."""
    started = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    row = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        "exit_code": process.returncode,
        "said": said.strip().splitlines()[-12:],
    }
    print(
        arguments[2:], row["seconds"], row["peak_gib"], row["exit_code"], *row["said"], sep="\n  "
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for about 25 GB")
    parser.add_argument("--out", type=Path, default=Path("docs/full_size/results.json"))
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make is not None:
        make_checkpoint(asked.make)
        return
    work = asked.work
    work.mkdir(parents=True, exist_ok=True)
    dialogues = work / "dialogues.jsonl"
    # Each more than half a row of 384 tokens: two rows, two steps.
    rows = [{"query": "你好" * 60, "response": "好" * 120} for _ in range(2)]
    dialogues.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    python, model = sys.executable, str(work / "index")
    indexlm = [python, "-m", "indexlm.cli"]
    commands = {
        "write a checkpoint": [
            python,
            "-m",
            "benchmarks.full_size",
            "--work",
            ".",
            "--make",
            model,
        ],
        "verify": [*indexlm, "verify", model],
        "chat, float32": [*indexlm, "chat", model, "--prompt", "你好", "--max-new-tokens", "8"],
        "export to llama": [*indexlm, "export", model, "--to", "llama", "--out", f"{work}/llama"],
        "export to gguf, q8_0": [
            *(*indexlm, "export", model, "--to", "gguf", "--dtype", "q8_0"),
            *("--out", f"{work}/q8.gguf"),
        ],
        "two LoRA steps, float32": [
            *(*indexlm, "finetune", model, "--data", str(dialogues), "--out", f"{work}/lora"),
            *("sft.epochs=1", "sft.batch=1", "sft.micro_batch=1", "sft.limit=2"),
        ],
    }
    results = {}
    for name, command in commands.items():
        results[name] = measured(command)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
