"""What a network of a given shape costs: parameters, arithmetic and memory, as plain formulas.

A product of [m, k] and [k, n] is 2 m k n FLOPs. Attention is counted with its causal mask, a
position p looks at p + 1 keys: kernels that compute the masked half too do up to twice as much of
that part. Norms, softmax, activations and the embedding's look-up are not counted: less than 1% at
width 2048. Memory is of this code: activations are the tensors that the backward pass reads.

Letters in comments: R rank of LoRA, T tokens of a row.
"""

from indexlm.model.config import LoraConfig, ModelConfig, Projection

FLOAT32 = 4
BFLOAT16 = 2


def parameters_by_part(model: ModelConfig) -> dict[str, int]:
    """They sum to `model.parameters`."""
    attention = 2 * model.hidden * (model.hidden + kv_width(model))
    return {
        "embedding": model.vocab_size * model.hidden,
        "attention": model.layers * attention,
        "feed-forward": model.layers * 3 * model.hidden * model.ffn,
        "norms": model.hidden * (2 * model.layers + 1),
        "head": model.vocab_size * model.hidden,
    }


def lora_parameters(model: ModelConfig, lora: LoraConfig) -> int:
    """A [R, in] and B [out, R] beside every targeted projection (Hu et al. 2021)."""
    shapes = projection_shapes(model)
    widths = sum(sum(shapes[name]) for name in lora.targets)
    return model.layers * lora.rank * widths


def projection_shapes(model: ModelConfig) -> dict[Projection, tuple[int, int]]:
    """(outputs, inputs) of the seven matrices of a layer."""
    width, keys, ffn = model.hidden, kv_width(model), model.ffn
    return {
        "q_proj": (width, width),
        "k_proj": (keys, width),
        "v_proj": (keys, width),
        "o_proj": (width, width),
        "gate_proj": (ffn, width),
        "up_proj": (ffn, width),
        "down_proj": (width, ffn),
    }


def kv_width(model: ModelConfig) -> int:
    return model.kv_heads * model.head_dim


def trunk_weights(model: ModelConfig) -> int:
    """Weights of matrices that every token is multiplied with below the head."""
    parts = parameters_by_part(model)
    return parts["attention"] + parts["feed-forward"]


def weight_bytes(model: ModelConfig) -> dict[str, int]:
    """Bytes of the weights in the forms that are written: q8_0 is a GGUF file, whose blocks of 32
    have a float16 scale; int8 and int4 are torchao's, a float32 scale per row and a bfloat16 scale
    and zero per 128, which leave embedding and head in bfloat16. Gains are float32 in all three."""
    parts = parameters_by_part(model)
    blocks, gains = trunk_weights(model), FLOAT32 * parts["norms"]
    ends = parts["embedding"] + parts["head"]
    rows = model.layers * sum(outputs for outputs, _ in projection_shapes(model).values())
    return {
        "float32": FLOAT32 * model.parameters,
        "bfloat16": BFLOAT16 * model.parameters,
        "q8_0": (blocks + ends) * 34 // 32 + gains,
        "int8": blocks + FLOAT32 * rows + BFLOAT16 * ends + gains,
        "int4": blocks // 2 + blocks // 128 * 2 * BFLOAT16 + BFLOAT16 * ends + gains,
    }


def attention_flops(model: ModelConfig, keys: float) -> float:
    """Scores and their weighted sum for one query position that looks at `keys` positions.

    Grouped queries share keys, they do not save arithmetic: every head still makes its products.
    """
    return 4.0 * model.layers * model.hidden * keys


def decode_flops(model: ModelConfig, position: int) -> float:
    """One new token at `position` (from 0) with a cache, its logits included."""
    matrices = trunk_weights(model) + model.vocab_size * model.hidden
    return 2.0 * matrices + attention_flops(model, position + 1)


def prefill_flops(model: ModelConfig, length: int) -> float:
    """A prompt of `length` tokens and the logits of its last position."""
    seen = length * (length + 1) / 2
    head = 2.0 * model.vocab_size * model.hidden
    return 2.0 * length * trunk_weights(model) + attention_flops(model, seen) + head


def forward_flops_per_token(model: ModelConfig, length: int) -> float:
    """Mean over a row of `length` tokens, logits at every position."""
    matrices = trunk_weights(model) + model.vocab_size * model.hidden
    return 2.0 * matrices + attention_flops(model, (length + 1) / 2)


