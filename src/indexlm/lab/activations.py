"""Bytes that training keeps for the backward pass, counted where autograd saves them."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer

ROWS = 2
"""Of one document each; what is kept for a token does not depend on their number."""


@lru_cache
def kept_bytes_per_token(model: ModelConfig) -> float:
    """Of the trunk, in float32 and without its weights: storages that the backward pass reads, each
    once. The head's logits are of a fixed number of positions (`objectives/chunks.py`) and are not
    in it."""
    made, length = Transformer(model), model.context
    weights = {parameter.untyped_storage().data_ptr() for parameter in made.parameters()}
    # Held until all are counted, or an address would be given to another one.
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids_BT = torch.zeros(ROWS, length, dtype=torch.long)
    positions_BT = torch.arange(length).repeat(ROWS, 1)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_BTD = made(ids_BT, positions_BT=positions_BT, documents_BT=ids_BT)
    total = sum(storage.nbytes() for storage in kept.values())
    assert hidden_BTD.requires_grad
    return total / (ROWS * length)
