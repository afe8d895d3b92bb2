"""A changed model against its original: nothing is nothing, more noise is more loss."""

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from indexlm.errors import UserError
from indexlm.evals import fidelity as subject
from indexlm.evals.fidelity import compare_positions, fidelity, fidelity_table
from indexlm.evals.runner import evaluate
from indexlm.evals.starter import STYLES, HeldOutEntry
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import EOS, Tokenizer

# One thread: the networks here are too small to share out.
torch.set_num_threads(1)

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
    {
        "id": f"idiom/{n}",
        "kind": "idiom",
        "word": f"甲乙丙{'子丑寅卯辰巳午未'[n]}",
        "explanation": t,
    }
    for n, t in enumerate(EXPLANATIONS)
]


TEXTS = {
    "zh_curated": [
        "春天来了，河边的柳树发出新芽，孩子们在草地上奔跑。老人坐在门前，看着远处的青山。",
        "学习要有耐心，不能只看眼前的得失。读书使人明白道理，实践使人知道深浅。",
    ],
    "en_noisy": [
        "The river was wide and slow, and in the evening the boats came home one after another.",
        "She opened the window and looked at the garden, where the roses had begun to flower.",
        "He said that nothing was ever finished, only put aside until somebody asked for it again.",
    ],
}


@pytest.fixture(scope="module")
def learned(tokenizer: Tokenizer) -> Transformer:
    """A network that knows its text: only from there is every change a loss."""
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden=32,
        layers=2,
        heads=2,
        kv_heads=2,
        ffn=64,
        context=16,
        head_scale=3.0,
        init_std=0.3,
    )
    network = Transformer(config)
    network.initialise(seed=5)
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    rows = []
    for text in TEXTS["zh_curated"] + TEXTS["en_noisy"]:
        ids = [EOS, *tokenizer.encode(text), EOS]
        rows += [ids[at : at + 17] for at in (*range(0, len(ids) - 17, 8), len(ids) - 17)]
    rows_BT = torch.tensor(rows)
    for _ in range(80):
        logits_BTV = network.logits(network(rows_BT[:, :-1]))
        torch.nn.functional.cross_entropy(logits_BTV.mT, rows_BT[:, 1:]).backward()
        optimiser.step()
        optimiser.zero_grad()
    return network.eval()


def with_noise(model: Transformer, share: float) -> Transformer:
    """Every matrix with noise of `share` of its deviation; the same noise, only longer."""
    changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in changed.parameters():
            noise = torch.empty_like(parameter).normal_(generator=generator)
            if parameter.dim() == 2:
                parameter.add_(noise, alpha=share * float(parameter.std()))
    return changed


def plain_logprobs(model: Transformer, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(torch.tensor([ids[:-1]])))[0].double().log_softmax(-1)


