"""Small networks whose every setting shows in the result, for the GGUF tests."""

import torch

from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer

# One thread: the networks are too small to share out.
torch.set_num_threads(1)

SHAPE = ModelConfig(
    vocab_size=648, hidden=64, layers=3, heads=4, kv_heads=4, ffn=192, context=64, head_scale=3.0
)
WIDE = SHAPE.model_copy(update={"hidden": 256, "ffn": 512, "layers": 8, "kv_heads": 2})
"""Every row is a whole number of blocks of 256."""


def make_model(config: ModelConfig) -> Transformer:
    """Every layer has a share in the result, and head rows differ in length by a factor of 50: a
    head that is not folded is far off."""
    model = Transformer(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                std = 1.0 if "embed" in name else parameter.shape[1] ** -0.5
                parameter.normal_(std=std, generator=generator)
        rows_V1 = torch.empty(config.vocab_size, 1).normal_(generator=generator).exp()
        model.lm_head.weight.mul_(rows_V1)
    return model.eval()
