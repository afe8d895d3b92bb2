"""What is laid around a network to train it, from outside and in this order:

1. the rows of the LM head shared out among groups of processes,
2. `torch.compile` of each block, one graph for all of them,
3. activation checkpointing of each block (Chen et al. 2016),
4. FSDP2, which shards all other weights over all processes.

The network itself knows nothing of it. Every function here leaves one process alone as it is.

How the head is shared: trunks are data parallel, each process has rows of text of its own. In a
group of h processes each keeps 1/h of the vocabulary and multiplies the hidden states of the whole
group with it, so that hidden states travel instead of the head's weight and gradient.

Shape suffixes: V vocabulary, D width, R rows of the head on this process.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.utils.checkpoint import checkpoint

from indexlm.model.norm_head import NormHead
from indexlm.model.transformer import Transformer


@dataclass(frozen=True)
class HeadGroup:
    """The processes that share the head's rows with this one, and where its own rows begin."""

    group: dist.ProcessGroup
    first_row: int


class SharedNormHead(NormHead):
    """A Norm-Head whose rows are shared out: its weight is a DTensor, sharded by row inside a group
    and the same in every group."""

    def matrix(self) -> Tensor:
        """Gathered from all processes of the group, [V, D], without a gradient."""
        return self.effective(whole(self.weight.detach()))

    def own_rows(self) -> Tensor:
        """[R, D], R the rows of this process; the gradient reaches the weight."""
        return self.effective(local(self.weight))


def arrange(
    model: Transformer,
    device: str,
    *,
    bfloat16: bool = False,
    compile_blocks: bool = False,
    recompute: bool = False,
    head_parallel: int = 1,
    beside: bool = False,
) -> Transformer:
    """The same network as `model`, laid out for training; `model` itself stays plain.

    On one processor it shares the weights of `model`. Otherwise its weights are copies, which
    `bring_back` writes into `model`. With `bfloat16` blocks compute in it while weights, gradients
    and what the optimiser sees stay float32; this needs a process group, if of one process. One
    made `beside` another on a processor has gradients of its own.
    """
    grouped = dist.is_initialized() and (dist.get_world_size() > 1 or bfloat16)
    assert grouped or not bfloat16, "bfloat16 needs a process group"
    alone = not grouped and device == "cpu"
    assert alone or not beside
    weights = {id(p): _beside(p) if beside else p for p in model.parameters()} if alone else {}
    worker = copy.deepcopy(model, weights).train()
    if not grouped:
        worker.to(device)
    elif head_parallel > 1:
        _share_head(worker, device, head_parallel)
    for block in worker.model.layers:
        if compile_blocks:
            block.forward = torch.compile(block.forward, fullgraph=True)
        if recompute:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if grouped:
        _fully_shard(worker, device, bfloat16)
    return worker


def _beside(parameter: nn.Parameter) -> nn.Parameter:
    """Another leaf of the graph over the same storage."""
    return nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)


@contextmanager
def gathered(worker: Transformer) -> Iterator[Transformer]:
    """The network that `arrange` laid out, whole on every process as long as this lasts.

    To look at, not to train: its weights have no gradient, and are those that the forward pass of
    `worker` multiplies with, in the dtype of the arithmetic. Processes enter and leave together;
    in between each makes the passes that it likes. It takes the memory of all weights in that
    dtype, on every device.
    """
    if not isinstance(worker, FSDPModule):
        yield worker
        return
    sharded = [module for module in worker.modules() if isinstance(module, FSDPModule)]
    with torch.device("meta"):
        plain = Transformer(worker.config)
    try:
        for module in sharded:
            module.unshard()
        weights = {name: weight.detach() for name, weight in worker.named_parameters()}
        dtype = weights["model.norm.weight"].dtype
        with torch.no_grad():
            # The rows as they multiply: normalised in float32, then cast, as in training.
            weights["lm_head.weight"] = worker.lm_head.matrix().to(dtype)
        plain.lm_head.normalise, plain.lm_head.scale = False, 1.0
        plain.load_state_dict(weights, assign=True)
        plain.requires_grad_(False)
        yield plain
    finally:
        for module in sharded:
            module.reshard()


