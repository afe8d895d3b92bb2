"""The shape of a network, and the counts that follow from it."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


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

    @property
    def training_flops_per_token(self) -> float:
        """6 x matrix weights + causal attention (Kaplan et al. 2020, with the mask counted)."""
        matrices = self.parameters - self.vocab_size * self.hidden
        return 6.0 * matrices + 6.0 * self.layers * self.context * self.hidden
