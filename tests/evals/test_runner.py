"""Results are plain values, the curve's subset is fixed, and training does not notice it."""

import copy
import json
import random

import numpy as np
import pytest
import torch

from indexlm.evals.baselines import train_bigram
from indexlm.evals.runner import (
    baseline_results,
    curve_point,
    evaluate,
    results_table,
    within_chance,
)
from indexlm.evals.scoring import bits_per_byte
from indexlm.evals.tasks import STYLES, HeldOutEntry
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


def test_the_curve_takes_the_same_part_each_time(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    first = curve_point(model, tokenizer, texts, ENTRIES, 4, seed=1, max_bytes=150)
    assert curve_point(model, tokenizer, texts, ENTRIES, 4, seed=1, max_bytes=150) == first
    assert set(first) == {
        "bits_per_byte/zh",
        "bits_per_byte/en",
        *(f"starter/idiom/{s}/{m}" for s in STYLES for m in ("accuracy", "margin")),
    }
    # With room for all of the text it is the whole evaluation.
    whole = evaluate(model, tokenizer, texts, ENTRIES, 4, seed=1)
    all_of_it = curve_point(model, tokenizer, texts, ENTRIES, 4, seed=1, max_bytes=10**6)
    assert all_of_it["bits_per_byte/zh"] == pytest.approx(whole["bits_per_byte"]["zh"]["value"])
    assert first["bits_per_byte/zh"] != all_of_it["bits_per_byte/zh"]


def test_training_does_not_notice_a_point_of_the_curve(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    """Two runs end in the same bits, with and without points in between."""

    def train(network: Transformer, with_points: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        network.train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
        for _ in range(4):
            ids_BT = torch.randint(5, network.config.vocab_size, (2, 9))
            logits_BTV = network.logits(network(ids_BT[:, :-1]))
            torch.nn.functional.cross_entropy(logits_BTV.mT, ids_BT[:, 1:]).backward()
            if with_points:
                state = random.getstate(), np.random.get_state()[1].tobytes()
                curve_point(network, tokenizer, texts, ENTRIES, 4, seed=1, max_bytes=100)
                assert state == (random.getstate(), np.random.get_state()[1].tobytes())
                assert network.training and torch.is_grad_enabled()
            optimiser.step()
            optimiser.zero_grad()
        return network.state_dict()

    plain = train(copy.deepcopy(model), with_points=False)
    watched = train(copy.deepcopy(model), with_points=True)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


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


@pytest.mark.parametrize(
    ("accuracy", "items", "expected"),
    [
        (0.25, 10, True),
        (0.33, 100, True),
        (0.34, 100, False),
        (0.16, 100, False),
        (0.3, 300, False),
    ],
)
def test_chance_is_the_range_of_a_guesser(accuracy: float, items: int, expected: bool) -> None:
    assert within_chance(accuracy, items) is expected
