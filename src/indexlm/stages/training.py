"""A stage of a run handed to the one loop: what every training stage has in common."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from indexlm.config import TrainConfig
from indexlm.records import read_manifest
from indexlm.stages import inputs

if TYPE_CHECKING:
    from indexlm.feed.loader import Feed
    from indexlm.feed.mixture import Phase
    from indexlm.feed.packing import Source
    from indexlm.model.transformer import Transformer
    from indexlm.pipeline import Run
    from indexlm.train.lanes import Objective
    from indexlm.train.loop import Feed as AnyFeed


def mixed_feed(
    run: "Run[Any]",
    sources: Mapping[str, "Source"],
    phases: list["Phase"],
    config: TrainConfig,
    length: int,
) -> "Feed":
    """Rows of `length` tokens, mixed by the shares of `phases`."""
    from indexlm.feed.loader import Feed
    from indexlm.feed.mixture import Mixture

    return Feed(
        sources,
        Mixture(phases, run.recipe.seed),
        batch=config.batch,
        micro_batch=config.micro_batch,
        length=length,
        token_bytes=inputs.tokenizer_of(run).byte_lengths(),
    )


def train_stage(
    run: "Run[Any]",
    name: str,
    model: "Transformer",
    config: TrainConfig,
    objective: "Objective",
    feed: "AnyFeed",
    lr_share: Callable[[int], float],
    *,
    length: int,
    between: tuple[int, int] | None = None,
    **further: Any,
) -> None:
    """Train `model` as stage `name` of the run, over all steps of `config` or those `between`.

    `further` are fields of `train.loop.Stage`.
    """
    from indexlm.train.loop import Stage, train

    first, last = between or (0, config.steps)
    recipe = run.recipe
    stage = Stage(
        name,
        config,
        objective,
        feed,
        lr_share,
        first,
        last,
        run.made_from(name),
        run.parts(name) | _token_files(run),
        tokens_per_step=config.batch * length,
        seed=recipe.seed,
        hardware=recipe.hardware,
        tensorboard=run.path("tensorboard") / name if recipe.tensorboard else None,
        **further,
    )
    train(model, stage, run.path(name))


def _token_files(run: "Run[Any]") -> dict[str, str]:
    """SHA-256 of every file of tokens, as their manifest has it."""
    if "tokens" not in run.steps:
        return {}
    manifest = read_manifest(run.path("tokens"))
    assert manifest is not None
    return {f"tokens/{file}": entry["sha256"] for file, entry in manifest.files.items()}
