"""What fewer bits cost a trained model: every kind of `indexlm quantise` on one model and text.

    python -m benchmarks.quantised --model runs/tiny/models/base --data runs/tiny/text --work DIR

Runs the real command and keeps size, agreement and loss on the held-out text of DATA.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

KINDS = ("q8_0", "q4_k_m", "int8", "int4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder of `data refine`")
    parser.add_argument("--work", type=Path, required=True, help="folder to make")
    parser.add_argument("--group-size", type=int, default=16, help="int4; 16 divides every width")
    parser.add_argument("--out", type=Path, default=Path("docs/quantised/results.json"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True)
    results = {}
    for kind in KINDS:
        out = asked.work / kind
        command = [sys.executable, "-m", "indexlm.cli", "quantise", str(asked.model), "--to", kind]
        command += ["--data", str(asked.data), "--out", str(out)]
        command += ["--group-size", str(asked.group_size)] if kind == "int4" else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout)
        loss = json.loads(next(asked.work.rglob(f"{kind}*.loss.json")).read_text(encoding="utf-8"))
        size = sum(
            f.stat().st_size for f in out.rglob("*") if f.suffix in (".gguf", ".safetensors")
        )
        results[kind] = {"said": done.stdout.splitlines()[0], "bytes": size} | loss
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
