"""An arm: one training run of a study, as settings, and what it leaves.

A fork names the arm that it starts from and the step: weights, moments and position in the data are
those of the trunk's checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from indexlm.config import Section, Shares, TrainConfig
from indexlm.lab.corpus import KINDS
from indexlm.lab.dialogues import Group
from indexlm.lab.items import Half, ItemKind
from indexlm.lab.texts import Corpus
from indexlm.lab.world import World, WorldConfig
from indexlm.model.config import ModelConfig
from indexlm.records import fingerprint
from indexlm.runtime import code_behind

CODE = (
    "lab/running.py",
    "train/loop.py",
    "train/schedules.py",
    "train/objectives/language.py",
    "train/objectives/preference.py",
    "feed/loader.py",
    "model/transformer.py",
    "model/shard.py",
    "tokens/encode.py",
    "tokens/chat_format.py",
    "evals/scoring.py",
)
"""What decides an arm's numbers beside its settings and torch, with all that these import of their
rooms."""


class TextPhase(Section):
    first_step: int = Field(0, ge=0)
    shares: Shares


class TextData(Section):
    """Pre-training and decay: documents of the world, in shares of rows that change at steps."""

    kind: Literal["text"] = "text"
    phases: tuple[TextPhase, ...] = Field(min_length=1)


class ChatData(Section):
    """SFT: answers about the trained entities, and text that is replayed beside them."""

    kind: Literal["chat"] = "chat"
    answers: int = Field(2000, ge=1)
    response_share: float = Field(1.0, gt=0, le=1)
    """Of the loss tokens; the rest is replayed."""
    replay: Shares = Field(default={"hq": 0.6, "web": 0.4})


class PreferenceData(Section):
    """DPO: the same number of pairs of every group."""

    kind: Literal["preference"] = "preference"
    pairs: int = Field(512, ge=1)
    groups: tuple[Group, ...] = Field(min_length=1)
    beta: float = Field(0.1, gt=0)


class Watch(Section):
    """What is measured while an arm trains, and at its end."""

    sets: tuple[tuple[ItemKind, Half], ...] = (("cloze", "held-out"), ("qa", "held-out"))
    items: int = Field(256, ge=4)
    texts: tuple[str, ...] = ("hq", "web")
    rows: int = Field(64, ge=1)
    every: int = Field(0, ge=0)
    """Steps between two measurements; 0 is at the end alone."""
    refusals: int = Field(0, ge=0)
    """Questions of harmful, and of harmless, purposes that are asked."""


class Arm(Section):
    name: str = Field(min_length=1)
    seed: int = Field(ge=0)
    """Of the first weights and of the order of the data; the world has its own."""
    world: WorldConfig = WorldConfig()
    corpus: Corpus | None = None
    """Real text, which stands in the place of the world where it is given."""
    model: ModelConfig
    train: TrainConfig
    """`steps` is the last step, counted from the trunk's first for a text fork and from 0 else."""
    data: Annotated[TextData | ChatData | PreferenceData, Field(discriminator="kind")]
    decay_steps: int = Field(0, ge=0)
    """The last ones, of a WSD schedule."""
    held_lr: float | None = Field(None, gt=0)
    """Share of the peak at which the learning rate is held from the last phase of the text on: a
    control for what other schedules do there."""
    detached_head: bool = False
    head_rows: float | None = Field(None, gt=0)
    """Length of the head's raw rows at the start; None leaves them as drawn."""
    watch: Watch = Watch()
    trunk: "Arm | None" = None
    from_step: int | None = Field(None, ge=1)
    """Checkpoint of the trunk, one that its `train.keep_every` keeps; None is its end."""
    keep_optimiser: bool = True

    @model_validator(mode="after")
    def _fits_its_world(self) -> "Arm":
        corpus = self.corpus
        words = len(World(self.world).words) if corpus is None else corpus.vocab_size
        if self.model.vocab_size != words:
            raise ValueError(
                f"{self.name}: model.vocab_size={self.model.vocab_size}, its world has {words}"
            )
        if corpus is not None and (self.data.kind != "text" or self.watch.sets):
            raise ValueError(f"{self.name}: real text has no questions, nor {self.data.kind} data")
        if isinstance(self.data, TextData):
            named = {name for phase in self.data.phases for name in phase.shares}
            if unknown := named - set(KINDS if corpus is None else corpus.shares):
                raise ValueError(f"{self.name}: no kinds of documents: {', '.join(unknown)}")
        elif self.held_lr is not None:
            raise ValueError(f"{self.name}: held_lr is for text that changes, not {self.data.kind}")
        return self

    @model_validator(mode="after")
    def _starts_somewhere(self) -> "Arm":
        trunk, steps = self.trunk, self.train.steps
        if trunk is None:
            if self.data.kind != "text":
                raise ValueError(
                    f"{self.name}: {self.data.kind} starts from a trunk, and it has none"
                )
            return self
        if (self.model, self.world, self.corpus) != (trunk.model, trunk.world, trunk.corpus):
            raise ValueError(f"{self.name} has another model or world than its trunk")
        if self.from_step is not None and self.from_step > trunk.train.steps:
            raise ValueError(
                f"{self.name}: from_step={self.from_step} of its trunk is after its end"
            )
        if self.first_step >= steps:
            raise ValueError(
                f"{self.name}: train.steps={steps}, it starts at {self.first_step}: no step is left"
            )
        return self

    @property
    def first_step(self) -> int:
        if self.trunk is None or self.data.kind != "text":
            return 0
        return self.from_step or self.trunk.train.steps

    @property
    def tokens_per_step(self) -> int:
        return self.train.batch * self.model.context

    def fingerprint(self) -> str:
        """Equal for arms whose numbers are; the name of an arm is for people."""
        settings = _nameless(self.model_dump(mode="json"))
        return fingerprint(settings, [*map(code_behind, CODE)], version("torch"))


@dataclass(frozen=True)
class Result:
    """What a finished arm left; `scores` and the last point of `curve` are of its last step."""

    arm: Mapping[str, Any]
    made_from: str
    scores: Mapping[str, float | None]
    curve: Sequence[Mapping[str, Any]]
    """Every tenth step with its norms by layer, and every measured one with its scores."""
    losses: Sequence[float | None]
    """Of each step from `first_step` on, as are `gradients`, before clipping; None is no number."""
    gradients: Sequence[float | None]
    first_step: int
    clipped: float
    """Share of the steps."""
    diverged: str
    """Why it counts as diverged; empty where it does not."""
    parameters: int
    non_embedding: int
    cpu_seconds: float
    """Of the process that finished it; what a killed one had spent is not in it."""

    def value(self, score: str) -> float | None:
        """A score as `verdict.judge` takes it: None of an arm that diverged."""
        return None if self.diverged else self.scores[score]

    def as_json(self) -> dict[str, Any]:
        return {"format": 1, **vars(self)}


def _nameless(settings: dict[str, Any]) -> dict[str, Any]:
    trunk = settings["trunk"]
    kept = {name: value for name, value in settings.items() if name != "name"}
    if kept["corpus"] is not None:
        kept["corpus"] = kept["corpus"]["made_from"]
    return kept | {"trunk": None if trunk is None else _nameless(trunk)}
