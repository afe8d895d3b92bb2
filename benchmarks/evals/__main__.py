"""indexlm beside lm-eval: the same answers, item by item, and how fast they come.

    python -m benchmarks.evals --parity --data FOLDER --peers ENVIRONMENT/bin/python
    python -m benchmarks.evals --data FOLDER --text FOLDER --peers ENVIRONMENT/bin/python
    python -m benchmarks.evals --table

FOLDER of --data holds the official files of the six benchmarks (FOLDER/mmlu/test/...). Both sides
read them on the same network, whose random weights are made here; lm-eval runs in a process of its
own, by its own task files. The environment of lm-eval is this one, where the extra `bench` is in
it. --parity asks every item (about 25 minutes on two cores); without it speeds are measured, in
rounds in which the two take turns.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.evals import parity, speed, summary
from benchmarks.evals.official import SOURCES
from benchmarks.evals.points import HARNESS, POINTS
from benchmarks.setting import setting
from benchmarks.text.corpus import read_pools

RESULTS = Path("benchmarks/results")
HOW = "pip install -e '.[bench]' -c constraints.txt, here or in another environment"


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.evals", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--parity", action="store_true", help="compare items instead of speeds")
    parser.add_argument("--data", type=Path, help="folder of the official files")
    parser.add_argument("--peers", type=Path, default=Path(sys.executable), help="with lm-eval")
    parser.add_argument("--points", help=f"parity: some of {','.join(POINTS)}")
    parser.add_argument("--limit", type=int, help="parity: first items of each subject [all]")
    parser.add_argument("--text", type=Path, help="speed: txt and jsonl for the tokenizer")
    parser.add_argument("--subjects", type=int, default=4, help="speed: of MMLU")
    parser.add_argument("--mmlu-items", type=int, default=40, help="speed: of each subject")
    parser.add_argument("--hellaswag-items", type=int, default=150, help="speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="where a folder for everything is made")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the tables of --out")
    asked = parser.parse_args()
    if asked.table:
        print(summary.tables(asked.out))
        return
    names = asked.points.split(",") if asked.points else list(POINTS)
    for name in names:
        if name not in POINTS:
            parser.error(f"no point is named {name!r}; there are {', '.join(POINTS)}")
    if asked.data is None or not asked.data.is_dir():
        parser.error("--data names the folder of the official files, DATA/mmlu/test/...")
    for source in SOURCES.values():
        if not (asked.data / source.folder).is_dir():
            parser.error(f"--data: there is no folder {asked.data / source.folder}")
    _check_peers(parser, asked.peers)
    with tempfile.TemporaryDirectory(prefix="evals-", dir=asked.work) as folder:
        run = _parity if asked.parity else _speed
        good = run(asked, names, Path(folder).resolve())
    if not good:
        raise SystemExit("it is not as it should be: see above and the files that were written")


def _parity(asked: argparse.Namespace, names: list[str], work: Path) -> bool:
    out, made = asked.out / "evals_parity", setting(threads=asked.threads)
    given = (asked.data.resolve(), asked.peers, asked.limit, asked.threads, out, made)
    return parity.run(parity.Asked(*given), names, work)


def _speed(asked: argparse.Namespace, names: list[str], work: Path) -> bool:
    given = speed.Asked(
        data=asked.data.resolve(),
        peers=asked.peers,
        pools=read_pools(asked.text, Path("downloads")) if asked.text else [],
        subjects=asked.subjects,
        limits={"mmlu": asked.mmlu_items, "hellaswag": asked.hellaswag_items},
        rounds=asked.rounds,
        threads=asked.threads,
        out=asked.out / "evals.json",
        setting=setting(threads=asked.threads, rounds=asked.rounds),
    )
    speed.run(given, work)
    print(summary.tables(asked.out))
    return True


def _check_peers(parser: argparse.ArgumentParser, python: Path) -> None:
    """A peer that is missing is an error before anything is run."""
    code = "import importlib.metadata as m, lm_eval.models.huggingface; print(m.version('lm_eval'))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if found.returncode:
        last = found.stderr.strip().splitlines()[-1]
        parser.error(f"{python} has no lm-eval that can run a model ({last}): {HOW}")
    if (version := found.stdout.strip()) != HARNESS:
        parser.error(f"{python} has lm-eval {version}, the prompts are those of {HARNESS}: {HOW}")


if __name__ == "__main__":
    main()
