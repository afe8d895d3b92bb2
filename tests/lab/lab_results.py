"""Results of a study's arms with scores that a test chooses, in the form that runs leave them."""

from collections.abc import Callable, Iterator

from indexlm.lab.arms import Arm, PreferenceData, Result
from indexlm.lab.dialogues import REPLIES
from indexlm.lab.items import ItemKind
from indexlm.lab.study import Figure, PresetName, Results, Study, Table

Score = Callable[[str, int, str], float]
"""(arm, seed, score) -> value at the end."""

METRICS = ("accuracy", "margin", "probability", "logprob", "exact")
MIDDLE: dict[str, float] = {"loss": 1.5, "perplexity": 20.0, "margin": 1.0, "logprob": -1.0}
"""Of scores that a test does not choose; shares are a half."""


def plain(arm: str, seed: int, score: str) -> float:
    """The same for every arm, a little apart between seeds."""
    found = [value for part, value in MIDDLE.items() if part in score.split("/")]
    return (found[0] if found else 0.5) + 0.001 * seed


def results_of(
    study: Study,
    score: Score = plain,
    *,
    preset: PresetName = "quick",
    seeds: int = 3,
    diverged: tuple[str, int] | None = None,
) -> Results:
    """`diverged` is the arm and seed that did."""
    found: dict[str, dict[int, Result]] = {}
    for seed in range(seeds):
        for arm in study.arms(preset, seed):
            # Copies with changes are not looked at when they are made.
            Arm.model_validate(arm.model_dump())
            broken = diverged == (arm.name, seed)
            found.setdefault(arm.name, {})[seed] = result_of_arm(arm, score, broken)
    return found


def result_of_arm(arm: Arm, score: Score, broken: bool = False) -> Result:
    names = [*_names(arm)]
    scores = {name: score(arm.name, arm.seed, name) for name in names}
    first, steps = arm.first_step, arm.train.steps
    every = arm.watch.every or steps
    at = sorted({*range((first // every + 1) * every, steps + 1, every), steps})
    of_all = {"loss": 1.0, "lr": 1e-3, "layers": {"head": 1.0}, "scores": scores}
    if isinstance(arm.data, PreferenceData):
        of_all |= {"margin": 1.0, "accuracy": 0.5, "chosen": -0.5, "rejected": -1.5}
    curve = [of_all | {"step": step - 1} for step in at]
    return Result(
        arm=arm.model_dump(mode="json"),
        made_from=arm.fingerprint(),
        scores=scores,
        curve=curve,
        losses=[1.0] * (steps - first),
        gradients=[1.0] * (steps - first),
        first_step=first,
        clipped=0.0,
        diverged="loss nan" if broken else "",
        parameters=arm.model.parameters,
        non_embedding=arm.model.non_embedding_parameters,
        cpu_seconds=1.0,
    )


def _names(arm: Arm) -> Iterator[str]:
    sets: tuple[tuple[ItemKind, str], ...] = arm.watch.sets
    yield from (f"{kind}/{half}/{metric}" for kind, half in sets for metric in METRICS)
    yield from (f"loss/{text}" for text in arm.watch.texts)
    if arm.watch.refusals:
        yield from ("refused/harmful", "refused/harmless", "refused/told")
        yield from (f"logprob/{p}/{reply}" for p in ("harmful", "harmless") for reply in REPLIES)
    if arm.data.kind == "chat":
        yield "response_share"
    if isinstance(arm.data, PreferenceData):
        for group in arm.data.groups:
            yield from (f"perplexity/{group}/chosen", f"perplexity/{group}/rejected")


def verdicts(study: Study, results: Results) -> dict[str, str]:
    """By the English name of the claim."""
    return {each.name.en: each.verdict(results).word for each in study.claims}


def texts_of(shown: object) -> Iterator[str]:
    """Cells of the tables of a page."""
    assert isinstance(shown, (list, tuple))
    for each in shown:
        assert isinstance(each, Figure | Table)
        if isinstance(each, Table):
            yield from (
                cell if isinstance(cell, str) else cell.en for row in each.rows for cell in row
            )
