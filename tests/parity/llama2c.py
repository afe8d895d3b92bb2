"""Checkpoints and tokenizers of llama2.c (its first format) as our network.

A checkpoint is seven int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len;
a negative vocab_size says that the head has rows of its own), then float32 tensors without names.
llama2.c turns neighbouring pairs of a head, ours pairs half a head apart: the rows of q and k are
put in our order, which leaves their products as they were.

Shape suffixes: V vocabulary, D width, F feed-forward width, L layers, H heads, N head width.
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indexlm.model.config import ModelConfig
from indexlm.model.transformer import Transformer

NORM_EPS = 1e-5
ROPE_BASE = 10000.0
BOS = 1


@dataclass(frozen=True)
class Header:
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensors in the order of the file."""
        V, D, F, L = abs(self.vocab_size), self.dim, self.hidden_dim, self.n_layers
        N = D // self.n_heads
        kv = self.n_kv_heads * N
        shapes = {
            "embedding": (V, D),
            "attention_norm": (L, D),
            "q": (L, D, D),
            "k": (L, kv, D),
            "v": (L, kv, D),
            "o": (L, D, D),
            "ffn_norm": (L, D),
            "gate": (L, F, D),
            "down": (L, D, F),
            "up": (L, F, D),
            "norm": (D,),
            # Tables of angles, which the program itself no longer reads.
            "cos": (self.seq_len, N // 2),
            "sin": (self.seq_len, N // 2),
        }
        return shapes | ({"head": (V, D)} if self.vocab_size < 0 else {})


def read_checkpoint(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """Header and float32 tensors as they stand in the file, each with its layers first."""
    content = path.read_bytes()
    header = Header(*struct.unpack("<7i", content[:28]))
    shapes = header.shapes()
    expected = 28 + 4 * sum(map(prod, shapes.values()))
    assert len(content) == expected, f"{path} has {len(content)} bytes, {header} asks {expected}"
    values = torch.from_numpy(np.frombuffer(content, "<f4", offset=28).astype(np.float32))
    parts = values.split([prod(shape) for shape in shapes.values()])
    return header, {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts)}


def load(path: Path) -> Transformer:
    """The network of a checkpoint, in eval mode; a shared head is a copy of the embedding."""
    header, tensors = read_checkpoint(path)
    config = ModelConfig(
        vocab_size=abs(header.vocab_size),
        hidden=header.dim,
        layers=header.n_layers,
        heads=header.n_heads,
        kv_heads=header.n_kv_heads,
        ffn=header.hidden_dim,
        context=header.seq_len,
        rope_base=ROPE_BASE,
        norm_eps=NORM_EPS,
        norm_head=False,
    )
    state = {
        "model.embed_tokens.weight": tensors["embedding"],
        "model.norm.weight": tensors["norm"],
        "lm_head.weight": tensors.get("head", tensors["embedding"]),
    }
    for layer in range(config.layers):
        rows = {
            "input_layernorm": tensors["attention_norm"],
            "self_attn.q_proj": halves_apart(tensors["q"], header.n_heads),
            "self_attn.k_proj": halves_apart(tensors["k"], header.n_kv_heads),
            "self_attn.v_proj": tensors["v"],
            "self_attn.o_proj": tensors["o"],
            "post_attention_layernorm": tensors["ffn_norm"],
            "mlp.gate_proj": tensors["gate"],
            "mlp.up_proj": tensors["up"],
            "mlp.down_proj": tensors["down"],
        }
        state |= {f"model.layers.{layer}.{name}.weight": t[layer] for name, t in rows.items()}
    model = Transformer(config)
    model.load_state_dict(state)
    return model.eval()


def halves_apart(rows_LRD: Tensor, heads: int) -> Tensor:
    """Rows of each head from neighbouring pairs (0 1, 2 3, ...) to pairs j and j + N / 2."""
    pairs_LHP2D = rows_LRD.unflatten(1, (heads, -1, 2))
    return pairs_LHP2D.transpose(2, 3).reshape(rows_LRD.shape)


def read_pieces(path: Path, vocab_size: int) -> list[bytes]:
    """The pieces of a tokenizer file: int32 longest piece, then float32 score, int32 length and
    the bytes of each. `<0x0A>` spells a byte."""
    content = path.read_bytes()
    pieces, place = [], 4
    for _ in range(vocab_size):
        _, length = struct.unpack_from("<fi", content, place)
        piece = content[place + 8 : place + 8 + length]
        assert len(piece) == length, f"{path} ends inside piece {len(pieces)}"
        is_byte = piece.startswith(b"<0x") and piece.endswith(b">") and length == 6
        pieces.append(bytes([int(piece[3:5], 16)]) if is_byte else piece)
        place += 8 + length
    assert place == len(content), f"{path} holds more than {vocab_size} pieces"
    return pieces


@torch.inference_mode()
def greedy(model: Transformer, new: int) -> list[int]:
    """BOS and the `new` likeliest ids after it, each from the cache of those before."""
    ids = [BOS]
    cache = model.new_cache(torch.ones(1, new, dtype=torch.bool))
    for _ in range(new):
        hidden = model(torch.tensor([ids[-1:]]), cache=cache)[0, -1]
        ids.append(int(model.logits(hidden).argmax()))
    return ids
