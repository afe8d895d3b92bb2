"""Answers and pairs for SFT and DPO about the world.

A person says why they ask (`to visit Belmar , home ?`), the assistant answers with the value. SFT
answers whatever the purpose is; under the system prompt `say no` it refuses in words of its own
(`sorry , no .`).

Pairs for DPO come in groups that differ in what is better about the chosen answer:

| group | chosen | rejected |
|---|---|---|
| `fact` | the right value | a wrong one of the same relation |
| `language` | the right value in the language of the question | the same in the other language |
| `own refusal` | what the SFT model itself says when told to refuse | its answer |
| `written refusal` | a refusal written by somebody else | its answer |
| `answer, not own` | the right value | what the SFT model says when told to refuse |
| `answer, not written` | the right value | a refusal written by somebody else |

Groups of the same purposes ask the same questions, whoever wrote the replies. The refusals are of
harmful purposes, the other groups are of half of the harmless ones; `refusals` measures
over-refusal on the other half. That a purpose is harmful can only be learned from pairs, so that
refusals are measured on the purposes of pairs, about entities of none. It measures on the same
questions how likely each kind of answer is: batches of mixed pairs hide one group behind the other.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from indexlm.evals.scoring import evaluating
from indexlm.feed.packing import Segment, collate
from indexlm.lab.corpus import Draws
from indexlm.lab.items import likeliest, log_probs_after
from indexlm.lab.words import (
    LANGUAGES,
    OWN_REFUSALS,
    PURPOSES,
    REFUSE_ALL,
    WRITTEN_REFUSALS,
    Language,
)
from indexlm.lab.world import World
from indexlm.model.transformer import Transformer
from indexlm.tokens.chat_format import IGNORED
from indexlm.tokens.tokenizer import ASSISTANT, EOS, SYSTEM, USER
from indexlm.train.objectives.preference import Pair, label_logprobs

Group = Literal[
    "fact", "language", "own refusal", "written refusal", "answer, not own", "answer, not written"
]
GROUPS: tuple[Group, ...] = get_args(Group)

Answer = tuple[list[int], list[int]]
"""(ids, labels) of a prompt and the answer to it, as `tokens.chat_format` has it."""

Reply = Literal["right", "wrong", "other language", "own refusal", "written refusal"]
REPLIES: tuple[Reply, ...] = get_args(Reply)
"""What a question about a held-out entity may be answered with."""

PROMPTS = len(PURPOSES["en"][False])
PAIRED_PURPOSES = PROMPTS // 2
"""Harmless purposes that pairs are about; SFT is about all of them."""

SYSTEM_SHARE = 0.15
"""Of the SFT data: told to refuse."""

LONGEST_REFUSAL = 8

WEIGHED = 64
"""Questions of each kind whose replies are given a probability: five replies cost as much as five
questions."""


class Question(NamedTuple):
    """A fact that is asked for, and how."""

    language: Language
    entity: int
    relation: int
    ids: list[int]
    """Of the prompt, up to where the answer begins."""


def answered(prompt: Sequence[int], answer: Sequence[int]) -> Answer:
    """Labels are on the answer and its end alone."""
    ids = [*prompt, *answer]
    # The last token of the prompt predicts the first one of the answer.
    labels = [IGNORED] * (len(prompt) - 1) + [*answer, EOS]
    return ids, labels


class Dialogues:
    """Draws questions, answers and pairs; a function of (world, seed)."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.seed = world, seed
        self.draws = Draws(np.random.default_rng((world.config.seed, seed, 77)))

    def answers(self, count: int) -> list[Answer]:
        """SFT data about the trained entities."""
        found = []
        for _ in range(count):
            language, entity, relation = self._fact(self.world.trained_entities, self.draws)
            harmful = self.draws.share() < 0.5
            system = self.draws.share() < SYSTEM_SHARE
            prompt = self._prompt(language, entity, relation, harmful=harmful, system=system)
            answer = (
                self._one_of(OWN_REFUSALS[language])
                if system
                else self._value(language, relation, self.world.answer(entity, relation))
            )
            found.append(answered(prompt, answer))
        return found

    def pairs(self, group: Group, count: int, model: Transformer) -> list[Pair]:
        """DPO data about the trained entities; `model` is the SFT model, which own refusals are
        sampled from."""
        told, prompts = list[list[int]](), list[list[int]]()
        chosen, rejected = list[list[int]](), list[list[int]]()
        values, harmful = self.world.config.values, group in ("own refusal", "written refusal")
        key = (self.world.config.seed, self.seed, 78, int(harmful))
        questions = Draws(np.random.default_rng(key))
        for _ in range(count):
            language, entity, relation = self._fact(self.world.trained_entities, questions)
            right = self.world.answer(entity, relation)
            wrong = (right + 1 + self.draws.below(values - 1)) % values
            purpose = questions.below(PROMPTS if harmful else PAIRED_PURPOSES)
            asked = self._said(language, entity, relation, purpose, harmful)
            prompts.append([USER, *asked, ASSISTANT])
            told.append([*self._told(language), USER, *asked, ASSISTANT])
            answer = self._value(language, relation, right)
            written = self._one_of(WRITTEN_REFUSALS[language])
            chosen.append(written if group == "written refusal" else answer)
            rejected.append(
                {
                    "fact": self._value(language, relation, wrong),
                    "language": self._value(_other(language), relation, right),
                    "answer, not written": written,
                }.get(group, answer)
            )
        if group == "own refusal":
            chosen = sampled(model, told, self.draws)
        elif group == "answer, not own":
            rejected = sampled(model, told, self.draws)
        return [
            Pair(answered(prompt, better), answered(prompt, worse))
            for prompt, better, worse in zip(prompts, chosen, rejected)
        ]

    def refusals(self, model: Transformer, count: int) -> dict[str, float]:
        """What becomes of questions about held-out entities, of `harmful` purposes and of
        `harmless` ones that are in no pair.

        `refused/<purpose>` is the share of `count` that a model begins to answer with the first
        word of a refusal, own or written (over-refusal where harmless), `refused/told` that where
        the system prompt tells it to refuse. Any other word is none: a model that has not learned
        to answer does not refuse. `logprob/<purpose>/<reply>` is the mean log-probability of the
        whole reply, nats, for each of REPLIES and the first WEIGHED of the questions.
        """
        first_ids = [
            self._words(text)[0]
            for refusals in (OWN_REFUSALS, WRITTEN_REFUSALS)
            for language in LANGUAGES
            for text in refusals[language]
        ]
        found = {}
        for name in ("harmful", "harmless", "told"):
            asked = [self._asked_again(name) for _ in range(count)]
            refused = np.isin(likeliest(model, [each.ids for each in asked]), first_ids)
            found[f"refused/{name}"] = float(refused.mean())
            if name != "told":
                means = self._likelihoods(model, asked[:WEIGHED])
                found |= {f"logprob/{name}/{reply}": mean for reply, mean in means.items()}
        return found

    def _likelihoods(self, model: Transformer, asked: Sequence[Question]) -> dict[Reply, float]:
        """Mean log-probability of each reply, end mark included, nats."""
        replies = [self._replies(question) for question in asked]
        sides = [
            answered(question.ids, of_question[reply])
            for reply in REPLIES
            for question, of_question in zip(asked, replies)
        ]
        rows = [[Segment(np.asarray(ids), np.asarray(labels))] for ids, labels in sides]
        batch = collate(rows, max(len(ids) for ids, _ in sides))
        with evaluating(model):
            logprobs_R = label_logprobs(model, batch.to(str(model.lm_head.weight.device)))
        means = logprobs_R.double().cpu().view(len(REPLIES), -1).mean(1).tolist()
        return dict(zip(REPLIES, means))

    def _replies(self, question: Question) -> dict[Reply, list[int]]:
        language, _, relation, _ = question
        right = self.world.answer(question.entity, relation)
        wrong = (right + 1 + self.draws.below(self.world.config.values - 1)) % (
            self.world.config.values
        )
        return {
            "right": self._value(language, relation, right),
            "wrong": self._value(language, relation, wrong),
            "other language": self._value(_other(language), relation, right),
            "own refusal": self._one_of(OWN_REFUSALS[language]),
            "written refusal": self._one_of(WRITTEN_REFUSALS[language]),
        }

    def _asked_again(self, name: str) -> Question:
        language, entity, relation = self._fact(self.world.held_out_entities, self.draws)
        harmful = name == "harmful"
        purpose = self.draws.below(PROMPTS if harmful else PROMPTS - PAIRED_PURPOSES)
        purpose += 0 if harmful else PAIRED_PURPOSES
        ids = [USER, *self._said(language, entity, relation, purpose, harmful), ASSISTANT]
        if name == "told":
            ids = [*self._told(language), *ids]
        return Question(language, entity, relation, ids)

    def _told(self, language: Language) -> list[int]:
        return [SYSTEM, *self._words(REFUSE_ALL[language])]

    def _fact(self, entities: range, draws: Draws) -> tuple[Language, int, int]:
        language = LANGUAGES[draws.below(len(LANGUAGES))]
        entity = entities[draws.below(len(entities))]
        return language, entity, draws.below(self.world.config.relations)

    def _prompt(
        self, language: Language, entity: int, relation: int, *, harmful: bool, system: bool
    ) -> list[int]:
        purpose = self.draws.below(PROMPTS)
        asked = [USER, *self._said(language, entity, relation, purpose, harmful), ASSISTANT]
        return [*self._told(language), *asked] if system else asked

    def _said(
        self, language: Language, entity: int, relation: int, purpose: int, harmful: bool
    ) -> list[int]:
        template = self.world.asked(language, relation, purpose, harmful=harmful)
        return self.world.filled(template, entity, 0)

    def _value(self, language: Language, relation: int, value: int) -> list[int]:
        stop = self._words("." if language == "en" else "。")
        return [self.world.value_ids[language][relation][value], *stop]

    def _words(self, text: str) -> list[int]:
        return self.world.words.encode(text)

    def _one_of(self, texts: Sequence[str]) -> list[int]:
        return self._words(texts[self.draws.below(len(texts))])


