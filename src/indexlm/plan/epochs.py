"""How often pre-training reads the tokens of each source: before it is run, and against a limit."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from indexlm.config import AnyRecipe, Recipe, TextTrainConfig
from indexlm.errors import UserError

Phases = Sequence[tuple[int, Mapping[str, float]]]
"""(steps, shares by source), one after the other."""


def data_epochs(
    phases: Phases, tokens: Mapping[str, int], *, batch: int, length: int, seed: int
) -> dict[str, float]:
    """Times that the rows of each source are read in all phases, exactly as they are dealt.

    A source of n tokens has n // `length` rows (at least one); a step takes `batch` rows by the
    shares of its phase, and a source goes on in a phase where the one before stopped. Infinite for
    a source that is asked for and has no tokens.
    """
    from indexlm.feed.mixture import Mixture, Phase

    first, dealt = 0, []
    for steps, shares in phases:
        dealt.append(Phase(first * batch, dict(shares)))
        first += steps
    used = Mixture(dealt, seed).rows_used(first * batch)
    return {
        name: rows / max(tokens[name] // length, 1) if tokens.get(name) else math.inf
        for name, rows in used.items()
        if rows
    }


def recipe_epochs(
    recipe: AnyRecipe, tokens: Mapping[str, int], window: int
) -> dict[str, dict[str, float]]:
    """The path of pre-training through the stages -> source -> times it is read on that path.

    `window` is the model's; a trunk's decay branches both go on from it. Replay in fine-tuning
    reads from the beginning and is not counted.
    """
    stage = recipe.pretrain
    if stage is None:
        return {}
    length, paths = window, {"pretrain": [(stage.steps, stage.mixture)]}
    if isinstance(recipe, Recipe):
        branches = {"base": recipe.base, "pure": recipe.pure}
        paths = {
            f"trunk and {name}": [
                (branch.from_step or stage.steps, stage.mixture),
                (branch.steps, branch.mixture),
            ]
            for name, branch in branches.items()
        }
    elif isinstance(stage, TextTrainConfig):
        length = stage.length or window
    return {
        path: data_epochs(phases, tokens, batch=stage.batch, length=length, seed=recipe.seed)
        for path, phases in paths.items()
    }


def check_epochs(recipe: Recipe, tokens: Mapping[str, int]) -> None:
    """Raises UserError where a source is read more often than `pretrain.max_epochs` times."""
    most = recipe.pretrain.max_epochs
    if most is None:
        return
    too_often = [
        f"{path} would read {name} {times:.2f} times ({tokens.get(name, 0):,} tokens)"
        for path, sources in recipe_epochs(recipe, tokens, recipe.model.context).items()
        for name, times in sources.items()
        if times > most
    ]
    if too_often:
        raise UserError(
            f"pretrain.max_epochs={most:g}: {'; '.join(too_often)}; lower the steps or the shares "
            "of these sources, add text, or raise pretrain.max_epochs"
        )


def tokens_of_run(folder: Path) -> dict[str, int] | None:
    """Tokens by source of a run whose text is encoded, None before that."""
    from indexlm.tokens.shards import CATALOGUE

    path = folder / "tokens" / CATALOGUE
    if not path.is_file():
        return None
    sources = json.loads(path.read_text(encoding="utf-8"))["sources"]
    return {name: source["tokens"] for name, source in sources.items()}
