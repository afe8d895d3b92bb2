"""lm-eval's side, alone in its process, under the interpreter of an environment that has it.

Its tasks are its own files: each is included by one that names local files in place of the hub's
data set and changes nothing else. Nothing is downloaded.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("lm_eval", "torch", "transformers", "datasets", "tokenizers", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder that transformers reads")
    parser.add_argument("--asked", type=Path, required=True, help="JSON: what to run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--batch-size", default="1")
    parser.add_argument("--softmax-dtype", help="lm-eval's own option; default the model's")
    parser.add_argument("--threads", type=int, required=True)
    asked = parser.parse_args()
    # Before anything of the hub is imported: it reads these when it is.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HF_DATASETS_CACHE"] = cache
        import torch

        run = json.loads(asked.asked.read_text(encoding="utf-8"))
        # Of the same arithmetic as on the other side; the harness itself asks for no number.
        torch.set_num_threads(asked.threads)
        lm = _timed(asked.model, asked.batch_size, asked.softmax_dtype)
        benchmarks = {name: _evaluate(lm, one, asked.out / name) for name, one in run.items()}
        summary = {"batch_size": asked.batch_size, "benchmarks": benchmarks}
    summary["versions"] = {name: version(name) for name in PACKAGES}
    (asked.out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


def _evaluate(lm: Any, benchmark: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Write OUT.jsonl, a line for each item; returns times, positions and lm-eval's own scores.

    `benchmark` is {"shots", "limit", "samples": {subject: numbers of items} or None, "subjects":
    {subject: {"task", "yaml", "splits": {split: path}}}}.
    """
    begin = time.monotonic()
    lm.seconds, lm.positions, lm.longest = 0.0, 0, 0
    results = _run_tasks(lm, benchmark, out)
    subjects = {one["task"]: subject for subject, one in benchmark["subjects"].items()}
    rows = list(_rows(results["samples"], subjects))
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    out.with_suffix(".jsonl").write_text("".join(lines), encoding="utf-8")
    return {
        "items": len(rows),
        "scoring_seconds": lm.seconds,
        "whole_seconds": time.monotonic() - begin,
        "positions": lm.positions,
        "longest": lm.longest,
        "task_versions": sorted({str(results["versions"][task]) for task in subjects}),
    }


def _timed(model: Path, batch_size: str, softmax_dtype: str | None) -> Any:
    """lm-eval's model of transformers, with a clock at its door and a count of positions."""
    from lm_eval.models.huggingface import HFLM

    class Timed(HFLM):
        seconds = 0.0
        positions = 0
        longest = 0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            begin = time.monotonic()
            answers = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
            self.seconds += time.monotonic() - begin
            return answers

        def _detect_batch_size(self, *rest: Any, **named: Any) -> Any:
            """What `auto` tries out is not counted: on a part of the items it would be most."""
            seconds, positions, begin = self.seconds, self.positions, time.monotonic()
            size = super()._detect_batch_size(*rest, **named)
            self.seconds, self.positions = seconds - (time.monotonic() - begin), positions
            return size

        def _model_call(self, inps: Any, *rest: Any, **named: Any) -> Any:
            self.positions += inps.numel()
            self.longest = max(self.longest, inps.shape[1])
            return super()._model_call(inps, *rest, **named)

    return Timed(
        pretrained=str(model),
        device="cpu",
        dtype="float32",
        batch_size=batch_size,
        softmax_dtype=softmax_dtype,
    )


def _run_tasks(lm: Any, benchmark: Mapping[str, Any], folder: Path) -> Any:
    import lm_eval
    from lm_eval.tasks import TaskManager

    originals = Path(lm_eval.__file__).parent / "tasks"
    folder.mkdir()
    tasks = []
    for number, one in enumerate(benchmark["subjects"].values()):
        # JSON is YAML.
        content = {
            "include": str(originals / one["yaml"]),
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": one["splits"]},
            "task": one["task"],
        }
        path = folder / f"{number}.yaml"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        tasks.append(one["task"])
    return lm_eval.simple_evaluate(
        model=lm,
        tasks=tasks,
        num_fewshot=benchmark["shots"],
        limit=benchmark["limit"],
        samples=_samples(benchmark),
        bootstrap_iters=0,
        log_samples=True,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )


def _samples(benchmark: Mapping[str, Any]) -> dict[str, list[int]] | None:
    if benchmark["samples"] is None:
        return None
    subjects = benchmark["subjects"]
    return {subjects[name]["task"]: some for name, some in benchmark["samples"].items()}


def _rows(samples: Mapping[str, Any], subjects: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Items in the order of the files. What lm-eval chose is not among its samples: it is found as
    lm-eval finds it, and must make the item right or wrong as lm-eval says."""
    for task, subject in subjects.items():
        for sample in sorted(samples[task], key=lambda sample: sample["doc_id"]):
            contexts = {context for context, _ in sample["arguments"]}
            assert len(contexts) == 1, f"{task}: the options of an item have several contexts"
            continuations = [continuation for _, continuation in sample["arguments"]]
            logprobs = [response[0] for response in sample["filtered_resps"]]
            metrics = {name: sample[name] for name in ("acc", "acc_norm") if name in sample}
            row = {
                "subject": subject,
                "number": sample["doc_id"],
                "context": contexts.pop(),
                "continuations": continuations,
                "answer": int(sample["target"]),
                "logprobs": logprobs,
                "choices": _choices(logprobs, continuations, metrics),
            }
            for name, choice in row["choices"].items():
                right = float(choice == row["answer"])
                assert right == metrics[name], f"{task} {row['number']}: {name} {metrics[name]}"
            yield row


def _choices(
    logprobs: list[float], continuations: list[str], metrics: Iterable[str]
) -> dict[str, int]:
    import numpy as np

    # The delimiter of all six tasks is one space, which is not part of the option.
    lengths = np.array([float(len(continuation) - 1) for continuation in continuations])
    found = {"acc": np.argmax(logprobs), "acc_norm": np.argmax(np.array(logprobs) / lengths)}
    return {name: int(found[name]) for name in metrics}


if __name__ == "__main__":
    main()
