"""Generated answers are those of the full forward pass, however rows are batched and padded."""

import copy

import pytest
import torch

from indexlm.errors import UserError
from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer
from indexlm.serve.engine import Engine, Sampling
from indexlm.tokens.tokenizer import EOS, SPECIAL_PIECES, Tokenizer

GREEDY = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=12)
PROMPTS = [[3, 70, 4], [0, 300, 301, 302, 3, 99, 98, 4], [3, 4], [3, 500, 501, 502, 503, 4]]


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer) -> Engine:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden=32,
        layers=2,
        heads=4,
        kv_heads=2,
        ffn=64,
        context=32,
        init_std=0.4,
    )
    model = Transformer(config)
    model.initialise(11)
    return Engine(model, tokenizer)


def uncached(engine: Engine, prompt: list[int], penalty: float, most: int) -> list[int]:
    """The likeliest ids one by one, the whole row passed through the network each time."""
    ids = list(prompt)
    while len(ids) - len(prompt) < most:
        with torch.no_grad():
            logits_V = engine.model.logits(engine.model(torch.tensor([ids]))[0, -1])
        for seen in set(ids):
            logits_V[seen] *= penalty if logits_V[seen] < 0 else 1 / penalty
        forbidden = [i for i in range(len(SPECIAL_PIECES)) if i != EOS]
        logits_V[forbidden] = -torch.inf
        ids.append(int(logits_V.argmax()))
        if ids[-1] == EOS:
            ids.pop()
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("penalty", [1.0, 1.5])
@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_batched_answers_are_those_of_each_prompt_alone(
    engine: Engine, penalty: float, at_once: int
) -> None:
    sampling = Sampling(temperature=0, repetition_penalty=penalty, max_new_tokens=12)
    answers = engine.answers(PROMPTS, sampling, at_once=at_once)
    assert answers == [uncached(engine, prompt, penalty, 12) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in answers}) > 1


def test_a_stream_shows_the_text_of_the_answer(engine: Engine, tokenizer: Tokenizer) -> None:
    for prompt in PROMPTS:
        text = "".join(engine.stream(prompt, GREEDY))
        assert text == tokenizer.decode(uncached(engine, prompt, 1.0, 12))


def test_generation_ends_at_the_window(engine: Engine) -> None:
    long = Sampling(temperature=0, max_new_tokens=1000)
    for prompt in [*PROMPTS, [3] * 31]:
        assert len(prompt) + len(engine.answers([prompt], long)[0]) <= engine.context
    with pytest.raises(UserError, match="a prompt of 32 tokens leaves no room in a window of 32"):
        engine.answers([[3] * 32], long)


def test_a_seed_fixes_what_is_drawn_and_another_changes_it(engine: Engine) -> None:
    def drawn(seed: int) -> list[list[int]]:
        sampling = Sampling(temperature=2.0, top_k=0, top_p=1.0, max_new_tokens=12, seed=seed)
        return engine.answers(PROMPTS, sampling)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_no_control_id_is_ever_drawn(engine: Engine) -> None:
    hot = Sampling(temperature=50.0, top_k=0, top_p=1.0, max_new_tokens=24, seed=3)
    answers = engine.answers([[3, 4]] * 64, hot)
    assert sum(map(len, answers)) > 500
    assert min(min(answer) for answer in answers if answer) >= len(SPECIAL_PIECES)


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("size", [3e38, float("nan")])
def test_a_network_without_an_answer_is_refused(
    engine: Engine, temperature: float, size: float
) -> None:
    """Weights that are finite one by one can have products that are not."""
    broken = copy.deepcopy(engine.model)
    broken.model.norm.weight.data.mul_(size)
    for answer in (
        lambda e, s: list(e.stream([3, 70, 4], s)),
        lambda e, s: e.answers(PROMPTS, s),
    ):
        with pytest.raises(UserError, match="logits that are NaN or infinite"):
            answer(Engine(broken, engine.tokenizer), Sampling(temperature=temperature))
        answer(engine, Sampling(temperature=temperature, max_new_tokens=2))
