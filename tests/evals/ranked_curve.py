"""A point of a capability curve by several real processes, as a test beside it asks for it.

    torchrun --nproc-per-node N ranked_curve.py FOLDER

FOLDER holds a model, benchmark files and `asked.json`: texts, entries, and the layouts of the
network that is trained. Each process leaves its points in FOLDER/point.R.json, and how many
positions passed through the network.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from indexlm import runtime
from indexlm.evals.curves import Curve, read_questions
from indexlm.evals.task import read_task
from indexlm.export import forms
from indexlm.model.shard import arrange, gathered
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

passed: list[int] = []


def note(module: nn.Module, given: Any, out: Any) -> None:
    if isinstance(module, Transformer):
        passed.append(given[0].numel())


def curve_of(folder: Path, tokenizer: Tokenizer, context: int) -> Curve:
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    tasks = [(read_task(name), folder) for name in asked["tasks"]]
    questions = read_questions(tasks, tokenizer, context, asked["limit"], "cut")
    return Curve(tokenizer, asked["texts"], asked["entries"], 4, 1, questions)


def main() -> None:
    folder = Path(sys.argv[1])
    layouts = json.loads((folder / "asked.json").read_text(encoding="utf-8"))["layouts"]
    torch.set_num_threads(1)
    register_module_forward_hook(note)
    with runtime.processes("cpu"):
        model, tokenizer = forms.open_folder(folder / "model")
        curve = curve_of(folder, tokenizer, model.config.context)
        found = []
        for layout in layouts:
            worker = arrange(model, "cpu", **layout)
            ids = torch.randint(5, model.config.vocab_size, (2, 9))
            # Weights lie as a step leaves them.
            worker.logits(worker(ids)).logsumexp(-1).sum().backward()
            before = {name: p.detach().to(torch.float32) for name, p in worker.named_parameters()}
            passed.clear()
            with gathered(worker) as whole:
                point = curve.point(whole)
            after = dict(worker.named_parameters())
            same = all(
                type(after[name].detach()) is type(weight)
                and bool((after[name].detach() == weight).all())
                for name, weight in before.items()
            )
            found.append({"scores": point.scores, "positions": sum(passed), "same": same})
        (folder / f"point.{runtime.rank()}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
