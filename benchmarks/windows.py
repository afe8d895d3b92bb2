"""What a longer window is worth: trained for it, extrapolated, stretched.

    python -m benchmarks.windows --base runs/tiny/models/base \
        --long runs/long-tiny/models/pretrained --data runs/tiny/text

Bits per byte of held-out documents longer than the long window, and the needle test, for the base
model in its own window, in the long one as it is (plain) and with RoPE stretched (NTK), and for the
model that was trained further in the long window.
"""

import argparse
import json
from pathlib import Path

from indexlm.evals.longcontext import Grid, needle_table, needle_test
from indexlm.evals.scoring import bits_per_byte
from indexlm.export import forms
from indexlm.model.rope import ntk_base
from indexlm.model.transformer import Transformer, with_window
from indexlm.stages.inputs import held_out_texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--long", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder of `data refine`")
    parser.add_argument("--items", type=int, default=8, help="needles in a cell")
    parser.add_argument("--out", type=Path, default=Path("docs/windows/results.json"))
    asked = parser.parse_args()
    base, tokenizer = forms.open_folder(asked.base)
    long, _ = forms.open_folder(asked.long)
    short, window = base.config.context, long.config.context
    factor = window / short
    stretched = ntk_base(base.config.rope_base, base.config.head_dim, short, window, factor)
    forms_of: dict[str, tuple[Transformer, int, float]] = {
        f"base, {short}": (base, short, base.config.rope_base),
        f"base, {window} plain": (base, window, base.config.rope_base),
        f"base, {window} NTK": (base, window, stretched),
        f"trained, {short}": (long, short, long.config.rope_base),
        f"trained, {window}": (long, window, long.config.rope_base),
    }
    texts: dict[str, list[str]] = {}
    for name, documents in held_out_texts(asked.data).items():
        texts.setdefault(name.split("_")[0], []).extend(documents)
    longer = {
        language: [t for t in documents if len(tokenizer.encode(t)) > window]
        for language, documents in texts.items()
    }
    results: dict[str, object] = {
        "documents": {language: len(found) for language, found in longer.items()}
    }
    for name, (model, context, rope_base) in forms_of.items():
        seen = with_window(model, context, rope_base)
        values = {
            language: bits_per_byte(seen, tokenizer, found).per_byte
            for language, found in longer.items()
            if found
        }
        results[name] = {"bits_per_byte": values}
        print(name, values)
    grid = Grid([short, 2 * short, window], items=asked.items)
    for name, model, beyond in (
        ("base, plain", base, "plain"),
        ("base, NTK", base, "ntk"),
        ("trained", long, "refuse"),
    ):
        needle = needle_test(model, tokenizer, texts, grid, beyond=beyond, factor=factor)
        print(name, needle_table(needle), sep="\n")
        results[f"needle: {name}"] = needle
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
