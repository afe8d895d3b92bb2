"""Studies run together: an arm that several of them need is trained once.

A folder of results holds `<study>.json` and its page, and `index.html` of all of them. Arms are in
`work` beside them, which is needed only to go on and to run more: pages are made of the JSON.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexlm.config import HardwareConfig
from indexlm.errors import UserError
from indexlm.lab.arms import Arm, Result
from indexlm.lab.index import index_page
from indexlm.lab.outcome import Outcome, outcome, read_outcome, same_but_date
from indexlm.lab.page import study_page
from indexlm.lab.running import result_of
from indexlm.lab.studies import STUDIES, study
from indexlm.lab.study import FIRST_SEED, PresetName, Results, Study
from indexlm.lab.texts import Corpus, encoded
from indexlm.lab.workers import run_all, with_trunks
from indexlm.records import only_writer, write_json
from indexlm.runtime import device_of, threads_of

log = logging.getLogger("indexlm")

WORK = "work"

PROCESSES_OF_A_GPU = 4
"""Models of this size leave a GPU idle between their kernels."""

NamedArms = Mapping[str, Mapping[int, Arm]]
"""Arm -> seed -> settings, of one study."""


@dataclass(frozen=True)
class Asked:
    """`seeds` and `workers` are of the preset and of the machine where they are None."""

    preset: PresetName
    out: Path
    seeds: int | None = None
    first_seed: int = FIRST_SEED
    workers: int | None = None
    text: Path | None = None
    tokenizer: Path | None = None
    """Real text, for the studies that can use it: a refined folder and a tokenizer of it."""


def run_studies(names: Sequence[str], asked: Asked) -> list[Outcome]:
    """Run what is missing; results and pages of a study are written as soon as its arms are done.

    Raises UserError before anything starts for what cannot be run, StoppedError where a stop was
    asked for: the same call goes on.
    """
    studies = [study(name) for name in dict.fromkeys(names)]
    for each in studies:
        _check(each, asked)
    read_outcomes(asked.out)  # The index is made of all of them: now, not after an hour.
    hardware = _hardware(asked.preset)
    corpus = _corpus(asked)
    if corpus is not None:
        studies = [each.with_text(corpus) for each in studies]
    for each in studies:
        _refuse_to_lose(each, asked, corpus)
    folder = _work_folder(asked.out)
    with only_writer(folder):
        return _run(studies, asked, folder, hardware, corpus)


def _run(
    studies: Sequence[Study],
    asked: Asked,
    folder: Path,
    hardware: HardwareConfig,
    corpus: Corpus | None,
) -> list[Outcome]:
    arms = {each.name: named_arms(each, asked) for each in studies}
    missing = {name: _missing(named, folder) for name, named in arms.items()}
    written: dict[str, Outcome] = {}

    def finished(key: str) -> None:
        for each in studies:
            if missing[each.name] == {key}:
                written[each.name] = _write(each, asked, arms[each.name], folder, corpus)
            missing[each.name].discard(key)

    everything = [arm for named in arms.values() for arm in _by_seed(named)]
    run_all("lab", everything, folder, _workers(asked), hardware, finished)
    return [
        written.get(each.name) or _write(each, asked, arms[each.name], folder, corpus)
        for each in studies
    ]


def seeds_of(each: Study, asked: Asked) -> range:
    return range(asked.first_seed, asked.first_seed + (asked.seeds or each.seeds[asked.preset]))


def named_arms(each: Study, asked: Asked) -> NamedArms:
    """The arms of all seeds; every seed has the same names."""
    named: dict[str, dict[int, Arm]] = {}
    seeds = seeds_of(each, asked)
    for seed in seeds:
        for arm in each.arms(asked.preset, seed):
            assert seed not in named.setdefault(arm.name, {}), f"two arms are named {arm.name}"
            named[arm.name][seed] = arm
    for name, by_seed in named.items():
        assert len(by_seed) == len(seeds), f"{name}: not in every seed"
    return named


def write_pages(folder: Path) -> Path:
    """All pages anew from the results in a folder; returns the index. Raises UserError where there
    is no result."""
    results = read_outcomes(folder)
    if not results:
        raise UserError(
            f"{folder} holds no result of a study; `indexlm lab run STUDY --out {folder}` makes one"
        )
    for each in results:
        _write_text(folder / f"{each['study']}.html", study_page(each))
    _write_text(folder / "index.html", index_page(results))
    return folder / "index.html"


def read_outcomes(folder: Path) -> list[Outcome]:
    """Every study's result in a folder, in the order of the report."""
    order = {name: place for place, name in enumerate(STUDIES)}
    found = [read_outcome(path) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda each: order.get(each["study"], len(order)))