def bring_back(worker: Transformer, model: Transformer) -> None:
    """Write the weights of what `arrange` made of `model` into it, on every process."""
    for module in worker.modules():
        # After a forward pass without a backward one, as in an evaluation, some are still gathered,
        # in the dtype of the arithmetic.
        if isinstance(module, FSDPModule):
            module.reshard()
    for mine, theirs in zip(model.parameters(), worker.parameters(), strict=True):
        with torch.no_grad():
            if mine is not theirs:
                mine.copy_(whole(theirs.detach()))


def head_group(worker: Transformer) -> HeadGroup | None:
    """Who shares the rows of the head; None where every process works with all of them."""
    if not isinstance(worker.lm_head, SharedNormHead):
        return None
    weight = worker.lm_head.weight
    assert isinstance(weight, DTensor)
    mesh = weight.device_mesh
    rows = -(-weight.shape[0] // mesh.size(1))
    return HeadGroup(mesh.get_group(1), min(mesh.get_local_rank(1) * rows, weight.shape[0]))


def sum_head_gradient(worker: Transformer) -> None:
    """Add up the gradient of the shared head over the groups, once per step: what FSDP does for all
    other weights after every backward pass."""
    gradient = worker.lm_head.weight.grad
    if isinstance(worker.lm_head, SharedNormHead) and isinstance(gradient, DTensor):
        between = gradient.device_mesh.get_group(0)
        if dist.get_world_size(between) > 1:
            dist.all_reduce(gradient.to_local(), group=between)


def copies(parameter: Tensor) -> int:
    """How many processes hold the same numbers of a parameter."""
    if not isinstance(parameter, DTensor):
        return dist.get_world_size() if dist.is_initialized() else 1
    mesh = parameter.device_mesh
    held = [
        mesh.size(dim) for dim, placed in enumerate(parameter.placements) if placed.is_replicate()
    ]
    return held[0] if held else 1


def local(tensor: Tensor) -> Tensor:
    """What of a tensor this process holds; it shares memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _share_head(worker: Transformer, device: str, size: int) -> None:
    groups = dist.get_world_size() // size
    mesh = init_device_mesh(device, (groups, size), mesh_dim_names=("group", "rows"))
    old = worker.lm_head
    head = SharedNormHead(*old.weight.shape, normalise=old.normalise, scale=old.scale)
    shared = distribute_tensor(old.weight.detach().to(device), mesh, [Replicate(), Shard(0)])
    head.weight = nn.Parameter(shared, requires_grad=old.weight.requires_grad)
    worker.lm_head = head


def _fully_shard(worker: Transformer, device: str, bfloat16: bool) -> None:
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    exact = MixedPrecisionPolicy()
    mixed = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bfloat16 else exact
    for block in worker.model.layers:
        _shard(block, mesh, mixed, reshard=True)
    shares = isinstance(worker.lm_head, SharedNormHead)
    if not shares:
        # float32, so that rows are normalised before they are cast; whole from the forward pass on.
        _shard(worker.lm_head, mesh, exact, reshard=False)
        register_fsdp_forward_method(worker.lm_head, "own_rows")
        register_fsdp_forward_method(worker.lm_head, "matrix")
    _shard(worker, mesh, mixed, reshard=False, ignored={worker.lm_head.weight} if shares else None)


def _shard(
    module: nn.Module,
    mesh: DeviceMesh,
    policy: MixedPrecisionPolicy,
    *,
    reshard: bool,
    ignored: set[nn.Parameter] | None = None,
) -> None:
    fully_shard(
        module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard, ignored_params=ignored
    )
    assert isinstance(module, FSDPModule)
    # Sums, not means: the loop divides by the units of the whole step. gloo has no scaled sum.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)
