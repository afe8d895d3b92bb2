"""What is compared: our prompt of a benchmark with the task of lm-eval that it is said to equal."""

from collections.abc import Mapping
from dataclasses import dataclass

HARNESS = "0.4.13"
"""Version of lm-eval."""


@dataclass(frozen=True)
class Point:
    benchmark: str
    prompt: str
    """Name in our task's file."""
    task: str
    """Name of lm-eval's task, `{subject}` for the subject."""
    yaml: str
    """Its file below `lm_eval/tasks`."""
    shots: int = 0
    halves: bool = False
    """HellaSwag's context in two halves, where the file that is given has it whole."""
    limit: int | None = None
    """First items of each subject, where all would take hours."""


POINTS: Mapping[str, Point] = {
    "mmlu": Point("mmlu", "letters", "mmlu_{subject}", "mmlu/default/mmlu_{subject}.yaml", shots=5),
    "ceval": Point(
        *("ceval", "letters", "ceval-valid_{subject}", "ceval/ceval-valid_{subject}.yaml"), shots=5
    ),
    "cmmlu": Point("cmmlu", "letters", "cmmlu_{subject}", "cmmlu/cmmlu_{subject}.yaml", shots=5),
    "arc_easy": Point("arc_easy", "contents", "arc_easy", "arc/arc_easy.yaml"),
    "arc_challenge": Point("arc_challenge", "contents", "arc_challenge", "arc/arc_challenge.yaml"),
    "hellaswag": Point("hellaswag", "contents", "hellaswag", "hellaswag/hellaswag.yaml"),
    "hellaswag_halves": Point(
        *("hellaswag", "contents", "hellaswag", "hellaswag/hellaswag.yaml"), halves=True
    ),
    "mmlu_continuation": Point(
        *("mmlu", "contents", "mmlu_{subject}_continuation"),
        "mmlu/continuation/mmlu_{subject}.yaml",
        shots=5,
        limit=20,
    ),
}
"""The six benchmarks as lm-eval asks them by default, the same context of HellaSwag in two halves,
and the other style of MMLU, which computes every option after every prompt."""
