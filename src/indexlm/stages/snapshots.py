"""Weights of several moments of training: checkpoints of a run, or model folders side by side."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from indexlm.config import EvalConfig, Recipe
from indexlm.errors import UserError
from indexlm.export import forms, hf, inspect
from indexlm.model.transformer import Transformer
from indexlm.records import read_manifest, read_metrics, verify
from indexlm.runtime import device_of, start_threads
from indexlm.settings import load_recipe
from indexlm.tokens.tokenizer import Tokenizer
from indexlm.train import checkpoint

TEXT_TASKS = ("bits_per_byte", "starter")
STAGES = ("trunk", "base", "pure")
SEED = 1234
"""Of the text and the items for models that are in no run."""


@dataclass(frozen=True)
class Snapshot:
    """Weights of one moment of training."""

    stage: str
    step: int
    tokens: int | None
    phase: str
    """`stable` or `decay`; empty where it is not known."""
    folder: Path
    made_from: str


class RunSource:
    """The checkpoints of a run's pre-training."""

    def __init__(
        self, folder: Path, recipe: Recipe, stages: Sequence[str], device: str | None
    ) -> None:
        """Raises UserError where pre-training has not begun. Without a `device` it is the run's."""
        if read_manifest(folder / "tokenizer") is None:
            raise UserError(f"{folder} has no tokenizer yet: its pre-training has not begun")
        verify(folder / "tokenizer")
        self.folder, self.recipe, self.stages = folder, recipe, stages
        self.evals, self.seed, self.context = recipe.evals, recipe.seed, recipe.model.context
        self.default_tasks = (*TEXT_TASKS, *recipe.evals.curve_tasks)
        self.text: Path | None = folder / "text"
        self.tokenizer = Tokenizer.load(folder / "tokenizer")
        # As in the run: sums depend on the threads in the last bit.
        start_threads(recipe.threads)
        self.device = device or device_of(recipe.hardware.device)
        self._model = Transformer(recipe.model).to(self.device)

    def snapshots(self) -> list[Snapshot]:
        """Of every checkpoint that is there now, in the order in which they were made."""
        found = []
        for stage in self.stages:
            folders = sorted((self.folder / stage / "checkpoints").glob("step-*"))
            read = self._tokens(stage) if folders else {}
            for folder in folders:
                manifest = read_manifest(folder)
                if manifest is None:
                    continue
                step = int(manifest.notes["step"])
                phase = "decay" if step > self._decays_at(stage) else "stable"
                found.append(
                    Snapshot(stage, step, read.get(step), phase, folder, manifest.fingerprint)
                )
        return found

    def open(self, snapshot: Snapshot) -> Transformer:
        """The model; the one opened before it is gone."""
        weights = {f"weight.{name}": p.detach() for name, p in self._model.named_parameters()}
        checkpoint.load(snapshot.folder, weights)
        return self._model

    def finished(self) -> bool:
        """Whether no more checkpoints will come."""
        return all(read_manifest(self.folder / stage) is not None for stage in self.stages)

    def decay_from(self) -> dict[str, float]:
        """Stage -> tokens at which its decay begins; a stable trunk has none."""
        found = {}
        for stage in self.stages:
            if stage == "trunk" and self.recipe.pretrain.schedule.shape == "wsd":
                continue
            read = self._tokens(stage)
            if (begins := read.get(self._decays_at(stage))) is not None:
                found[stage] = float(begins)
        return found

    def _first_step(self, stage: str) -> int:
        if stage == "trunk":
            return 0
        decay = self.recipe.base if stage == "base" else self.recipe.pure
        return decay.from_step or self.recipe.pretrain.steps

    def _decays_at(self, stage: str) -> int:
        """The step after which the learning rate falls."""
        config = self.recipe.pretrain
        if config.schedule.shape != "wsd":
            return config.schedule.warmup
        return self._first_step(stage) if stage != "trunk" else config.steps

    def _tokens(self, stage: str) -> dict[int, int]:
        """Steps done -> tokens read until then, by the trunk before a branch and the stage."""
        first = self._first_step(stage)
        before = read_metrics(self.folder / "trunk" / "metrics.jsonl") if stage != "trunk" else []
        read = {first: sum(line["tokens"] for line in before if line["step"] < first)}
        for line in read_metrics(self.folder / stage / "metrics.jsonl"):
            read[line["step"] + 1] = read[line["step"]] + line["tokens"]
        return read


class ModelsSource:
    """Model folders side by side, as if they were moments of one training."""

    def __init__(self, folder: Path, models: Sequence[Path], device: str | None) -> None:
        """Raises UserError where their tokenizers differ."""
        self.folder, self.models = folder, models
        self.device = device or device_of("auto")
        self.evals, self.seed = EvalConfig(), SEED
        self.text: Path | None = None
        self.default_tasks: tuple[str, ...] = ()
        configs = [hf.read_config(model) for model in models]
        self.context = min(config.context for config in configs)
        tokenizers = [hf.load_tokenizer(*each) for each in zip(models, configs)]
        self.tokenizer = tokenizers[0]
        for one, other in pairwise(tokenizers):
            if one.fingerprint != other.fingerprint:
                raise UserError(
                    f"{one.path} and {other.path} are different tokenizers; models of one curve "
                    "have one"
                )

    def snapshots(self) -> list[Snapshot]:
        return [
            Snapshot("models", _number(model, place), None, "", model, forms.identity(model))
            for place, model in enumerate(self.models, 1)
        ]

    def open(self, snapshot: Snapshot) -> Transformer:
        return hf.load(snapshot.folder).to(self.device)

    def finished(self) -> bool:
        return True

    def decay_from(self) -> dict[str, float]:
        return {}


def run_in(folder: Path, stages: Sequence[str], device: str | None = None) -> RunSource:
    """Raises UserError for what is no run of a whole recipe, and for stages that are none."""
    if inspect.is_model(folder) and not (folder / "tokens").is_dir():
        raise UserError(
            f"{folder} is one model, which `indexlm eval` scores; name the folder above"
        )
    recipe = load_recipe(folder / "config.json")
    if not isinstance(recipe, Recipe):
        raise UserError(f"{folder} continues a model and has no trunk; `curve` is for recipes")
    for stage in stages:
        if stage not in STAGES:
            raise UserError(f"--stages {stage}: it is none of {', '.join(STAGES)}")
    chosen = [name for name in STAGES if not stages or name in stages]
    return RunSource(folder, recipe, chosen, device)


def models_in(folder: Path, device: str | None = None) -> ModelsSource:
    """Raises UserError for a folder without a model folder in it."""
    models = [each for each in sorted(folder.iterdir()) if inspect.is_model(each)]
    if not models:
        raise UserError(
            f"{folder} is neither a run folder nor a folder of model folders; a run has config.json"
        )
    numbered = all(re.search(r"\d+$", model.name) for model in models)
    # Nine comes before ten.
    if numbered:
        models.sort(key=lambda model: _number(model, 0))
    return ModelsSource(folder, models, device)


def _number(model: Path, otherwise: int) -> int:
    found = re.search(r"\d+$", model.name)
    return int(found[0]) if found else otherwise


Source = RunSource | ModelsSource
