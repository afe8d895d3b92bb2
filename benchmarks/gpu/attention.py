"""Attention of one layer over packed rows, forward and backward, in each kernel of PyTorch.

Shape suffixes: B rows, T positions, H heads, N head width, P positions of all rows.
"""

import inspect
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from benchmarks.gpu.points import Point
from benchmarks.training.stream import documents
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from indexlm.model.config import ModelConfig

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def kernels(config: ModelConfig, point: Point, device: str) -> dict[str, Any]:
    """Milliseconds by kernel; the error's text where PyTorch has none for it here."""
    length, rows = config.context, point.batch
    _, offsets = documents(config.vocab_size)
    ends_P = torch.from_numpy(offsets[1:][offsets[1:] < rows * length])
    number_BT = torch.zeros(rows * length, dtype=torch.int64)
    number_BT[ends_P] = 1
    number_BT = number_BT.cumsum(0).view(rows, length).to(device)
    found: dict[str, Any] = {}
    for name, (make, by_position) in _kernels(number_BT).items():
        shape = (rows, config.heads, length, config.head_dim)
        if by_position:
            shape = (rows * length, config.heads, config.head_dim)
        try:
            found[name] = _milliseconds(make(), shape, point.steps, device)
        except Exception as error:  # a kernel that this PyTorch or GPU lacks is a finding
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return {"milliseconds": found, "documents": int(number_BT[:, -1].max()) + 1}


def _milliseconds(attend: Attend, shape: tuple[int, ...], steps: int, device: str) -> float:
    q, k, v = (
        torch.randn(shape, dtype=torch.bfloat16, device=device, requires_grad=True)
        for _ in range(3)
    )
    upstream = torch.randn(shape, dtype=torch.bfloat16, device=device)
    times = []
    for _ in range(steps + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        attend(q, k, v).backward(upstream)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[3:])


def _kernels(number_BT: Tensor) -> dict[str, tuple[Callable[[], Attend], bool]]:
    """How to make each, and whether it takes [P, H, N] instead of [B, H, T, N]."""
    length = number_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=number_BT.device).tril()
    mask = ((number_BT[:, :, None] == number_BT[:, None]) & causal_TT)[:, None]
    additive = torch.zeros_like(mask, dtype=torch.bfloat16).masked_fill_(~mask, -torch.inf)

    def masked(backend: SDPBackend | None, mask: Tensor) -> Callable[[], Attend]:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with _only(backend):
                return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

        return lambda: attend

    def causal(backend: SDPBackend | None) -> Callable[[], Attend]:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with _only(backend):
                return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

        return lambda: attend

    return {
        "documents, as the loop has it": (masked(None, additive), False),
        "documents, bool mask": (masked(None, mask), False),
        "documents, efficient": (masked(SDPBackend.EFFICIENT_ATTENTION, additive), False),
        "documents, cudnn": (masked(SDPBackend.CUDNN_ATTENTION, additive), False),
        "documents, flex": (lambda: _flex(number_BT), False),
        "documents, varlen flash": (lambda: _varlen(number_BT), True),
        "plain causal": (causal(None), False),
        "plain causal, flash": (causal(SDPBackend.FLASH_ATTENTION), False),
        "plain causal, cudnn": (causal(SDPBackend.CUDNN_ATTENTION), False),
    }


@contextmanager
def _only(backend: SDPBackend | None) -> Iterator[None]:
    if backend is None:
        yield
        return
    with sdpa_kernel(backend):
        yield


def _flex(number_BT: Tensor) -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (number_BT[b, q] == number_BT[b, k])

    rows, length = number_BT.shape
    blocks = create_block_mask(seen, rows, None, length, length, device=number_BT.device.type)
    compiled = torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks)


def _varlen(number_BT: Tensor) -> Attend:
    from torch.nn.attention.varlen import varlen_attn

    first_BT = torch.ones_like(number_BT, dtype=torch.bool)
    first_BT[:, 1:] = number_BT[:, 1:] != number_BT[:, :-1]
    starts = first_BT.flatten().nonzero()[:, 0]
    borders = torch.cat((starts, starts.new_tensor([number_BT.numel()]))).int()
    longest = int(borders.diff().max())
    # The name of the argument changed after 2.10.
    parameters = inspect.signature(varlen_attn).parameters
    causal = {"is_causal": True} if "is_causal" in parameters else {"window_size": (-1, 0)}
    return lambda q, k, v: varlen_attn(q, k, v, borders, borders, longest, longest, **causal)
