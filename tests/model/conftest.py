"""A small network whose settings all matter: short embeddings make the norm's epsilon visible,
head rows of very different length make a missing fold visible."""

import pytest
import torch

from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer

# One thread: sums come in one order, and the networks here are too small to share out.
torch.set_num_threads(1)

SHAPE = ModelConfig(
    vocab_size=512, hidden=64, layers=3, heads=4, kv_heads=4, ffn=192, context=64, head_scale=1.0
)


def make_model(config: ModelConfig) -> Transformer:
    """Weights of a deviation that leaves every layer a share in the result; gains around 1."""
    model = Transformer(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                std = 0.02 if "embed" in name else 0.15
                parameter.normal_(std=std, generator=generator)
        rows_V1 = torch.empty(config.vocab_size, 1).normal_(generator=generator).exp()
        model.lm_head.weight.mul_(rows_V1)
    return model.eval()


@pytest.fixture(scope="session")
def model() -> Transformer:
    """Shared: no test changes it."""
    return make_model(SHAPE)


@pytest.fixture(scope="session")
def grouped_model() -> Transformer:
    """Two keys and values for four heads."""
    return make_model(SHAPE.model_copy(update={"kv_heads": 2}))