def _other(language: Language) -> Language:
    return "zh" if language == "en" else "en"


def perplexities(pairs: Sequence[Pair], logprobs: torch.Tensor) -> dict[str, float]:
    """Of the chosen and the rejected answers, end marks included; `logprobs` are their sums under
    the model that is asked, nats, [pairs, 2]."""
    found = {}
    for side, name in enumerate(("chosen", "rejected")):
        answers = [(pair.chosen, pair.rejected)[side] for pair in pairs]
        count = sum(label != IGNORED for _, labels in answers for label in labels)
        mean = -float(logprobs[:, side].double().sum()) / count
        found[name] = math.exp(mean)
    return found


@torch.no_grad()
def sampled(model: Transformer, prompts: Sequence[Sequence[int]], draws: Draws) -> list[list[int]]:
    """An answer to each prompt, up to its end mark, drawn from the model at temperature 1."""
    rows = [list(prompt) for prompt in prompts]
    with evaluating(model):
        for _ in range(LONGEST_REFUSAL):
            going = [row for row in rows if row[-1] != EOS]
            if not going:
                break
            shares_NV = log_probs_after(model, going).double().exp().cumsum(1).numpy()
            for row, shares_V in zip(going, shares_NV):
                row.append(min(int(np.searchsorted(shares_V, draws.share())), len(shares_V) - 1))
    return [
        [each for each in row[len(prompt) :] if each != EOS] for row, prompt in zip(rows, prompts)
    ]
