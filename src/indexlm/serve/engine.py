"""Generation with a cache of keys and values: one stream for a chat, many rows for sampling.

Shape suffixes: B rows, S positions, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from indexlm.errors import UserError
from indexlm.model.transformer import Transformer
from indexlm.records import Progress
from indexlm.tokens.tokenizer import EOS, PAD, SPECIAL_PIECES, Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the defaults are those of the published chat model."""

    temperature: float = 0.3
    """0 takes the likeliest token."""
    top_k: int = 5
    top_p: float = 0.8
    repetition_penalty: float = 1.1
    """Divides positive and multiplies negative logits of ids in the row (Keskar et al. 2019)."""
    max_new_tokens: int = 256
    seed: int | None = None


class Engine:
    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Engine":
        """Read a model folder. Raises UserError or DamagedError naming the file."""
        from indexlm.export import forms

        return cls(*forms.open_folder(folder))

    @property
    def context(self) -> int:
        return self.model.config.context

    def stream(self, prompt_ids: list[int], sampling: Sampling) -> Iterator[str]:
        """Pieces of the answer as they come; a character of several tokens comes whole."""
        ids: list[int] = []
        shown = ""
        for row in self._tokens([prompt_ids], sampling):
            if row[0] == EOS:
                break
            ids.append(row[0])
            text = self.tokenizer.decode(ids)
            if not text.endswith("�"):
                yield text[len(shown) :]
                shown = text
        yield self.tokenizer.decode(ids)[len(shown) :]

    def answers(
        self, prompts: Sequence[list[int]], sampling: Sampling, *, at_once: int = 64
    ) -> list[list[int]]:
        """Ids of one answer to each prompt, without the end; `at_once` rows in parallel.

        Prompts of like length go together, which saves padding.
        """
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        found: list[list[int]] = [[] for _ in prompts]
        progress = Progress("answers", len(prompts))
        for start in range(0, len(order), at_once):
            some = order[start : start + at_once]
            ended = [False] * len(some)
            for row in self._tokens([prompts[index] for index in some], sampling):
                for place, token in enumerate(row):
                    ended[place] = ended[place] or token == EOS
                    if not ended[place]:
                        found[some[place]].append(token)
                if all(ended):
                    break
            progress.advance(len(some))
        progress.close()
        return found

    @torch.inference_mode()
    def _tokens(self, prompts: list[list[int]], sampling: Sampling) -> Iterator[list[int]]:
        """One id per row and step, until the window or `max_new_tokens` is full."""
        longest = max(map(len, prompts))
        if longest >= self.context:
            raise UserError(
                f"a prompt of {longest} tokens leaves no room in a window of {self.context}"
            )
        new = min(sampling.max_new_tokens, self.context - longest)
        generator = torch.Generator()
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        ids_BS = torch.tensor([[PAD] * (longest - len(p)) + p for p in prompts])
        visible_BS = torch.tensor(
            [[False] * (longest - len(p)) + [True] * (len(p) + new) for p in prompts]
        )
        positions_BS = (visible_BS.long().cumsum(1) - 1).clamp_min(0)
        cache = self.model.new_cache(visible_BS)
        inputs = ids_BS
        for at in range(longest, longest + new):
            positions = positions_BS[:, cache.seen : at]
            hidden = self.model(inputs, positions_BT=positions, cache=cache)[:, -1]
            seen = ids_BS.masked_fill(~visible_BS[:, : ids_BS.shape[1]], PAD)
            inputs = _draw(self.model.logits(hidden).float(), seen, sampling, generator)
            ids_BS = torch.cat((ids_BS, inputs), dim=1)
            yield inputs[:, 0].tolist()


def _draw(
    logits_BV: Tensor, seen_BS: Tensor, sampling: Sampling, generator: torch.Generator
) -> Tensor:
    """The next id of each row, [B, 1]. Of the control ids only the end can be drawn.

    Raises UserError where the network has no answer: finite weights can be so large that their
    products are not.
    """
    # Of the sum: `isfinite` of each is 50 times as slow.
    if not math.isfinite(float(logits_BV.sum())):
        raise UserError(
            "the model gives logits that are NaN or infinite, as a training that diverged leaves "
            "it; take an earlier checkpoint, or fetch this one again"
        )
    seen_logits = logits_BV.gather(1, seen_BS)
    penalty = sampling.repetition_penalty
    seen_logits = torch.where(seen_logits > 0, seen_logits / penalty, seen_logits * penalty)
    logits_BV = logits_BV.scatter(1, seen_BS, seen_logits)
    for control in range(len(SPECIAL_PIECES)):
        if control != EOS:
            logits_BV[:, control] = -torch.inf
    if sampling.temperature == 0:
        return logits_BV.argmax(1, keepdim=True)
    count = min(sampling.top_k or logits_BV.shape[1], logits_BV.shape[1])
    top, ids = logits_BV.topk(count, dim=1)
    p = (top / sampling.temperature).softmax(1)
    # Keep the smallest set of likeliest ids whose probability reaches top_p.
    p = p.masked_fill(p.cumsum(1) - p >= sampling.top_p, 0.0)
    return ids.gather(1, torch.multinomial(p, 1, generator=generator))
