"""Evaluations by several real processes, as a test beside it asks for them.

    torchrun --nproc-per-node N ranked_evaluation.py FOLDER

FOLDER holds a model and `asked.json`, a list of cases: texts, entries, items, and whether the
network is sharded. Each process leaves what it got of each in FOLDER/found.R.json, and how many
positions passed through its network.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from indexlm import runtime
from indexlm.evals.runner import evaluate_lines
from indexlm.export import forms
from indexlm.model.shard import arrange
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer


def found(model: Transformer, tokenizer: Tokenizer, case: dict[str, Any]) -> dict[str, Any]:
    network = arrange(model, "cpu") if case["sharded"] else model
    passed = []
    watch = network.register_forward_hook(lambda _, ids, __: passed.append(ids[0].numel()))
    asked = case["texts"], case["entries"], case["items"]
    evaluation = evaluate_lines(network, tokenizer, *asked, seed=1)
    watch.remove()
    return {**evaluation._asdict(), "positions": sum(passed)}


def main() -> None:
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    with runtime.processes("cpu"):
        model, tokenizer = forms.open_folder(folder / "model")
        told = [found(model, tokenizer, case) for case in cases]
        name = f"found.{runtime.rank()}.json"
    (folder / name).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
