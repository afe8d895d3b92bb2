"""The verb that judges a model: benchmarks, and tests on text of one's own."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexlm.cli.arguments import Device, check_new, chosen_device
from indexlm.errors import UserError

if TYPE_CHECKING:
    from indexlm.evals.benchmark import Settings
    from indexlm.evals.task import Task

REFINED_TASKS = ("bits_per_byte", "starter", "needle")
"""They need refined text."""
HUB, DOWNLOADS = Path("hub"), Path("downloads")
"""What `--data` says in place of a folder, and where it puts what it fetches."""
TEXT_TASKS = (*REFINED_TASKS, "safety", "generation")


class Beyond(StrEnum):
    """What `eval --beyond` takes: RoPE as it is, or stretched for the length."""

    REFUSE = "refuse"
    PLAIN = "plain"
    NTK = "ntk"


class Start(StrEnum):
    """What `eval --start` takes."""

    NONE = "none"
    END_MARK = "end-mark"


class Overflow(StrEnum):
    """What `eval --overflow` takes."""

    REFUSE = "refuse"
    CUT = "cut"
    FEWER = "fewer"


Model = Annotated[Path, typer.Argument(help="model folder, e.g. runs/tiny/models/base")]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        help="folder of benchmark files (DATA/mmlu/test/...), or, for bits_per_byte, starter and "
        "needle, one that `data refine` made; may be given several times. hub: benchmarks that no "
        "folder holds are downloaded, to downloads/hub (needs indexlm[hub])",
    ),
]
Tasks = Annotated[
    str,
    typer.Option(
        help="several with a comma: bits_per_byte, starter, needle, safety, generation; mmlu, "
        "ceval, cmmlu, arc_easy, arc_challenge, hellaswag; or a .toml "
        "file with a benchmark of your own"
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1, help="first items of each subject; items of each kind of the starter test [300]"
    ),
]
Subjects = Annotated[
    str, typer.Option(help="benchmarks: subjects or categories, e.g. anatomy,humanities [all]")
]
Prompts = Annotated[
    str,
    typer.Option(
        help="benchmarks: letters (A, B, C, D after the options are shown), contents (each option "
        "itself), or letters-report and, of ARC and HellaSwag, contents-report, the set-up of the "
        "Index-1.9B report [letters,contents]"
    ),
]
Shots = Annotated[
    int | None,
    typer.Option(min=0, help="benchmarks: examples before each question [as the prompt says]"),
]
StartOption = Annotated[
    Start,
    typer.Option(
        help="benchmarks: what stands before a prompt: nothing, as in lm-eval, or the end mark, as "
        "before a document in training"
    ),
]
OverflowOption = Annotated[
    Overflow,
    typer.Option(
        help="benchmarks: prompts longer than the window (five examples in one of 256 tokens): "
        "refuse them, cut their left end off as lm-eval does, or leave out examples as OpenCompass "
        "does"
    ),
]
BySubject = Annotated[
    bool, typer.Option("--by-subject", help="benchmarks: show a row for each subject too")
]
Beside = Annotated[
    str,
    typer.Option(
        help="benchmarks: show published scores under yours: report (all models of the Index-1.9B "
        "report), or names with commas, e.g. Index-1.9B,Qwen1.5-1.8B"
    ),
]
Lengths = Annotated[str, typer.Option(help="needle: tokens, e.g. 1024,4096; default: window")]
Depths = Annotated[str, typer.Option(help="needle: places in the text, percent [0,25,50,75,100]")]
Items = Annotated[int | None, typer.Option(min=1, help="needle: items of each cell [8]")]
BeyondOption = Annotated[
    Beyond, typer.Option(help="needle: how lengths past the trained window are run")
]
Factor = Annotated[
    float | None, typer.Option(min=1, help="needle: of NTK scaling, 8 by default as reported")
]
Chat = Annotated[bool, typer.Option("--chat", help="needle, generation: ask in the chat format")]
Seed = Annotated[int, typer.Option(help="draws the items of the starter and the needle test")]
DeviceOption = Annotated[Device, typer.Option(help="where the model is run")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="folder for results.json, every item's answer, the table and, of benchmarks, safety "
        "and generation, a page to look at; what is finished is kept in OUT.work on the way, and "
        "the same command goes on there. Without --out a run that is interrupted starts anew",
    ),
]


def evaluate(
    model: Model,
    data: Data = None,
    tasks: Tasks = "bits_per_byte,starter",
    limit: Limit = None,
    subjects: Subjects = "",
    prompts: Prompts = "",
    shots: Shots = None,
    start: StartOption = Start.NONE,
    overflow: OverflowOption = Overflow.REFUSE,
    by_subject: BySubject = False,
    beside: Beside = "",
    lengths: Lengths = "",
    depths: Depths = "",
    items: Items = None,
    beyond: BeyondOption = Beyond.REFUSE,
    factor: Factor = None,
    chat: Chat = False,
    seed: Seed = 1234,
    device: DeviceOption = Device.AUTO,
    out: Out = None,
) -> None:
    """Benchmarks; bits per byte on held-out text, the starter test, the needle test; refusals.

    Benchmarks are multiple choice, asked as lm-eval asks; chance stands beside every score.
    `torchrun --nproc-per-node N -m indexlm.cli eval ...` shares them out among N processes; over
    several machines, --out has to be on a disk that all of them see.

    needle hides a line with a code in text of exactly so many tokens and asks for it: is the right
    code the likeliest of eight (choice), and is it what the model would write (recall)?

    safety puts pairs of requests to a chat model, one to refuse and one of like words to answer.
    generation has a model write after forty fixed prompts and counts loops and other languages.
    """
    from indexlm.evals.benchmark import Settings
    from indexlm.evals.longcontext import Grid
    from indexlm.stages.scoring import Asked, score

    names = list(dict.fromkeys(_listed(tasks)))
    if not names:
        raise UserError("--tasks names no task")
    text_tasks = [name for name in names if name in TEXT_TASKS]
    benchmarks = _benchmarks([name for name in names if name not in TEXT_TASKS])
    subsets, asked_with = tuple(_listed(subjects)), tuple(_listed(prompts))
    settings = Settings(subsets, asked_with, shots, limit, start.value, overflow.value)
    if not benchmarks:
        _refuse(tasks, "mmlu", _benchmark_options(settings, by_subject, beside))
    if "needle" not in names:
        own = {"--lengths": lengths, "--depths": depths, "--items": items or ""}
        _refuse(tasks, "needle", own | {"--beyond": beyond})
    if not {"needle", "generation"} & set(names):
        _refuse(tasks, "needle", {"--chat": chat})
    stretch = {"chat": chat, "beyond": beyond.value, "factor": _factor(factor, beyond)}
    sizes = _whole_numbers("--lengths", lengths)
    places = _whole_numbers("--depths", depths or "0,25,50,75,100")
    grid = Grid(sizes or [1], places, items or 8, seed=seed)
    shown = _published(beside, [task.name for task in benchmarks])
    if out is not None:
        check_new(out)
    text, placed = _places(data or [], text_tasks, benchmarks)
    asked = Asked(model, text_tasks, text, placed, settings, grid, not sizes, stretch, seed)
    score(asked, chosen_device(device), out, by_subject=by_subject, beside=shown)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _refuse(tasks: str, missing: str, options: Mapping[str, object]) -> None:
    """Raises UserError for the first option that says something other than its default."""
    for option, value in options.items():
        if value not in ("", False, (), "none", "refuse"):
            what = "the needle test" if missing == "needle" else "benchmarks"
            raise UserError(f"{option} is for {what}; add it: --tasks {tasks},{missing}")


def _factor(given: float | None, beyond: Beyond) -> float:
    from indexlm.evals.longcontext import REPORT_FACTOR

    if given is not None and beyond is not Beyond.NTK:
        raise UserError(f"--factor {given:g} is of NTK scaling; add --beyond ntk")
    return given or REPORT_FACTOR


def _benchmark_options(settings: "Settings", by_subject: bool, beside: str) -> dict[str, object]:
    return {
        "--subjects": settings.subjects,
        "--prompts": settings.prompts,
        "--shots": settings.shots is not None,
        "--start": settings.start,
        "--overflow": settings.overflow,
        "--by-subject": by_subject,
        "--beside": beside,
    }


def _benchmarks(names: Sequence[str]) -> "list[Task]":
    from indexlm.evals.task import builtin_tasks, read_task

    tasks: dict[str, Task] = {}
    for name in names:
        known = (*TEXT_TASKS, *builtin_tasks())
        if name not in known and not name.endswith(".toml"):
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"no task {name!r}{hint} The tasks are {', '.join(known)}; a benchmark of your own "
                "is named by its file, which ends in .toml"
            )
        task = read_task(name)
        if name.endswith(".toml") and task.name in builtin_tasks():
            raise UserError(
                f"{name} is called {task.name!r} as a task that is built in, and its scores would "
                "pass for that one's; give it a name of its own"
            )
        if task.name in tasks or task.name in TEXT_TASKS:
            raise UserError(f"{name} is called {task.name!r} as another task is; change its name")
        tasks[task.name] = task
    return list(tasks.values())


def _whole_numbers(option: str, listed: str) -> list[int]:
    try:
        return [int(number) for number in listed.split(",") if number]
    except ValueError as error:
        raise UserError(f"{option} {listed}: write whole numbers with commas, 256,1024") from error


def _places(
    folders: Sequence[Path], text_tasks: Sequence[str], benchmarks: "Sequence[Task]"
) -> "tuple[Path | None, list[tuple[Task, Path]]]":
    """The folder of refined text, where a task needs it, and each benchmark with its folder."""
    from indexlm.evals.sources import holds, hub_files
    from indexlm.stages.inputs import apart, refuse_unused
    from indexlm.text.reading.hub import fetch
    from indexlm.text.refined import verify_refined

    from_hub = HUB in folders and not HUB.exists()
    folders = [folder for folder in folders if not (from_hub and folder == HUB)]
    refined, others = apart(folders)
    used: list[Path] = []
    on_text = [name for name in text_tasks if name in REFINED_TASKS]
    if not folders and (on_text or (benchmarks and not from_hub)):
        raise UserError("--data is missing: the folder that the tasks read")
    if on_text:
        used.append(refined or others[0])
        verify_refined(used[0])
    placed = []
    for task in benchmarks:
        place = next((folder for folder in others if holds(task, folder)), None)
        if place is None and from_hub:
            dataset, patterns = hub_files(task)
            place = fetch(dataset, DOWNLOADS, patterns, "--data hub").root
        elif place is None:
            # Tells what was looked for.
            place = (others or folders)[0]
        placed.append((task, place))
        used.append(place)
    refuse_unused(folders, used)
    return (used[0] if on_text else None), placed


def _published(beside: str, tasks: Sequence[str]) -> list[str] | None:
    """Names of the models whose published scores are shown; None for no such table."""
    from indexlm.evals.benchmark_table import read_published

    if not beside:
        return None
    published = read_published()
    if not set(tasks) & set(published["tasks"]):
        raise UserError(
            f"--beside {beside}: nothing is published of {', '.join(tasks)}; there are scores of "
            + ", ".join(published["tasks"])
        )
    known = list(published["scores"])
    if beside == "report":
        return known
    for name in _listed(beside):
        if name not in known:
            raise UserError(f"--beside {name}: write report, or of {', '.join(known)}")
    return _listed(beside)
