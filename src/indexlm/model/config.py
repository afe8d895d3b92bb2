"""The shape of a network and its number of parameters; `costs` has the arithmetic and memory."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

PROJECTIONS: tuple[Projection, ...] = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)


class ModelConfig(BaseModel):
    """A deep, slim Llama-shaped decoder; the defaults are the released Index-1.9B."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(65029, ge=8)
    hidden: int = Field(2048, ge=8)
    layers: int = Field(36, ge=1)
    heads: int = Field(16, ge=1)
    kv_heads: int = Field(16, ge=1)
    """Fewer than `heads` is grouped-query attention."""
    ffn: int = Field(5888, ge=8)
    context: int = Field(4096, ge=8)
    """Longest sequence, in tokens, that the model is trained on and serves."""
    rope_base: float = Field(10000.0, gt=0)
    norm_eps: float = Field(1e-6, gt=0)
    norm_head: bool = True
    """L2-normalise the rows of the LM head in the forward pass."""
    head_scale: float = Field(1.0, gt=0)
    """Factor on the logits; 1 in the released architecture. Normalised rows bound a logit by
    head_scale x |gain| (45 at width 2048, 11 at width 128), so narrow models need 2 to 4."""
    init_std: float = Field(0.01, gt=0)

    @model_validator(mode="after")
    def _shapes_fit(self) -> "ModelConfig":
        if self.hidden % self.heads:
            raise ValueError(f"hidden={self.hidden} is not a multiple of heads={self.heads}")
        if (self.hidden // self.heads) % 2:
            raise ValueError(f"head width {self.hidden // self.heads} is odd; RoPE needs pairs")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        return self

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def non_embedding_parameters(self) -> int:
        """1,906,460,672 at the defaults."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        per_layer = attention + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.layers * per_layer + self.hidden

    @property
    def parameters(self) -> int:
        """2,172,819,456 at the defaults: embedding and head are untied."""
        return self.non_embedding_parameters + 2 * self.vocab_size * self.hidden


class LoraConfig(BaseModel):
    """The defaults are those of the fine-tuning script published with Index-1.9B: 46,301,184
    trainable parameters at the released shape."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(32, ge=1)
    alpha: int = Field(64, ge=1)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the inputs of A that is zeroed in training."""
    targets: tuple[Projection, ...] = Field(PROJECTIONS, min_length=1)

    @field_validator("targets")
    @classmethod
    def _each_once(cls, targets: tuple[Projection, ...]) -> tuple[Projection, ...]:
        if len(set(targets)) < len(targets):
            raise ValueError(f"{', '.join(targets)} names a projection twice")
        return targets
