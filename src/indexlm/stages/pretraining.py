"""One stable trunk, and the decay branches that start from its end or from a step before."""

from typing import TYPE_CHECKING, Any

from indexlm.config import DecayConfig
from indexlm.stages import inputs
from indexlm.stages.training import mixed_feed, train_stage

if TYPE_CHECKING:
    from indexlm.feed.mixture import Phase
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
        between=(0, config.steps),
    )


def base(run: "Run") -> None:
    _decay(run, "base", run.recipe.base)


def pure(run: "Run") -> None:
    _decay(run, "pure", run.recipe.pure)


def _decay(run: "Run", name: str, decay: DecayConfig) -> None:
    from indexlm.feed.mixture import Phase
    from indexlm.train.checkpoint import at_step
    from indexlm.train.schedules import lr_share

    config = run.recipe.pretrain
    first = decay.from_step or config.steps
    last = first + decay.steps
    model = inputs.new_model(run)
    phases = [Phase(0, config.mixture)]
    # Under an unchanged mixture it reads the very rows that a longer trunk would read.
    if decay.mixture != config.mixture:
        phases.append(Phase(first * config.batch, decay.mixture))
    _pretrain(
        run,
        name,
        model,
        phases,
        lambda step: lr_share(config.schedule, step, last, decay.steps),
        between=(first, last),
        parent=at_step(run.path("trunk") / "checkpoints", first),
        keep_optimiser=decay.keep_optimiser,
    )
    inputs.save_model(run, name, model, f"models/{name}")


def _pretrain(
    run: "Run",
    name: str,
    model: "Transformer",
    phases: list["Phase"],
    share: Any,
    **further: Any,
) -> None:
    from indexlm.train.objectives.language import language_loss

    config, length = run.recipe.pretrain, run.recipe.model.context
    train_stage(
        run,
        name,
        model,
        config,
        language_loss,
        mixed_feed(run, inputs.text_sources(run, length), phases, config, length),
        share,
        length=length,
        evaluate=_curve(run),
        shares=phases[-1].shares,
        **further,
    )


def _curve(run: "Run") -> Any:
    """The capability evaluation inside pre-training."""
    from indexlm.model.shard import gathered
    from indexlm.stages.evaluation import curve_of

    curve = curve_of(run.recipe, run.path("text"), inputs.tokenizer_of(run))

    def evaluate(worker: "Transformer") -> dict[str, float]:
        with gathered(worker) as model:
            return curve.point(model).scores

    return evaluate
