"""How far two forms of one model are apart: what an export shows before it reports success.

Shape suffixes: B rows, T positions, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import SPECIAL_PIECES


@dataclass(frozen=True)
class Agreement:
    """Two sets of logits over the same positions."""

    positions: int
    furthest: float
    """Largest difference of two logits."""
    same_next: float
    """Share of positions with the same likeliest token."""

    def __str__(self) -> str:
        return (
            f"logits within {self.furthest:.2g}, same next token at {self.same_next:.1%} of "
            f"{self.positions} positions"
        )


def probe_ids(vocab_size: int, context: int) -> Tensor:
    """Two rows of ids to compare models on, [2, T], T at most 48: the published markers in their
    places, the rest drawn from the whole vocabulary. The same for every call."""
    length = min(48, context)
    generator = torch.Generator().manual_seed(20240614)
    ids_BT = torch.randint(len(SPECIAL_PIECES), vocab_size, (2, length), generator=generator)
    # A system turn, a user turn and an answer.
    for place, marker in ((0, 0), (length // 4, 3), (length // 2, 4)):
        ids_BT[1, place] = marker
    return ids_BT


@torch.no_grad()
def logits_of(model: Transformer, ids_BT: Tensor) -> Tensor:
    """All logits in float32, [B, T, V]."""
    return model.logits(model(ids_BT)).float()


def compare(ours_BTV: Tensor, theirs_BTV: Tensor) -> Agreement:
    same = (ours_BTV.argmax(-1) == theirs_BTV.argmax(-1)).float().mean()
    furthest = (ours_BTV - theirs_BTV).abs().max()
    return Agreement(ours_BTV[..., 0].numel(), float(furthest), float(same))
