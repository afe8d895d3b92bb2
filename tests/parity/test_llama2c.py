"""Weights of another program: llama2.c's files give the logits that its own arithmetic gives."""

import math
import struct
from pathlib import Path

import pytest
import torch
from llama2c import NORM_EPS, ROPE_BASE, Header, greedy, load, read_checkpoint, read_pieces
from torch import Tensor

# One thread: sums come in one order, and the networks here are too small to share out.
torch.set_num_threads(1)

SHARED = Header(64, 176, 3, 4, 4, 320, 48)
GROUPED = Header(64, 176, 3, 4, 2, -320, 48)
"""Two keys and values for four heads, and a head of its own."""


def write_checkpoint(header: Header, path: Path) -> Path:
    """A file in the format from seeded weights, written out in its order."""
    D, F, L, V = header.dim, header.hidden_dim, header.n_layers, abs(header.vocab_size)
    N = D // header.n_heads
    kv = header.n_kv_heads * N
    generator = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> Tensor:
        return torch.empty(shape).normal_(std=0.15, generator=generator)

    def gains(*shape: int) -> Tensor:
        return torch.empty(shape).uniform_(0.5, 1.5, generator=generator)

    # Short embeddings make the norm's epsilon visible.
    parts = [normal(V, D) * 0.1, gains(L, D), normal(L, D, D), normal(L, kv, D), normal(L, kv, D)]
    parts += [normal(L, D, D), gains(L, D), normal(L, F, D), normal(L, D, F), normal(L, F, D)]
    parts += [gains(D), normal(2 * header.seq_len, N // 2)]
    if header.vocab_size < 0:
        parts.append(normal(V, D))
    numbers = [header.dim, header.hidden_dim, header.n_layers, header.n_heads]
    numbers += [header.n_kv_heads, header.vocab_size, header.seq_len]
    path.write_bytes(struct.pack("<7i", *numbers) + b"".join(p.numpy().tobytes() for p in parts))
    return path


def plain_logits(
    path: Path, ids_T: Tensor, *, eps: float = NORM_EPS, base: float = ROPE_BASE, stride: int = 1
) -> Tensor:
    """llama2.c's forward pass in float64 over the tensors of the file: one position after the
    other, neighbouring pairs turned (`stride` 1; half a head is the mistake of not doing so)."""
    header, tensors = read_checkpoint(path)
    w = {name: tensor.double() for name, tensor in tensors.items()}
    width = header.dim // header.n_heads
    group = header.n_heads // header.n_kv_heads

    def norm(x_D: Tensor, gain_D: Tensor) -> Tensor:
        return gain_D * x_D / torch.sqrt((x_D @ x_D) / len(x_D) + eps)

    def turn(x_R: Tensor, position: int) -> Tensor:
        out_R = x_R.clone()
        for start in range(0, len(x_R), width):
            for j in range(width // 2):
                a = start + (2 * j if stride == 1 else j)
                b = a + stride
                angle = position / base ** (2 * j / width)
                out_R[a] = x_R[a] * math.cos(angle) - x_R[b] * math.sin(angle)
                out_R[b] = x_R[a] * math.sin(angle) + x_R[b] * math.cos(angle)
        return out_R

    keys: list[list[Tensor]] = [[] for _ in range(header.n_layers)]
    values: list[list[Tensor]] = [[] for _ in range(header.n_layers)]
    logits = []
    for position, token in enumerate(ids_T.tolist()):
        x_D = w["embedding"][token]
        for layer in range(header.n_layers):
            n_D = norm(x_D, w["attention_norm"][layer])
            q_R = turn(w["q"][layer] @ n_D, position)
            keys[layer].append(turn(w["k"][layer] @ n_D, position))
            values[layer].append(w["v"][layer] @ n_D)
            heads = []
            for head in range(header.n_heads):
                own = slice(head * width, (head + 1) * width)
                shared = slice(head // group * width, (head // group + 1) * width)
                scores = [float(q_R[own] @ k[shared]) / math.sqrt(width) for k in keys[layer]]
                weights = [math.exp(score - max(scores)) for score in scores]
                total = sum(weights)
                heads.append(sum(p / total * v[shared] for p, v in zip(weights, values[layer])))
            x_D = x_D + w["o"][layer] @ torch.cat(heads)
            n_D = norm(x_D, w["ffn_norm"][layer])
            gate_F = w["gate"][layer] @ n_D
            gated_F = gate_F / (1 + torch.exp(-gate_F)) * (w["up"][layer] @ n_D)
            x_D = x_D + w["down"][layer] @ gated_F
        logits.append(w.get("head", w["embedding"]) @ norm(x_D, w["norm"]))
    return torch.stack(logits)


@torch.no_grad()
def logits_of(path: Path, ids_T: Tensor) -> Tensor:
    model = load(path)
    return model.logits(model(ids_T[None]))[0]


def furthest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


IDS = torch.randint(320, (24,), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("header", [SHARED, GROUPED], ids=["shared head", "grouped, own head"])
def test_a_checkpoint_gives_the_logits_of_a_plain_statement_of_its_program(
    header: Header, tmp_path: Path
) -> None:
    path = write_checkpoint(header, tmp_path / "model.bin")
    assert furthest(logits_of(path, IDS), plain_logits(path, IDS)) < 1e-5


@pytest.mark.parametrize("mistake", [{"stride": 8}, {"eps": 1e-6}, {"base": 320000.0}], ids=str)
def test_the_agreement_would_notice_each_known_mistake(
    mistake: dict[str, float], tmp_path: Path
) -> None:
    path = write_checkpoint(GROUPED, tmp_path / "model.bin")
    assert furthest(logits_of(path, IDS), plain_logits(path, IDS, **mistake)) > 1e-3


def test_a_file_of_another_length_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(SHARED, tmp_path / "model.bin")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(AssertionError, match="bytes"):
        load(path)


def test_pieces_are_read_with_their_spaces_and_bytes(tmp_path: Path) -> None:
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", b"<0x0A>", b"<0xE4>", b" the", "好".encode()]
    content = b"".join(struct.pack("<fi", -1.5, len(piece)) + piece for piece in pieces)
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(struct.pack("<i", 6) + content)
    assert read_pieces(path, 7) == [*pieces[:3], b"\n", b"\xe4", *pieces[5:]]


def test_real_weights_continue_the_beginning_of_a_text(
    llama2c_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only with --llama2c=FOLDER, a folder of one model and its tokenizer (named tok*.bin).

    The float64 statement picks the same tokens, and the text is prose: its words are letters.
    """
    [tokenizer] = llama2c_folder.glob("tok*.bin")
    [checkpoint] = set(llama2c_folder.glob("*.bin")) - {tokenizer}
    model = load(checkpoint)
    new = min(model.config.context, 100)
    ids = greedy(model, new)
    text = b"".join(read_pieces(tokenizer, model.config.vocab_size)[i] for i in ids[1:]).decode()
    with capsys.disabled():
        print(f"\n{checkpoint.name}, {new} tokens:{text}")
    ids_T = torch.tensor(ids)
    plain_TV = plain_logits(checkpoint, ids_T[:-1])
    assert furthest(logits_of(checkpoint, ids_T[:-1]), plain_TV) < 1e-4
    assert plain_TV.argmax(1).tolist() == ids[1:]
    words = [word.strip(",.;:!?'\"-\n") for word in text.split()]
    assert len(set(words)) > 20 and all(word.isalpha() for word in words if word)
