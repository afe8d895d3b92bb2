"""One row of a peer, alone in its process, under the interpreter of the peers."""

import argparse
import json
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.text.peers import ROWS

PACKAGES = {
    "datatrove": "==0.10.1",
    "spacy": "==3.8.18",
    "jieba": "==0.42.1",
    "tokenizers": "",
    "regex": "",
    "orjson": "",
    "xxhash": "<4",
    "datasketch": "==2.0.0",
    "rensa": "==0.5.0",
    "daft": "==0.7.26",
    "pydivsufsort": "==0.0.20",
}
"""What the peers' environment holds. datatrove's `processing` extra brings more; xxhash 4 no longer
takes the strings that datatrove hands it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", required=True, choices=ROWS)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    asked = parser.parse_args()
    dropped = ROWS[asked.row](asked.text, asked.work, asked.workers)
    versions = {d.name: d.version for d in distributions() if d.name in PACKAGES}
    asked.out.write_text(json.dumps({"dropped": dropped, "versions": versions}), encoding="utf-8")


if __name__ == "__main__":
    main()
