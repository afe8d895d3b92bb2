"""One stable trunk, and the decay branches that start from its last checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from indexlm.stages import inputs

if TYPE_CHECKING:
    from indexlm.model.transformer import Transformer
    from indexlm.pipeline import Run


def trunk(run: "Run") -> None:
    from indexlm.feed.mixture import Phase
    from indexlm.train.schedules import lr_share

    config = run.recipe.pretrain
    model = inputs.new_model(run)
    model.initialise(run.recipe.seed)
    _pretrain(
        run,
        "trunk",
        model,
        [Phase(0, config.mixture)],
        lambda step: lr_share(config.schedule, step, config.steps),
        (0, config.steps),
        None,
    )


def base(run: "Run") -> None:
    _decay(run, "base", run.recipe.base.steps, run.recipe.base.mixture)


def pure(run: "Run") -> None:
    _decay(run, "pure", run.recipe.pure.steps, run.recipe.pure.mixture)


def _decay(run: "Run", name: str, steps: int, shares: Mapping[str, float]) -> None:
    from indexlm.feed.mixture import Phase
    from indexlm.train.schedules import lr_share

    config = run.recipe.pretrain
    last = config.steps + steps
    model = inputs.new_model(run)
    _pretrain(
        run,
        name,
        model,
        [Phase(0, config.mixture), Phase(config.steps * config.batch, dict(shares))],
        lambda step: lr_share(config.schedule, step, last, steps),
        (config.steps, last),
        "trunk",
    )
    inputs.save_model(run, name, model, f"models/{name}")


def _pretrain(
    run: "Run",
    name: str,
    model: "Transformer",
    phases: list[Any],
    share: Any,
    between: tuple[int, int],
    parent: str | None,
) -> None:
    from indexlm.feed.loader import Feed
    from indexlm.feed.mixture import Mixture
    from indexlm.train.loop import Stage, train
    from indexlm.train.objectives.language import language_loss

    config, length = run.recipe.pretrain, run.recipe.model.context
    sources = inputs.text_sources(run, length)
    feed = Feed(
        sources,
        Mixture(phases, run.recipe.seed),
        batch=config.batch,
        micro_batch=config.micro_batch,
        length=length,
    )
    stage = Stage(
        name,
        config,
        language_loss,
        feed,
        share,
        *between,
        run.made_from(name),
        inputs.last_checkpoint(run, parent),
        evaluate=_curve(run),
    )
    train(model, stage, run.path(name))


def _curve(run: "Run") -> Any:
    """The capability evaluation inside pre-training: a fixed small subset."""
    from indexlm.evals.runner import curve_point

    held_out = inputs.held_out_texts(run.path("text"))
    entries = inputs.held_out_entries(run.path("text"))
    tokenizer = inputs.tokenizer_of(run)
    settings = run.recipe.evals
    return lambda model: curve_point(
        model, tokenizer, held_out, entries, settings.curve_items, run.recipe.seed
    )
