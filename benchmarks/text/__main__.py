"""How fast indexlm prepares text beside its peers, in how much memory, and how that grows.

    python -m benchmarks.text --text FOLDER --peers-python ENVIRONMENT/bin/python
    python -m benchmarks.text --text FOLDER --rows indexlm --mb 50 --rounds 1 --scaling ""
    python -m benchmarks.text --table

FOLDER holds txt and jsonl files of your own; without --text it is the starter corpus. All rows read
text that is made of it (`corpus`), the slow peers a smaller one; rates are per MB of text. Rounds
go through their rows in turn, so that a slow hour of the machine meets all of them; the first round
has all rows, the others those that are close. On a machine that others use the MB per CPU-second
are the ones to read.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.setting import setting
from benchmarks.text import meter, ours, scoring
from benchmarks.text.peers import ROWS as PEERS
from benchmarks.text.row import PACKAGES
from benchmarks.text.summary import ratios, row_summary, scaling, step_costs, table

ROOT = Path(__file__).parents[2]
SLOW = ("datatrove_filters", "datatrove_minhash", "datasketch")
REPEATED = (
    *("indexlm", "indexlm_without_passages", "indexlm_defaults_without_passages"),
    *("rensa", "daft"),
)
"""Rows of every round; the others are run in the first one only."""
SCALED = ("indexlm",)
COPY_FINDERS = ("datatrove_minhash", "datasketch", "rensa", "daft")
HOW = "python3.11 -m venv ENVIRONMENT && ENVIRONMENT/bin/pip install " + " ".join(
    f"'{name}{version}'" for name, version in PACKAGES.items()
)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.text", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = [*ours.ROWS, *PEERS]
    parser.add_argument("--text", type=Path, help="folder of txt and jsonl; default the starter")
    parser.add_argument("--rows", help=f"some of {','.join(known)}")
    parser.add_argument("--mb", type=float, default=200)
    parser.add_argument("--slow-mb", type=float, default=20, help=f"for {','.join(SLOW)}")
    parser.add_argument("--scaling", default="100,200,400,1000", help="sizes in MB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peers-python", type=Path, help=f"of an environment with them: {HOW}")
    parser.add_argument("--work", type=Path, help="where a folder for texts is made and deleted")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/text.json"))
    parser.add_argument(
        "--sizes-only", action="store_true", help="add the sizes of --scaling to --out as it is"
    )
    parser.add_argument("--table", action="store_true", help="only print the tables of --out")
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.out.read_text(encoding="utf-8"))))
        return
    rows = asked.rows.split(",") if asked.rows else known
    for row in rows:
        if row not in known:
            parser.error(f"no row is named {row!r}; there are {', '.join(known)}")
    _check_peers(parser, asked, rows)
    with tempfile.TemporaryDirectory(prefix="text-", dir=asked.work) as folder:
        results = Run(asked, Path(folder)).measure(rows)
    print(table(results))
    print(f"\nwritten to {asked.out}")


def _check_peers(
    parser: argparse.ArgumentParser, asked: argparse.Namespace, rows: list[str]
) -> None:
    """A peer that is missing is an error before anything is timed."""
    if not set(rows) & set(PEERS):
        return
    if asked.peers_python is None or not asked.peers_python.is_file():
        parser.error(f"the peers need --peers-python, the interpreter of an environment: {HOW}")
    code = f"import importlib.metadata as m; [m.version(name) for name in {list(PACKAGES)}]"
    found = subprocess.run(
        [asked.peers_python, "-c", code], stderr=subprocess.PIPE, text=True, check=False
    )
    if found.returncode:
        last = found.stderr.strip().splitlines()[-1]
        parser.error(f"{asked.peers_python} lacks a peer ({last}): {HOW}")


class Run:
    """One run of the benchmark: what was measured so far is in the results file at any time."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self._asked = asked
        self._folder = folder
        self._sizes = [float(size) for size in asked.scaling.split(",") if size]
        self._largest = max([*self._sizes, asked.mb])
        self._runs: dict[str, list[dict[str, Any]]] = {}
        self._scaled: dict[str, dict[str, dict[str, Any]]] = {}
        self._results: dict[str, Any] = {
            "setting": setting(workers=asked.workers, rounds=asked.rounds),
            "texts": {},
            "rows": {},
            "ratios": {},
            "step_costs": {},
            "scores": {},
            "scaling": {},
        }

        if asked.sizes_only:
            self._results = json.loads(asked.out.read_text(encoding="utf-8"))
            self._runs = {name: row["rounds"] for name, row in self._results["rows"].items()}

    def measure(self, rows: list[str]) -> dict[str, Any]:
        for number in range(0 if self._asked.sizes_only else self._asked.rounds):
            for row in rows:
                if number == 0 or row in REPEATED:
                    run = self._row(row, self._size(row), score=number == 0)
                    self._runs.setdefault(row, []).append(run)
                    self._write()
        for size in self._sizes:
            for row in SCALED:
                if row in rows:
                    self._scaled.setdefault(row, {})[f"{size:g}"] = self._of_size(row, size)
                    self._write()
            if size not in (self._asked.mb, self._asked.slow_mb):
                shutil.rmtree(self._text(size), ignore_errors=True)
        return self._results

    def _of_size(self, row: str, size: float) -> dict[str, Any]:
        """A run of one size; of the size of the rounds it is their median."""
        if size == self._asked.mb:
            summary = row_summary(self._runs[row])
            return {name: value for name, value in summary.items() if name != "rounds"}
        return self._row(row, size, score=False)

    def _size(self, row: str) -> float:
        return self._asked.slow_mb if row in SLOW else self._asked.mb

    def _row(self, row: str, size: float, *, score: bool) -> dict[str, Any]:
        text = self._text(size)
        work, out = self._folder / "work", self._folder / "out"
        work.mkdir()
        if row in PEERS:
            answer = work / "answer.json"
            command = [str(self._asked.peers_python), "-m", "benchmarks.text.row", "--row", row]
            command += ["--text", str(text), "--work", str(work), "--out", str(answer)]
            command += ["--workers", str(self._asked.workers)]
        else:
            quality = self._classifier(text)
            command = ours.command(ours.ROWS[row], text, out, work, self._asked.workers, quality)
        found = self._command(command)
        found |= {"mb": self._results["texts"][f"{size:g}"]["text_bytes"] / 1e6}
        found |= {"workers": self._asked.workers}
        if row in PEERS:
            said = json.loads(answer.read_text(encoding="utf-8"))
            self._results["setting"]["peers"] = said["versions"]
            if score and row in COPY_FINDERS:
                truth = scoring.read_truth(text / "truth.jsonl")
                self._results["scores"][row] = scoring.copies(truth, set(said["dropped"]))
        else:
            found |= ours.sizes(out, work)
            if score and row in SCALED:
                self._results["scores"][row] = ours.score(text, out)
            shutil.rmtree(out)
        shutil.rmtree(work)
        print(
            f"{row}, {found['mb']:.0f} MB: {found['mb'] / found['wall_seconds']:.2f} MB/s, "
            f"{found['mb'] / found['cpu_seconds']:.2f} MB per CPU-second, "
            f"{found['peak_anonymous_mb'] / 1e3:.2f} GB, others' share {found['other_cpu']:.2f}",
            flush=True,
        )
        return found

    def _command(self, command: list[str]) -> dict[str, Any]:
        # Each process counts as one: a library that takes all cores in every process is no worker.
        environment = os.environ | {
            "DAFT_ANALYTICS_ENABLED": "0",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        log = self._folder / "log.txt"
        return meter.run(command, cwd=ROOT, log=log, environment=environment, folder=self._folder)

    def _text(self, size: float) -> Path:
        """The text of one size, made where it is not there yet. All sizes have the same share of
        real documents, so that only the size differs."""
        name = f"{size:g}"
        path = self._folder / f"text-{name}"
        if not path.exists():
            command = [sys.executable, "-m", "benchmarks.text.making", "--mb", name]
            command += ["--out", str(path), "--largest-mb", f"{self._largest:g}"]
            if size == self._asked.mb:
                command.append("--packed")
            if self._asked.text is not None:
                command += ["--text", str(self._asked.text.resolve())]
            subprocess.run(command, cwd=ROOT, check=True)
            made = json.loads((path / "made.json").read_text(encoding="utf-8"))
            self._results["texts"][name] = made
        return path

    def _classifier(self, text: Path) -> Path:
        """Trained once, from what lies beside the first text."""
        path = self._folder / "quality.safetensors"
        if not path.exists():
            self._command(ours.classifier(text, path))
        return path

    def _write(self) -> None:
        rows = {row: row_summary(runs) for row, runs in self._runs.items()}
        self._results |= {"rows": rows, "ratios": ratios(rows), "step_costs": step_costs(rows)}
        self._results["scaling"] = scaling(self._scaled)
        self._asked.out.parent.mkdir(parents=True, exist_ok=True)
        self._asked.out.write_text(
            json.dumps(self._results, indent=1, ensure_ascii=False), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