def _check(each: Study, asked: Asked) -> None:
    if asked.preset not in each.seeds:
        raise UserError(f"{each.name} has no preset {asked.preset}; it has {', '.join(each.seeds)}")


def _refuse_to_lose(each: Study, asked: Asked, corpus: Corpus | None) -> None:
    """Raises UserError where a result is there that the new one would not contain."""
    path = asked.out / f"{each.name}.json"
    if not path.exists():
        return
    there = read_outcome(path)
    lost = ""
    if there["preset"] != asked.preset and (there["preset"], asked.preset) != ("quick", "full"):
        lost = f"is of the preset {there['preset']}, and {asked.preset} would replace it"
    elif there["preset"] == asked.preset and not set(there["seeds"]) <= set(seeds_of(each, asked)):
        lost = f"has seeds that would be lost: {', '.join(map(str, there['seeds']))}"
    elif there["made"]["corpus"] not in ("", corpus.made_from if corpus is not None else ""):
        lost = "has claims on a real text that is not named now"
    if lost:
        raise UserError(f"{path} {lost}; name another --out, or remove it")


def _hardware(preset: PresetName) -> HardwareConfig:
    if preset != "gpu":
        return HardwareConfig(device="cpu")
    try:
        device_of("cuda")
    except UserError as error:
        raise UserError(
            "--preset gpu: this PyTorch sees no GPU; use --preset full, or install a PyTorch that "
            "sees the GPU of this machine"
        ) from error
    return HardwareConfig(device="cuda")


def _workers(asked: Asked) -> int:
    cores = threads_of(0)
    return asked.workers or (min(cores, PROCESSES_OF_A_GPU) if asked.preset == "gpu" else cores)


def _work_folder(out: Path) -> Path:
    folder = out / WORK
    folder.mkdir(parents=True, exist_ok=True)
    # Results are for keeping, arms are not: a repository that holds `out` leaves them out.
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder


def _missing(named: NamedArms, folder: Path) -> set[str]:
    """Fingerprints of what has no result, trunks among them."""
    arms = with_trunks(_by_seed(named))
    return {key for key, arm in arms.items() if result_of(arm, folder) is None}


def _by_seed(named: NamedArms) -> list[Arm]:
    """Seed by seed, so that what a stopped run leaves is pairs."""
    seeds = sorted({seed for arms in named.values() for seed in arms})
    return [arms[seed] for seed in seeds for arms in named.values()]


def _corpus(asked: Asked) -> Corpus | None:
    if (asked.text is None) != (asked.tokenizer is None):
        raise UserError("--text and --tokenizer belong together: refined text, and what encodes it")
    if asked.text is None or asked.tokenizer is None:
        return None
    return encoded(asked.text, asked.tokenizer, asked.out / WORK)


def _write(
    each: Study, asked: Asked, named: NamedArms, folder: Path, corpus: Corpus | None
) -> Outcome:
    path = asked.out / f"{each.name}.json"
    seconds = _cpu_seconds(named, folder)
    made = outcome(each, asked.preset, _results(named, folder), seconds, corpus)
    before = read_outcome(path) if path.exists() else None
    if before is not None and same_but_date(before, made):
        made = before
    else:
        write_json(path, made)
        log.info(f"{each.name}: {made['verdict']}")
    _write_text(path.with_suffix(".html"), study_page(made))
    _write_text(asked.out / "index.html", index_page(read_outcomes(asked.out)))
    return made


def _results(named: NamedArms, folder: Path) -> Results:
    found: dict[str, dict[int, Result]] = {}
    for name, arms in named.items():
        for seed, arm in arms.items():
            result = result_of(arm, folder)
            assert result is not None, f"{name}, seed {seed}: has left no result"
            found.setdefault(name, {})[seed] = result
    return found


def _cpu_seconds(named: NamedArms, folder: Path) -> float:
    """Of all arms and of the trunks that they start from."""
    arms = with_trunks(_by_seed(named)).values()
    return sum(found.cpu_seconds for arm in arms if (found := result_of(arm, folder)) is not None)


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)
