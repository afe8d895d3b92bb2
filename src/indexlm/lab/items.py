"""What a model knows of the world: items with four candidate answers of one word, and their scores.

| kind | prompt | candidates |
|---|---|---|
| `cloze` | a statement up to its value | values of the same relation and language |
| `qa` | a question, as `instr` documents have it | the same |
| `letters` | a question with four options | the letters |
| `hops-2` | a statement about a friend | values |
| `chat` | what a person says to a chat model | values |

The candidates of an item are one token each, so one pass over its prompt scores them all: what is
compared is the log-likelihood of the whole continuation.

Shape suffixes: N items, O options, T positions, D width, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from indexlm.evals.scoring import evaluating
from indexlm.feed.packing import Source, collate
from indexlm.lab.corpus import Draws, drawn_options
from indexlm.lab.words import FRAMES, LANGUAGES, PURPOSES, Language
from indexlm.lab.world import World, before_value
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import ASSISTANT, EOS, USER
from indexlm.train.objectives.language import language_loss

ItemKind = Literal["cloze", "qa", "letters", "hops-2", "chat"]
KINDS: tuple[ItemKind, ...] = ("cloze", "qa", "letters", "hops-2", "chat")
Half = Literal["trained", "held-out"]
HALVES: tuple[Half, Half] = ("trained", "held-out")

AT_ONCE = 512
"""Prompts that pass through the model together: about 6,000 positions."""


@dataclass(frozen=True)
class Items:
    """Prompts, candidate ids [N, O] and which candidate is right [N]."""

    kind: ItemKind
    half: Half
    """Whether questions about the same facts are trained on."""
    prompts: tuple[tuple[int, ...], ...]
    candidates_NO: np.ndarray
    right_N: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.half}"


@dataclass(frozen=True)
class ItemScores:
    """Of each item, [N]."""

    margin_N: np.ndarray
    """Log-probability of the right candidate less that of the best wrong one, nats."""
    probability_N: np.ndarray
    """Of the right candidate among the candidates."""
    logprob_N: np.ndarray
    """Of the right candidate among all words, nats."""
    exact_N: np.ndarray
    """Whether no word at all is likelier."""

    def summary(self, name: str) -> dict[str, float]:
        # A tie is no right answer: a model that tells nothing apart must not score.
        return {
            f"{name}/accuracy": float((self.margin_N > 0).mean()),
            f"{name}/margin": float(self.margin_N.mean()),
            f"{name}/probability": float(self.probability_N.mean()),
            f"{name}/logprob": float(self.logprob_N.mean()),
            f"{name}/exact": float(self.exact_N.mean()),
        }


def items(world: World, kind: ItemKind, half: Half, most: int, seed: int = 0) -> Items:
    """At most `most` items, drawn by the seed out of all facts in both languages."""
    draws = Draws(np.random.default_rng((world.config.seed, seed, KINDS.index(kind))))
    facts = list(_facts(world, kind, half))
    chosen = [facts[at] for at in draws.shuffled(len(facts))[:most]]
    prompts, candidates, places = [], [], []
    for language, entity, relation in chosen:
        right = world.answer(entity, relation, _hops(kind))
        options, place = drawn_options(draws, right, world.config.values)
        values = [world.value_ids[language][relation][option] for option in options]
        prompts.append(_prompt(world, kind, draws, (language, entity, relation), values))
        candidates.append(world.letter_ids if kind == "letters" else values)
        places.append(place)
    return Items(kind, half, tuple(prompts), np.array(candidates), np.array(places))


@torch.no_grad()
def score(model: Transformer, some: Items) -> ItemScores:
    """Accuracy and its continuous counterparts of the same items."""
    logprobs_NO, exact_N = [], []
    with evaluating(model):
        for start in range(0, len(some.prompts), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            logprobs_NV = log_probs_after(model, some.prompts[part])
            candidates_NO = torch.from_numpy(some.candidates_NO[part])
            logprobs_NO.append(logprobs_NV.gather(1, candidates_NO).numpy())
            right_N1 = candidates_NO.gather(1, torch.from_numpy(some.right_N[part])[:, None])
            exact_N.append((logprobs_NV.argmax(1) == right_N1[:, 0]).numpy())
    return _scores(np.concatenate(logprobs_NO), some.right_N, np.concatenate(exact_N))


@torch.no_grad()
def likeliest(model: Transformer, prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """The id that a model would say first after each prompt, [N]."""
    with evaluating(model):
        parts = [
            log_probs_after(model, prompts[start : start + AT_ONCE]).argmax(1).numpy()
            for start in range(0, len(prompts), AT_ONCE)
        ]
    return np.concatenate(parts)


@torch.no_grad()
def text_loss(model: Transformer, source: Source, rows: int, length: int) -> float:
    """Nats per token over the first rows of a source that nothing is trained on."""
    device = str(model.lm_head.weight.device)
    with evaluating(model):
        batch = collate([source.row(number) for number in range(rows)], length).to(device)
        loss, units, _ = language_loss(model, batch)
    return float(loss) / units


def evaluation(
    model: Transformer,
    sets: Sequence[Items],
    texts: Mapping[str, Source],
    rows: int,
    length: int,
) -> dict[str, float]:
    """Scores of every set and `loss/<name>` of every text, by name."""
    found: dict[str, float] = {}
    for some in sets:
        found |= score(model, some).summary(some.name)
    for name, source in texts.items():
        found[f"loss/{name}"] = text_loss(model, source, rows, length)
    return {name: value if math.isfinite(value) else math.nan for name, value in found.items()}


def _facts(world: World, kind: ItemKind, half: Half) -> Iterator[tuple[Language, int, int]]:
    for entity in range(world.config.entities):
        for relation in range(world.config.relations):
            if world.is_trained(entity, relation, _hops(kind)) == (half == "trained"):
                for language in LANGUAGES:
                    yield language, entity, relation


def _hops(kind: ItemKind) -> int:
    return 2 if kind == "hops-2" else 1


def _prompt(
    world: World,
    kind: ItemKind,
    draws: Draws,
    fact: tuple[Language, int, int],
    options: Sequence[int],
) -> tuple[int, ...]:
    language, entity, relation = fact
    if kind == "chat":
        purpose = draws.below(len(PURPOSES[language][False]))
        template = world.asked(language, relation, purpose, harmful=False)
        return (USER, *world.filled(template, entity, 0), ASSISTANT)
    if kind == "cloze":
        template = world.statement(language, relation, draws.below(len(FRAMES[language])))
    elif kind == "qa":
        template = world.question(language, relation)
    elif kind == "letters":
        template = world.choice(language, relation)
    else:
        template = world.chained(language, relation)
    return (EOS, *world.filled(before_value(template), entity, 0, options))


def log_probs_after(model: Transformer, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Log-probabilities of the word after each prompt, float32 [N, V] on the processor.

    The model is in evaluation mode and no gradient is asked for.
    """
    device = model.lm_head.weight.device
    ends_N = torch.tensor([len(prompt) - 1 for prompt in prompts])
    # Padding stands on the right, where causal attention does not see it.
    ids_NT = torch.zeros(len(prompts), int(ends_N.max()) + 1, dtype=torch.long)
    for number, prompt in enumerate(prompts):
        ids_NT[number, : len(prompt)] = torch.tensor(prompt)
    hidden_NTD = model(ids_NT.to(device))
    hidden_ND = hidden_NTD[torch.arange(len(prompts)), ends_N.to(device)]
    return model.logits(hidden_ND).float().log_softmax(1).cpu()


def _scores(logprobs_NO: np.ndarray, right_N: np.ndarray, exact_N: np.ndarray) -> ItemScores:
    at = np.arange(len(right_N))
    logprob_N = logprobs_NO[at, right_N]
    wrong_NO = logprobs_NO.copy()
    wrong_NO[at, right_N] = -np.inf
    total_N = np.exp(logprobs_NO).sum(1)
    return ItemScores(
        margin_N=logprob_N - wrong_NO.max(1),
        probability_N=np.exp(logprob_N) / np.maximum(total_N, np.finfo(np.float32).tiny),
        logprob_N=logprob_N,
        exact_N=exact_N,
    )
