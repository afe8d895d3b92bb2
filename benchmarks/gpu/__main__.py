"""Training speed on one GPU: indexlm beside transformers, and what each lever is worth.

    sh benchmarks/gpu.sh

Every point is a process of its own, the most wanted first; one that fails or does not fit is
written down with its error and the next one runs. What is left when the time is used up is named in
the results. MFU is against the best 8192^3 product of the same run, with the FLOPs of
`model/costs.py`: attention counted as causal over the whole row, though documents see less.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.points import Point, default_points, points

ROOT = Path(__file__).parents[2]
BUDGET = 450.0
"""Seconds; with the last point ended at it, a run stays under eight minutes."""
SHORTEST = 30.0
"""Seconds; with less left no point is started."""
LONGEST = 150.0
"""Seconds of a process: compiling a whole network of 36 layers may take longer."""


def main() -> None:
    parser = argparse.ArgumentParser("benchmarks/gpu.sh", description=__doc__.split("\n")[0])
    parser.add_argument("--points", help="some of --list, separated by semicolons or commas")
    parser.add_argument("--list", action="store_true", help="name all points")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=BUDGET)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(points()))
        return
    names = _named(parser, asked.points) if asked.points else default_points()
    measure(names, asked.device, time.monotonic() + asked.seconds, asked.out)


def _named(parser: argparse.ArgumentParser, text: str) -> list[str]:
    """Points by name, or all of a shape by its name alone. Names of levers hold commas."""
    known = points()
    names: list[str] = []
    for word in text.split(";") if ";" in text or text in known else text.split(","):
        found = [name for name in known if word in (name, name.split("/")[0])]
        if not found:
            parser.error(f"no point is named {word!r}; see --list")
        names += found
    return names


def measure(names: list[str], device: str, end: float, out: Path) -> None:
    """Run the points until `end`; what is known is written after each."""
    known, begin = points(), time.monotonic()
    results: dict[str, Any] = {"commit": _git("rev-parse", "HEAD"), "date": time.strftime("%F")}
    results |= {"changed_since": bool(_git("status", "--porcelain", "--", "src", "benchmarks"))}
    results |= {"points": {}, "left_out": list(names), "packages": _packages()}
    with tempfile.TemporaryDirectory() as work:
        machine = _run("machine", device, end - time.monotonic(), Path(work))
        if "error" in machine:
            raise SystemExit(f"the machine could not be measured: {machine['error']}")
        results |= machine
        _write(out, results)
        print(f"{machine['device']}, {machine['matrix_tflops']} TFLOP/s", flush=True)
        while results["left_out"] and end - time.monotonic() > SHORTEST:
            name = results["left_out"][0]
            started = time.monotonic()
            found = _fitted(known[name], device, end, Path(work))
            found["process_seconds"] = round(time.monotonic() - started, 1)
            rate = found.get("flops_per_second", 0.0) / 1e12
            if rate:
                found["mfu"] = rate / machine["matrix_tflops"][known[name].dtype]
            results["points"][name] = found
            results["left_out"] = results["left_out"][1:]
            results["seconds"] = round(time.monotonic() - begin, 1)
            _write(out, results)
            print(line(name, found), flush=True)
    if results["left_out"]:
        print(f"out of time for {'; '.join(results['left_out'])}")
    print(f"written to {out}")


def _write(out: Path, results: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1), encoding="utf-8")


def line(name: str, found: dict[str, Any]) -> str:
    if "error" in found:
        return f"{name}: {found['error'].splitlines()[-1]}"
    if "milliseconds" in found:
        said = (
            f"{kernel} {value:.2f}" if isinstance(value, float) else f"{kernel} none"
            for kernel, value in found["milliseconds"].items()
        )
        return f"{name}, ms: {'; '.join(said)}"
    memory = f", {found['peak_gib']:.1f} GiB" if found["peak_gib"] is not None else ""
    return (
        f"{name}: {found['tokens_per_second']:,.0f} tokens/s, MFU {found['mfu']:.1%}{memory}, "
        f"first step after {found['to_end_of_first_step_seconds']:.0f} s, "
        f"loss {found['losses'][0]:.2f} to {found['losses'][-1]:.2f}"
    )


def _fitted(point: Point, device: str, end: float, work: Path) -> dict[str, Any]:
    """A point that is out of memory is run again with half the micro-batch, and says so."""
    while True:
        left = end - time.monotonic()
        found = _run(json.dumps(asdict(point)), device, min(left, LONGEST), work)
        small = point.micro_batch == 1 or end - time.monotonic() < SHORTEST
        if "OutOfMemoryError" not in found.get("error", "") or small:
            return {"shape": asdict(point)} | found
        point = replace(point, micro_batch=point.micro_batch // 2)


def _run(point: str, device: str, seconds: float, work: Path) -> dict[str, Any]:
    """What the process found, or the end of what it said."""
    out = work / "found.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.row", "--point", point]
    command += ["--device", device, "--out", str(out)]
    # Compiled code is shared by the points of this run; pieces of memory that cannot be joined
    # would decide what fits.
    environment = os.environ | {
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "HF_HUB_OFFLINE": "1",
    }
    said = work / "said.txt"
    with said.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            # Its session too: compiling has processes of its own.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"error": f"not done after {seconds:.0f} s"}
    if status:
        text = said.read_text(encoding="utf-8", errors="replace").strip()
        return {"error": text[-2000:] or f"exit status {status}"}
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _git(*arguments: str) -> str | None:
    """None where there is no git or the tree came without its history."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _packages() -> dict[str, str]:
    from importlib.metadata import distributions

    named = ("torch", "triton", "transformers", "numpy", "pydantic")
    return {each.name: each.version for each in distributions() if each.name in named}


if __name__ == "__main__":
    main()
