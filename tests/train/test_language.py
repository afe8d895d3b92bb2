"""The chunked loss against torch's own, and rows against the documents they are made of.

Shape suffixes: L labelled positions, D width, V vocabulary.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from workshop import Workshop

from indexlm.feed.packing import Segment, collate
from indexlm.model.norm_head import NormHead
from indexlm.tokens.chat_format import IGNORED
from indexlm.train.objectives.chunks import CHUNK, SummedCrossEntropy
from indexlm.train.objectives.language import language_loss


def tensors(positions: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(positions)
    hidden_LD = torch.randn(positions, 16, generator=generator, requires_grad=True)
    head_VD = torch.randn(50, 16, generator=generator, requires_grad=True)
    return hidden_LD, head_VD, torch.randint(50, (positions,), generator=generator)


@pytest.mark.parametrize("positions", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 77])
def test_value_and_gradients_are_those_of_the_whole_logits(positions: int) -> None:
    hidden_LD, head_VD, labels_L = tensors(positions)
    ours = SummedCrossEntropy.apply(hidden_LD, head_VD, labels_L)
    theirs = functional.cross_entropy(hidden_LD @ head_VD.T, labels_L, reduction="sum")
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)
    # An upstream factor, as accumulation or a scale would put before it.
    our_gradients = torch.autograd.grad(0.5 * ours, (hidden_LD, head_VD))
    their_gradients = torch.autograd.grad(0.5 * theirs, (hidden_LD, head_VD))
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-5, atol=1e-5)


class Made(TorchDispatchMode):
    """Shapes of all tensors that operations give, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.shapes.add(tuple(out.shape))
        return out


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_head_gets_no_gradient_and_no_buffer_of_its_size(frozen: bool) -> None:
    hidden_LD, head_VD, labels_L = tensors(CHUNK + 5)
    whole = functional.cross_entropy(hidden_LD @ head_VD.T, labels_L, reduction="sum")
    expected_LD = torch.autograd.grad(whole, hidden_LD)[0]
    head_VD.requires_grad_(not frozen)
    with Made() as made:
        SummedCrossEntropy.apply(hidden_LD, head_VD, labels_L).backward()
    assert hidden_LD.grad is not None
    torch.testing.assert_close(hidden_LD.grad, expected_LD, rtol=1e-5, atol=1e-5)
    assert (CHUNK, 50) in made.shapes
    assert ((50, 16) in made.shapes) == (not frozen)
    assert (head_VD.grad is None) == frozen


@pytest.mark.parametrize("certain", [1.0, 12.0], ids=["open", "nearly certain"])
def test_gradients_in_bfloat16_are_those_of_exact_arithmetic(certain: float) -> None:
    """Also where a label is nearly certain, and its gradient far smaller than a row of the head."""
    hidden_LD, head_VD, labels_L = tensors(CHUNK + 20)
    rows_VD = functional.normalize(head_VD.detach(), dim=1)
    near_LD = certain * rows_VD[labels_L] + 0.1 * hidden_LD.detach()
    half_LD, half_VD = (t.bfloat16().requires_grad_() for t in (near_LD, rows_VD))
    SummedCrossEntropy.apply(half_LD, half_VD, labels_L).backward()
    wide_LD, wide_VD = (t.detach().double().requires_grad_() for t in (half_LD, half_VD))
    functional.cross_entropy(wide_LD @ wide_VD.T, labels_L, reduction="sum").backward()
    for half, wide in ((half_LD, wide_LD), (half_VD, wide_VD)):
        assert half.grad is not None and wide.grad is not None
        off = float((half.grad.double() - wide.grad).norm() / wide.grad.norm())
        # A step of bfloat16 is 0.8%.
        assert off < 0.04, off


def test_the_loss_of_a_bfloat16_model_is_summed_in_float32() -> None:
    hidden_LD, head_VD, labels_L = tensors(200)
    half_LD, half_VD = (t.detach().bfloat16().requires_grad_() for t in (hidden_LD, head_VD))
    ours = SummedCrossEntropy.apply(half_LD, half_VD, labels_L)
    logits_LV = half_LD.detach().double() @ half_VD.detach().double().T
    exact = functional.cross_entropy(logits_LV, labels_L, reduction="sum")
    assert ours.dtype == torch.float32
    # Rounding the logits is one part in 256 of each; a sum in bfloat16 would step by 8.
    assert float(ours.detach()) == pytest.approx(float(exact), rel=5e-4)
    ours.backward()
    assert half_LD.grad is not None and half_LD.grad.dtype == torch.bfloat16


def test_large_logits_neither_overflow_nor_lose_the_label() -> None:
    hidden_LD, head_VD, labels_L = tensors(20)
    ours = SummedCrossEntropy.apply(hidden_LD * 1e4, head_VD, labels_L)
    theirs = functional.cross_entropy(1e4 * hidden_LD @ head_VD.T, labels_L, reduction="sum")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0.0)


def test_gradients_flow_through_the_norm_head() -> None:
    hidden_LD, rows_VD, labels_L = tensors(30)
    head = NormHead(50, 16, normalise=True, scale=3.0)
    head.weight.data.copy_(rows_VD.detach())
    SummedCrossEntropy.apply(hidden_LD, head.matrix(), labels_L).backward()
    unit_VD = 3 * rows_VD / rows_VD.pow(2).sum(1, keepdim=True).sqrt()
    loss = functional.cross_entropy(hidden_LD @ unit_VD.T, labels_L, reduction="sum")
    theirs = torch.autograd.grad(loss, (hidden_LD, rows_VD))
    assert hidden_LD.grad is not None and head.weight.grad is not None
    torch.testing.assert_close((hidden_LD.grad, head.weight.grad), theirs, rtol=1e-5, atol=1e-5)
    assert float((head.weight.grad * rows_VD.detach()).sum(1).abs().max()) < 1e-4


def test_ignored_positions_neither_count_nor_send_gradients(workshop: Workshop) -> None:
    model = workshop.model()
    batch = next(iter(workshop.feed().micro_batches(0)))
    batch.labels_BT[:, ::3] = IGNORED
    batch.labels_BT[1] = IGNORED
    ours, count, _ = language_loss(model, batch)
    hidden_BTD = model(
        batch.ids_BT, positions_BT=batch.positions_BT, documents_BT=batch.documents_BT
    )
    logits = model.logits(hidden_BTD).flatten(0, 1)
    theirs = functional.cross_entropy(
        logits, batch.labels_BT.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    assert count == int((batch.labels_BT >= 0).sum())
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-4)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_packed_row_costs_what_its_documents_cost_apart(workshop: Workshop) -> None:
    model = workshop.model()
    generator = np.random.default_rng(2)
    segments = []
    for size in (5, 1, 9, 6):
        ids = generator.integers(5, 160, size=size + 1)
        segments.append(Segment(ids[:-1], ids[1:]))
    packed, packed_count, _ = language_loss(model, collate([segments], 24))
    apart = [language_loss(model, collate([[segment]], 24)) for segment in segments]
    assert packed_count == sum(count for _, count, _ in apart) == 21
    torch.testing.assert_close(packed, sum(loss for loss, _, _ in apart), rtol=1e-6, atol=1e-5)
