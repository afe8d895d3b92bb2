"""Faults made on purpose, one at a time. A comparison that does not see them proves nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.evals import ours
from benchmarks.evals.compare import KINDS, compare
from benchmarks.evals.points import Point

from indexlm.evals.choice import Start
from indexlm.evals.items import Subject, read_subjects
from indexlm.evals.prompts import Asked, ask
from indexlm.evals.task import Task, read_task
from indexlm.export import forms, hf
from indexlm.model import transformer
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

ITEMS = 40
"""Of one subject: that with the longest prompts, where differences are largest."""


FLOAT32_ANGLES = "rounded angles"
"""No fault: what is left of the difference where the angles of RoPE are float32, as those of
transformers are. At position 4,000 they are off by up to 2e-4."""


@dataclass(frozen=True)
class Case:
    """What a control may change before the items are asked."""

    task: Task
    prompt: str
    subject: Subject
    asked: Sequence[Asked]
    model: Transformer
    start: Start = "none"


Fault = Callable[[Case], Case]


def run(
    point: Point, model_folder: Path, data: Path, theirs: Sequence[ours.Item]
) -> dict[str, dict[str, Any]]:
    """Name of each control that the point can have -> what the comparison says of it."""
    model, tokenizer = forms.open_folder(model_folder)
    task = read_task(point.benchmark)
    prompt = task.prompts[point.prompt]
    subjects = read_subjects(task, data, limit=ITEMS)
    asked, subject = max(
        ((ask(task, prompt, subject), subject) for subject in subjects),
        key=lambda found: max(len(each.context) for each in found[0]),
    )
    case = Case(task, point.prompt, subject, asked, model)
    same = [item for item in theirs if item["subject"] == subject.name and item["number"] < ITEMS]
    found = {"none": _told(case, point, tokenizer, same)}
    with patch.object(transformer, "rotations", _float32_rotations):
        found[FLOAT32_ANGLES] = _told(case, point, tokenizer, same)
    for name, fault in FAULTS.items():
        changed = fault(case)
        if changed != case:
            found[name] = _told(changed, point, tokenizer, same)
    return found


def _told(
    case: Case, point: Point, tokenizer: Tokenizer, theirs: Sequence[ours.Item]
) -> dict[str, Any]:
    items = ours.asked_anew(point, case.model, tokenizer, case.subject, case.asked, case.start)
    comparison = compare(items, theirs)
    # The faults that are found, and how far off the numbers are where the strings are the same.
    return {
        "items": comparison["items"],
        **{kind: comparison["mismatches"][kind] for kind in KINDS[1:]},
        "largest_difference": comparison["largest_difference"],
    }


def _without_delimiter(case: Case) -> Case:
    asked = [
        replace(each, continuations=tuple(text[1:] for text in each.continuations))
        for each in case.asked
    ]
    return replace(case, asked=asked)


def _examples_swapped(case: Case) -> Case:
    if not case.task.prompts[case.prompt].shots:
        return case
    first, second, *others = case.subject.examples
    subject = replace(case.subject, examples=(second, first, *others))
    return replace(case, asked=ask(case.task, case.task.prompts[case.prompt], subject))


def _lower_case(case: Case) -> Case:
    """The second half of HellaSwag's context as it stands in the file."""
    asked = []
    for each in case.asked:
        first, stop, second = each.context.rpartition(". ")
        asked.append(replace(each, context=first + stop + second[:1].lower() + second[1:]))
    return replace(case, asked=asked) if case.task.name == "hellaswag" else case


def _unstripped(case: Case) -> Case:
    """A space at the end of the context, which lm-eval moves to the option: only the string
    differs from one where it is moved already."""
    asked = [
        replace(
            each,
            context=each.context + " ",
            continuations=tuple(text[1:] for text in each.continuations),
        )
        for each in case.asked
    ]
    return replace(case, asked=asked)


def _end_mark(case: Case) -> Case:
    return replace(case, start="end-mark")


def _with_config(case: Case, **changes: Any) -> Case:
    config = ModelConfig(**(case.model.config.model_dump() | changes))
    model = hf.on_meta(config)
    tensors = {name: parameter.detach() for name, parameter in case.model.named_parameters()}
    model.load_state_dict(tensors, assign=True)
    return replace(case, model=model.eval())


def _float32_rotations(
    positions_BT: torch.Tensor, head_dim: int, base: float
) -> tuple[torch.Tensor, torch.Tensor]:
    exponent = torch.arange(0, head_dim, 2, device=positions_BT.device).float() / head_dim
    angle = positions_BT.float()[..., None] * (1.0 / base**exponent)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


FAULTS: Mapping[str, Fault] = {
    "no space before the options": _without_delimiter,
    "the space in the context": _unstripped,
    "two examples swapped": _examples_swapped,
    "second half in lower case": _lower_case,
    "an end mark before the prompt": _end_mark,
    "raw rows in the head": lambda case: _with_config(case, norm_head=False),
    "norm_eps 1e-5 instead of 1e-6": lambda case: _with_config(case, norm_eps=1e-5),
    "rope_base 10001 instead of 10000": lambda case: _with_config(case, rope_base=10001.0),
}
