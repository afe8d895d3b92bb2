"""Small files in the layouts in which the six benchmarks are published; the sentences are ours."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MMLU_TEST = (
    '" Which is {even}, ""two"" or one? ",two,one,"both, surely",neither,A\n7 + 1?,6,7,8,9,C\n'
)
MMLU_DEV = "".join(f"{n} + 0?,{n},{n + 1},{n + 2},{n + 3},A\n" for n in range(5))
CEVAL_TEST = (
    "id,question,A,B,C,D,answer\n0,水在____度结冰。,0,10,50,100,A\n1, 一加一？ ,1,2,3,4,B\n"
)
CEVAL_DEV = "id,question,A,B,C,D,answer,explanation\n" + "".join(
    f'{n},{n}加零是____。,{n},9,8,7,A,"第一步，\n第二步。"\n' for n in range(5)
)
CMMLU_TEST = ",Question,A,B,C,D,Answer\n0,最大的行星是,木星,火星,金星,水星,A\n"
CMMLU_DEV = ",Question,A,B,C,D,Answer\n" + "".join(
    f"{n},{n}月之后是,{n + 1}月,一月,二月,三月,A\n" for n in range(5)
)


def arc_row(name: str, stem: str, options: Mapping[str, str], answer: str) -> dict[str, Any]:
    choices = [{"text": text, "label": label} for label, text in options.items()]
    return {"id": name, "question": {"stem": stem, "choices": choices}, "answerKey": answer}


ARC = [
    arc_row("own_1", "Which one is hot?", {"A": "ice", "B": "fire", "C": "snow"}, "B"),
    arc_row(
        "own_2", "Which is a {metal}?", {"1": "iron", "2": "wood", "3": "wool", "4": "ink"}, "1"
    ),
    arc_row("own_3", "Which is first?", dict(zip("ABCDE", ["E", "D", "C", "B", "A"])), "E"),
]
HELLASWAG = [
    {
        "ind": 7,
        "activity_label": "Baking bread",
        "ctx_a": "A cook [step] kneads  the dough.",
        "ctx_b": "the COOK",
        "ctx": "A cook [step] kneads  the dough. the COOK",
        "endings": ["waits. ", "sings [title] loudly", "[substeps] sleeps", "leaves {it}."],
        "label": 0,
        "split": "val",
    },
    {
        "ind": 9,
        "activity_label": "How to rest",
        "ctx_a": "[header] How to rest [title] Sit down.",
        "ctx_b": "",
        "ctx": "[header] How to rest [title] Sit down.",
        "endings": ["One.", "Two.", "Three.", "Four."],
        "label": "3",
        "split": "val",
    },
]


def json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


OFFICIAL = {
    "mmlu/test/anatomy_test.csv": MMLU_TEST,
    "mmlu/dev/anatomy_dev.csv": MMLU_DEV,
    "mmlu/test/us_foreign_policy_test.csv": MMLU_TEST,
    "mmlu/dev/us_foreign_policy_dev.csv": MMLU_DEV,
    "ceval/val/college_physics_val.csv": CEVAL_TEST,
    "ceval/dev/college_physics_dev.csv": CEVAL_DEV,
    "cmmlu/test/astronomy.csv": CMMLU_TEST,
    "cmmlu/dev/astronomy.csv": CMMLU_DEV,
    "arc/ARC-Easy-Test.jsonl": json_lines(ARC),
    "arc/ARC-Challenge-Test.jsonl": json_lines(ARC),
    "hellaswag/hellaswag_val.jsonl": json_lines(HELLASWAG),
}


def write(folder: Path, files: Mapping[str, str] = OFFICIAL) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