def test_a_model_loses_nothing_to_itself(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    result = fidelity(model, copy.deepcopy(model), tokenizer, texts, ENTRIES, 5, seed=1)
    assert json.loads(json.dumps(result)) == result
    assert set(result["text"]) == {"zh", "en", "zh_curated", "zh_ordinary", "en_noisy"}
    for text in result["text"].values():
        assert text["original"] == text["changed"] > 0
        assert text["difference"] == text["standard_error"] == 0
        assert text["same_next"] == 1
        assert text["kl_mean"] == text["kl_max"] == 0
    assert result["starter"]["idiom"]["items"] == 5
    for style in STYLES:
        for measure in result["starter"]["idiom"][style].values():
            assert measure["original"] == measure["changed"]
            assert measure["difference"] == measure["standard_error"] == 0


def test_more_noise_is_more_loss(learned: Transformer, tokenizer: Tokenizer) -> None:
    results = [
        fidelity(learned, with_noise(learned, share), tokenizer, TEXTS, [], 0, seed=1)["text"]
        for share in (0.0, 0.1, 0.3, 1.0)
    ]
    assert results[0]["zh"]["original"] < 0.5
    for name in results[0]:
        for measure in ("difference", "kl_mean", "kl_max"):
            values = [result[name][measure] for result in results]
            assert values[0] == 0 and values == sorted(values)
            assert len(set(values)) == len(values)
        same = [result[name]["same_next"] for result in results]
        assert same[0] == 1 and same == sorted(same, reverse=True) and same[-1] < 0.7


def test_the_divergence_of_two_positions_is_that_of_paper_and_pencil() -> None:
    original_NV = torch.tensor([[1 / 2, 1 / 4, 1 / 4], [1 / 8, 3 / 4, 1 / 8]]).log()
    changed_NV = torch.tensor([[1 / 4, 1 / 2, 1 / 4], [1 / 4, 1 / 2, 1 / 4]]).log()
    # Logits are given up to a constant of each position.
    found = compare_positions(original_NV + 5, changed_NV - 7, torch.tensor([0, 2]))
    first = 1 / 2 * math.log(2) - 1 / 4 * math.log(2)
    second = 1 / 4 * math.log(1 / 2) + 3 / 4 * math.log(3 / 2)
    assert found.divergence == pytest.approx([first, second], abs=1e-6)
    # The other way round the second one is 1/2 ln 2 + 1/2 ln 2/3: the direction matters.
    assert abs(second - (math.log(2) / 2 + math.log(2 / 3) / 2)) > 0.01
    assert found.same.tolist() == [False, True]
    assert found.original == pytest.approx([math.log(2), math.log(8)], abs=1e-6)
    assert found.changed == pytest.approx([math.log(4), math.log(4)], abs=1e-6)


def test_text_measures_are_those_of_plain_forward_passes(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    changed = with_noise(model, 0.2)
    texts = ["春天来了。", "hello", "山高路远。"]
    divergence, same = [], []
    for text in texts:
        ids = [EOS, *tokenizer.encode(text), EOS]
        assert len(ids) <= model.config.context
        p_TV, q_TV = plain_logprobs(model, ids), plain_logprobs(changed, ids)
        divergence += (p_TV.exp() * (p_TV - q_TV)).sum(1).tolist()
        same += (p_TV.argmax(1) == q_TV.argmax(1)).tolist()
    result = fidelity(model, changed, tokenizer, {"zh_short": texts}, [], 0, seed=1)["text"]
    assert result["zh"] == result["zh_short"]
    assert result["zh"]["tokens"] == len(same)
    assert result["zh"]["same_next"] == sum(same) / len(same) < 1
    assert result["zh"]["kl_mean"] == pytest.approx(np.mean(divergence), abs=1e-6)
    assert result["zh"]["kl_max"] == pytest.approx(max(divergence), abs=1e-5)


def test_both_models_score_as_they_do_alone(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, list[str]]
) -> None:
    changed = with_noise(model, 0.5)
    result = fidelity(model, changed, tokenizer, {**texts, "en_none": []}, ENTRIES, 8, seed=1)
    for side, network in (("original", model), ("changed", changed)):
        alone = evaluate(network, tokenizer, texts, ENTRIES, 8, seed=1)
        assert set(result["text"]) == set(alone["bits_per_byte"])
        for name, text in result["text"].items():
            expected = alone["bits_per_byte"][name]
            assert text[side] == pytest.approx(expected["value"], abs=1e-5)
            for size in ("tokens", "bytes", "documents"):
                assert text[size] == expected[size]
        for style in STYLES:
            found, expected = result["starter"]["idiom"][style], alone["starter"]["idiom"][style]
            assert found["accuracy"][side] == expected["accuracy"]
            assert found["margin"][side] == pytest.approx(expected["margin"])


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found = {}
    for name, inner in value.items():
        path = f"{prefix}/{name}"
        found.update(flat(inner, path) if isinstance(inner, Mapping) else {path: inner})
    return found


@pytest.mark.parametrize(("batch_tokens", "chunk_floats"), [(1, 2**22), (40, 2**11), (8192, 1)])
def test_neither_batches_nor_chunks_of_the_head_matter(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    batch_tokens: int,
    chunk_floats: int,
) -> None:
    changed = with_noise(model, 0.2)
    expected = flat(fidelity(model, changed, tokenizer, texts, ENTRIES, 4, seed=1))
    monkeypatch.setattr(subject, "CHUNK_FLOATS", chunk_floats)
    found = fidelity(model, changed, tokenizer, texts, ENTRIES, 4, 1, batch_tokens)
    assert flat(found) == pytest.approx(expected, abs=1e-5)


def test_errors_are_those_of_the_documents_differences(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    """Documents of one size: the plain standard error of a mean of paired differences."""
    changed = with_noise(model, 0.2)
    texts = ["春天来了。", "山高路远。", "老人读书。", "鸟鸣不断。"]
    assert len({len(text.encode()) for text in texts}) == 1
    result = fidelity(model, changed, tokenizer, {"zh_a": texts}, [], 0, seed=1)["text"]["zh"]
    alone = [
        fidelity(model, changed, tokenizer, {"zh_a": [text]}, [], 0, seed=1)["text"]["zh"]
        for text in texts
    ]
    assert all(one["standard_error"] is None for one in alone)
    differences = [one["difference"] for one in alone]
    assert result["difference"] == pytest.approx(np.mean(differences), abs=1e-6)
    expected = np.std(differences, ddof=1) / math.sqrt(len(texts))
    assert result["standard_error"] == pytest.approx(expected, abs=1e-6)


def test_the_table_marks_what_noise_explains() -> None:
    text = {
        "original": 1.25,
        "changed": 1.26,
        "difference": 0.01,
        "standard_error": 0.002,
        "same_next": 0.987,
        "kl_mean": 0.0012,
        "kl_max": 0.5,
        "tokens": 9,
        "bytes": 30,
        "documents": 3,
    }
    score = {"original": 0.4, "changed": 0.39, "difference": -0.01, "standard_error": 0.02}
    styles = {style: {"accuracy": score, "margin": score} for style in STYLES}
    one = {**text, "standard_error": None, "documents": 1}
    result = {"text": {"zh": text, "en": one}, "starter": {"idiom": {"items": 50, **styles}}}
    lines = fidelity_table(result).splitlines()
    zh = next(line for line in lines if line.split()[0] == "zh")
    assert zh.split()[:3] == ["zh", "(3", "documents)"]
    assert " ".join(zh.split()[3:]) == "1.2500 1.2600 +0.0100 ±0.0020 98.70% 0.0012 0.5"
    assert "±-~" in next(line for line in lines if line.split()[0] == "en")
    idiom = next(line for line in lines if "idiom per_token" in line)
    assert idiom.split()[-4:] == ["40.0", "39.0", "-1.0", "±2.0~"]


def test_models_of_different_vocabularies_are_refused(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    other = Transformer(model.config.model_copy(update={"vocab_size": 600}))
    with pytest.raises(UserError, match=r"vocabularies of \d+ and 600"):
        fidelity(model, other, tokenizer, {"zh_a": ["春天"]}, [], 0, seed=1)