def training_flops_per_token(model: ModelConfig, length: int) -> float:
    """Forward and backward; the backward pass makes two products for each one (Kaplan et al. 2020).

    14.05 GFLOPs at the released shape and window.
    """
    return 3.0 * forward_flops_per_token(model, length)


def lora_flops_per_token(model: ModelConfig, length: int, lora: LoraConfig) -> float:
    """Frozen matrices have no gradient of their own, which saves one product in three; attention
    has no weights and saves none. The adapter is trained whole."""
    matrices = trunk_weights(model) + model.vocab_size * model.hidden
    attention = attention_flops(model, (length + 1) / 2)
    return 4.0 * matrices + 3.0 * attention + 6.0 * lora_parameters(model, lora)


def cache_bytes_per_token(model: ModelConfig, number_bytes: int = FLOAT32) -> int:
    """Keys and values of one position in every layer."""
    return number_bytes * 2 * model.layers * kv_width(model)


def activation_bytes(
    model: ModelConfig,
    length: int,
    *,
    number_bytes: int = FLOAT32,
    checkpointed: bool = False,
    fused: bool = False,
) -> dict[str, int]:
    """Bytes per token, by part, that the trunk keeps for the backward pass of full training.

    `checkpointed` is what is left when each block keeps its input only and is computed again in
    the backward pass (Chen et al. 2016): the inputs of all blocks and the inside of one.
    `fused` is attention by torch's own kernel, as on a GPU and for rows of up to 128 tokens. It
    keeps its log-sums too, and reads a mask of T numbers for each token that all layers share.
    """
    blocks = 1 if checkpointed else model.layers
    # x and x / rms * gain, twice.
    norms = 4 * model.hidden
    # q, k, v, and the output of attention.
    attention = 2 * model.hidden + 2 * kv_width(model)
    if fused:
        attention += model.heads
    # gate, up, and the product that down_proj reads.
    ffn = 3 * model.ffn
    return {
        "norms and residual stream": number_bytes * blocks * norms,
        "attention": number_bytes * blocks * attention,
        "attention mask": number_bytes * length if fused else 0,
        "feed-forward": number_bytes * blocks * ffn,
        "block inputs": number_bytes * (model.layers - 1) * model.hidden if checkpointed else 0,
        # Ids, the starts of documents, the tables of RoPE, and x of the final norm.
        "ends": 16 + number_bytes * (2 * model.head_dim + model.hidden),
    }


def lora_activation_bytes(
    model: ModelConfig,
    length: int,
    lora: LoraConfig,
    *,
    number_bytes: int = FLOAT32,
    fused: bool = False,
) -> dict[str, int]:
    """Bytes per token, by part, that the trunk keeps for the backward pass of LoRA.

    A frozen matrix does not keep its input; A does, in float32. With dropout every A keeps its own
    dropped copy and the float32 factors it was dropped with, so that LoRA keeps more than full
    training. The first block is counted like the others, though it keeps a little less: nothing
    below it is trained.
    """
    inputs = {name: shape[1] for name, shape in projection_shapes(model).items()}
    if lora.dropout:
        kept = 2 * sum(inputs[name] for name in lora.targets)
    else:
        # q, k and v read one tensor, gate and up another.
        readers = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
        kept = sum({readers.get(name, name): inputs[name] for name in lora.targets}.values())
    # q, k and v; the output of attention is an input of o_proj alone.
    attention = model.hidden + 2 * kv_width(model)
    if fused:
        # Log-sums, and its output, which without dropout is what A of o_proj keeps.
        shared = "o_proj" in lora.targets and not lora.dropout
        attention += model.heads + (0 if shared else model.hidden)
    return {
        "norms and residual stream": number_bytes * model.layers * 2 * model.hidden,
        "attention": number_bytes * model.layers * attention,
        "attention mask": number_bytes * length if fused else 0,
        "feed-forward": number_bytes * model.layers * 2 * model.ffn,
        "adapter": FLOAT32 * model.layers * (kept + len(lora.targets) * lora.rank),
        # The starts of documents, the tables of RoPE, and x of the final norm.
        "ends": 8 + number_bytes * (2 * model.head_dim + model.hidden),
    }
