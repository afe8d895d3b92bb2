"""Norm-Head: rows of length one in the forward pass, raw rows in memory and in files.

Shape suffixes: L positions, V vocabulary, D width.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from indexlm.model.norm_head import NormHead
from indexlm.model.transformer import Transformer


def head_of(weight_VD: Tensor, *, normalise: bool = True, scale: float = 1.0) -> NormHead:
    head = NormHead(*weight_VD.shape, normalise=normalise, scale=scale)
    head.weight.data.copy_(weight_VD)
    return head


@pytest.fixture(name="weight_VD")
def raw_rows() -> Tensor:
    """Rows of norms over more than two decades."""
    generator = torch.Generator().manual_seed(3)
    weight_VD = torch.randn(40, 16, generator=generator)
    return weight_VD * torch.randn(40, 1, generator=generator).exp()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_every_row_has_the_length_of_the_scale(weight_VD: Tensor, scale: float) -> None:
    matrix_VD = head_of(weight_VD, scale=scale).matrix()
    torch.testing.assert_close(matrix_VD.norm(dim=1), torch.full((40,), scale))
    # Same directions: each row is its raw row times a positive number.
    expected_VD = scale * weight_VD / weight_VD.pow(2).sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(matrix_VD, expected_VD)


def test_without_normalisation_it_is_a_plain_linear_head(weight_VD: Tensor) -> None:
    assert torch.equal(head_of(weight_VD, normalise=False).matrix(), weight_VD)
    scaled_VD = head_of(weight_VD, normalise=False, scale=2.0).matrix()
    assert torch.equal(scaled_VD, 2 * weight_VD)


def loss_of(matrix_VD: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    hidden_LD = torch.randn(25, 16, generator=generator)
    labels_L = torch.randint(40, (25,), generator=generator)
    return functional.cross_entropy(hidden_LD @ matrix_VD.T, labels_L)


def test_the_gradient_is_orthogonal_to_every_row(weight_VD: Tensor) -> None:
    head = head_of(weight_VD)
    loss_of(head.matrix()).backward()
    gradient_VD = head.weight.grad
    assert gradient_VD is not None and gradient_VD.norm() > 0.1
    along_V = (gradient_VD * weight_VD).sum(1)
    assert float(along_V.abs().max()) < 1e-6


def test_a_norm_that_is_detached_would_be_noticed(weight_VD: Tensor) -> None:
    raw_VD = weight_VD.clone().requires_grad_()
    loss_of(raw_VD / raw_VD.norm(dim=1, keepdim=True).detach()).backward()
    assert raw_VD.grad is not None
    assert float((raw_VD.grad * weight_VD).sum(1).abs().max()) > 1e-3


def test_a_short_row_turns_faster(weight_VD: Tensor) -> None:
    """The gradient of a row is inversely proportional to its norm."""
    halved_VD = weight_VD.clone()
    halved_VD[5] /= 2
    long, short = head_of(weight_VD), head_of(halved_VD)
    loss_of(long.matrix()).backward()
    loss_of(short.matrix()).backward()
    assert long.weight.grad is not None and short.weight.grad is not None
    torch.testing.assert_close(short.weight.grad[5], 2 * long.weight.grad[5])
    torch.testing.assert_close(short.weight.grad[6], long.weight.grad[6])


def test_a_zero_row_gives_zeros_and_finite_gradients(weight_VD: Tensor) -> None:
    weight_VD[7] = 0
    head = head_of(weight_VD)
    matrix_VD = head.matrix()
    assert torch.equal(matrix_VD[7], torch.zeros(16))
    loss_of(matrix_VD).backward()
    assert head.weight.grad is not None and bool(head.weight.grad.isfinite().all())


def test_evaluation_leaves_the_raw_rows_alone(model: Transformer) -> None:
    before_VD = model.lm_head.weight.detach().clone()
    with torch.inference_mode():
        model.logits(model(torch.tensor([[5, 6, 7]])))
    assert torch.equal(model.lm_head.weight, before_VD)
    assert torch.equal(model.state_dict()["lm_head.weight"], before_VD)


def test_folding_is_idempotent(weight_VD: Tensor) -> None:
    once_VD = head_of(weight_VD).matrix().detach()
    twice_VD = head_of(once_VD).matrix().detach()
    torch.testing.assert_close(twice_VD, once_VD, rtol=2e-7, atol=1e-8)


def test_bfloat16_rows_are_normalised_in_float32_and_rounded_once(weight_VD: Tensor) -> None:
    raw_VD = weight_VD.bfloat16()
    head = NormHead(40, 16, normalise=True, scale=1.0).bfloat16()
    head.weight.data.copy_(raw_VD)
    expected_VD = functional.normalize(raw_VD.double(), dim=1).bfloat16()
    assert head.matrix().dtype == torch.bfloat16
    assert torch.equal(head.matrix(), expected_VD)


def _step(head: NormHead) -> None:
    with torch.enable_grad():
        optimiser = torch.optim.AdamW([head.weight], lr=0.1, fused=True)
        loss_of(head.matrix()).backward()
        optimiser.step()


def _load(head: NormHead) -> None:
    head.load_state_dict({"weight": torch.randn(40, 16)})


def _write(head: NormHead) -> None:
    head.weight.detach()[3] = 1.0


def _replace(head: NormHead) -> None:
    head.weight = torch.nn.Parameter(torch.randn(40, 16))


def _cast(head: NormHead) -> None:
    head.double()


CHANGES = [_step, _load, _write, _replace, _cast]


@pytest.mark.parametrize("change", CHANGES)
def test_the_cached_matrix_never_outlives_its_rows(
    weight_VD: Tensor, change: Callable[[NormHead], None]
) -> None:
    head = head_of(weight_VD)
    with torch.no_grad():
        before_VD = head.matrix()
        assert head.matrix() is before_VD  # cached
        change(head)
        after_VD = head.matrix()
    assert after_VD.dtype == head.weight.dtype
    torch.testing.assert_close(after_VD, functional.normalize(head.weight.detach(), dim=1))


def test_a_matrix_cached_for_generation_does_not_stop_training(weight_VD: Tensor) -> None:
    head = head_of(weight_VD)
    with torch.inference_mode():
        head.matrix()
    loss_of(head.matrix()).backward()
    assert head.weight.grad is not None and float(head.weight.grad.norm()) > 0


def test_a_frozen_head_that_has_generated_can_be_trained_under(weight_VD: Tensor) -> None:
    """A copy made under inference mode cannot be part of a graph; LoRA trains under such a head."""
    head = head_of(weight_VD).requires_grad_(False)
    with torch.inference_mode():
        head.matrix()
    hidden_1D = torch.ones(1, weight_VD.shape[1], requires_grad=True)
    (hidden_1D @ head.matrix().T).sum().backward()
    assert hidden_1D.grad is not None and bool((hidden_1D.grad != 0).any())
