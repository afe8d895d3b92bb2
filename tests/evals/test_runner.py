"""Results are plain values, and the same by one process or by several."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import PATIENCE, write_model
from indexlm.evals.baselines import train_bigram
from indexlm.evals.runner import (
    baseline_results,
    evaluate,
    evaluate_lines,
    results_table,
)
from indexlm.evals.scoring import bits_per_byte
from indexlm.evals.starter import STYLES, HeldOutEntry
from indexlm.export import forms
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import EOS, Tokenizer

EXPLANATIONS = (
    "形容山路很远。",
    "比喻人有耐心。",
    "春天的柳树。",
    "河边的小草。",
    "孩子看青山。",
    "老人读书声。",
    "鸟鸣水清澈。",
    "待人有礼貌。",
)
ENTRIES: list[HeldOutEntry] = [
    {"id": f"idiom/{number}", "kind": "idiom", "word": "甲乙丙丁", "explanation": text}
    for number, text in enumerate(EXPLANATIONS)
]
for number, entry in enumerate(ENTRIES):
    entry["word"] = f"甲乙丙{'子丑寅卯辰巳午未'[number]}"


def test_the_result_is_plain_and_complete(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    result = evaluate(model, tokenizer, texts, ENTRIES, 5, seed=1)
    assert json.loads(json.dumps(result)) == result
    assert set(result["bits_per_byte"]) == {"zh", "en", "zh_curated", "zh_ordinary", "en_noisy"}
    whole = bits_per_byte(model, tokenizer, texts["zh_curated"] + texts["zh_ordinary"])
    assert result["bits_per_byte"]["zh"]["value"] == pytest.approx(whole.per_byte, abs=1e-5)
    assert result["bits_per_byte"]["zh"]["tokens"] == whole.tokens
    assert set(result["starter"]) == {"idiom"}
    assert result["starter"]["idiom"]["items"] == 5
    assert set(STYLES) <= set(result["starter"]["idiom"])


def test_a_tier_without_text_is_left_out(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    result = evaluate(model, tokenizer, {**texts, "en_curated": []}, [], 5, seed=1)
    assert "en_curated" not in result["bits_per_byte"]
    assert result["starter"] == {}


def test_lines_are_what_the_results_were_computed_from(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    results, lines = evaluate_lines(model, tokenizer, texts, ENTRIES, 5, seed=1)
    assert results == evaluate(model, tokenizer, texts, ENTRIES, 5, seed=1)
    documents = lines["bits_per_byte"]
    assert [line["subject"] for line in documents] == [n for n, part in texts.items() for _ in part]
    for line, text in zip(documents, [text for part in texts.values() for text in part]):
        assert line["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        alone = bits_per_byte(model, tokenizer, [text])
        assert (line["bytes"], line["tokens"]) == (alone.bytes, alone.tokens)
        assert line["bits"] == pytest.approx(alone.bits, rel=1e-5)
    items = lines["starter"]
    assert len({line["id"] for line in items}) == len(items) == 5
    for style in STYLES:
        right = [line["choices"][style] == line["answer"] for line in items]
        assert sum(right) / 5 == results["starter"]["idiom"][style]["accuracy"]
        best = [max(range(4), key=line["scores"][style].__getitem__) for line in items]
        assert best == [line["choices"][style] for line in items]


def test_processes_share_the_work_and_each_has_the_result_of_one(
    tokenizer: Tokenizer, texts: dict[str, list[str]], tmp_path: Path
) -> None:
    """Three real processes: over eight documents and five items, of a model that each holds whole
    and of one that is sharded; and over a single document, which leaves two without work."""
    whole = {"texts": texts, "entries": ENTRIES, "items": 5, "sharded": False}
    one = {"texts": {"zh_curated": texts["zh_curated"][:1]}, "entries": []}
    cases = [whole, {**whole, "sharded": True}, {**whole, **one}]
    network, _ = forms.open_folder(write_model(tmp_path / "model", tokenizer))
    (tmp_path / "asked.json").write_text(json.dumps(cases), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "3", str(Path(__file__).with_name("ranked_evaluation.py"))]
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"found.{each}.json").read_text()) for each in range(3)]
    for number, case in enumerate(cases):
        alone = evaluate_lines(network, tokenizer, case["texts"], case["entries"], 5, seed=1)
        for process in found:
            assert process[number]["results"] == nearly(alone.results)
            assert process[number]["lines"] == nearly(alone.lines)
    shares = [process[0]["positions"] for process in found]
    assert min(shares) > 0.15 * sum(shares)
    # A sharded network makes every pass on every process.
    assert all(process[1]["positions"] > 2 * max(shares) for process in found)
    assert [process[2]["positions"] > 0 for process in found] == [True, False, False]
    other = evaluate_lines(network, tokenizer, texts, ENTRIES, 5, seed=2)
    assert found[0][0]["lines"] != nearly(other.lines) and nearly([1.0]) != [1.0001]


def nearly(value: Any) -> Any:
    """Equal but for the sixth digit of a fraction: batches of other rows round otherwise."""
    if isinstance(value, dict):
        return {key: nearly(each) for key, each in value.items()}
    if isinstance(value, list):
        return [nearly(each) for each in value]
    return pytest.approx(value, rel=1e-5, abs=1e-5) if isinstance(value, float) else value


def test_the_table_shows_models_side_by_side(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    counted = [np.array([*tokenizer.encode(t), EOS]) for part in texts.values() for t in part]
    bigram = train_bigram(counted, tokenizer.vocab_size)
    results = {
        "base": evaluate(model, tokenizer, texts, ENTRIES, 8, seed=1),
        **baseline_results(bigram, tokenizer, texts),
    }
    table = results_table(results)
    lines = table.splitlines()
    assert lines[0].split() == ["bits", "per", "byte", "base", "bigram", "xz", "-9e"]
    zh = next(line for line in lines if line.split()[0] == "zh")
    assert zh.split()[1:] == [f"{r['bits_per_byte']['zh']['value']:.3f}" for r in results.values()]
    tier = next(line for line in lines if line.split()[0] == "zh_curated")
    assert tier.split()[-1] == "-"
    assert len({len(line) for line in lines if line.startswith("  zh")}) == 1
    accuracy = next(line for line in lines if "idiom per_token" in line)
    assert "±" in accuracy and accuracy.split()[-2:] == ["-", "-"]
