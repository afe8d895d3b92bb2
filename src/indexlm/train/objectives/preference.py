"""Direct preference optimisation (Rafailov et al. 2023) against stored reference probabilities.

The reference model is the one that training starts from: its log-probabilities are computed once,
before the first step, so that no second model stays in memory.

Shape suffixes: P pairs, R = 2P rows (chosen first, then rejected), T positions, L labelled
positions, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from indexlm.errors import UserError
from indexlm.feed.packing import Batch, Segment, collate
from indexlm.model.transformer import Transformer
from indexlm.records import Progress
from indexlm.runtime import rank, ranks, summed
from indexlm.tokens.chat_format import IGNORED
from indexlm.train.objectives.chunks import log_probs


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt as (ids, labels); labels are IGNORED on the prompt."""

    chosen: tuple[list[int], list[int]]
    rejected: tuple[list[int], list[int]]


@dataclass(frozen=True)
class PairBatch:
    rows: Batch
    reference_R: Tensor
    """Summed log-probability of each row's labels under the reference model, nats."""

    @property
    def tokens(self) -> Mapping[str, int]:
        return {"pairs": int((self.rows.documents_BT >= 0).sum())}

    @property
    def label_bytes(self) -> int:
        return 0

    def split(self, parts: int) -> "list[PairBatch]":
        """Its pairs in as many parts as there are pairs for."""
        # A pair is a row of the first half and one of the second.
        pairs_2P = torch.arange(len(self.reference_R)).view(2, -1)
        return [
            PairBatch(
                Batch(
                    self.rows.ids_BT[rows],
                    self.rows.labels_BT[rows],
                    self.rows.positions_BT[rows],
                    self.rows.documents_BT[rows],
                ),
                self.reference_R[rows],
            )
            for rows in (part.flatten() for part in pairs_2P.chunk(parts, dim=1))
        ]

    def to(self, device: str) -> "PairBatch":
        return PairBatch(self.rows.to(device), self.reference_R.to(device))


def pair_rows(pairs: Sequence[Pair]) -> Batch:
    sides = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    rows = [[Segment(np.asarray(ids), np.asarray(labels))] for ids, labels in sides]
    return collate(rows, max(len(ids) for ids, _ in sides))


def label_logprobs(model: Transformer, batch: Batch) -> Tensor:
    """Summed log-probability of the labels of each row, nats, [R]."""
    hidden_RTD = model(batch.ids_BT)
    labelled_RT = batch.labels_BT != IGNORED
    log_p_L = log_probs(model, hidden_RTD[labelled_RT], batch.labels_BT[labelled_RT])
    row_L = labelled_RT.nonzero()[:, 0]
    return log_p_L.new_zeros(len(batch.ids_BT)).index_add(0, row_L, log_p_L)


class PreferenceLoss:
    """-log sigmoid(beta x margin), margin = chosen minus rejected log-ratio to the reference."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def __call__(
        self, model: Transformer, batch: PairBatch
    ) -> tuple[Tensor, int, dict[str, float]]:
        """(summed loss, pairs, summed margin, accuracy and log-ratios of either side)."""
        log_p_R = label_logprobs(model, batch.rows)
        chosen_P, rejected_P = (log_p_R - batch.reference_R).chunk(2)
        margin_P = chosen_P - rejected_P
        loss = -functional.logsigmoid(self.beta * margin_P).sum()
        metrics = {
            "margin": float(margin_P.detach().sum()),
            "accuracy": float((margin_P.detach() > 0).sum()),
            "chosen": float(chosen_P.detach().sum()),
            "rejected": float(rejected_P.detach().sum()),
        }
        return loss, len(margin_P), metrics


class PairFeed:
    """Step s takes pairs [s x batch, (s + 1) x batch) of an order that is new every epoch."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        reference: Tensor,
        *,
        batch: int,
        micro_batch: int,
        seed: int,
    ) -> None:
        """`reference` holds the log-probabilities of chosen and rejected answers, [pairs, 2]."""
        assert batch % micro_batch == 0, (batch, micro_batch)
        self.pairs, self.reference = pairs, reference
        self.batch, self.micro_batch = batch, micro_batch
        self._epoch = lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng((seed, epoch)).permutation(len(pairs))
        )

    @property
    def names(self) -> list[str]:
        return ["pairs"]

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> Iterator[PairBatch]:
        """Micro-batches rank, rank + ranks, ... of the step."""
        first = step * self.batch
        for number in range(rank, self.batch // self.micro_batch, ranks):
            start = first + number * self.micro_batch
            chosen = [self._pair(sample) for sample in range(start, start + self.micro_batch)]
            rows = pair_rows([self.pairs[index] for index in chosen])
            yield PairBatch(rows, self.reference[chosen].T.flatten())

    def documents(self, step: int) -> list[str]:
        """`pairs#<number>` of every pair that a step is made of."""
        first = step * self.batch
        return [f"pairs#{self._pair(sample)}" for sample in range(first, first + self.batch)]

    def _pair(self, sample: int) -> int:
        epoch, place = divmod(sample, len(self.pairs))
        return int(self._epoch(epoch)[place])


@torch.no_grad()
def reference_logprobs(model: Transformer, pairs: Sequence[Pair], at_once: int) -> Tensor:
    """[pairs, 2]: summed log-probability of the chosen and the rejected answer, without dropout.

    Processes share the work; all of them get all of it. Raises UserError for a pair whose numbers
    are not finite: what a broken reference model gives would end training later.
    """
    model.eval()
    found, device = torch.zeros(len(pairs), 2), str(model.lm_head.weight.device)
    progress = Progress("reference log-probabilities", len(pairs))
    for start in range(rank() * at_once, len(pairs), ranks() * at_once):
        some = pairs[start : start + at_once]
        log_p_R = label_logprobs(model, pair_rows(some).to(device))
        found[start : start + at_once] = log_p_R.view(2, -1).T
        progress.advance(len(some) * ranks())
    progress.close()
    # Each place was written by one process; the others add zero.
    found = summed(found)
    broken = (~found.isfinite()).any(dim=1).nonzero()
    if len(broken):
        number = int(broken[0])
        raise UserError(
            f"the reference model gives pair {number} the log-probabilities "
            f"{found[number].tolist()}; its weights or the pair are broken"
        )
    return found
